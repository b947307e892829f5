"""Two dynamics of a quadrotor, PyBullet's and the Warp kernel's, under the same commands; and the first alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robolearn import config
from robolearn.config import ConfigError
from robolearn.rotations import rotation_difference
from sim.env import SimEnv

pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
pytest.importorskip("pybullet_data", reason="PyBullet is not installed (extra bullet)")
from quadrotor_worlds import CPU, HOVER, TILTED, VEHICLE, command, fly, rotation, scene_of, start

from sim.backends.pybullet import Pybullet, PybulletCfg

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
WEIGHT, FOOT = 9.81 * VEHICLE.mass_kg, VEHICLE.foot_m
WINDY = replace(VEHICLE, drag_kg=(2e-5, 3e-5), sag_per_s=0.01, sag_at_full_thrust=0.1)
SCALED = {
    "mass": 1.2, "inertia": 3.0, "thrust": 0.93, "reaction_torque": 1.4, "spin_up": 0.4, "spin_down": 1.5, "drag": 1.3,
    "sag": 0.6, "link_delay": 2.0,
}  # fmt: skip


@pytest.fixture
def both():
    """both(vehicle, ...) -> the kernel's world and PyBullet's, the same."""
    opened = []

    def build(vehicle=VEHICLE, num_envs=2, dt=0.002, **more):
        kernel = fly(vehicle, num_envs, dt, **more)
        opened.append(Pybullet(PybulletCfg(workers=1), scene_of(vehicle, dt, **more), num_envs, CPU, 0))
        return kernel, opened[-1]

    yield build
    for backend in opened:
        backend.close()


def apart(pair):
    """Largest differences: position (m), angle (rad), velocity (m/s), angular velocity (rad/s), rotors (rad/s)."""
    (a, b), (v, w) = ([e.pose("robot") for e in pair], [e.velocity("robot") for e in pair])
    angle = rotation_difference(a[:, 3:], b[:, 3:]).norm(dim=1).max()
    rotors = (pair[0].joint_vel("robot") - pair[1].joint_vel("robot")).abs().max()
    slip = (v - w).abs()
    return [x.item() for x in ((a - b)[:, :3].abs().max(), angle, slip[:, :3].max(), slip[:, 3:].max(), rotors)]


def agree(pair, position, angle, velocity, rates, rotors=0.05):
    found = apart(pair)
    assert all(f <= most for f, most in zip(found, (position, angle, velocity, rates, rotors), strict=True)), found


# --- open loop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [0.002, 0.01])
def test_a_free_fall_from_a_spin_is_the_same(both, dt):
    """1 s; Bullet's Euler falls g t h / 2 = 5 mm further, and a tumbling body's rates are good to a hundredth."""
    pair = both(dt=dt)
    for engine in pair:
        start(engine, (0.0, 0.0, 9.0), TILTED, (1.0, -2.0, 0.5), (2.0, 1.0, 6.0))
        command(engine, 0.0)
        engine.step(round(1.0 / dt))
    agree(pair, 6e-3, 0.02, 1e-3, 0.02)
    fell = pair[1].pose("robot")[0, 2].item()
    assert fell == pytest.approx(9.0 + 0.5 - 9.81 / 2, abs=6e-3)


@pytest.mark.parametrize("dt", [0.002, 0.01])
def test_half_a_second_of_random_rotor_speeds_is_the_same(both, dt):
    pair, generator = both(WINDY, dt=dt), torch.Generator().manual_seed(0)
    for engine in pair:
        start(engine, quat=TILTED, linear=(0.5, -1.0, 0.3), angular=(1.0, 2.0, -1.0), rotors=HOVER)
        engine.apply_wrench("robot", "base_link", torch.tensor([[0.01, -0.02, 0.01, 1e-6, 0.0, 1e-6]]).expand(2, 6))
    for _ in range(25):
        speeds = HOVER * (1.0 + 0.1 * torch.randn(2, 4, generator=generator))
        for engine in pair:
            command(engine, speeds)
            engine.step(round(0.02 / dt))
    assert pair[0].velocity("robot")[:, 3:].abs().max() > 5.0
    agree(pair, 6e-3, 0.02, 0.02, 0.1)


def test_drag_is_the_same(both):
    pair = both(replace(VEHICLE, drag_kg=(4e-5, 9e-5)))
    for engine in pair:
        start(engine, (0.0, 0.0, 50.0), TILTED, (3.0, -2.0, 1.0), rotors=HOVER)
        command(engine, HOVER)
        engine.step(500)
    agree(pair, 8e-3, 1e-3, 8e-3, 1e-3)
    assert np.linalg.norm(pair[1].velocity("robot")[0, :2]) < 8.0  # 10.5 without it


def test_rotors_are_the_same_to_the_last_digits(both):
    vehicle = replace(VEHICLE, spin_up_s=0.05, spin_down_s=0.25, sag_per_s=0.02, sag_at_full_thrust=0.1)
    pair = both(vehicle)
    for engine in pair:
        start(engine, rotors=[0.0, 500.0, 1500.0, 2200.0])
        for speeds in ([2000.0, 100.0, 1500.0, 900.0], [300.0, 3000.0, 0.0, 1200.0]):
            command(engine, speeds)
            engine.step(40)
    torch.testing.assert_close(pair[1].joint_vel("robot"), pair[0].joint_vel("robot"), rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("param", SCALED)
def test_scaled_parameters_are_the_same(both, param):
    """Copy 1 has the scale, copy 0 has not, and they differ."""
    firmware = replace(VEHICLE.firmware, link_delay_s=0.004)
    randomized = tuple(("robot", p) for p in SCALED)
    pair = both(replace(WINDY, firmware=firmware), randomized=randomized)
    for engine in pair:
        engine.set_param("robot", param, torch.full((2,), SCALED[param]), torch.tensor([False, True]))
        start(engine, linear=(1.0, 0.0, 0.0), rotors=HOVER)
        for aim in ([0.2, -0.1, 1.0, 1.2 * WEIGHT], [-0.2, 0.3, -1.0, 0.8 * WEIGHT]):
            engine.write_attitude("robot", torch.tensor([aim] * 2))
            engine.step(10)
            engine.step(10)
    agree(pair, 2e-3, 5e-3, 1e-2, 0.1, 3.0)
    one, other = pair[1].get_state()
    assert (one - other).abs().max() > 20 * (pair[1].pose("robot") - pair[0].pose("robot")).abs().max()


# --- closed loop -------------------------------------------------------------------------------------------

DOUBLETS = {
    "roll": ([0.35, 0.0, 0.0, 1.0], [-0.35, 0.0, 0.0, 1.0]),
    "pitch": ([0.0, 0.35, 0.0, 1.0], [0.0, -0.35, 0.0, 1.0]),
    "yaw": ([0.0, 0.0, 1.5, 1.0], [0.0, 0.0, -1.5, 1.0]),
    "thrust": ([0.0, 0.0, 0.0, 1.5], [0.0, 0.0, 0.0, 0.6]),
    "all": ([0.3, -0.2, 1.0, 1.3], [-0.2, 0.3, -1.0, 0.7]),
}


@pytest.mark.parametrize("kind", DOUBLETS)
def test_doublets_through_the_firmware_are_the_same(both, kind):
    """0.5 s each way, in periods of 10 ms: 5 mm, 0.01 rad, 2 cm/s, 0.05 rad/s, and 8 rad/s of some 1,500."""
    pair = both(WINDY)
    for engine in pair:
        start(engine, linear=(0.3, 0.2, 0.0), rotors=HOVER)
    moved = 0.0
    for aim in DOUBLETS[kind]:
        wanted = torch.tensor([[*aim[:3], aim[3] * WEIGHT]] * 2)
        for _ in range(50):
            for engine in pair:
                engine.write_attitude("robot", wanted)
                engine.step(5)
            moved = max(moved, (pair[1].joint_vel("robot") - HOVER).abs().max().item())
            agree(pair, 5e-3, 0.01, 0.02, 0.05, 8.0)
    assert moved > 20.0


def test_recovery_from_upside_down_commands_is_the_same(both):
    """A tumble with saturated motors, 0.4 s."""
    pair = both()
    for engine in pair:
        start(engine, quat=TILTED, angular=(-4.0, 3.0, 2.0), rotors=HOVER)
        engine.write_attitude("robot", torch.tensor([[0.0, 0.0, 0.0, 1.2 * WEIGHT]] * 2))
        engine.step(200)
    agree(pair, 5e-3, 0.03, 0.03, 0.3, 30.0)


def test_without_thrust_the_motors_stop_in_both(both):
    pair = both()
    for engine in pair:
        start(engine, (0.0, 0.0, 9.0), rotors=HOVER)
        engine.write_attitude("robot", torch.tensor([[0.3, 0.2, 1.0, WEIGHT]] * 2))
        engine.step(50)
        engine.write_attitude("robot", torch.tensor([[0.3, 0.2, 1.0, 0.0]] * 2))
        engine.step(300)
    agree(pair, 8e-3, 0.03, 0.03, 0.05, 0.5)
    assert pair[1].joint_vel("robot").max() < 0.1 * HOVER


# --- the ground --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [0.002, 0.01])
def test_it_rests_on_the_ground(both, dt):
    """At its feet's height to a millimetre, where the kernel's ground yields by g / (0.35 / dt)^2."""
    kernel, bullet = both(dt=dt, ground=True)
    for engine in (kernel, bullet):
        start(engine, (0.0, 0.0, 0.15))
        command(engine, 0.0)
        engine.step(round(1.5 / dt))
    before = bullet.pose("robot").clone()
    assert before[0, 2].item() == pytest.approx(FOOT, abs=1e-3)
    assert kernel.pose("robot")[0, 2].item() == pytest.approx(FOOT, abs=9e-3)
    bullet.step(round(1.0 / dt))
    assert (bullet.pose("robot") - before)[:, :3].abs().max() < 1e-4
    assert rotation_difference(bullet.pose("robot")[:, 3:], before[:, 3:]).abs().max() < 2e-3


# --- PyBullet alone ----------------------------------------------------------------------------------------


def test_bullet_keeps_the_angular_momentum_of_a_tumbling_body(both):
    """Its gyroscopic term is on and its damping off."""
    vehicle = replace(VEHICLE)
    _, bullet = both(vehicle, gravity_mps2=0.0)
    start(bullet, angular=(2.0, 5.0, 9.0))
    command(bullet, 0.0)
    bullet.step(500)
    pose, rates = bullet.pose("robot")[0].double().numpy(), bullet.velocity("robot")[0, 3:].double().numpy()
    turn, inertia = rotation(pose[3:]), np.array(vehicle.inertia_kgm2)
    np.testing.assert_allclose(turn @ (inertia * (turn.T @ rates)), inertia * [2.0, 5.0, 9.0], rtol=0.02)
    assert np.abs(turn.T @ rates - [2.0, 5.0, 9.0]).max() > 1.0


def test_masks_and_saved_states_are_exact(both):
    _, bullet = both(WINDY, randomized=(("robot", "mass"),))
    start(bullet, quat=TILTED, linear=(1.0, 0.0, 0.0), rotors=HOVER)
    bullet.write_attitude("robot", torch.tensor([[0.3, 0.2, 1.0, WEIGHT], [-0.1, 0.2, 0.0, 1.2 * WEIGHT]]))
    bullet.step(10)
    saved = bullet.get_state()
    bullet.step(10)
    after = bullet.get_state()
    bullet.set_state(saved)
    bullet.step(10)
    assert torch.equal(bullet.get_state(), after)
    mask = torch.tensor([True, False])
    start(bullet, (0.0, 0.0, 2.0), rotors=0.0, mask=mask)
    bullet.set_param("robot", "mass", torch.full((2,), 1.1), mask)
    assert torch.equal(bullet.get_state()[1], after[1])
    assert bullet.params()["robot.mass"].tolist() == [pytest.approx(1.1), 1.0]
    torch.testing.assert_close(bullet.pose("robot")[0, :3], torch.tensor([0.0, 0.0, 2.0]))


def test_writing_poses_leaves_no_kick_by_the_derivative(both):
    pair = both()
    for engine in pair:
        start(engine, quat=TILTED, angular=(1.0, -1.0, 2.0), rotors=HOVER)
    flight = pair[1]._rows[:, pair[1]._at.flight["robot"]]
    torch.testing.assert_close(flight[:, 11:].float(), pair[0].memory[:, 5:], atol=1e-4, rtol=0.0)
    assert flight[0, 5].item() == pytest.approx(WEIGHT)


def test_what_a_quadrotor_cannot_do_is_refused(both):
    _, bullet = both(replace(VEHICLE, firmware=None))
    with pytest.raises(ConfigError, match="crazyflie has no firmware specified; command rotor_speed"):
        bullet.write_attitude("robot", torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"rotors take velocities \(rad/s\), not positions"):
        bullet.write_targets("robot", position=torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass_kg": 0.03}, "its mass is 0.027, the robot's 0.03"),
        ({"inertia_kgm2": (3.85e-6, 4e-6, 5.9675e-6)}, "its inertia about y is 3.85e-06, the robot's 4e-06"),
    ],
)
def test_a_urdf_of_another_body_is_refused(both, change, message):
    with pytest.raises(ConfigError, match=message):
        both(replace(VEHICLE, **change))


@pytest.mark.parametrize("task", ["crazyflie_hover_rpm", "crazyflie_hover", "crazyflie_track"])
def test_flight_tasks_run_in_bullet_as_in_the_kernel(task):
    """The same starts, parameters and actions: the rewards of 30 periods agree."""
    changes = {"variants": 3} if task == "crazyflie_track" else {}
    cfg = config.entry("task", task).config(**changes)
    cfg.randomize.observation_noise = {}
    envs = [
        SimEnv(cfg, config.entry("backend", name).config(**more), 3, seed=1)
        for name, more in (("quadrotor", {}), ("pybullet", {"workers": 1}))
    ]
    generator, totals = torch.Generator().manual_seed(0), torch.zeros(2, 3)
    try:
        seen = [env.reset(seed=4)[0]["critic"] for env in envs]
        torch.testing.assert_close(seen[1], seen[0], atol=1e-5, rtol=1e-5)
        for _ in range(30):
            action = 0.3 * torch.randn(3, 4, generator=generator) + envs[0].commander.rest
            for i, env in enumerate(envs):
                totals[i] += env.step(action)[1]
    finally:
        for env in envs:
            env.close()
    torch.testing.assert_close(totals[1], totals[0], atol=2e-3, rtol=0.01)
