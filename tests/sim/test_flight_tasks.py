"""Flight tasks: rewards and metrics by hand, starts, goals that move, and what is refused."""

import math

import pytest
import torch

from robolearn import config
from robolearn.config import ConfigError
from robolearn.rotations import rotation_vector
from robolearn.state import RobotState, SceneState
from sim.env import SimEnv
from sim.task import ActionState
from sim.tasks.flight.base import random_rotation_vector

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
TASKS = ("crazyflie_hover_rpm", "crazyflie_hover", "crazyflie_track")
HALF = math.sin(math.pi / 6)


def configured(name, **changes):
    return config.entry("task", name).config(**changes)


def made(name, **changes):
    return config.build(configured(name, **changes))


def flown(position, quat=(0.0, 0.0, 0.0, 1.0), linear=(0.0,) * 3):
    """One robot's state."""
    none = torch.zeros(1, 4)
    pose, velocity = torch.tensor([[*position, *quat]]), torch.tensor([[*linear, 0.0, 0.0, 0.0]])
    return RobotState(torch.zeros(1), none, none, none, none, pose, velocity, None)


def aimed(*goal):
    return SceneState(commands={"goal": torch.tensor([[*goal, *[0.0] * (9 - len(goal))]])})


class Still:
    """What of an engine a task's own bookkeeping reads: the poses that a test says."""

    num_envs, where = 2, torch.zeros(2, 7)

    def pose(self, asset):
        return self.where

    def set_marker(self, marker, pose):
        self.marker = pose


# --- rewards and metrics -----------------------------------------------------------------------------------


def test_rewards_of_learning_to_fly_by_hand():
    """2 - 0.5 (5 |p|^2 + 5 (1 - qw^2) + 0.01 |v|^2 + 0.01 |a - 0.334|^2), here over four terms and the period."""
    task = made("crazyflie_hover_rpm")
    robot, scene = flown((0.1, 0.0, 1.2), (HALF, 0.0, 0.0, math.sqrt(0.75)), (0.0, 2.0, 0.0)), aimed(0.0, 0.0, 1.0)
    rest = 2.0 * task.vehicle.hover_speed_radps / task.vehicle.max_speed_radps - 1.0
    action = ActionState(*(torch.tensor([[rest + 0.5, rest, rest, rest - 0.5]]),) * 2, torch.zeros(1, 4))
    terms = task.rewards(robot, scene, action)
    assert terms["position_squared"].item() == pytest.approx(0.01 + 0.04)
    assert terms["tilt"].item() == pytest.approx(0.25)
    assert terms["velocity"].item() == pytest.approx(4.0)
    assert terms["action"].item() == pytest.approx(0.5, abs=1e-5)
    total = sum(task.cfg.weights[k] * v.item() for k, v in terms.items())
    assert total == pytest.approx(2.0 - 0.5 * (5 * 0.05 + 5 * 0.25 + 0.01 * 4.0 + 0.01 * 0.5), abs=1e-5)


def test_changes_of_the_action_are_counted_and_nothing_is_paid_outside():
    task, scene = made("crazyflie_hover"), aimed(0.0, 0.0, 1.0)
    action = ActionState(torch.full((1, 4), 0.5), torch.full((1, 4), 0.5), torch.full((1, 4), 0.2))
    terms = task.rewards(flown((0.0, 0.3, 1.4)), scene, action)
    assert terms["action_change"].item() == pytest.approx(4 * 0.09)
    assert terms["action"].item() == pytest.approx(1.0)
    assert terms["position"].item() == pytest.approx(0.5, abs=1e-6)
    outside = task.rewards(flown((0.0, 0.0, 1.61)), scene, action)
    assert all(v.item() == 0.0 for v in outside.values())


def test_velocity_counts_against_the_goals():
    task, scene = made("crazyflie_track", variants=3), aimed(0.0, 0.0, 1.0, 0.5, 0.0, 0.0)
    still = ActionState(*(torch.zeros(1, 4),) * 3)
    assert task.rewards(flown((0.0, 0.0, 1.0), linear=(0.5, 0.0, 0.2)), scene, still)["velocity"].item() == (
        pytest.approx(0.04)
    )


@pytest.mark.parametrize(("z", "over"), [(1.59, False), (1.61, True), (0.39, True), (math.nan, True)])
def test_an_episode_ends_six_tenths_of_a_metre_away_in_an_axis(z, over):
    task = made("crazyflie_hover")
    robot = flown((0.5, -0.5, z))
    assert task.terminated(robot, aimed(0.0, 0.0, 1.0)).item() is over


def test_the_steady_error_is_the_root_mean_square_of_the_last_two_seconds():
    task, engine = made("crazyflie_hover"), Still()
    task.setup(engine, torch.Generator())
    for k in range(500):
        off = 0.5 if k < 300 else (0.1 if k % 2 else 0.3)
        engine.where = torch.tensor([[0.0, off, 1.0, 0, 0, 0, 1.0], [0.0, 0.0, 1.2, 0, 0, 0, 1.0]])
        task.advance(engine)
    robot, scene = flown((0.0, 0.1, 1.0)), SceneState(commands={"goal": task.goal})
    metrics = task.metrics(robot, scene)
    assert metrics["steady_error_m"].tolist() == pytest.approx([math.sqrt((0.01 + 0.09) / 2), 0.2], rel=1e-5)
    assert metrics["position_error_m"][0].item() == pytest.approx(0.1)


# --- starts and goals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [0.3, math.pi / 2, math.pi])
def test_rotations_are_uniform_up_to_the_largest_angle(largest):
    """Over SO(3) the angle's density is 1 - cos: the share below x is (x - sin x) / (largest - sin largest)."""
    vectors = random_rotation_vector(20_000, largest, torch.Generator().manual_seed(0))
    angle = vectors.norm(dim=1)
    assert angle.max() <= largest + 1e-5
    for share in (0.5, 0.8):
        x = share * largest
        expected = (x - math.sin(x)) / (largest - math.sin(largest))
        assert (angle < x).float().mean().item() == pytest.approx(expected, abs=0.012)
    assert (vectors / angle[:, None]).mean(0).abs().max() < 0.015


def test_starts_are_where_the_task_says():
    task = made("crazyflie_hover_rpm", level_start=0.25)
    pose, velocity = task.starts(8000, torch.Generator().manual_seed(0))
    level = pose[:, 6] == 1.0
    assert level.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (pose[level, :6] == 0.0).all() and (velocity[level] == 0.0).all()
    lively, moving = pose[~level], velocity[~level]
    assert lively[:, :3].abs().max() <= 0.2 and lively[:, :3].abs().mean().item() == pytest.approx(0.1, rel=0.03)
    assert moving[:, :3].abs().max() <= 1.0
    assert moving[:, 3:].norm(dim=1).max() <= math.sqrt(3.0) + 1e-5  # each axis of the body
    assert rotation_vector(lively[:, 3:]).norm(dim=1).max() <= math.pi / 2 + 1e-4


def test_a_tracking_episode_starts_on_its_trajectory_and_goes_on_along_it():
    pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
    cfg = configured("crazyflie_track", variants=6, start_position_m=0.0, start_velocity_mps=0.0, start_tilt_rad=0.01)
    env = SimEnv(cfg, config.entry("backend", "quadrotor").config(), 8)
    env.reset(seed=0)
    task = env.task
    torch.testing.assert_close(env.backend.pose("robot")[:, :3], task.goal[:, :3])
    torch.testing.assert_close(env.backend.velocity("robot")[:, :3], task.goal[:, 3:6])
    for _ in range(3):
        env.step(torch.zeros(8, 4))
    torch.testing.assert_close(task.goal, task.table[task.variant, 3])
    torch.testing.assert_close(task.ahead[:, :3], task.table[task.variant, 13, :3])  # 0.1 s on
    torch.testing.assert_close(task.ahead[:, -3:], task.table[task.variant, 53, :3])
    assert len(set(task.variant.tolist())) > 2


def test_the_figure_eight_is_the_one_that_is_asked_for():
    task = made("crazyflie_track", trajectory="figure_eight", variants=2)
    task.setup(Still(), torch.Generator())
    row = task.table[0, :550]
    span = (row[:, :3].max(0).values - row[:, :3].min(0).values).tolist()
    assert span == pytest.approx([2.0, 1.0, 0.0], abs=2e-3)
    torch.testing.assert_close(task.table[0, 550], task.table[0, 0], atol=1e-4, rtol=0.0)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("crazyflie_hover", {"action": "torque"}, "must be attitude or rotor_speed"),
        ("crazyflie_hover", {"far_m": 0.0}, "far_m must be positive"),
        ("crazyflie_hover", {"start_velocity_mps": -1.0}, "start_velocity_mps must be finite and at least 0, got -1.0"),
        (
            "crazyflie_hover",
            {"integral_limit_ms": math.nan},
            "integral_limit_ms must be finite and at least 0, got nan",
        ),
        ("crazyflie_hover", {"thrust_share": 0.0}, "thrust_share must be finite and above 0, got 0.0"),
        ("crazyflie_hover", {"start_tilt_rad": 4.0}, r"start_tilt_rad must be in \(0, pi\]"),
        ("crazyflie_track", {"trajectory": "square"}, "must be mixed, circle, figure_eight, random; got square"),
        ("crazyflie_track", {"period_s": -1.0}, "period_s must be positive"),
    ],
)
def test_settings_without_sense_are_refused(task, changes, message):
    with pytest.raises(ValueError, match=message):
        configured(task, **changes)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("crazyflie_hover", {"robot": "franka"}, "needs a quadrotor, franka is none"),
        ("crazyflie_hover", {"physics_dt_s": 0.005}, "physics_dt_s must be 0.002, the firmware's period"),
        ("crazyflie_hover", {"decimation": 4}, "link delay of 0.0080 s is not below the control period of 0.0080 s"),
    ],
)
def test_vehicles_and_links_that_do_not_fit_are_refused(task, changes, message):
    with pytest.raises(ConfigError, match=message):
        made(task, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectory": "figure_eight", "period_s": 2.5}, "trajectory figure_eight needs a tilt"),
        ({"trajectory": "circle", "size_m": 0.3}, "trajectory circle needs a tilt"),
        ({"trajectory": "random", "size_m": 5.0}, "trajectory random comes down to .* into the ground"),
    ],
)
def test_trajectories_that_cannot_be_flown_are_refused(changes, message):
    task = made("crazyflie_track", variants=20, **changes)
    with pytest.raises(ConfigError, match=message):
        task.setup(Still(), torch.Generator())


@pytest.mark.parametrize("name", TASKS)
def test_what_the_policy_sees_says_its_names(name):
    spec = made(name).observation_spec()
    names = [t.field.name for t in spec.terms("policy")]
    assert names[:4] == ["position_error", "rotation", "velocity", "rates"] and names[-1] == "last_action"
    assert not spec.privileged("policy")
    assert spec.privileged("critic") == ("disturbance", "rotor_speed")
