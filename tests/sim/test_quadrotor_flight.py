"""The quadrotor's ground, firmware and parameters, and what masks and states leave alone."""

import math
from dataclasses import replace

import pytest
import torch

from robolearn.config import ConfigError
from robolearn.rotations import quat_apply

pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
from quadrotor_worlds import HOVER, LEVEL, TILTED, VEHICLE, command, fly, start

MASS, G = VEHICLE.mass_kg, 9.81
WEIGHT, FOOT = MASS * G, VEHICLE.foot_m


# --- the ground --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dt", "yields"), [(0.002, 1.2e-3), (0.01, 8.5e-3)])
def test_it_rests_on_its_feet_and_does_not_creep(dt, yields):
    """The ground gives way by g / (0.35 / dt)^2, and no more than its natural frequency of 100 rad/s allows."""
    engine = fly(dt=dt, ground=True)
    start(engine, position=(0.0, 0.0, FOOT))
    command(engine, 0.0)
    engine.step(round(1.0 / dt))
    settled = engine.pose("robot").clone()
    assert FOOT - yields < settled[0, 2].item() < FOOT
    assert settled[0, 2].item() == pytest.approx(FOOT - G / min(0.35 / dt, 100.0) ** 2, abs=1e-5)
    engine.step(round(2.0 / dt))
    torch.testing.assert_close(engine.pose("robot"), settled, atol=1e-5, rtol=0.0)
    assert engine.velocity("robot").abs().max() < 1e-4


@pytest.mark.parametrize("dt", [0.002, 0.01])
def test_friction_holds_a_push_but_for_its_creep(dt):
    """Below 0.8 m g the feet's viscous friction lets it creep at F / (m natural frequency)."""
    engine = pushed(0.1, dt)
    assert engine.velocity("robot")[0, 0].item() == pytest.approx(0.1 * G / min(0.35 / dt, 100.0), rel=0.05)


def test_a_push_of_its_weight_slides_it():
    """Against friction of 0.8 m g. (Steps of 10 ms are too coarse for this: it tumbles.)"""
    engine = pushed(1.0, 0.002)
    before = engine.velocity("robot")[0, 0].item()
    engine.step(250)
    assert engine.velocity("robot")[0, 0].item() - before == pytest.approx((1.0 - 0.8) * G * 0.5, rel=0.02)


def pushed(share, dt):
    """One that stands, half a second after a push of that share of its weight began."""
    engine = fly(dt=dt, ground=True)
    start(engine, position=(0.0, 0.0, FOOT))
    command(engine, 0.0)
    engine.step(round(0.5 / dt))
    engine.apply_wrench("robot", None, torch.tensor([[share * WEIGHT, 0.0, 0.0, 0.0, 0.0, 0.0]]))
    engine.step(round(0.5 / dt))
    return engine


@pytest.mark.parametrize("dt", [0.002, 0.01])
def test_it_lands_from_a_fall(dt):
    tilts = [(0.0, 0.0, 0.0, 1.0), (0.2, 0.1, 0.3, 0.927), (0.0, 0.38, 0.0, 0.925), (0.99, 0.1, 0.05, 0.02)]
    engine = fly(dt=dt, ground=True, num_envs=4)
    for i, quat in enumerate(tilts):
        norm = math.sqrt(sum(q * q for q in quat))
        start(engine, (0.0, 0.0, 0.3), tuple(q / norm for q in quat), mask=torch.arange(4) == i)
    command(engine, 0.0)
    fastest = 0.0
    for _ in range(round(3.0 / dt)):
        engine.step(1)
        fastest = max(fastest, engine.velocity("robot")[:, :3].abs().max().item())
    assert fastest < 1.05 * math.sqrt(2 * G * 0.3)
    assert engine.finite().all()
    assert engine.velocity("robot")[:, :3].abs().max() < 5e-3
    up = quat_apply(engine.pose("robot")[:, 3:], torch.tensor([0.0, 0.0, 1.0]).expand(4, 3))[:, 2]
    assert (up.abs() > 0.999).all()  # on its feet, or on its back
    assert (engine.pose("robot")[:, 2] - FOOT).abs().max() < 9e-3


def test_without_ground_it_falls_through():
    engine = fly()
    start(engine, position=(0.0, 0.0, 0.05))
    command(engine, 0.0)
    engine.step(500)
    assert engine.pose("robot")[0, 2].item() == pytest.approx(0.05 - G / 2, abs=1e-4)


# --- the firmware ------------------------------------------------------------------------------------------


def attitude(engine, *rows):
    """Roll, pitch (rad), yaw rate (rad/s), thrust (N), a row for each copy."""
    engine.write_attitude("robot", torch.tensor(rows))


@pytest.mark.parametrize("angle", [0.3, -0.2])
def test_roll_and_pitch_are_tracked_with_the_right_sign(angle):
    """FLU and ENU: roll leans the thrust towards -y, pitch towards +x."""
    engine = fly(num_envs=2)
    start(engine, rotors=HOVER)
    attitude(engine, (angle, 0.0, 0.0, WEIGHT), (0.0, angle, 0.0, WEIGHT))
    engine.step(1000)
    up = quat_apply(engine.pose("robot")[:, 3:], torch.tensor([0.0, 0.0, 1.0]).expand(2, 3))
    sine = math.sin(angle)
    torch.testing.assert_close(up[:, :2], torch.tensor([[0.0, -sine], [sine, 0.0]]), atol=0.015, rtol=0.0)
    assert engine.state[:, 10:13].abs().max() < 0.05
    assert math.copysign(1.0, engine.velocity("robot")[1, 0].item()) == math.copysign(1.0, angle)


@pytest.mark.parametrize("rate", [1.0, -0.7])
def test_yaw_rate_is_tracked(rate):
    engine = fly()
    start(engine, rotors=HOVER)
    attitude(engine, (0.0, 0.0, rate, WEIGHT))
    engine.step(1500)
    assert engine.state[0, 12].item() == pytest.approx(rate, abs=0.02)
    assert engine.pose("robot")[0, 2].item() == pytest.approx(1.0, abs=0.02)


def test_thrust_in_newton_is_what_the_rotors_give():
    engine = fly(num_envs=3)
    start(engine, rotors=HOVER)
    wanted = torch.tensor([0.7, 1.0, 1.6]) * WEIGHT
    attitude(engine, *((0.0, 0.0, 0.0, t) for t in wanted.tolist()))
    engine.step(1000)
    torch.testing.assert_close(
        VEHICLE.thrust_curve[2] * (engine.joint_vel("robot") ** 2).sum(1), wanted, rtol=1e-3, atol=0.0
    )


def test_without_thrust_the_motors_stop_and_the_integrals_are_forgotten():
    engine = fly()
    start(engine, quat=TILTED, rotors=HOVER)
    attitude(engine, (0.0, 0.0, 0.0, WEIGHT))
    engine.step(20)
    assert engine.memory[0, :5].abs().max() > 0.1
    attitude(engine, (0.3, 0.3, 1.0, 0.0))
    engine.step(1500)
    assert engine.joint_vel("robot").abs().max() < 1e-3
    assert (engine.memory[0, :5] == 0.0).all()


@pytest.mark.parametrize("late", [1, 2, 4])
def test_the_link_delays_a_command_by_whole_sub_steps(late):
    """The firmware goes on with the last command until then: copy 1 does what copy 0 did `late` sub-steps ago."""
    dt = 0.002
    firmware = replace(VEHICLE.firmware, link_delay_s=dt)
    prompt, slow = (fly(replace(VEHICLE, firmware=replace(firmware, link_delay_s=s)), dt=dt) for s in (0.0, late * dt))
    for engine in (prompt, slow):
        start(engine, rotors=HOVER)
        attitude(engine, (0.0, 0.0, 0.0, WEIGHT))
        engine.step(8)
        attitude(engine, (0.4, -0.3, 0.5, 1.3 * WEIGHT))
    before, saved = slow.joint_vel("robot").clone(), prompt.get_state()
    prompt.step(1)
    assert (prompt.joint_vel("robot") - before).abs().max() > 1.0  # without delay, in the first one
    prompt.set_state(saved)
    prompt.step(8 - late)
    slow.step(8)
    assert (prompt.joint_vel("robot") - before).abs().max() > 5.0
    torch.testing.assert_close(slow.state[:, 3:17], prompt.state[:, 3:17], atol=1e-2, rtol=1e-5)


def test_a_vehicle_without_firmware_refuses_attitudes():
    engine = fly(replace(VEHICLE, firmware=None))
    with pytest.raises(ConfigError, match="crazyflie has no firmware specified; command rotor_speed"):
        attitude(engine, (0.0, 0.0, 0.0, WEIGHT))


# --- parameters, masks, state ------------------------------------------------------------------------------

SCALED = ("mass", "inertia", "thrust", "reaction_torque", "spin_up", "spin_down", "drag", "sag", "link_delay")


def scaled(param, scale, vehicle=VEHICLE, **more):
    """Copy 1 has the parameter scaled, copy 0 has not."""
    engine = fly(vehicle, num_envs=2, randomized=tuple(("robot", p) for p in SCALED), **more)
    engine.set_param("robot", param, torch.tensor([scale, scale]), torch.tensor([False, True]))
    assert engine.params()[f"robot.{param}"].tolist() == [1.0, pytest.approx(scale)]
    start(engine, rotors=HOVER)
    return engine


@pytest.mark.parametrize(("param", "scale"), [("mass", 1.2), ("thrust", 1.0 / 1.2)])
def test_a_heavier_or_weaker_one_needs_more_speed_to_hover(param, scale):
    engine = scaled(param, scale)
    speeds = torch.tensor([[1.0], [math.sqrt(1.2)]]) * HOVER
    start(engine, rotors=speeds)
    command(engine, speeds)
    engine.step(500)
    torch.testing.assert_close(engine.pose("robot")[:, 2], torch.ones(2), atol=2e-5, rtol=0.0)
    command(engine, HOVER)
    engine.step(100)
    assert engine.velocity("robot")[1, 2] < -0.05


@pytest.mark.parametrize(("param", "scale", "share"), [("inertia", 2.0, 0.5), ("reaction_torque", 1.5, 1.5)])
def test_angular_acceleration_follows_inertia_and_reaction(param, scale, share):
    engine = scaled(param, scale)
    command(engine, HOVER * torch.tensor([0.9, 1.1, 0.9, 1.1]))
    engine.step(50)
    assert engine.state[1, 12].item() == pytest.approx(share * engine.state[0, 12].item(), rel=1e-4)


@pytest.mark.parametrize(("param", "target"), [("spin_up", 1.4), ("spin_down", 0.5)])
def test_time_constants_are_scaled(param, target):
    engine = scaled(param, 0.5)
    command(engine, target * HOVER)
    engine.step(50)
    left = (engine.joint_vel("robot")[:, 0] / HOVER - target) / (1.0 - target)
    assert left.tolist() == pytest.approx([math.exp(-0.1 / 0.15), math.exp(-0.1 / 0.075)], rel=1e-3)


def test_drag_and_sag_are_scaled_and_can_be_switched_off():
    vehicle = replace(VEHICLE, drag_kg=(4e-5, 4e-5), sag_at_full_thrust=0.1)
    windy = scaled("drag", 0.0, vehicle)
    start(windy, linear=(1.0, 0.0, 0.0), rotors=HOVER)
    command(windy, HOVER)
    windy.step(50)
    assert windy.velocity("robot")[0, 0] < 0.9 and windy.velocity("robot")[1, 0] == 1.0
    flat = scaled("sag", 0.0, vehicle)
    command(flat, HOVER)
    flat.step(500)
    assert flat.joint_vel("robot")[0, 0] < 0.97 * HOVER
    assert flat.joint_vel("robot")[1, 0].item() == pytest.approx(HOVER, rel=1e-6)


def test_writing_some_leaves_the_others_as_they_are():
    engine = scaled("mass", 1.2)
    start(engine, quat=TILTED, linear=(1.0, 0.0, 0.0), rotors=HOVER)
    attitude(engine, (0.3, 0.2, 1.0, WEIGHT), (0.3, 0.2, 1.0, WEIGHT))
    engine.step(30)
    before, parts = engine.get_state(), engine.params_of.clone()
    mask = torch.tensor([True, False])
    start(engine, (0.0, 0.0, 2.0), LEVEL, rotors=0.0, mask=mask)
    for param in SCALED:
        engine.set_param("robot", param, torch.full((2,), 1.1), mask)
    assert torch.equal(engine.get_state()[1], before[1]) and torch.equal(engine.params_of[1], parts[1])
    assert not torch.equal(engine.get_state()[0], before[0])
    assert (engine.memory[0] == 0.0).all() and engine.before[0].tolist() == pytest.approx([0.0, 0.0, 0.0, WEIGHT])
    engine.set_state(before.flip(0), mask)
    assert torch.equal(engine.get_state(), torch.stack((before[1], before[1])))


def test_a_saved_state_goes_on_to_the_bit():
    engine = fly(replace(VEHICLE, sag_per_s=0.01), num_envs=2)
    start(engine, quat=TILTED, rotors=HOVER)
    attitude(engine, (0.3, 0.2, 1.0, WEIGHT), (-0.1, 0.2, 0.0, 1.2 * WEIGHT))
    engine.step(37)
    saved = engine.get_state()
    engine.step(41)
    after = engine.get_state()
    engine.set_state(saved)
    engine.step(41)
    assert torch.equal(engine.get_state(), after)
    with pytest.raises(ValueError, match="is not of 2 quadrotors"):
        engine.set_state(saved[:1])


def test_what_is_not_finite_is_found():
    engine = fly(num_envs=3)
    engine.state[1, 8] = float("nan")
    engine.state[2, 2] = 2e3
    assert engine.finite().tolist() == [True, False, False]
