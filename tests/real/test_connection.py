"""What is read from the robot's topics, and what of it is refused."""

import math

import numpy as np
import pytest
import torch

from robolearn.robots.franka import FRANKA

pytest.importorskip("rosbags", reason="no ROS 2 and no DDS (extra ros)")
from real import ros
from real.connection import JointReader, seconds, shown, stamp_of
from real.goals import Goals

JointState = ros.interface("sensor_msgs/msg/JointState")
PoseStamped = ros.interface("geometry_msgs/msg/PoseStamped")
WIRE = {n: n.replace("panda", "fr3") for n in FRANKA.arm_joints}
NAMES = list(WIRE.values())
FUTURE_S = 0.005
AT = [0.0, 0.1, 0.2, -0.3, 0.4, 0.5, 0.6]


def joints(stamp_s: float, names=NAMES, position=None, velocity=None):
    message = JointState(name=list(names))
    message.position = AT[: len(names)] if position is None else position
    message.velocity = [0.1 * k for k in range(len(names))] if velocity is None else velocity
    message.header.stamp = stamp_of(stamp_s)
    return message


def test_joints_are_read_by_name_in_any_order():
    reader = JointReader(WIRE, FRANKA, FUTURE_S)
    order = [3, 1, 0, 2, 6, 5, 4]
    assert reader(joints(10.0, [NAMES[k] for k in order], [AT[k] for k in order], []), 10.001)
    assert reader.latest.position[:7].tolist() == AT
    assert reader.latest.velocity[:7].tolist() == [0] * 7
    assert reader.latest.stamp_s == pytest.approx(10.0)


def test_a_state_in_two_messages_is_as_old_as_its_older_half():
    reader = JointReader(WIRE, FRANKA, FUTURE_S)
    assert reader(joints(10.0, NAMES[:4]), 10.0) and reader.latest.stamp_s == -math.inf
    assert reader(joints(11.0, NAMES[4:], AT[4:]), 11.0) and reader.latest.stamp_s == pytest.approx(10.0)


def test_joints_of_others_are_skipped():
    reader = JointReader(WIRE, FRANKA, FUTURE_S)
    assert reader(joints(10.0, ["wheel", *NAMES], [99.0, *AT], [1e300] + [0.0] * 7), 10.0)
    assert reader.latest.position[:7].tolist() == AT


BAD = {
    "its arrays differ in length": joints(10.0, position=[0.0] * 6),
    "a joint is named twice": joints(10.0, [NAMES[0]] * 7),
    "none of its joints is the robot's": joints(10.0, ["wheel"]),
    "a number is not finite": joints(10.0, position=[0.0] * 6 + [math.nan]),
    "its stamp lies in the future": joints(20.0),
    "its stamp is none": joints(9.0),
    "its stamp is not newer than the last": joints(9.0),
    "a joint is where it cannot be": joints(10.0, position=[*AT[:6], 1e300]),
    "a joint is faster than it can be": joints(10.0, velocity=[-1e300] + [0.0] * 6),
}
BAD["its stamp is none"].header.stamp.nanosec = 10**9  # which would be the tenth second


@pytest.mark.parametrize("reason", BAD)
def test_what_cannot_be_used_is_counted_by_reason_and_changes_nothing(reason):
    reader = JointReader(WIRE, FRANKA, FUTURE_S)
    assert reader(joints(9.0), 9.0)
    before = reader.latest
    assert not reader(BAD[reason], 10.0)
    assert reader.refused == {reason: 1} and reader.latest is before


def test_what_is_no_number_of_another_joint_or_of_an_effort_does_no_harm():
    reader = JointReader(WIRE, FRANKA, FUTURE_S)
    message = joints(10.0, [*NAMES, "wheel"], [*AT, math.nan], [0.0] * 7 + [math.nan])
    message.effort = [math.nan] * 8
    assert reader(message, 10.0) and not reader.latest.effort.any()


def test_the_grippers_state_has_an_age_of_its_own():
    reader = JointReader(WIRE | dict(zip(FRANKA.gripper_joints, ("left", "right"), strict=True)), FRANKA, FUTURE_S)
    fingers = reader.columns(FRANKA.gripper_joints)
    assert reader(joints(10.0), 10.0) and reader.stamp_s(fingers) == -math.inf
    assert reader(joints(9.5, ["left", "right"], [0.01, 0.02]), 10.0)
    assert reader.latest.position[fingers].tolist() == [0.01, 0.02]
    assert (reader.latest.stamp_s, reader.stamp_s(fingers)) == pytest.approx((10.0, 9.5))


def test_a_message_with_a_joint_that_was_heard_of_later_is_refused():
    """Or an arm would go back in time behind a gripper that speaks rarely."""
    reader = JointReader(WIRE | dict(zip(FRANKA.gripper_joints, ("left", "right"), strict=True)), FRANKA, FUTURE_S)
    both, at = [*NAMES, "left", "right"], [*AT, 0.01, 0.01]
    assert reader(joints(9.0, both, at), 10.0) and reader(joints(10.0), 10.0)
    assert not reader(joints(9.5, both, at), 10.0)
    assert reader(joints(10.1, both, at), 10.1)


def test_of_two_robots_on_one_topic_one_is_heard():
    reader, other = JointReader(WIRE, FRANKA, FUTURE_S), [at + 0.5 for at in AT[:3]] + AT[3:]
    for k in range(100):
        mine, theirs = 10.0 + 0.004 * k, 10.002 + 0.004 * k
        assert reader(joints(mine), mine) and not reader(joints(theirs, position=other), theirs)
        assert reader.latest.position[:7].tolist() == AT
    assert reader.refused == {"a joint jumped: is this another robot's?": 100}


def test_a_robot_that_was_put_elsewhere_is_heard_again_after_the_time_of_the_way_there():
    reader, there = JointReader(WIRE, FRANKA, FUTURE_S), [0.5, *AT[1:]]
    assert reader(joints(10.0), 10.0)
    took = next(k for k in range(100) if reader(joints(10.0 + 0.001 * k, position=there), 10.0 + 0.001 * k))
    assert took == math.ceil(1e3 * (0.5 - 0.02) / (10 * 2.175))  # ms


def test_a_stamp_survives_the_way_there_and_back():
    assert seconds(stamp_of(1234.567891)) == pytest.approx(1234.567891, abs=1e-6)


def pose(xyz, quat, frame="world"):
    message = PoseStamped()
    message.header.frame_id = frame
    for part, names, values in ((message.pose.position, "xyz", xyz), (message.pose.orientation, "xyzw", quat)):
        for name, value in zip(names, values, strict=True):
            setattr(part, name, float(value))
    return message


def test_goals_are_turned_into_the_base_frame():
    half = math.sqrt(0.5)
    goals = Goals(torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, half, half]), "base", "world")  # a quarter turn to the left
    goals.set_pose("goal", pose((1.0, 3.0, 0.5), (0.0, 0.0, half, half)))
    assert np.allclose(goals.commands["goal"], [[1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0]], atol=1e-6)
    goals.set_pose("goal", pose((1.0, 3.0, 0.5), (0.0, 0.0, half, half), "base"))
    assert np.allclose(goals.commands["goal"], [[1.0, 3.0, 0.5, 0.0, 0.0, half, half]], atol=1e-6)


@pytest.mark.parametrize("bad", [pose((math.nan, 0, 0), (0, 0, 0, 1)), pose((0, 0, 0), (0, 0, 0, 0))])
def test_what_is_no_pose_leaves_the_goal_as_it_was(bad):
    goals = Goals(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), "base", "world")
    goals.set_pose("goal", pose((1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
    goals.set_pose("goal", bad)
    assert goals.commands["goal"][0, 0] == 1.0
    assert goals.refused == {"goal: no pose with a unit quaternion": 1}


def test_a_pose_in_a_frame_that_nobody_knows_is_refused():
    goals = Goals(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), "base", "table")
    goals.set_pose("goal", pose((1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), "world"))
    assert not goals.commands and goals.refused == {"goal: frame 'world' is neither base nor table": 1}


def test_a_goal_that_is_absurdly_far_away_is_refused():
    goals = Goals(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), "base", "world")
    for far in (101.0, 1e30, -1e300):
        goals.set_pose("goal", pose((0.0, far, 0.0), (0.0, 0.0, 0.0, 1.0)))
    assert not goals.commands and sum(goals.refused.values()) == 3
    goals.set_pose("goal", pose((0.0, 99.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
    assert goals.commands["goal"][0, 1] == 99.0


def test_what_others_wrote_is_shown_short_and_in_one_line():
    assert shown("a\nb") == "'a\\nb'" and len(shown("x" * 10**6)) < 70


def test_numbers_must_be_as_many_as_the_policy_reads():
    goals, numbers = (
        Goals(torch.zeros(7), "base", "world", {"height": 1}),
        ros.interface("std_msgs/msg/Float64MultiArray"),
    )
    for wrong in ([], [0.1, 0.2], [math.nan]):
        goals.set_numbers("height", numbers(data=wrong))
    assert not goals.commands and sum(goals.refused.values()) == 3
    goals.set_numbers("height", numbers(data=[0.25]))
    assert goals.commands["height"].tolist() == [[0.25]]


def test_objects_of_the_past_and_of_the_future_are_refused():
    goals = Goals(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), "base", "world")
    for stamp_s, x in ((10.0, 1.0), (9.9, 2.0), (10.0, 3.0), (11.0, 4.0)):
        message = pose((x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), "base")
        message.header.stamp = stamp_of(stamp_s)
        goals.set_object("cube", message, 10.1)
    assert goals.objects["cube"].pose[0, 0] == 1.0 and sum(goals.refused.values()) == 3


def test_reasons_for_refusal_do_not_pile_up():
    goals = Goals(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), "base", "world")
    for k in range(1000):
        goals.set_pose("goal", pose((1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), f"frame{k}"))
    assert sum(goals.refused.values()) == 1000 and len(goals.refused) < 100
