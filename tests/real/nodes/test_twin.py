"""The simulated robot: it follows, its driver's watchdog stops it, its line delays and loses."""

import pytest
import torch

from robolearn import config
from robolearn.errors import ConfigError
from robolearn.robots.franka import FRANKA

pytest.importorskip("rosbags", reason="no ROS 2 and no DDS (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from real.nodes.line import Line
from real.nodes.twin_arm import Arm

DT = 1.0 / 240.0
REST = torch.tensor(FRANKA.default_joint_pos)


@pytest.fixture
def arm():
    config.discover(("robolearn.robots",))
    made = []

    def make(watchdog_s=None):
        made.append(Arm(FRANKA, "mujoco", DT, watchdog_s))
        return made[-1]

    yield make
    for one in made:
        one.backend.close()


def test_it_goes_where_it_is_told(arm):
    robot, there = arm(), REST[:7] + 0.1
    for k in range(480):
        robot.command(there, k * DT)
        robot.advance(k * DT, 1)
    position, velocity, _ = robot.joints()
    assert abs(torch.tensor(position[:7]) - there).max() < 0.01 and abs(velocity[:7]).max() < 0.01


def test_without_a_watchdog_the_last_command_holds(arm):
    robot = arm()
    robot.command(REST[:7] + 0.1, 0.0)
    robot.advance(100.0, 480)
    assert not robot.stopped and abs(robot.joints()[0][0] - REST[0] - 0.1) < 0.01


def test_the_watchdog_stops_it_where_it_is_until_it_is_told_to_recover(arm):
    robot = arm(watchdog_s=0.1)
    robot.advance(50.0, 1)
    assert not robot.stopped  # nobody has commanded it yet
    robot.command(REST[:7] + 0.5, 50.0)
    for k in range(24):
        robot.advance(50.0 + k * DT, 1)  # 0.096 s
    moved = robot.joints()[0][0]
    robot.advance(50.101, 0)
    assert robot.stopped and robot.target[0, 0] == pytest.approx(moved)
    robot.command(REST[:7], 50.2)
    assert robot.target[0, 0] == pytest.approx(moved)
    robot.recover()
    robot.command(REST[:7], 50.3)
    assert robot.target[0, 0] == pytest.approx(REST[0].item())


def test_it_can_be_placed_at_rest(arm):
    robot = arm()
    robot.command(REST[:7] + 0.5, 0.0)
    robot.advance(0.0, 20)
    robot.place(REST)
    position, velocity, _ = robot.joints()
    assert torch.tensor(position).allclose(REST) and not velocity.any()


def test_a_line_delays_by_its_delay_and_at_most_its_jitter_more():
    line, got = Line(0.1, 0.05, 0.0, seed=0), []
    for k in range(100):
        line.send(float(k), lambda k=k: got.append(k))
    line.deliver(99.09)
    assert sorted(got) == list(range(99))
    line.deliver(99.16)
    assert len(got) == 100


def test_a_line_loses_its_share():
    line, got = Line(0.0, 0.0, 0.25, seed=0), []
    for k in range(4000):
        line.send(float(k), lambda k=k: got.append(k))
    assert len(got) == pytest.approx(3000, abs=110)  # four standard deviations


@pytest.mark.parametrize("bad", [(-0.1, 0.0, 0.0), (0.0, float("nan"), 0.0), (0.0, 0.0, 1.0)])
def test_an_impossible_line_is_refused(bad):
    with pytest.raises(ConfigError, match="loss in"):
        Line(*bad, seed=0)


def test_it_stands_within_the_ends_of_its_joints_only(arm):
    robot, upper = arm(), FRANKA.of("upper", FRANKA.joint_names)
    assert robot.can_stand(REST) and robot.can_stand(torch.tensor(upper))
    for wrong in (float("nan"), 1e30, float("-inf"), upper[0] + 0.01):
        at = REST.clone()
        at[0] = wrong
        assert not robot.can_stand(at)
