"""The quadrotor's rigid body and rotors against closed forms, a float64 reference, and the frames at each boundary."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from robolearn.rotations import from_rotation_vector, quat_apply, quat_conjugate, quat_mul, quat_to_matrix

pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
from quadrotor_worlds import HOVER, LEVEL, TILTED, VEHICLE, Reference, command, fly, rotation, start

MASS, G = VEHICLE.mass_kg, 9.81
J = np.array(VEHICLE.inertia_kgm2)


# --- closed forms ------------------------------------------------------------------------------------------


def test_hover_thrust_holds_the_height():
    engine = fly()
    start(engine, rotors=HOVER)
    command(engine, HOVER)
    engine.step(500)
    torch.testing.assert_close(engine.pose("robot")[0], torch.tensor([0.0, 0.0, 1.0, *LEVEL]), atol=1e-5, rtol=0.0)
    assert engine.velocity("robot").abs().max() < 1e-5


def test_without_rotors_it_falls_freely():
    engine = fly()
    start(engine, linear=(1.0, -2.0, 3.0), quat=TILTED)
    command(engine, 0.0)
    engine.step(500)
    expected = torch.tensor([[1.0, -2.0, 1.0 + 3.0 - G / 2]])
    torch.testing.assert_close(engine.pose("robot")[:, :3], expected, atol=2e-5, rtol=0.0)
    torch.testing.assert_close(engine.pose("robot")[:, 3:], torch.tensor([TILTED]))


def test_yaw_torque_spins_it_up():
    """Rotors 2 and 4 turn against 1 and 3, and react: torque = (sum of spin thrust) kappa."""
    engine = fly()
    fast, slow = math.sqrt(1.2) * HOVER, math.sqrt(0.8) * HOVER  # of 1.2 and 0.8 times the thrust: it hovers
    start(engine, rotors=[slow, fast, slow, fast])
    command(engine, [slow, fast, slow, fast])
    engine.step(100)
    torque = (2 * 1.2 - 2 * 0.8) * MASS * G / 4 * VEHICLE.torque_per_thrust_m
    np.testing.assert_allclose(engine.velocity("robot")[0, 3:], [0.0, 0.0, torque / J[2] * 0.2], atol=1e-3, rtol=1e-4)
    assert engine.pose("robot")[0, 2].item() == pytest.approx(1.0, abs=1e-5)


def test_a_torque_free_symmetric_top_precesses():
    """Goldstein: with L fixed, the attitude is a turn by L t / J about L after one by (1 - Jz / J) wz t about z."""
    engine = fly(gravity_mps2=0.0)
    rates = np.array([3.0, 0.0, 8.0])
    start(engine, quat=TILTED, angular=(rotation(np.array(TILTED)) @ rates).tolist())
    command(engine, 0.0)
    seconds, momentum = 2.0, rotation(np.array(TILTED)) @ (J * rates)
    engine.step(round(seconds / 0.002))
    pace = (J[2] - J[0]) / J[0] * rates[2] * seconds
    expected = [3.0 * math.cos(pace), 3.0 * math.sin(pace), 8.0]
    np.testing.assert_allclose(engine.state[0, 10:13], expected, atol=5e-4)
    nutation = from_rotation_vector(torch.tensor(momentum / J[0] * seconds, dtype=torch.float32))
    spin = from_rotation_vector(torch.tensor([0.0, 0.0, (1 - J[2] / J[0]) * rates[2] * seconds]).float())
    attitude = quat_mul(quat_mul(nutation, torch.tensor(TILTED)), spin)
    off = 1.0 - (attitude * engine.pose("robot")[0, 3:]).sum().abs()
    assert off < 1e-6
    now = engine.state[0].double().numpy()
    np.testing.assert_allclose(rotation(now[3:7]) @ (J * now[10:13]), momentum, rtol=1e-4, atol=1e-8)
    assert (J * now[10:13] ** 2).sum() == pytest.approx((J * rates**2).sum(), rel=1e-4)


def test_an_asymmetric_body_keeps_energy_and_momentum():
    vehicle = replace(VEHICLE, inertia_kgm2=(3e-6, 4e-6, 5e-6))
    engine, inertia = fly(vehicle, gravity_mps2=0.0), np.array(vehicle.inertia_kgm2)
    start(engine, angular=(2.0, 5.0, 3.0))  # level: body and world rates are the same
    command(engine, 0.0)
    engine.step(1000)
    now = engine.state[0].double().numpy()
    assert not np.allclose(now[10:13], (2.0, 5.0, 3.0), atol=0.5)
    np.testing.assert_allclose(rotation(now[3:7]) @ (inertia * now[10:13]), inertia * [2.0, 5.0, 3.0], rtol=2e-4)
    assert (inertia * now[10:13] ** 2).sum() == pytest.approx((inertia * [4.0, 25.0, 9.0]).sum(), rel=2e-4)


def test_the_quaternion_keeps_its_length():
    engine = fly(num_envs=8, gravity_mps2=0.0)
    start(engine, quat=TILTED, angular=(5.0, -9.0, 14.0), rotors=HOVER)
    command(engine, torch.linspace(0.5, 1.0, 32).reshape(8, 4) * HOVER)
    for _ in range(10):
        engine.step(1000)
    assert (engine.pose("robot")[:, 3:].norm(dim=1) - 1.0).abs().max() < 1e-6


def test_rotors_are_first_order_up_and_down():
    vehicle = replace(VEHICLE, spin_up_s=0.055, spin_down_s=0.249)
    engine = fly(vehicle)
    start(engine, rotors=[1000.0, 1000.0, 0.0, 2000.0])
    command(engine, [2000.0, 500.0, 1500.0, 0.0])
    engine.step(50)
    up, down = math.exp(-0.1 / 0.055), math.exp(-0.1 / 0.249)
    expected = [2000 - 1000 * up, 500 + 500 * down, 1500 - 1500 * up, 2000 * down]
    torch.testing.assert_close(engine.joint_vel("robot")[0], torch.tensor(expected), rtol=1e-5, atol=0.0)


def test_commands_stop_at_full_speed_and_at_rest():
    engine = fly()
    start(engine, rotors=HOVER)
    command(engine, [1e5, -1e5, HOVER, HOVER])
    engine.step(1500)  # 20 time constants
    expected = [VEHICLE.max_speed_radps, 0.0, HOVER, HOVER]
    torch.testing.assert_close(engine.joint_vel("robot")[0], torch.tensor(expected), rtol=1e-5, atol=1e-3)


def test_drag_ends_in_the_terminal_velocity():
    """Falling level, m g - T = k (sum of speeds) v."""
    k, speed = 4e-5, 0.8 * HOVER
    engine = fly(replace(VEHICLE, drag_kg=(9e-7, k)))
    start(engine, position=(0.0, 0.0, 50.0), rotors=speed)
    command(engine, speed)
    engine.step(2500)
    fall = MASS * G * (1 - 0.8**2) / (k * 4 * speed)
    assert engine.velocity("robot")[0, 2].item() == pytest.approx(-fall, rel=1e-3)


def test_drag_is_the_bodys_across_and_along():
    """Without thrust (the rotors' are cancelled by the curve), dv/dt = -R D R' v sum / m."""
    drag, thrustless = (4e-5, 1e-5), (0.0, 0.0, 1e-15)
    vehicle = replace(VEHICLE, drag_kg=drag)
    engine = fly(vehicle, gravity_mps2=0.0)
    engine.body.curve = type(engine.body.curve)(*thrustless)
    start(engine, quat=TILTED, linear=(2.0, -1.0, 0.5), rotors=1000.0)
    command(engine, 1000.0)
    engine.step(50)
    turn, share = rotation(np.array(TILTED)), np.array([drag[0], drag[0], drag[1]]) * 4000.0 / MASS
    expected = turn @ (np.exp(-share * 0.1) * (turn.T @ [2.0, -1.0, 0.5]))
    np.testing.assert_allclose(engine.velocity("robot")[0, :3], expected, atol=1e-5)


def test_the_battery_sags_under_load():
    """Steady: r = command (1 - s (r / full)^2), at full thrust."""
    engine = fly(replace(VEHICLE, sag_at_full_thrust=0.08))
    start(engine, rotors=HOVER)
    command(engine, 2000.0)
    engine.step(2000)
    s, full = 0.08, VEHICLE.max_speed_radps
    b = 2000.0 * s / full**2
    expected = (math.sqrt(1 + 4 * b * 2000.0) - 1) / (2 * b)
    assert expected < 1900.0
    torch.testing.assert_close(engine.joint_vel("robot")[0], torch.full((4,), expected), rtol=1e-4, atol=0.0)


def test_the_battery_sags_with_time():
    """The set-point falls by command * rate a second, and rotors follow a time constant behind."""
    engine = fly(replace(VEHICLE, sag_per_s=0.02))
    start(engine, rotors=1500.0)
    command(engine, 1500.0)
    engine.step(1000)
    expected = 1500.0 * (1 - 0.02 * (2.0 - 0.15))
    torch.testing.assert_close(engine.joint_vel("robot")[0], torch.full((4,), expected), rtol=1e-4, atol=0.0)


def test_force_and_torque_from_outside_are_the_worlds():
    engine = fly(gravity_mps2=0.0)
    start(engine, quat=TILTED)
    command(engine, 0.0)
    force, torque = [0.01, -0.02, 0.03], [2e-6, 3e-6, -1e-6]
    engine.apply_wrench("robot", "base_link", torch.tensor([force + torque]))
    engine.step(250)
    np.testing.assert_allclose(engine.velocity("robot")[0, :3], np.array(force) / MASS * 0.5, rtol=1e-4)
    now = engine.state[0].double().numpy()
    momentum = rotation(now[3:7]) @ (J * now[10:13])
    np.testing.assert_allclose(momentum, np.array(torque) * 0.5, rtol=2e-3)
    engine.apply_wrench("robot", "base_link", torch.zeros(1, 6))
    before = engine.velocity("robot")[0, :3].clone()
    engine.step(10)
    torch.testing.assert_close(engine.velocity("robot")[0, :3], before)


# --- the integrator ----------------------------------------------------------------------------------------


def test_halving_the_step_divides_the_error_by_sixteen():
    errors = []
    for dt in (0.04, 0.02):
        engine = fly(dt=dt)
        rotors = [0.9 * HOVER, 1.1 * HOVER, HOVER, 1.05 * HOVER]
        start(engine, quat=TILTED, angular=(9.0, -6.0, 4.0), rotors=rotors)
        command(engine, rotors)
        engine.step(round(0.4 / dt))
        reference = Reference(VEHICLE, 0.0005)
        rates = quat_apply(quat_conjugate(torch.tensor(TILTED)), torch.tensor([9.0, -6.0, 4.0])).numpy()
        reference.x[:] = np.concatenate(([0, 0, 1], TILTED, [0, 0, 0], rates, rotors))
        errors.append(np.abs(engine.state[0, :10].numpy() - reference.run(np.array(rotors), 0.4)[:10]).max())
    assert 10.0 < errors[0] / errors[1] < 24.0


@pytest.mark.parametrize(("dt", "tolerance"), [(0.002, 1e-4), (0.01, 5e-4)])
def test_two_seconds_of_random_commands_agree_with_float64(dt, tolerance):
    """Positions and velocities (m, m/s), relative to what was flown (some 5 m); the quaternion by its elements."""
    curve = (0.002, 1e-6, 2.5e-8)
    vehicle = replace(VEHICLE, drag_kg=(9e-7, 1e-6), spin_up_s=0.055, spin_down_s=0.249, thrust_curve=curve)
    engine, speed = fly(vehicle, dt=dt), vehicle.hover_speed_radps
    force, torque = [0.01, -0.013, 0.005], [0.0, 0.0, 2e-7]
    engine.apply_wrench("robot", "base_link", torch.tensor([force + torque]))
    start(engine, quat=TILTED, linear=(0.5, -1.0, 0.3), rotors=speed)
    reference = Reference(vehicle, 0.001, force, torque)
    reference.x[:] = np.concatenate(([0, 0, 1], TILTED, [0.5, -1.0, 0.3], [0, 0, 0], [speed] * 4))
    generator, flown = np.random.default_rng(0), 0.0
    for _ in range(100):
        target = speed * (1.0 + 0.1 * generator.standard_normal(4))
        command(engine, target)
        engine.step(round(0.02 / dt))
        theirs, ours = reference.run(target, 0.02), engine.state[0].double().numpy()
        flown = max(flown, np.abs(theirs[10:13]).max())
        np.testing.assert_allclose(ours[:3], theirs[:3], atol=10 * tolerance)
        np.testing.assert_allclose(ours[3:7], theirs[3:7], atol=5 * tolerance)
        np.testing.assert_allclose(ours[7:10], theirs[7:10], atol=10 * tolerance)
        np.testing.assert_allclose(ours[10:13], theirs[10:13], atol=50 * tolerance)
        np.testing.assert_allclose(ours[13:17], theirs[13:17], rtol=1e-4)
    assert flown > 3.0  # rad/s: it tumbled


# --- frames and quaternion order ---------------------------------------------------------------------------


def test_poses_and_velocities_come_back_as_they_were_written():
    engine = fly(num_envs=2)
    start(engine, position=(0.1, 0.2, 3.0), quat=TILTED, linear=(1.0, 2.0, 3.0), angular=(0.4, -0.5, 0.6))
    torch.testing.assert_close(engine.pose("robot")[1], torch.tensor([0.1, 0.2, 3.0, *TILTED]))
    torch.testing.assert_close(engine.velocity("robot")[1], torch.tensor([1.0, 2.0, 3.0, 0.4, -0.5, 0.6]))
    body = rotation(np.array(TILTED)).T @ [0.4, -0.5, 0.6]
    np.testing.assert_allclose(engine.state[1, 10:13], body, atol=1e-6)
    torch.testing.assert_close(engine.body_pose("robot", ["base_link"])[:, 0], engine.pose("robot"))


def test_thrust_is_along_the_bodys_z():
    engine = fly(dt=0.001)
    start(engine, quat=TILTED, rotors=2.0 * HOVER / math.sqrt(2))
    command(engine, 2.0 * HOVER / math.sqrt(2))
    engine.step(1)
    expected = 2.0 * G * quat_to_matrix(torch.tensor(TILTED))[:, 2] - torch.tensor([0.0, 0.0, G])
    torch.testing.assert_close(engine.velocity("robot")[0, :3] / 0.001, expected, atol=1e-3, rtol=1e-4)


def test_world_angular_velocity_turns_the_world_way():
    engine = fly(replace(VEHICLE, inertia_kgm2=(4e-6, 4e-6, 4e-6)))  # a ball's: the rates stay
    spin = torch.tensor([0.8, -1.1, 1.7])
    start(engine, quat=TILTED, angular=spin.tolist())
    command(engine, 0.0)
    engine.step(250)
    expected = quat_mul(from_rotation_vector(0.5 * spin), torch.tensor(TILTED))
    torch.testing.assert_close(engine.pose("robot")[0, 3:], expected, atol=1e-5, rtol=0.0)


def test_each_rotor_pushes_where_it_is():
    """Front right, rear right, rear left, front left; +x is forward, +y left. A push on the right rolls to the left,
    which is negative, one in front lifts the nose, which is negative; about z a rotor reacts against its turn."""
    engine = fly(num_envs=4, gravity_mps2=0.0)
    start(engine, rotors=0.0)
    command(engine, HOVER * torch.eye(4))
    engine.step(5)
    roll, pitch, yaw = engine.state[:, 10:13].sign().T.tolist()
    assert roll == [-1.0, -1.0, 1.0, 1.0]
    assert pitch == [-1.0, 1.0, 1.0, -1.0]
    assert yaw == [-1.0, 1.0, -1.0, 1.0]


def test_the_picture_shows_the_attitude():
    mujoco = pytest.importorskip("mujoco")
    from sim.backends.mjcf import compile_scene

    engine = fly()
    start(engine, position=(0.3, -0.4, 0.9), quat=TILTED)
    model = compile_scene(engine.scene)
    data, state = mujoco.MjData(model), engine.physics_state(0)
    assert len(state) == 1 + model.nq + model.nv
    data.qpos[:] = state[1 : 1 + model.nq]
    mujoco.mj_forward(model, data)
    body = next(b for b in range(model.nbody) if model.body(b).name.endswith("base_link"))
    np.testing.assert_allclose(data.xpos[body], (0.3, -0.4, 0.9), atol=1e-6)
    np.testing.assert_allclose(data.xmat[body].reshape(3, 3), rotation(np.array(TILTED)), atol=1e-6)
