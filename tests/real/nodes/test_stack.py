"""Twin, guard and policy as processes of their own over DDS: who may move the arm, and what stops it."""

import re
import signal

import numpy as np
import pytest
import torch

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from real import ros
from real.connection import NEWEST, JointTrajectory, Numbers
from real.connection import JointTrajectoryPoint as Point
from real.ros.qos import QoSProfile
from robolearn.robots.franka import FRANKA


def test_a_policy_moves_the_arm_when_it_is_started_and_stops_when_it_is_told(stack):
    stack.start("twin", "guard", "policy")
    stack.wait(lambda: stack.states and stack.heard["guard/state"])
    first = stack.states[-1].position[:7]
    assert stack.state() == "idle" and not stack.commands
    stack.wait(lambda: stack.call("policy/start").success)
    stack.wait(lambda: max(abs(stack.states[-1].position[:7] - first)) > 0.05)
    assert stack.heard["guard/state"][:3] == ["idle", "holding", "active"]
    stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")  # still, or again
    assert stack.call("policy/stop").success
    stack.wait(lambda: stack.state() == "idle" and stack.still())


def test_a_slow_policy_proposes_its_way_in_parts_for_the_guard_holds_an_arm_that_it_hears_nothing_of(
    stack, slow_reacher
):
    """At 10 Hz three proposals in 100 ms, a third of the way each; the guard waits for 80 ms."""
    stack.run, said = slow_reacher, []
    stack.node.create_subscription(JointTrajectory, "guard/proposals/policy", said.append, QoSProfile(depth=1000))
    stack.fly()

    def goes_on() -> bool:  # a busy machine may be late
        if stack.state() != "active":
            stack.call("policy/start")
        said.clear()
        before = len(stack.heard["guard/state"])
        stack.rest(1.0)
        return stack.state() == "active" and len(said) > 20 and len(stack.heard["guard/state"]) == before

    stack.wait(goes_on)
    assert {m.points[0].time_from_start.nanosec for m in said} == {33_333_333}
    ahead = abs(np.diff([m.points[0].positions for m in said], axis=0)).max(1)
    assert np.median(ahead) > 0.2 * ahead.max() > 0.0  # not a leap a period, with nothing between


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_policy_that_dies_or_freezes_leaves_the_arm_at_rest_until_somebody_takes_it(stack, how):
    stack.fly()
    stack.kill("policy", how)
    stack.wait(lambda: stack.state() in ("holding", "stopped"))
    stack.wait(lambda: stack.state() == "stopped" and stack.at_rest())


def test_a_robot_that_is_not_heard_is_stopped(stack):
    stack.fly()
    stack.kill("twin", signal.SIGSTOP)
    stack.wait(lambda: stack.state() == "stopped")
    stack.kill("twin", signal.SIGCONT)
    stack.wait(stack.still)
    assert stack.state() == "stopped"  # a recovery starts nothing


def test_an_emergency_stop_latches_until_it_is_reset(stack):
    stack.fly()
    assert stack.call("guard/estop").success
    stack.wait(lambda: stack.state() == "fault" and stack.still())
    assert not stack.call("guard/take/policy").success
    assert stack.call("guard/reset").success
    stack.wait(lambda: stack.state() == "idle")
    assert stack.call("policy/start").success
    stack.wait(lambda: stack.state() == "active")


def test_a_second_publisher_on_the_command_topic_is_an_emergency(stack):
    stack.fly()
    stack.node.create_publisher(Numbers, "forward_position_controller/commands", NEWEST)
    stack.wait(lambda: stack.state() == "fault")
    assert re.search("(watcher|_NODE_NAME_UNKNOWN_) publishes on", stack.log("guard"))  # its name may come later


def test_a_second_node_that_proposes_as_the_owner_is_an_emergency(stack):
    stack.fly()
    stack.node.create_publisher(JointTrajectory, "guard/proposals/policy", NEWEST)
    stack.wait(lambda: stack.state() == "fault")
    assert "more than one node proposes as policy" in (stack.folder / "guard.log").read_text()


def test_who_goes_on_proposing_without_authority_is_told_again_who_has_it(stack):
    """Given and lost between two of the guard's periods, authority is never announced: without this a page went on
    believing for minutes that its person was in control."""
    stack.start("guard")
    owners, states = stack.heard["guard/owner"], stack.heard["guard/state"]
    stack.wait(lambda: owners == [""] and states == ["idle"])
    stack.rest(1.0)
    assert owners == [""]  # not by itself
    out = stack.node.create_publisher(JointTrajectory, "guard/proposals/policy", NEWEST)
    stack.wait(lambda: out.publish(JointTrajectory()) or len(owners) > 2)
    assert set(owners) == {""} and set(states) == {"idle"}


def test_proposals_that_are_no_numbers_are_never_followed(stack):
    stack.start("twin", "guard")
    stack.wait(lambda: stack.states and stack.heard["guard/state"])
    out = stack.node.create_publisher(JointTrajectory, "guard/proposals/env", NEWEST)
    stack.wait(lambda: stack.call("guard/take/env").success)
    at = list(stack.states[-1].position[:7])
    for bad in ([float("nan")] * 7, at[:6], [*at, 0.0], []):
        point = Point(positions=bad, time_from_start=ros.Duration(seconds=0.05).to_msg())
        message = JointTrajectory(joint_names=list(stack.states[-1].name[:7]), points=[point])
        message.header.stamp = stack.states[-1].header.stamp
        for _ in range(5):
            out.publish(message)
            stack.spin(0.02)
            message.header.stamp = stack.states[-1].header.stamp
    stack.wait(lambda: stack.state() == "stopped")
    moved = [max(abs(torch.tensor(c.position) - torch.tensor(at))) for c in stack.commands]
    assert moved and all(m < 0.05 for m in moved)  # NaN is not


def test_targets_that_are_absurd_move_the_arm_within_its_limits_only(stack):
    stack.start("twin", "guard")
    stack.wait(lambda: stack.states and stack.heard["guard/state"])
    out = stack.node.create_publisher(JointTrajectory, "guard/proposals/env", NEWEST)
    stack.wait(lambda: stack.call("guard/take/env").success)
    for _ in range(20):
        point = Point(positions=[1e300] * 7, time_from_start=ros.Duration(seconds=0.05).to_msg())
        message = JointTrajectory(joint_names=list(stack.states[-1].name[:7]), points=[point])
        message.header.stamp = stack.states[-1].header.stamp
        out.publish(message)
        stack.spin(0.02)
    stack.wait(lambda: stack.state() == "stopped" and stack.still())
    fastest = torch.tensor(FRANKA.of("velocity_limit", FRANKA.arm_joints)) + 1e-6
    low, high = (torch.tensor(FRANKA.of(n, FRANKA.arm_joints)) for n in ("lower", "upper"))
    for command in stack.commands:
        assert (torch.tensor(command.velocity).abs() <= fastest).all()
        assert ((torch.tensor(command.position) >= low) & (torch.tensor(command.position) <= high)).all()


def test_without_a_guard_the_drivers_watchdog_stops_the_arm(stack):
    stack.fly(words=["-p", "command_interface:=joint_trajectory"])
    stack.kill("guard")
    stack.wait(lambda: "watchdog stopped the arm" in (stack.folder / "twin.log").read_text())
    stack.wait(lambda: max(abs(stack.states[-1].velocity[:7])) < 0.01)


def test_a_bundle_of_another_robot_is_refused_with_what_differs(stack):
    stack.start("policy", words=["-p", "robot:=ur5e"])
    assert stack.processes["policy"].wait(timeout=60) == 1
    said = (stack.folder / "policy.log").read_text()
    assert "Traceback" not in said and "robot.name" in said and "franka" in said and "ur5e" in said


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("limits.tool_speed_mps:=9.0", "tool_speed_mps = 9.0 is looser than"),
        ("limits.tool_sped_mps:=0.1", "did you mean limits.tool_speed_mps"),
        ("robot:=panda", "no profile 'panda'"),
        ("robot:=''", "`robot` is not set"),
    ],
)
def test_facts_of_a_site_that_cannot_be_are_refused(stack, word, reason):
    stack.start("guard", words=["-p", word])
    assert stack.processes["guard"].wait(timeout=60) == 2
    said = (stack.folder / "guard.log").read_text()
    assert "Traceback" not in said and reason in said


def test_a_guard_that_is_told_to_end_brings_the_arm_to_rest_first(stack):
    stack.fly()
    stack.kill("guard", signal.SIGINT)
    assert stack.processes["guard"].wait(timeout=20) == 0
    stack.wait(stack.still)
