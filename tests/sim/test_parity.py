"""MuJoCo and PyBullet within the stated tolerances, and tolerances that catch what is wrong."""

import dataclasses

import pytest
import torch

from robolearn import config
from robolearn.config import ConfigError
from sim import parity
from sim.parity import CUBES_KG, G_MPS2, RATE_HZ, SLIDES, Tolerances

pytest.importorskip("pybullet", reason="pybullet is not installed (extra bullet)")
config.discover(["robolearn.robots", "sim.backends"])
ENGINES = ("mujoco", "pybullet")
FIXED = [n for n in config.names("robot") if config.entry("robot", n).value.quadrotor is None]
FRANKA = config.entry("robot", "franka").value


@pytest.fixture(scope="module")
def mechanics():
    """Weights and ways in each engine; the robot stands aside."""
    return {e: parity.rest(e, FRANKA, 0) | parity.slide(e, FRANKA, 0) for e in ENGINES}


def free(robot, **changes):
    spec = config.entry("robot", robot).value
    ours = parity.free_motion("mujoco", spec, 0)
    return spec, ours, parity.free_motion("pybullet", dataclasses.replace(spec, **changes), 0)


@pytest.mark.parametrize("robot", FIXED)
def test_engines_move_a_robot_alike(robot):
    spec, ours, theirs = free(robot)
    checks = parity._free(ours, theirs, "both", spec, Tolerances())
    assert [c for c in checks if not c.passed] == []
    assert (ours["joint_pos"].amax((0, 1)) - ours["joint_pos"].amin((0, 1)))[list(spec.arm_ids)].min() > 0.2


def test_a_gain_that_is_a_percent_off_is_caught():
    spec, ours, theirs = free("franka", kp=tuple(1.01 * k for k in FRANKA.kp))
    place, _ = parity._free(ours, theirs, "both", spec, Tolerances())
    assert not place.passed
    assert place.value < 0.1


@pytest.mark.parametrize("engine", ENGINES)
def test_resting_cubes_weigh_m_g(mechanics, engine):
    checks = parity._weights(mechanics[engine], engine, Tolerances())
    assert len(checks) == len(CUBES_KG)
    assert [c for c in checks if not c.passed] == []


@pytest.mark.parametrize("engine", ENGINES)
def test_boxes_slide_as_far_as_friction_lets_them(mechanics, engine):
    checks = parity._ways(mechanics[engine], engine, Tolerances())
    assert len(checks) == len(SLIDES)
    assert [c for c in checks if not c.passed] == []
    way = mechanics[engine]["way"]
    assert (way[-1] - way[-12]).abs().max() < 1e-4  # they have stopped


def test_ways_and_weights_that_are_off_fail():
    assert parity.way_m(1.0, 0.4) == pytest.approx(1.0 / (2 * 0.4 * 9.81))
    steps = round(RATE_HZ)
    force = torch.tensor([0.0, 0.0, G_MPS2]) * torch.tensor(CUBES_KG)[:, None]
    way = torch.tensor([parity.way_m(*slide) for slide in SLIDES])
    seen = {"contact_force": force.repeat(steps, 1, 1), "way": way.repeat(steps, 1)}
    good = parity._weights(seen, "e", Tolerances()) + parity._ways(seen, "e", Tolerances())
    assert max(c.value for c in good) < 1e-6
    seen["contact_force"] = seen["contact_force"] * 1.02
    seen["way"] = seen["way"] * torch.tensor([1.04, 0.96, float("nan")])
    bad = parity._weights(seen, "e", Tolerances()) + parity._ways(seen, "e", Tolerances())
    assert [c.passed for c in bad] == [False] * 6
    assert [c.value for c in bad[:5]] == pytest.approx([0.02, 0.02, 0.02, 0.04, 0.04], rel=1e-3)


def test_targets_stay_inside_the_limits_and_depend_on_the_seed():
    targets, efforts = parity.motions(FRANKA, 3)
    low, high = torch.tensor(FRANKA.lower), torch.tensor(FRANKA.upper)
    assert ((targets >= low) & (targets <= high)).all()
    speed = (targets[1:] - targets[:-1]).abs() * RATE_HZ
    assert (speed.amax((0, 1)) < torch.tensor(FRANKA.velocity_limit)).all()
    assert efforts.abs().max() == 0.0
    assert not torch.equal(targets, parity.motions(FRANKA, 4)[0])
    assert torch.equal(targets, parity.motions(FRANKA, 3)[0])


def test_a_robot_that_flies_is_refused():
    with pytest.raises(ConfigError, match="crazyflie has no fixed base"):
        parity.record("mujoco", "crazyflie", 0)
