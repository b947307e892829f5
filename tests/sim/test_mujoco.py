"""The MuJoCo backend against mechanics by hand."""

import dataclasses

import mujoco
import numpy as np
import pytest
import torch
from mujoco_worlds import CARTPOLE, DT, FRANKA, UPRIGHT, G, cube, everyone, random_joints, seeded, world

from robolearn import config
from robolearn.config import ConfigError
from robolearn.rotations import from_rotation_vector, quat_mul, quat_to_matrix
from sim.scene import ContactSensorCfg, ObjectCfg, RobotCfg, Sphere

# --- the torque contract ------------------------------------------------------------------------------------


def gravity_torque(backend, q):
    """Torques (B, J) that hold the masses against gravity at q (B, J): the sum of J_com^T m g."""
    model, data, out = backend.model, mujoco.MjData(backend.model), []
    for row in q:
        data.qpos[: len(row)] = row.double().numpy()
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        total, jacobian = np.zeros(model.nv), np.zeros((3, model.nv))
        for body in range(1, model.nbody):
            mujoco.mj_jacBodyCom(model, data, jacobian, None, body)
            total += jacobian[2] * model.body_mass[body] * G
        out.append(torch.from_numpy(total[: len(row)]))
    return torch.stack(out).float()


def law(spec, backend, q, qd, position, velocity, effort):
    kp, kd, limit = (torch.tensor(getattr(spec, n)) for n in ("kp", "kd", "effort_limit"))
    wanted = kp * (position - q) + kd * (velocity - qd) + effort
    if spec.gravity_compensation:
        wanted = wanted + gravity_torque(backend, q)
    return wanted.clamp(-limit, limit) * (limit > 0), (wanted.abs() > limit) & (limit > 0)


@pytest.mark.parametrize("spec", [FRANKA, CARTPOLE], ids=["franka", "cartpole"])
def test_torques_are_the_law_in_every_sub_step(spec):
    backend = world({"robot": RobotCfg(spec)}, num_envs=8)
    generator = seeded()
    q = random_joints(spec, 8, generator)
    backend.write_joints("robot", q, 0.3 * torch.randn(q.shape, generator=generator), everyone(backend))
    saturated, driven = torch.zeros(0, dtype=torch.bool), torch.tensor(spec.effort_limit) > 0
    for _ in range(6):
        q, qd = backend.joint_pos("robot"), backend.joint_vel("robot")
        position = q + 0.15 * torch.randn(q.shape, generator=generator) * (torch.tensor(spec.kp) > 0)
        velocity = 0.2 * torch.randn(q.shape, generator=generator)
        effort = torch.tensor(spec.effort_limit) * 0.9 * torch.randn(q.shape, generator=generator)
        backend.write_targets("robot", position, velocity, effort)
        backend.step(1)
        expected, clipped = law(spec, backend, q, qd, position, velocity, effort)
        torch.testing.assert_close(backend.joint_effort("robot"), expected, atol=2e-3, rtol=1e-4)
        saturated = torch.cat((saturated, clipped[:, driven].flatten()))
    assert 0.05 < saturated.float().mean() < 0.8


def test_torques_are_the_law_under_randomised_gains_and_limits():
    params = ("mass", "kp", "kd", "effort_limit")
    backend = world({"robot": RobotCfg(FRANKA)}, randomized=tuple(("robot", p) for p in params))
    built = world({"robot": RobotCfg(FRANKA)})  # the gravity feed-forward knows the masses as built
    scale = dict(zip(params, (1.3, 1.5, 0.7, 0.5), strict=True))
    for param, value in scale.items():
        backend.set_param("robot", param, torch.tensor([1.0, value]), everyone(backend))
    scaled = dataclasses.replace(
        FRANKA, **{p: tuple(scale[p] * v for v in getattr(FRANKA, p)) for p in params if p != "mass"}
    )
    generator = seeded(3)
    rest = torch.tensor(FRANKA.default_joint_pos).expand(2, -1)
    backend.write_joints("robot", rest, torch.zeros(2, 9), everyone(backend))
    for _ in range(4):
        q, qd = backend.joint_pos("robot"), backend.joint_vel("robot")
        position = q + 0.05 * torch.randn(q.shape, generator=generator)
        velocity, effort = (
            torch.randn(q.shape, generator=generator),
            torch.randn(q.shape, generator=generator),
        )
        backend.write_targets("robot", position, velocity, effort)
        backend.step(1)
        for env, spec in enumerate((FRANKA, scaled)):
            expected, _ = law(spec, built, q, qd, position, velocity, effort)
            torch.testing.assert_close(backend.joint_effort("robot")[env], expected[env], atol=2e-3, rtol=1e-4)


def test_positions_ramp_over_the_sub_steps_and_efforts_do_not():
    ramped, by_hand = (world({"robot": RobotCfg(FRANKA)}, num_envs=1) for _ in range(2))
    rest = torch.tensor([FRANKA.default_joint_pos])
    goal, push = rest + 0.02 * torch.arange(9.0), torch.linspace(-1.0, 1.0, 9)[None]
    for backend in (ramped, by_hand):
        backend.write_joints("robot", rest, torch.zeros(1, 9), everyone(backend))
    ramped.write_targets("robot", goal, effort=push)
    ramped.step(5)
    for k in range(1, 6):
        by_hand.write_targets("robot", rest + (goal - rest) * k / 5, effort=push)
        by_hand.step(1)
    torch.testing.assert_close(ramped.joint_pos("robot"), by_hand.joint_pos("robot"), atol=1e-7, rtol=0)
    torch.testing.assert_close(ramped.joint_vel("robot"), by_hand.joint_vel("robot"), atol=1e-5, rtol=0)
    ramped.step(3)  # the ramp is over: the target stands
    for _ in range(3):
        by_hand.step(1)
    torch.testing.assert_close(ramped.joint_pos("robot"), by_hand.joint_pos("robot"), atol=1e-7, rtol=0)


def test_an_absent_position_target_stands():
    backend = world({"robot": RobotCfg(FRANKA)}, num_envs=1)
    rest = torch.tensor([FRANKA.default_joint_pos])
    backend.write_joints("robot", rest, torch.zeros(1, 9), everyone(backend))
    backend.write_targets("robot", effort=torch.zeros(1, 9))
    backend.step(60)
    torch.testing.assert_close(backend.joint_pos("robot"), rest, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", [n for n in config.names("robot") if config.entry("robot", n).value.quadrotor is None])
def test_gains_of_registered_robots_are_stable(name):
    world({"robot": RobotCfg(config.entry("robot", name).value)})  # checked at build


def test_unstable_gains_are_refused_with_the_step_that_would_do():
    stiff = dataclasses.replace(FRANKA, kd=(60.0, 60.0, 55.0, 500.0, 25.0, 24.0, 19.0, 12.0, 12.0))
    with pytest.raises(ConfigError, match=r"panda_joint4 would be unstable.*is not below M_jj.*shorten physics_dt_s"):
        world({"robot": RobotCfg(stiff)})


def test_a_quadrotor_is_refused_with_the_backends_that_fly():
    """Before anything is said of parameters that it cannot randomise either."""
    robots = {"robot": RobotCfg(config.entry("robot", "crazyflie").value)}
    with pytest.raises(ConfigError, match=r"backend mujoco does not fly robot, a quadrotor; use backend=quadrotor or"):
        world(robots, randomized=(("robot", "thrust"),))


# --- free bodies --------------------------------------------------------------------------------------------


def test_a_sphere_falls_as_galileo_says():
    backend = world(objects={"ball": ObjectCfg(Sphere(0.05), 0.2, (1.0, 2.0, 10.0, *UPRIGHT))})
    backend.step(120)
    t = 120 * DT
    # Semi-implicit Euler: v_k = -g k dt is exact, the position sums those velocities.
    expected = 10.0 - 0.5 * G * t**2 - 0.5 * G * DT * t
    torch.testing.assert_close(backend.pose("ball")[:, :3], torch.tensor([[1.0, 2.0, expected]]).expand(2, 3))
    torch.testing.assert_close(backend.velocity("ball")[:, 2], torch.full((2,), -G * t))
    torch.testing.assert_close(backend.time_s, torch.full((2,), t))


def test_contact_forces_of_a_stack_are_the_weights():
    sensors = {
        "below": ContactSensorCfg("below"), "ground": ContactSensorCfg("below", other="world"),
        "load": ContactSensorCfg("below", other="above"), "above": ContactSensorCfg("above"),
    }  # fmt: skip
    backend = world(objects={"below": cube(0.05, 0.5), "above": cube(0.15, 0.2)}, contact_sensors=sensors)
    backend.step(480)
    for name, newton in {"below": 0.5 * G, "ground": 0.7 * G, "load": -0.2 * G, "above": 0.2 * G}.items():
        expected = torch.tensor([[0.0, 0.0, newton]]).expand(2, 3)
        torch.testing.assert_close(backend.contact_force(name), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("friction", [0.5, 0.8])
def test_friction_holds_below_mu_m_g_and_slips_above(friction):
    backend = world(objects={"cube": cube(0.05, 0.5, friction=friction)})
    backend.step(120)
    start = backend.pose("cube")[:, 0].clone()
    wrench = torch.zeros(2, 6)
    wrench[:, 0] = friction * 0.5 * G * torch.tensor([0.9, 1.1])
    wrench[:, 4] = -wrench[:, 0] * 0.05  # as if pushed at the ground: it does not tip
    backend.apply_wrench("cube", None, wrench)
    backend.step(120)
    moved = backend.pose("cube")[:, 0] - start
    assert moved[0].abs() < 0.01  # soft contacts creep
    assert moved[1] > 0.05


def test_poses_and_velocities_survive_writing_with_a_rotation_about_no_axis_of_symmetry():
    backend = world(objects={"cube": cube(3.0)}, gravity_mps2=0.0)
    turn = from_rotation_vector(torch.tensor([[0.3, -0.8, 1.1], [-1.0, 0.4, 0.2]]))
    pose = torch.cat((torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]]), turn), dim=1)
    velocity = torch.tensor([[0.1, -0.2, 0.3, 0.5, -0.7, 0.9], [0.0, 0.4, 0.0, -0.3, 0.2, 0.1]])
    backend.write_pose("cube", pose, velocity, everyone(backend))
    torch.testing.assert_close(backend.pose("cube"), pose)
    torch.testing.assert_close(backend.velocity("cube"), velocity)
    data = mujoco.MjData(backend.model)
    at = backend.model.joint("cube").qposadr[0]
    data.qpos[at : at + 7] = backend.get_state()[0, 1 + at : 1 + at + 7]
    mujoco.mj_kinematics(backend.model, data)
    engine = torch.from_numpy(data.body("cube").xmat.reshape(3, 3)).float()
    torch.testing.assert_close(engine, quat_to_matrix(turn[0]))


def test_angular_velocity_turns_about_the_world_axes():
    backend = world(objects={"cube": cube(3.0)}, num_envs=1, gravity_mps2=0.0)
    turn = from_rotation_vector(torch.tensor([[0.3, -0.8, 1.1]]))
    spin = torch.tensor([[0.9, 0.0, -0.4]])
    pose = torch.cat((torch.tensor([[0.0, 0.0, 3.0]]), turn), dim=1)
    backend.write_pose("cube", pose, torch.cat((torch.zeros(1, 3), spin), dim=1), everyone(backend))
    backend.step(120)  # a cube is a spherical top: it turns at a constant rate
    expected = quat_mul(from_rotation_vector(spin * 120 * DT), turn)
    torch.testing.assert_close(backend.pose("cube")[:, 3:], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(backend.velocity("cube")[:, 3:], spin, atol=1e-4, rtol=0)


def test_a_wrench_accelerates_by_force_over_mass_until_it_is_set_again():
    backend = world(objects={"cube": cube(3.0, 0.5)}, gravity_mps2=0.0)
    wrench = torch.tensor([[1.0, -2.0, 3.0, 0.0, 0.0, 0.01], [0.0] * 6])
    backend.apply_wrench("cube", None, wrench)
    backend.step(24)
    torch.testing.assert_close(backend.velocity("cube")[:, :3], wrench[:, :3] / 0.5 * 24 * DT)
    inertia = 0.5 * 0.1**2 / 6
    torch.testing.assert_close(backend.velocity("cube")[:, 5], wrench[:, 5] / inertia * 24 * DT)
    backend.apply_wrench("cube", None, torch.zeros(2, 6))
    before = backend.velocity("cube").clone()
    backend.step(24)
    torch.testing.assert_close(backend.velocity("cube"), before)


def test_a_wrench_on_a_link_shows_in_the_joints():
    """One newton along the rail, on a cart of 1 kg whose pole of 0.2 kg swings freely."""
    backend = world({"robot": RobotCfg(CARTPOLE)}, num_envs=1, gravity_mps2=0.0)
    backend.write_joints("robot", torch.zeros(1, 2), torch.zeros(1, 2), everyone(backend))
    backend.apply_wrench("robot", "cart", torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]))
    backend.step(1)
    inertia, mass, half = 0.0168, 0.2, 0.5
    effective = 1.0 + mass - (mass * half) ** 2 / (inertia + mass * half**2)
    torch.testing.assert_close(backend.joint_vel("robot")[0, 0], torch.tensor(DT / effective), atol=1e-7, rtol=1e-4)


# --- parameters ---------------------------------------------------------------------------------------------


def test_twice_the_mass_weighs_twice_as_much():
    sensors = {"below": ContactSensorCfg("cube")}
    backend = world(objects={"cube": cube()}, contact_sensors=sensors, randomized=(("cube", "mass"),))
    backend.set_param("cube", "mass", torch.tensor([5.0, 2.0]), torch.tensor([False, True]))
    backend.step(480)
    torch.testing.assert_close(backend.contact_force("below")[:, 2], torch.tensor([0.5 * G, G]), atol=2e-3, rtol=0.0)
    assert backend.params()["cube.mass"].tolist() == [1.0, 2.0]


def test_parameters_are_relative_to_what_was_built():
    backend = world(objects={"cube": cube()}, randomized=(("cube", "mass"),))
    for factor in (2.0, 3.0):
        backend.set_param("cube", "mass", torch.full((2,), factor), everyone(backend))
    assert backend._models[1].body("cube").mass[0] == pytest.approx(1.5)
    assert backend.model.body("cube").mass[0] == pytest.approx(0.5)


def test_twice_the_inertia_halves_the_angular_acceleration():
    backend = world(objects={"cube": cube(3.0)}, gravity_mps2=0.0, randomized=(("cube", "inertia"),))
    backend.set_param("cube", "inertia", torch.tensor([1.0, 2.0]), everyone(backend))
    backend.apply_wrench("cube", None, torch.tensor([[0.0, 0.0, 0.0, 0.001, 0.0, 0.0]]).expand(2, 6))
    backend.step(1)
    spin = backend.velocity("cube")[:, 3]
    torch.testing.assert_close(spin[0], 2.0 * spin[1])
    torch.testing.assert_close(spin[0], torch.tensor(0.001 / (0.5 * 0.01 / 6) * DT))


def test_less_friction_slips_sooner():
    backend = world(objects={"cube": cube(friction=0.8)}, randomized=(("cube", "friction"),))
    backend.set_param("cube", "friction", torch.tensor([1.0, 0.5]), everyone(backend))
    backend.step(60)
    wrench = torch.zeros(2, 6)
    wrench[:, 0] = 0.5 * 0.5 * G
    wrench[:, 4] = -wrench[:, 0] * 0.05
    backend.apply_wrench("cube", None, wrench)
    backend.step(120)
    moved = backend.pose("cube")[:, 0]
    assert moved[0].abs() < 0.01
    assert moved[1] > 0.05


@pytest.mark.parametrize("param", ["mass", "inertia", "friction", "kp", "kd", "effort_limit"])
def test_undeclared_parameters_are_refused_and_declared_ones_leave_the_others_alone(param):
    backend = world({"robot": RobotCfg(FRANKA)}, num_envs=3, randomized=(("robot", param),))
    twin = world({"robot": RobotCfg(FRANKA)}, num_envs=3)
    only = torch.tensor([False, True, False])
    backend.set_param("robot", param, torch.full((3,), 1.5), only)
    rest = torch.tensor(FRANKA.default_joint_pos).expand(3, -1)
    for b in (backend, twin):
        b.write_joints("robot", rest, torch.zeros(3, 9), everyone(b))
        b.write_targets("robot", rest + 0.2)
        b.step(8)
    assert torch.equal(backend.get_state()[~only], twin.get_state()[~only])
    with pytest.raises(KeyError):
        twin.set_param("robot", param, torch.ones(3), only)
