"""The PyBullet backend against mechanics by hand, and against MuJoCo where both must agree."""

import dataclasses
import math

import mujoco
import mujoco_worlds
import numpy as np
import pytest
import torch
from mujoco_worlds import CARTPOLE, DT, FRANKA, UPRIGHT, G, cube, everyone, random_joints, seeded

from robolearn import config
from robolearn.config import ConfigError
from robolearn.kinematics import Chain
from robolearn.paths import resolve
from robolearn.rotations import from_rotation_vector, quat_apply, quat_mul
from sim.scene import Box, Boxes, CameraCfg, ContactSensorCfg, Cylinder, Mesh, ObjectCfg, RobotCfg, Sphere

pytest.importorskip("pybullet", reason="pybullet is not installed (extra bullet)")
PARAMS = ("mass", "inertia", "friction", "kp", "kd", "effort_limit")
TILTED = (0.3, -0.2, 0.5, *from_rotation_vector(torch.tensor([0.2, -0.5, 0.9])).tolist())
TURNS = from_rotation_vector(torch.tensor([[0.3, -0.8, 1.1], [-1.0, 0.4, 0.2]]))


def same(first, second, atol, rtol=0.0):
    torch.testing.assert_close(first, second, atol=atol, rtol=rtol)


# --- the torque contract ------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [(), PARAMS], ids=["as_built", "randomised"])
@pytest.mark.parametrize(("spec", "base"), [(FRANKA, TILTED), (CARTPOLE, (0.0, 0.0, 0.0, *UPRIGHT))])
def test_torques_are_mujocos_in_every_sub_step(bullet, spec, base, params):
    """1e-3 N m (of up to 87): both are float64 inside, the figures cross in float32."""
    declared = tuple(("robot", p) for p in params)
    ours = bullet({"robot": RobotCfg(spec, base)}, num_envs=6, workers=2, ground=False, randomized=declared)
    theirs = mujoco_worlds.world({"robot": RobotCfg(spec, base)}, num_envs=6, ground=False, randomized=declared)
    generator = seeded()
    for i, param in enumerate(params):
        scale = 0.7 + 0.1 * i + 0.1 * torch.arange(6.0)
        for backend in (ours, theirs):
            backend.set_param("robot", param, scale, everyone(backend))
    limit = torch.tensor(spec.effort_limit)
    saturated = torch.zeros(0, dtype=torch.bool)
    for _ in range(6):
        q = random_joints(spec, 6, generator, margin=0.3)  # nothing touches
        v = 0.3 * torch.randn(q.shape, generator=generator)
        position = q + 0.15 * torch.randn(q.shape, generator=generator) * (torch.tensor(spec.kp) > 0)
        velocity = 0.2 * torch.randn(q.shape, generator=generator)
        effort = limit * 0.9 * torch.randn(q.shape, generator=generator)
        for backend in (ours, theirs):
            backend.write_joints("robot", q, v, everyone(backend))
            backend.write_targets("robot", position, velocity, effort)
            backend.step(1)
        same(ours.joint_effort("robot"), theirs.joint_effort("robot"), 1e-3)
        same(ours.joint_pos("robot"), theirs.joint_pos("robot"), 2e-4)
        same(ours.joint_vel("robot"), theirs.joint_vel("robot"), 0.03)
        saturated = torch.cat((saturated, (ours.joint_effort("robot").abs() == limit)[:, limit > 0].flatten()))
    assert params or 0.05 < saturated.float().mean() < 0.8


def test_positions_ramp_over_the_sub_steps_and_efforts_do_not(bullet):
    ramped, by_hand = (bullet({"robot": RobotCfg(FRANKA)}, num_envs=1) for _ in range(2))
    rest = torch.tensor([FRANKA.default_joint_pos])
    goal, push = rest + 0.02 * torch.arange(9.0), torch.linspace(-1.0, 1.0, 9)[None]
    for backend in (ramped, by_hand):
        backend.write_joints("robot", rest, torch.zeros(1, 9), everyone(backend))
    ramped.write_targets("robot", goal, effort=push)
    ramped.step(5)
    for k in range(1, 6):
        by_hand.write_targets("robot", rest + (goal - rest) * k / 5, effort=push)
        by_hand.step(1)
    same(ramped.joint_pos("robot"), by_hand.joint_pos("robot"), 1e-6)
    same(ramped.joint_vel("robot"), by_hand.joint_vel("robot"), 1e-4)


def with_a_tag(tmp_path):
    """A cart-pole with an inertia that no body can have, and a link without any on its pole."""
    text = resolve(CARTPOLE.urdf).read_text().replace('izz="0.0001"', 'izz="0.05"')
    tag = '<link name="tag"/><joint name="glue" type="fixed"><parent link="pole"/><child link="tag"/></joint></robot>'
    (tmp_path / "tagged.urdf").write_text(text.replace("</robot>", tag))
    return dataclasses.replace(CARTPOLE, urdf=str(tmp_path / "tagged.urdf"))


@pytest.mark.parametrize("name", ["franka", "cartpole", "tagged"])
def test_inertias_are_mujocos(bullet, name, tmp_path):
    """The mass matrix's diagonal at the default posture, with links that have no mass or none written down."""
    spec = with_a_tag(tmp_path) if name == "tagged" else config.entry("robot", name).value
    model = mujoco_worlds.world({"robot": RobotCfg(spec)}).model
    data, matrix = mujoco.MjData(model), np.zeros((model.nv, model.nv))
    data.qpos[:] = spec.default_joint_pos
    mujoco.mj_forward(model, data)
    mujoco.mj_fullM(model, data, matrix)
    about = bullet({"robot": RobotCfg(spec)}, num_envs=1).pool.about
    assert about["inertia"]["robot"] == pytest.approx(np.diag(matrix).tolist(), rel=1e-6)


def test_no_drag_and_no_motor_slows_a_free_joint(bullet):
    backend = bullet({"robot": RobotCfg(CARTPOLE)}, gravity_mps2=0.0)
    spin = torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    backend.write_joints("robot", torch.zeros(2, 2), spin, everyone(backend))
    backend.step(240)
    same(backend.joint_vel("robot"), spin, 1e-5)


def test_damping_and_friction_of_the_urdf_are_mujocos(bullet, tmp_path):
    text = resolve(CARTPOLE.urdf).read_text().replace("<axis", '<dynamics damping="0.3" friction="0.05"/><axis')
    (tmp_path / "stiff.urdf").write_text(text)
    spec = dataclasses.replace(CARTPOLE, urdf=str(tmp_path / "stiff.urdf"))
    backends = [w({"robot": RobotCfg(spec)}, ground=False) for w in (bullet, mujoco_worlds.world)]
    for backend in backends:
        spin = torch.tensor([[0.5, 0.0], [0.0, 2.0]])
        backend.write_joints("robot", torch.zeros(2, 2), spin, everyone(backend))
        backend.step(24)
        assert backend.joint_effort("robot").abs().max() == 0.0
    same(backends[0].joint_vel("robot"), backends[1].joint_vel("robot"), 0.02)
    assert backends[0].joint_vel("robot")[0, 0] < 0.49


def test_joint_limits_are_the_specifications(bullet):
    narrow = dataclasses.replace(CARTPOLE, lower=(-0.1, -math.inf), upper=(0.1, math.inf))
    backend = bullet({"robot": RobotCfg(narrow)}, gravity_mps2=0.0, ground=False)
    backend.write_joints("robot", torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), everyone(backend))
    backend.step(60)
    assert (backend.joint_pos("robot")[:, 0].abs() < 0.105).all()
    wide = bullet({"robot": RobotCfg(CARTPOLE)}, gravity_mps2=0.0, ground=False)
    wide.write_joints("robot", torch.zeros(2, 2), torch.tensor([[0.0, 9.0], [0.0, -9.0]]), everyone(wide))
    wide.step(240)
    assert (wide.joint_pos("robot")[:, 1].abs() > 6.0).all()


@pytest.mark.parametrize("name", [n for n in config.names("robot") if config.entry("robot", n).value.quadrotor is None])
def test_gains_of_registered_robots_are_stable(bullet, name):
    bullet({"robot": RobotCfg(config.entry("robot", name).value)})  # checked at build


def test_unstable_gains_are_refused_with_the_step_that_would_do(bullet):
    stiff = dataclasses.replace(FRANKA, kd=(60.0, 60.0, 55.0, 500.0, 25.0, 24.0, 19.0, 12.0, 12.0))
    with pytest.raises(ConfigError, match=r"panda_joint4 would be unstable.*is not below M_jj.*shorten physics_dt_s"):
        bullet({"robot": RobotCfg(stiff)})


# --- frames: quaternions xyzw at each boundary ---------------------------------------------------------------


@pytest.mark.parametrize("spec", [FRANKA, CARTPOLE], ids=["franka", "cartpole"])
def test_link_poses_are_those_of_the_chain_on_a_tilted_base(bullet, spec):
    backend = bullet({"robot": RobotCfg(spec, TILTED)}, num_envs=4)
    q = random_joints(spec, 4, seeded(5))
    backend.write_joints("robot", q, torch.zeros_like(q), everyone(backend))
    place, turn = torch.tensor(TILTED[:3]), torch.tensor(TILTED[3:]).expand(4, 4)
    same(backend.pose("robot"), torch.tensor(TILTED).expand(4, 7), 1e-6)
    for link in (spec.ee_link, spec.base_link):
        pose = backend.body_pose("robot", [link])[:, 0]
        local = torch.tensor([[0.0, 0.0, 0.0, *UPRIGHT]]).expand(4, 7)
        if link != spec.base_link:
            local = Chain(spec.urdf, link, spec.joint_names).pose(q)
        same(pose[:, :3], place + quat_apply(turn, local[:, :3]), 2e-6)
        same((pose[:, 3:] * quat_mul(turn, local[:, 3:])).sum(1).abs(), torch.ones(4), 2e-6)


def wedge(path):
    """A closed tetrahedron whose centre of mass and principal axes are nowhere near its frame."""
    path.write_text("v 1 0 0\nv 3 0.2 0\nv 1.3 1 0\nv 1 0.3 2\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n")
    return Mesh(str(path), scale=0.1)


def test_an_objects_pose_and_velocity_are_those_of_its_frame(bullet, tmp_path):
    """A mesh far off its frame: Bullet speaks of the centre of mass. In, through one sub-step, and out."""
    thing = ObjectCfg(wedge(tmp_path / "wedge.obj"), 0.4, (0.0, 0.0, 3.0, *UPRIGHT))
    ours = bullet(objects={"thing": thing}, gravity_mps2=0.0)
    theirs = mujoco_worlds.world(objects={"thing": thing}, gravity_mps2=0.0)
    pose = torch.cat((torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]]), TURNS), dim=1)
    velocity = torch.tensor([[0.1, -0.2, 0.3, 0.5, -0.7, 0.9], [0.0, 0.4, 0.0, -0.3, 0.2, 0.1]])
    for backend in (ours, theirs):
        backend.write_pose("thing", pose, velocity, everyone(backend))
        same(backend.pose("thing"), pose, 1e-6)
        same(backend.velocity("thing"), velocity, 1e-6)
    for _ in range(10):
        for backend in (ours, theirs):
            backend.step(12)
        same(ours.pose("thing"), theirs.pose("thing"), 2e-3)
        same(ours.velocity("thing"), theirs.velocity("thing"), 5e-3)
    assert (ours.velocity("thing")[:, :3] - velocity[:, :3]).abs().max() > 0.01  # the frame circles the centre


def test_angular_velocity_turns_about_the_world_axes(bullet):
    backend = bullet(objects={"cube": cube(3.0)}, num_envs=1, gravity_mps2=0.0)
    spin = torch.tensor([[0.9, 0.0, -0.4]])
    pose = torch.cat((torch.tensor([[0.0, 0.0, 3.0]]), TURNS[:1]), dim=1)
    backend.write_pose("cube", pose, torch.cat((torch.zeros(1, 3), spin), dim=1), everyone(backend))
    backend.step(120)  # a cube is a spherical top: it turns at a constant rate
    expected = quat_mul(from_rotation_vector(spin * 120 * DT), TURNS[:1])
    same(backend.pose("cube")[:, 3:], expected, 1e-4)
    same(backend.velocity("cube")[:, 3:], spin, 1e-4)


# --- free bodies and contacts --------------------------------------------------------------------------------


def test_a_sphere_falls_as_galileo_says(bullet):
    backend = bullet(objects={"ball": ObjectCfg(Sphere(0.05), 0.2, (1.0, 2.0, 10.0, *UPRIGHT))})
    backend.step(120)
    t = 120 * DT
    expected = 10.0 - 0.5 * G * t**2 - 0.5 * G * DT * t  # semi-implicit Euler
    same(backend.pose("ball")[:, :3], torch.tensor([[1.0, 2.0, expected]]).expand(2, 3), 1e-5)
    same(backend.velocity("ball")[:, 2], torch.full((2,), -G * t), 1e-5)
    same(backend.time_s, torch.full((2,), t), 1e-6)


@pytest.mark.parametrize(
    "shape",
    [
        Box((0.1, 0.2, 0.3)),
        Sphere(0.1),
        Cylinder(0.05, 0.3),
        Boxes((((0.1, 0.2, 0.3), (0.1, 0.0, 0.05)), ((0.3, 0.1, 0.1), (-0.1, 0.02, -0.03)))),
    ],
    ids=lambda s: type(s).__name__,
)
def test_inertias_of_shapes_are_the_textbooks(bullet, shape):
    """Angular acceleration of a torque about each axis, against MuJoCo's."""
    thing = ObjectCfg(shape, 0.5, (0.0, 0.0, 3.0, *UPRIGHT))
    backends = [w(objects={"o": thing}, num_envs=3, gravity_mps2=0.0) for w in (bullet, mujoco_worlds.world)]
    for backend in backends:
        backend.apply_wrench("o", None, torch.cat((torch.zeros(3, 3), 1e-3 * torch.eye(3)), dim=1))
        backend.step(1)
    same(*(b.velocity("o")[:, 3:] for b in backends), 1e-5, rtol=1e-4)


def test_contact_forces_of_a_stack_are_the_weights(bullet):
    sensors = {
        "below": ContactSensorCfg("below"), "ground": ContactSensorCfg("below", other="world"),
        "load": ContactSensorCfg("below", other="above"), "above": ContactSensorCfg("above"),
    }  # fmt: skip
    backend = bullet(objects={"below": cube(0.05, 0.5), "above": cube(0.15, 0.2)}, contact_sensors=sensors)
    backend.step(480)
    for name, newton in {"below": 0.5 * G, "ground": 0.7 * G, "load": -0.2 * G, "above": 0.2 * G}.items():
        same(backend.contact_force(name), torch.tensor([[0.0, 0.0, newton]]).expand(2, 3), 0.02)


@pytest.mark.parametrize("towards", [(1.0, 0.0), (0.6, -0.8)])
def test_a_sliding_cube_feels_mu_m_g_against_its_motion(bullet, towards):
    backend = bullet(objects={"cube": cube(0.05, 0.5, friction=0.4)}, contact_sensors={"c": ContactSensorCfg("cube")})
    backend.step(60)
    velocity = torch.tensor([[*towards, 0.0, 0.0, 0.0, 0.0]]).expand(2, 6)
    backend.write_pose("cube", backend.pose("cube"), velocity, everyone(backend))
    felt = []
    for _ in range(36):
        backend.step(1)
        felt.append(backend.contact_force("c"))
    x, y = (-0.4 * 0.5 * G * t for t in towards)  # on average: it rattles on its leading edge
    same(torch.stack(felt).mean(0), torch.tensor([[x, y, 0.5 * G]]).expand(2, 3), 0.1)


@pytest.mark.parametrize("friction", [0.5, 0.8])
def test_friction_holds_below_mu_m_g_and_slips_above(bullet, friction):
    backend = bullet(objects={"cube": cube(0.05, 0.5, friction=friction)})
    backend.step(120)
    start = backend.pose("cube")[:, 0].clone()
    wrench = torch.zeros(2, 6)
    wrench[:, 0] = friction * 0.5 * G * torch.tensor([0.9, 1.1])
    wrench[:, 4] = -wrench[:, 0] * 0.05  # as if pushed at the ground: it does not tip
    backend.apply_wrench("cube", None, wrench)
    backend.step(120)
    moved = backend.pose("cube")[:, 0] - start
    assert moved[0].abs() < 0.002
    assert moved[1] > 0.05


def test_of_two_objects_the_rougher_counts(bullet):
    """A slippery cube on a rough one: 1.1 times the slippery friction does not move it."""
    backend = bullet(objects={"below": cube(0.05, 5.0, friction=0.8), "above": cube(0.15, 0.5, friction=0.2)})
    backend.step(120)
    wrench = torch.zeros(2, 6)
    wrench[:, 0] = 0.5 * G * torch.tensor([0.7, 0.9])
    wrench[:, 4] = -wrench[:, 0] * 0.05
    backend.apply_wrench("above", None, wrench)
    backend.step(60)
    moved = backend.pose("above")[:, 0] - backend.pose("below")[:, 0]
    assert moved[0].abs() < 0.002
    assert moved[1] > 0.01


def test_a_wrench_accelerates_by_force_over_mass_until_it_is_set_again(bullet):
    backend = bullet(objects={"cube": cube(3.0, 0.5)}, gravity_mps2=0.0)
    pose = torch.cat((torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]]), TURNS), dim=1)
    backend.write_pose("cube", pose, torch.zeros(2, 6), everyone(backend))
    wrench = torch.tensor([[1.0, -2.0, 3.0, 0.0, 0.0, 0.01], [0.0] * 6])
    backend.apply_wrench("cube", None, wrench)
    backend.step(24)
    same(backend.velocity("cube")[:, :3], wrench[:, :3] / 0.5 * 24 * DT, 1e-5)
    inertia = 0.5 * 0.1**2 / 6
    same(backend.velocity("cube")[:, 3:], wrench[:, 3:] / inertia * 24 * DT, 1e-4)
    backend.apply_wrench("cube", None, torch.zeros(2, 6))
    before = backend.velocity("cube").clone()
    backend.step(24)
    same(backend.velocity("cube"), before, 1e-6)


@pytest.mark.parametrize("base", [(0.0, 0.0, 0.0, *UPRIGHT), TILTED], ids=["upright", "tilted"])
def test_a_wrench_on_a_link_is_mujocos(bullet, base):
    wrench = torch.tensor([[3.0, -2.0, 5.0, 0.3, 0.7, -0.4], [0.0] * 6])
    backends = [w({"robot": RobotCfg(FRANKA, base)}) for w in (bullet, mujoco_worlds.world)]
    rest = torch.tensor(FRANKA.default_joint_pos).expand(2, -1)
    for backend in backends:
        backend.write_joints("robot", rest, torch.zeros(2, 9), everyone(backend))
        backend.apply_wrench("robot", "panda_link5", wrench)
        backend.step(1)
    same(*(b.joint_vel("robot") for b in backends), 1e-5)
    assert backends[0].joint_vel("robot")[0].abs().max() > 1e-3


# --- who collides with whom ----------------------------------------------------------------------------------


def test_only_pairs_of_links_that_are_not_excluded_collide(bullet):
    """The hulls of links 5 and 7 overlap here: without the filter, Bullet throws them apart."""
    folded = torch.tensor([[0.506, -1.293, -0.665, -2.705, 1.707, 0.569, 2.541, 0.015, 0.009]])
    free = dataclasses.replace(FRANKA, kp=(0.0,) * 9, kd=(0.0,) * 9, contact_exclude=())
    shut = dataclasses.replace(free, contact_exclude=FRANKA.contact_exclude)
    speed = []
    for spec in (free, shut):
        backend = bullet({"robot": RobotCfg(spec)}, num_envs=1, gravity_mps2=0.0, ground=False)
        backend.write_joints("robot", folded, torch.zeros(1, 9), everyone(backend))
        backend.step(4)
        speed.append(float(backend.joint_vel("robot").abs().max()))
    assert speed[0] > 0.01
    assert speed[1] < 1e-9


def test_fingers_collide_with_objects_and_objects_with_the_ground(bullet):
    """A cube between the fingers is held against gravity by friction."""
    hand = Chain(FRANKA.urdf, "panda_grasptarget", FRANKA.joint_names)
    q = torch.tensor([FRANKA.default_joint_pos])
    q[:, 7:] = 0.0198
    at = hand.pose(q)
    thing = ObjectCfg(Box((0.04, 0.04, 0.04)), 0.1, tuple(at[0].tolist()))
    backend = bullet({"robot": RobotCfg(FRANKA)}, {"cube": thing}, num_envs=1)
    backend.write_joints("robot", q, torch.zeros(1, 9), everyone(backend))
    closed = q.clone()
    closed[:, 7:] = 0.0
    for _ in range(20):
        backend.write_targets("robot", closed)
        backend.step(12)
    assert (backend.pose("cube")[:, :3] - at[:, :3]).norm() < 0.005
    open_ = closed.clone()
    open_[:, 7:] = 0.04
    for _ in range(40):
        backend.write_targets("robot", open_)
        backend.step(12)
    assert backend.pose("cube")[0, 2] == pytest.approx(0.02, abs=0.003)


# --- parameters ----------------------------------------------------------------------------------------------


def test_mass_and_inertia_scale_apart_and_from_what_was_built(bullet):
    sensors = {"c": ContactSensorCfg("cube")}
    declared = (("cube", "mass"), ("cube", "inertia"))
    backend = bullet(objects={"cube": cube()}, contact_sensors=sensors, randomized=declared)
    for factor in (4.0, 2.0):
        backend.set_param("cube", "mass", torch.full((2,), factor), torch.tensor([False, True]))
    backend.step(240)
    same(backend.contact_force("c")[:, 2], torch.tensor([0.5 * G, G]), 0.02)
    assert backend.params()["cube.mass"].tolist() == [1.0, 2.0]
    backend.set_param("cube", "inertia", torch.tensor([1.0, 3.0]), everyone(backend))
    high = torch.tensor([[0.0, 0.0, 3.0, *UPRIGHT]]).expand(2, 7)
    backend.write_pose("cube", high, torch.zeros(2, 6), everyone(backend))
    backend.apply_wrench("cube", None, torch.tensor([[0.0, 0.0, 0.0, 0.001, 0.0, 0.0]]).expand(2, 6))
    backend.step(1)
    spin = 0.001 / (0.5 * 0.01 / 6) * DT
    same(backend.velocity("cube")[:, 3], torch.tensor([spin, spin / 3.0]), 1e-6)


def test_less_friction_slips_sooner(bullet):
    backend = bullet(objects={"cube": cube(friction=0.8)}, randomized=(("cube", "friction"),))
    backend.set_param("cube", "friction", torch.tensor([1.0, 0.5]), everyone(backend))
    backend.step(60)
    wrench = torch.zeros(2, 6)
    wrench[:, 0] = 0.5 * 0.5 * G
    wrench[:, 4] = -wrench[:, 0] * 0.05
    backend.apply_wrench("cube", None, wrench)
    backend.step(120)
    moved = backend.pose("cube")[:, 0]
    assert moved[0].abs() < 0.002
    assert moved[1] > 0.05


@pytest.mark.parametrize("param", PARAMS)
def test_undeclared_parameters_are_refused_and_declared_ones_leave_the_others_alone(bullet, param):
    backend = bullet({"robot": RobotCfg(FRANKA)}, num_envs=3, randomized=(("robot", param),))
    twin = bullet({"robot": RobotCfg(FRANKA)}, num_envs=3)
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


# --- pictures ------------------------------------------------------------------------------------------------


def test_a_camera_sees_the_cube_where_its_environment_has_it(bullet):
    backend = bullet(
        objects={"cube": cube(rgba=(1.0, 0.0, 0.0, 1.0))},
        cameras={"view": CameraCfg((0.0, -1.0, 0.5), (0.0, 0.0, 0.05), width=64, height=48)},
    )
    pose = torch.tensor([[0.0, 0.0, 0.05, *UPRIGHT], [9.0, 0.0, 0.05, *UPRIGHT]])
    backend.write_pose("cube", pose, torch.zeros(2, 6), everyone(backend))
    before = backend.get_state()
    pictures = backend.render("view", [0, 1]).astype(int)
    assert torch.equal(backend.get_state(), before)
    assert pictures.shape == (2, 48, 64, 3)
    red = (pictures[..., 0] - pictures[..., 1:].max(-1) > 60).sum(axis=(1, 2))
    assert red[0] > 20
    assert red[1] == 0
    assert backend.render("view", [1], film=(30, 40)).shape == (1, 30, 40, 3)


# --- what is refused -----------------------------------------------------------------------------------------


def test_a_missing_mesh_is_named(bullet, tmp_path):
    urdf = tmp_path / "robot.urdf"
    urdf.write_text('<robot name="r"><link name="a"><visual><geometry><mesh filename="x/none.stl"/></geometry></visual>'
                    "</link></robot>")  # fmt: skip
    with pytest.raises(ConfigError, match=r"robot\.urdf names a mesh that is not there: .*none\.stl"):
        bullet({"robot": RobotCfg(dataclasses.replace(CARTPOLE, urdf=str(urdf)))})
    with pytest.raises(FileNotFoundError, match=r"none\.stl"):
        bullet(objects={"thing": ObjectCfg(Mesh(str(tmp_path / "none.stl")))})


@pytest.mark.parametrize(("face", "message"), [("1 2 3", "its surface is not closed"), ("1 2 4", "among its 3")])
def test_an_open_mesh_is_no_object(bullet, tmp_path, face, message):
    (tmp_path / "open.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nf {face}\n")
    with pytest.raises(ConfigError, match=rf"open\.obj cannot be an object: .*{message}"):
        bullet(objects={"thing": ObjectCfg(Mesh(str(tmp_path / "open.obj")))})


def test_an_object_has_no_negative_friction():
    with pytest.raises(ValueError, match="friction must be at least 0, got -1"):
        ObjectCfg(Box((0.1, 0.1, 0.1)), friction=-1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("</robot>", ""), "is no URDF .* is it cut short"),
        (('<mass value="0.2"/>', '<mass value="x"/>'), 'mass value="x"'),
    ],
)
def test_a_file_that_is_no_urdf_is_named(bullet, tmp_path, change, message):
    urdf = tmp_path / "cartpole.urdf"
    urdf.write_text(resolve(CARTPOLE.urdf).read_text().replace(*change))
    with pytest.raises(ConfigError, match=rf"cartpole\.urdf.*{message}"):
        bullet({"robot": RobotCfg(dataclasses.replace(CARTPOLE, urdf=str(urdf)))})


@pytest.mark.parametrize("change", [('<mass value="0.2"/>', '<mass value="0"/>'), ('iyy="0.0168"', 'iyy="0"')])
def test_a_moving_link_without_mass_is_named(bullet, tmp_path, change):
    urdf = tmp_path / "cartpole.urdf"
    urdf.write_text(resolve(CARTPOLE.urdf).read_text().replace(*change))
    with pytest.raises(ConfigError, match="moving links need mass and inertia, pole have none"):
        bullet({"robot": RobotCfg(dataclasses.replace(CARTPOLE, urdf=str(urdf)))})


def test_joints_that_only_one_side_knows_are_named(bullet):
    spec = dataclasses.replace(CARTPOLE, joint_names=("slider", "elbow"))
    with pytest.raises(ConfigError, match=r"no joints \['elbow'\]; it has \['hinge', 'slider'\]"):
        bullet({"robot": RobotCfg(spec)})
    one = {f.name: getattr(CARTPOLE, f.name)[:1] for f in dataclasses.fields(CARTPOLE) if f.name in LISTS}
    with pytest.raises(ConfigError, match=r"cartpole does not name \['hinge'\].*effort_limit 0 is passive"):
        bullet({"robot": RobotCfg(dataclasses.replace(CARTPOLE, **one))})


LISTS = ("joint_names", "lower", "upper", "velocity_limit", "acceleration_limit", "jerk_limit", "effort_limit", "kp",
         "kd", "default_joint_pos")  # fmt: skip


def test_a_gpu_and_sensors_on_nothing_are_refused(bullet):
    from sim.backends.pybullet import Pybullet, PybulletCfg

    with pytest.raises(ConfigError, match="use backend=mujoco_warp"):
        Pybullet(PybulletCfg(), None, 1, torch.device("cuda"), 0)
    with pytest.raises(ConfigError, match=r"no body 'mug'; there are robot and robots' links"):
        bullet(contact_sensors={"c": ContactSensorCfg("mug")})
    with pytest.raises(ConfigError, match=r"workers must be 0 .* got -1"):
        PybulletCfg(workers=-1)
