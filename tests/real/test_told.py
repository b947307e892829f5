"""What people say beside moving the arm, each on a topic of their own."""

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
from real.env import Bool, Joy, Told


class Topics:
    """In place of a node: who is called with a topic's messages."""

    def __init__(self):
        self.calls = {}

    def create_subscription(self, kind, topic, call, qos):
        self.calls[topic] = call

    def say(self, topic, *buttons, gripper=0.0):
        self.calls[topic](Joy(axes=[0.0] * 6 + [gripper], buttons=[0, *buttons]))


def test_a_button_that_is_held_on_the_page_counts_once_beside_a_joystick_that_says_nothing():
    topics = Topics()
    told = Told(topics, ("teleop", "page"))
    for _ in range(3):
        topics.say("page/action", 1, 0, 0)
        topics.say("teleop/action", 0, 0, 0)
    assert told.read() == {"success"}
    topics.say("page/action", 1, 0, 0)  # still held
    topics.say("teleop/action", 0, 1, 0)
    assert told.read() == {"failure"}
    topics.say("page/action", 0, 0, 0)
    topics.say("page/action", 1, 0, 0, gripper=-1.0)
    assert told.read() == {"success"} and told.gripper == -1.0


def test_a_gripper_that_the_person_leaves_alone_is_where_the_policy_left_it():
    """Not where it would have gone since, nor where the person of an earlier intervention wanted it."""
    topics = Topics()
    told = Told(topics, ("teleop",))
    told.begin(1.0)
    assert told.reached(True, -0.3) == 1.0  # the hand is open, the policy's wish was not sent
    topics.say("teleop/action", 0, 0, 0, gripper=-1.0)
    assert [told.reached(True, 0.5) for _ in range(2)] == [-1.0, -1.0]
    assert told.reached(False, 0.5) == 0.5
    assert told.reached(True, -0.2) == 0.5
    topics.say("teleop/action", 0, 0, 0, gripper=1.0)
    assert told.reached(True, -0.2) == 1.0


@pytest.mark.parametrize("gripper", [float("nan"), float("inf"), 2.0])
def test_a_gripper_that_is_told_nonsense_stays_as_it_was_told_before(gripper):
    topics = Topics()
    told = Told(topics, ("page",))
    topics.say("page/action", 0, 0, 0, gripper=-1.0)
    topics.say("page/action", 0, 0, 0, gripper=gripper)
    assert told.gripper == -1.0


def test_a_pause_lasts_until_it_is_resumed():
    topics = Topics()
    told = Told(topics, ("page",))
    assert not told.paused
    for value in (True, False):
        topics.calls["page/paused"](Bool(data=value))
        assert told.paused is value
