"""A person with a joystick, as messages over DDS, before twin, guard and policy as processes of their own."""

import itertools
import os
import time

import numpy as np
import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
import torch

from real import ros
from real.connection import LATCHED, NEWEST, SENSED, String
from real.ros.qos import QoSProfile
from real.teleop.evdev import EVENT
from robolearn.kinematics import Chain
from robolearn.robots.franka import FRANKA
from robolearn.rotations import pose_difference

Joy = ros.interface("sensor_msgs/msg/Joy")
PERIOD_S, TRIES = 0.02, 5
WORDS = ["-p", "devices:=[joy]", "-p", "joy.timeout_s:=1.0"]  # the machine of tests is busy
CHAIN = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.arm_joints)
LATE = "joy: silence"


class Person:
    """A Joy publisher beside the stack's watcher: what it holds is sent as long as the stack is waited for."""

    def __init__(self, stack):
        self.stack, self.axes, self.buttons, self.speaks = stack, [0.0] * 8, [0] * 11, True
        self.actions, self.owners = [], []
        node = stack.node
        self._out = node.create_publisher(Joy, "joy", QoSProfile(depth=1))
        node.create_subscription(Joy, "teleop/action", self.actions.append, QoSProfile(depth=1000))
        node.create_subscription(String, "teleop/owner", lambda m: self.owners.append(m.data), LATCHED)
        node.create_timer(PERIOD_S, self._speak)

    def _speak(self):
        if self.speaks:
            self._out.publish(Joy(axes=self.axes, buttons=self.buttons))

    def push(self, axis=None, value=1.0, button=None):
        """Nothing: let go of all."""
        self.axes, self.buttons = [0.0] * 8, [0] * 11
        if axis is not None:
            self.axes[axis] = value
        if button is not None:
            self.buttons[button] = 1

    def seize(self, axis=4, button=None):
        """The arm, by pushing upwards; again where a busy machine lets it be taken away."""
        for _ in range(TRIES):
            self.push()
            self.stack.rest(0.3)
            self.push(axis, button=button)
            if self.within_s(15.0, lambda: self.owner() == "teleop" and self.stack.state() == "active"):
                return
        pytest.fail(f"never in control; {self.stack.log('teleop')[-1000:]}")

    def seize_from_policy(self, axis=4, button=None):
        """As `seize`, from a policy that is at work."""
        for _ in range(TRIES):
            self.stack.wait(lambda: self.stack.call("policy/start").success and self.stack.state() == "active")
            self.seize(axis, button)
            if [who for who, _ in itertools.groupby(self.stack.heard["guard/owner"])][-2:] == ["policy", "teleop"]:
                return
            self.push()
            self.stack.wait(lambda: self.owner() == "")
        pytest.fail(f"the policy was never at work; {self.stack.log('policy')[-1000:]}")

    def within_s(self, seconds, condition):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self.stack.spin()
        return condition()

    def owner(self):
        return self.stack.owner()

    def tool(self):
        arm = [list(self.stack.states[-1].name).index(n) for n in FRANKA.arm_joints]
        return CHAIN.pose(torch.tensor([[self.stack.states[-1].position[i] for i in arm]], dtype=torch.float32))[0]

    def edges(self):
        """(action, in control) where that changes."""
        held = [m.buttons[0] for m in self.actions]
        return [k for k in range(1, len(held)) if held[k] != held[k - 1]]


@pytest.fixture
def person(stack):
    return Person(stack)


def begin(stack, person, *others, words=WORDS):
    stack.start("twin", "guard", *others)
    stack.start("teleop", words=words)
    stack.wait(lambda: stack.states and stack.heard["guard/state"] and len(person.actions) > 5)


def test_a_push_takes_the_arm_moves_the_tool_that_way_and_letting_go_leaves_it_at_rest(stack, person):
    begin(stack, person)
    start = person.tool()
    assert stack.state() == "idle" and not stack.commands
    person.push(4, 1.0)  # right stick: up
    stack.wait(lambda: person.tool()[2] > start[2] + 0.05)
    assert person.owner() == "teleop" and stack.state() == "active" and person.owners[-1] == "joy"
    moved = pose_difference(start, person.tool())
    assert moved[:2].abs().max() < 0.02 and moved[3:].abs().max() < 0.05  # up only
    person.push()
    stack.wait(lambda: stack.at_rest() and person.owners[-1] == "")
    first, last, *_ = person.edges()
    during = person.actions[first:last]
    stamps = [1e9 * m.header.stamp.sec + m.header.stamp.nanosec for m in during]
    assert len(during) > 10 and stamps == sorted(stamps) and during[0].header.frame_id == "base"
    up = np.array([m.axes for m in during])
    assert up.shape[1] == 7 and 0.9 < up[:, 2].max() < 1.2  # while joints speed up each at its own limit
    assert not up[:, 6].any()  # the gripper was left alone
    fastest = max(abs(np.array(c.velocity)).max() for c in stack.commands)
    assert 0.0 < fastest < 1.0  # 0.1 m/s, and never more than asked for by much


def test_a_person_takes_over_from_a_policy_hands_back_and_no_command_jumps(stack, person):
    begin(stack, person, "policy")
    for _ in range(TRIES):
        stack.wait(
            lambda: stack.call("policy/start").success and stack.state() == "active" and len(stack.commands) > 10
        )
        person.seize()
        if person.owner() == "teleop":
            assert not stack.call("guard/take/policy").success  # never over a person
        person.push()
        stack.wait(lambda: person.owner() != "teleop")
        if person.owner() == "policy":
            break
    assert stack.heard["guard/owner"][-2:] == ["teleop", "policy"]
    stack.wait(lambda: "waits until it is handed back" in stack.log("policy") and "goes on" in stack.log("policy"))
    assert stack.call("policy/stop").success
    stack.wait(lambda: person.owner() == "" and stack.still())
    limit = np.array(FRANKA.of("acceleration_limit", FRANKA.arm_joints))
    for a, b in zip(stack.commands, stack.commands[1:], strict=False):
        dt = 1e-9 * (1e9 * (b.header.stamp.sec - a.header.stamp.sec) + b.header.stamp.nanosec - a.header.stamp.nanosec)
        step = np.array(b.position) - np.array(a.position)
        assert (abs(step) <= 3.0 * 0.03).all()  # by the fastest joint in 30 ms
        if dt < 0.02:  # none was lost between them
            assert (abs(np.array(b.velocity) - np.array(a.velocity)) <= 2.5 * limit * 0.02).all()


def test_a_policy_that_is_stopped_while_a_person_has_the_arm_does_not_get_it_back(stack, person):
    begin(stack, person, "policy")
    person.seize_from_policy(axis=None, button=4)  # and stand
    count = len(stack.heard["guard/owner"])
    assert stack.call("policy/stop").success
    stack.rest(0.5)  # until the guard has heard of it
    person.push()
    stack.wait(stack.at_rest)
    assert set(stack.heard["guard/owner"][count:]) <= {"teleop", ""}  # never the policy


def test_a_teleop_node_that_dies_leaves_the_arm_at_rest_with_nobody_in_authority(stack, person):
    begin(stack, person, "policy")
    person.seize_from_policy()
    stack.kill("teleop")
    stack.wait(lambda: stack.state() == "stopped" and person.owner() == "" and stack.still())
    stack.wait(lambda: "gave authority to nobody" in stack.log("policy"))  # it does not go on by itself
    stack.rest(0.5)
    assert stack.state() == "stopped" and stack.still()


def test_a_device_that_falls_silent_in_control_is_lost_and_hands_nothing_back(stack, person):
    begin(stack, person, "policy")
    person.seize_from_policy()
    count, person.speaks = len(stack.heard["guard/owner"]), False
    stack.wait(lambda: stack.at_rest() and LATE in stack.log("teleop"))
    assert "policy" not in stack.heard["guard/owner"][count:]
    assert "lost: nobody is in control" in stack.log("teleop")
    person.speaks = True  # it comes back deflected: that is no take-over
    stack.wait(lambda: "joy is there" in stack.log("teleop").split(LATE)[-1])
    stack.rest(0.5)
    assert stack.at_rest()
    person.seize()


def test_numbers_that_are_none_let_go(stack, person):
    begin(stack, person)
    person.seize()
    person.push(4, float("nan"))
    stack.wait(lambda: person.owner() == "" and stack.still())
    assert "nan" in stack.log("teleop") and "is the driver on joy alright?" in stack.log("teleop")


def test_the_stop_button_is_an_emergency_stop_from_the_arm_at_rest_too(stack, person):
    begin(stack, person)
    person.push(button=1)
    stack.wait(lambda: stack.state() == "fault")
    person.push()
    stack.rest(0.2)
    person.push(4, 1.0)
    stack.wait(lambda: "fault (emergency stop): reset first" in stack.log("teleop"))
    assert stack.state() == "fault" and person.owner() == ""


def test_a_stop_button_that_is_stuck_hides_no_other_device_s(stack, person, tmp_path):
    path = tmp_path / "keyboard"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a writer waits for one
    keys = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    words = ["-p", "devices:=[joy, keyboard]", "-p", "joy.timeout_s:=1.0", "-p", f"keyboard.path:={path}"]
    begin(stack, person, words=words)
    os.close(reader)
    person.push(button=1)  # and never let go
    stack.wait(lambda: stack.state() == "fault")
    stack.wait(lambda: stack.call("guard/reset").success and stack.state() == "idle")
    stack.rest(1.0)
    assert stack.state() == "idle"
    os.write(keys, EVENT.pack(0, 0, 1, 1, 1) + EVENT.pack(0, 0, 0, 0, 0))  # escape goes down
    stack.wait(lambda: stack.state() == "fault")
    os.close(keys)


def test_after_the_guard_has_taken_it_away_who_still_pushes_must_let_go_first(stack, person):
    begin(stack, person)
    person.seize()
    assert stack.call("guard/estop").success
    stack.wait(lambda: "the guard gave authority to nobody" in stack.log("teleop") and stack.still())
    assert stack.call("guard/reset").success
    stack.rest(0.5)
    assert stack.state() == "idle" and person.owner() == ""  # a reset starts nothing
    person.seize()


def test_the_gripper_moves_when_it_is_told_and_only_then(stack, person):
    begin(stack, person)
    stack.wait(lambda: person.actions)
    grip = {}

    def width():
        for state in stack.states[-5:]:
            grip.update(zip(state.name, state.position, strict=False))
        return grip.get("panda_finger_joint1", 0.035)

    from real.connection import JointState

    stack.node.create_subscription(JointState, "panda_gripper/joint_states", stack.states.append, SENSED)
    person.push(button=0)
    stack.wait(lambda: width() < 0.005)
    person.push()
    stack.wait(lambda: person.owner() == "")
    stack.rest(0.3)
    assert width() < 0.005


def test_two_people_at_once_the_second_is_told_who_has_the_arm(stack, person):
    both = ["-p", "sources:=[teleop, page, policy]"]
    stack.start("twin", "guard", words=both)
    stack.start("teleop", words=WORDS)
    second = ["-p", "source:=page", "-p", "joy.topic:=joy2", "-r", "__node:=teleop2", "-r", "teleop/action:=action2"]
    stack.start("teleop", words=[*WORDS, *second, "-r", "teleop/owner:=owner2"], called="page")
    other = Person.__new__(Person)
    out = stack.node.create_publisher(Joy, "joy2", NEWEST)
    other.axes = [0.0] * 8
    stack.node.create_timer(PERIOD_S, lambda: out.publish(Joy(axes=other.axes, buttons=[0] * 11)))
    stack.wait(lambda: stack.states and len(person.actions) > 5 and "joy is there" in stack.log("page"))
    other.axes[4] = 1.0
    stack.wait(lambda: person.owner() == "page" and stack.state() == "active")
    person.push(4, 1.0)  # of higher priority
    stack.wait(lambda: "page has authority, a person as teleop is" in stack.log("teleop"))
    assert person.owner() == "page" and stack.state() == "active"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-p", "devices:=[gamepad]", "-p", "gamepad.path:=/dev/nothing"], "no device at /dev/nothing"),
        (["-p", "devices:=[gamepat]"], "did you mean gamepad"),
        (["-p", "devices:=[joy]", "-p", "rate_hz:=5.0"], "rate_hz must be at least 12.5"),
        (["-p", "devices:=[joy]", "-p", "frame:=hand"], "frame must be base or tool"),
        (["-p", "devices:=[joy]", "-p", "takeover.below:=0.5"], "0 < below < above < 1"),
        (["-p", "devices:=[joy, joy]"], "none twice"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(stack, words, reason):
    stack.start("teleop", words=words)
    assert stack.processes["teleop"].wait(timeout=60) in (1, 2)
    assert "Traceback" not in stack.log("teleop") and reason in stack.log("teleop")
