"""Proposals that move a gripper too, through the guard to the twin's action."""

import math

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from real import ros
from real.connection import NEWEST, JointState, JointTrajectory, JointTrajectoryPoint, PoseStamped
from robolearn.robots.franka import FINGERS

PERIOD_S = 0.05


@pytest.fixture
def hand(stack):
    """propose(fingers) until a condition holds, the arm standing; `fingers`: what is measured."""
    stack.fingers, stack.cubes = [], []
    out = stack.node.create_publisher(JointTrajectory, "guard/proposals/env", NEWEST)
    stack.node.create_subscription(JointState, "panda_gripper/joint_states", stack.fingers.append, NEWEST)
    stack.node.create_subscription(PoseStamped, "objects/cube", stack.cubes.append, NEWEST)

    def start(*words):
        stack.start("twin", words=["-p", "scene:=franka_lift"])
        stack.start("guard", words=words)
        stack.wait(lambda: stack.states and stack.fingers and stack.heard["guard/state"])
        stack.wait(lambda: stack.call("guard/take/env").success)
        stack.at = list(stack.states[-1].position)

    def propose(fingers, until, timeout_s=20.0):
        def once():
            point = JointTrajectoryPoint(
                positions=[*stack.at, *fingers], time_from_start=ros.Duration(seconds=PERIOD_S).to_msg()
            )
            message = JointTrajectory(joint_names=[*stack.states[-1].name, *FINGERS[: len(fingers)]], points=[point])
            message.header.stamp = stack.states[-1].header.stamp
            out.publish(message)
            stack.spin(0.01)

        stack.until(until, once, timeout_s)

    stack.begin, stack.propose = start, propose
    return stack


def width(stack):
    return sum(stack.fingers[-1].position)


def test_the_hand_follows_good_proposals_of_the_owner(hand):
    hand.begin()
    assert list(hand.fingers[-1].name) == list(FINGERS) and len(hand.states[-1].name) == 7
    hand.propose([0.0, 0.0], lambda: width(hand) < 0.002)
    hand.propose([0.04, 0.04], lambda: width(hand) > 0.078)
    assert hand.state() == "active"


@pytest.mark.parametrize("wrong", [[math.nan, 0.0], [0.0]])
def test_a_proposal_with_a_wrong_gripper_moves_nothing(hand, wrong):
    hand.begin()
    before = width(hand)
    hand.propose(wrong, lambda: hand.state() == "stopped")
    assert width(hand) == pytest.approx(before, abs=1e-3)
    assert "malformed: env" in (hand.folder / "guard.log").read_text()


def test_without_its_gripper_such_proposals_are_refused(hand):
    hand.begin("-p", "gripper.action:=nowhere")
    hand.propose([0.0, 0.0], lambda: "there is no gripper at nowhere" in (hand.folder / "guard.log").read_text())
    hand.wait(lambda: hand.state() in ("holding", "stopped", "idle"))
    assert width(hand) > 0.06


def test_a_cube_of_the_scene_is_seen_and_can_be_put_elsewhere(hand):
    hand.begin()
    place = hand.node.create_publisher(PoseStamped, "twin/place/cube", NEWEST)
    message = PoseStamped()
    message.pose.position.x, message.pose.position.y, message.pose.position.z = 0.45, 0.15, 0.025
    hand.wait(lambda: hand.cubes and hand.node.count_subscribers("twin/place/cube"))
    place.publish(message)
    hand.wait(lambda: abs(hand.cubes[-1].pose.position.y - 0.15) < 0.005)
    assert hand.cubes[-1].header.frame_id == "panda_link0"
