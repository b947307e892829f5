"""10,000 bad messages at each node, on everything that it hears; participants that are lost, and nodes that are there
twice. A node lives, counts, follows nothing of it, and works on; what was lost starts nothing when it comes back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="raw bytes are written through cyclonedds (extra ros)")
pytest.importorskip("rosbags", reason="message definitions are read from rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from real import ros
from real.connection import (
    NEWEST,
    JointReader,
    JointState,
    JointTrajectory,
    JointTrajectoryPoint,
    Numbers,
    Trigger,
    WrenchStamped,
    stamp_of,
)
from real.link import Link
from real.pipeline import Pipeline
from real.site import read_site
from robolearn import bundle
from robolearn.robots.franka import FRANKA

pytestmark = pytest.mark.skipif(not hasattr(ros.Node, "spin_once"), reason="looks below the API, where rclpy is")
VANDAL = Path(__file__).parent / "vandal.py"
COUNT = 10_000
JOINTS = list(FRANKA.arm_joints)
LOW, HIGH, FASTEST = (np.array(FRANKA.of(n, FRANKA.arm_joints)) for n in ("lower", "upper", "velocity_limit"))
COMMANDS = "forward_position_controller/commands"


# --- the flood ----------------------------------------------------------------------------------------------


class Flood:
    """Bad messages for a node, thrown by a process of its own. Memory is counted from behind the longest of them on."""

    def __init__(self, stack, node, *without):
        words = [sys.executable, str(VANDAL), f"/{node}", str(COUNT), "1", *without]
        self.stack, self.node = stack, stack.processes[node]
        self.before_mb, self.calls = 0.0, 0
        stack.said.clear()
        self._out = (stack.folder / "vandal.out").open("w+")
        with (stack.folder / "vandal.log").open("w") as log:
            self.process = stack.processes["vandal"] = subprocess.Popen(words, stdout=self._out, stderr=log)

    def over(self):
        self.calls += 1
        if not self.before_mb and os.fstat(self._out.fileno()).st_size:
            self.before_mb = self.memory_mb()
        return self.process.poll() is not None

    def memory_mb(self):
        pages = int(Path(f"/proc/{self.node.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def report(self):
        assert self.process.returncode == 0, self.stack.log("vandal")[-2000:]
        self._out.seek(0)
        return json.loads(self._out.read().splitlines()[-1])


def figures(stack, name):
    """What a node says in its next diagnostics."""
    stack.said.clear()
    stack.wait(lambda: f"/{name}" in stack.said)
    return {v.key: v.value for v in stack.said[f"/{name}"].values}


def refused(values, *parts):
    """The sum of the counts whose names hold one of the parts. Of a burst a node reads the newest only."""
    found = [v.split()[0] for k, v in values.items() if any(part in k for part in parts)]
    return sum(int(n) for n in found if n.isdecimal())


def assert_it_stood_the_flood(flood, name):
    """All was thrown; the node lives, has counted most of it, said little of it and kept little of it."""
    stack, report = flood.stack, flood.report()
    assert stack.processes[name].poll() is None, stack.log(name)[-2000:]
    assert sum(report["topics"].values()) >= COUNT
    assert len(report["kinds"]) >= 16 and min(report["topics"].values()) >= 50, report
    assert report["strangers matched"] == 0  # with another type on the same topic nobody is connected
    values = figures(stack, name)
    malformed = {k.removeprefix("malformed on "): int(v) for k, v in values.items() if k.startswith("malformed on ")}
    heard = {ros_name(topic) for topic in report["topics"]}
    assert malformed.keys() <= heard | {"DDS's ports"} and len(malformed) >= 0.9 * len(heard), heard - malformed.keys()
    assert sum(malformed.values()) > 0.3 * COUNT
    assert stack.log(name).count("\n") < 300
    assert flood.memory_mb() - flood.before_mb < 30.0
    return values


def ros_name(topic):
    """Of a DDS topic: `rq/guard/estopRequest` -> `/guard/estop`."""
    ends = {"rt/": "", "rq/": "Request", "rr/": "Reply"}
    return topic[2:].removesuffix(ends[topic[:3]]) if topic[:3] in ends else topic


# --- a source of good proposals -------------------------------------------------------------------------------


class Owner:
    """Proposes as `env`, from the newest state on that can be one."""

    def __init__(self, stack):
        self.stack = stack
        self.reader = JointReader({}, FRANKA, future_s=0.005)
        stack.node.create_subscription(JointState, "joint_states", lambda m: self.reader(m, time.time()), NEWEST)
        stack.wait(lambda: self.reader.latest.stamp_s > 0.0)
        self._out = stack.node.create_publisher(JointTrajectory, "guard/proposals/env", NEWEST)
        self._take = stack.node.create_client(Trigger, "guard/take/env")
        self.takes = 0

    def take(self):
        """Ask for authority, if it has none; on a busy machine the guard may take it away."""
        if self.stack.owner() != "env" and self._take.service_is_ready():
            self._take.call_async(Trigger.Request())
            self.takes += 1

    def propose(self, target):
        point = JointTrajectoryPoint(positions=target, time_from_start=ros.Duration(seconds=0.05).to_msg())
        message = JointTrajectory(joint_names=JOINTS, points=[point])
        message.header.stamp = stamp_of(self.reader.latest.stamp_s)
        self._out.publish(message)
        self.stack.spin(0.02)

    def go(self, target):
        """Until the arm is there."""

        def arrived():
            self.take()
            self.propose(target)
            return abs(self.arm() - target).max() < 0.02

        self.stack.wait(arrived)

    def arm(self):
        return self.reader.latest.position[:7]


def arm_of(message):
    return np.array(message.position[:7])


def assert_within_limits(commands):
    places, speeds = (np.array([getattr(c, n) for c in commands]) for n in ("position", "velocity"))
    assert ((places >= LOW - 1e-9) & (places <= HIGH + 1e-9)).all() and (abs(speeds) <= FASTEST + 1e-6).all()


def ready(stack):
    stack.wait(lambda: stack.states and stack.heard["guard/state"])


def test_a_guard_without_an_owner_sends_nothing_whatever_comes(stack):
    stack.start("twin", "guard", words=["-p", "wrench_topic:=wrench"])
    ready(stack)
    raw = []
    stack.node.create_subscription(Numbers, COMMANDS, raw.append, NEWEST)
    first = arm_of(stack.states[-1])
    flood = Flood(stack, "guard")
    stack.wait(flood.over)
    values = assert_it_stood_the_flood(flood, "guard")
    assert refused(values, "unauthorised") > 100 and refused(values, "joint state: ") > 20
    assert not raw and not stack.commands
    assert set(stack.heard["guard/state"]) == {"idle"} and set(stack.heard["guard/owner"]) == {""}
    assert abs(arm_of(stack.states[-1]) - first).max() < 1e-3
    Owner(stack).go(first + 0.1)


def test_a_guard_follows_its_owner_only_whatever_else_comes(stack):
    """What is thrown asks for 0.2 rad more, if it asks for anything; the owner for 0.1 rad less."""
    stack.start("twin", "guard")
    ready(stack)
    owner, first = Owner(stack), arm_of(stack.states[-1])
    owner.go(first - 0.05)
    flood = Flood(stack, "guard", "rt/guard/proposals/env", "long")  # a second env would be an emergency

    def over():
        owner.take()
        owner.propose(first - 0.05 + 0.05 * np.sin(flood.calls / 25.0))
        return flood.over()

    stack.wait(over)
    values = assert_it_stood_the_flood(flood, "guard")
    assert refused(values, "unauthorised") > 100
    assert set(stack.heard["guard/owner"]) <= {"", "env"} and "fault" not in stack.heard["guard/state"]
    assert_within_limits(stack.commands)
    moved = np.array([c.position for c in stack.commands]) - first
    assert moved.max() < 0.01 and moved.min() > -0.11 and np.ptp(moved) > 0.08
    owner.go(first - 0.1)


def guard_is(stack, state):
    """By its diagnostics: the policy is told more of guards than is true."""
    return "/guard" in stack.said and stack.said["/guard"].message.startswith(state)


def test_a_policy_that_waits_proposes_nothing_whatever_comes(stack):
    stack.start("twin", "policy")
    proposals = []
    stack.node.create_subscription(JointTrajectory, "guard/proposals/policy", proposals.append, NEWEST)
    stack.wait(lambda: "/policy" in stack.said and stack.states)
    flood = Flood(stack, "policy")
    stack.wait(flood.over)
    values = assert_it_stood_the_flood(flood, "policy")
    assert refused(values, "goal: ") > 20 and refused(values, "its ", "a joint ", "a number ") > 20
    assert not proposals and stack.said["/policy"].message == "waits"
    stack.start("guard")
    stack.set_goal()
    stack.wait(lambda: stack.call("policy/start").success and guard_is(stack, "active") and len(proposals) > 20)


def test_a_policy_at_work_proposes_numbers_only_whatever_comes(stack):
    commands = []
    stack.node.create_subscription(Numbers, COMMANDS, commands.append, NEWEST)
    stack.fly()
    flood = Flood(stack, "policy", "rt/guard/owner", "long")  # a guard that says so may stop it

    def over():
        if guard_is(stack, "stopped"):  # a busy machine
            stack.said.clear()
            stack.call("policy/start")
        return flood.over()

    stack.wait(over)
    assert_it_stood_the_flood(flood, "policy")
    assert figures(stack, "guard")["malformed"] == "0"
    places = np.array([c.data for c in commands])
    assert ((places >= LOW) & (places <= HIGH)).all() and len(places) > 500
    stack.set_goal()
    seen = len(commands)
    stack.wait(lambda: stack.call("policy/start").success and guard_is(stack, "active"))
    stack.wait(lambda: len(commands) > seen + 100 and any(stack.commands[-1].velocity))


@pytest.mark.parametrize("interface", ["forward_position", "joint_trajectory"])
def test_a_twin_stands_where_it_stood_whatever_comes(stack, interface):
    stack.start("twin", words=["-p", f"command_interface:={interface}"])
    stack.wait(lambda: "/twin" in stack.said and stack.states)
    first = arm_of(stack.states[-1])
    flood = Flood(stack, "twin")
    stack.wait(flood.over)
    values = assert_it_stood_the_flood(flood, "twin")
    assert refused(values, "commands refused") > 20 and refused(values, "places refused") > 20
    assert max(abs(arm_of(m) - first).max() for m in stack.states[-2000:]) < 1e-3
    assert stack.call("twin/recover").success
    command(stack, interface, first + 0.1)


def command(stack, interface, target):
    """As a driver is commanded, until the arm is there."""
    kind, topic = {
        "forward_position": (Numbers, COMMANDS),
        "joint_trajectory": (JointTrajectory, "joint_trajectory_controller/joint_trajectory"),
    }[interface]
    out = stack.node.create_publisher(kind, topic, NEWEST)
    message = kind(data=target) if kind is Numbers else kind(
        joint_names=JOINTS, points=[JointTrajectoryPoint(positions=target)]
    )  # fmt: skip
    stack.wait(lambda: out.publish(message) or abs(arm_of(stack.states[-1]) - target).max() < 0.02)


def test_measurements_that_cannot_be_leave_the_guard_where_it_is(stack):
    """A second driver that says 1e300, a force sensor that says NaN: counted, and not followed."""
    stack.start("twin", "guard", words=["-p", "wrench_topic:=wrench"])
    ready(stack)
    joints = stack.node.create_publisher(JointState, "joint_states", NEWEST)
    wrench = stack.node.create_publisher(WrenchStamped, "wrench", NEWEST)
    owner, first = Owner(stack), arm_of(stack.states[-1])
    for k in range(200):
        bad = JointState(name=JOINTS, position=[1e300, *first[1:]], velocity=[0.0] * 7)
        felt = WrenchStamped()
        felt.wrench.force.x = float("nan")
        bad.header.stamp = felt.header.stamp = stack.node.get_clock().now().to_msg()
        joints.publish(bad)
        wrench.publish(felt)
        owner.take()
        owner.propose(first + 0.05 * np.sin(k / 20.0))
    values = figures(stack, "guard")
    assert refused(values, "a joint is where it cannot be") > 5 and refused(values, "malformed") > 5
    assert values["publishers of joint_states"] == "twin, watcher"
    assert stack.log("guard").count("twin, watcher all publish on joint_states") == 1
    assert abs(np.array([c.position for c in stack.commands]) - first).max() < 0.06


def test_a_target_that_no_guard_sends_is_no_reference(stack):
    """A policy would start its next episode from there."""
    node = ros.Node("learner")
    site = read_site(node, "franka")
    link = Link(node, site, Pipeline(bundle.load(stack.run).spec, site.robot), "env")
    rest = FRANKA.of("default_joint_pos", JOINTS)
    for bad in ([1e300, *rest[1:]], [-1e30, *rest[1:]], [float("nan"), *rest[1:]], rest[1:], [*rest, 0.0], []):
        link._on_target(JointState(name=JOINTS, position=list(bad)))
    link._on_target(JointState(name=JOINTS[::-1], position=list(rest)))
    assert link.reference is None
    link._on_target(JointState(name=JOINTS, position=list(rest)))
    assert link.reference.tolist() == pytest.approx(rest)


# --- lost, and there again ------------------------------------------------------------------------------------


def stands(stack, seconds):
    """Neither arm nor command moves for so long."""
    states, commands = len(stack.states), len(stack.commands)
    stack.rest(seconds)
    measured = np.array([m.position[:7] for m in stack.states[states:]])
    assert not any(np.any(c.velocity) for c in stack.commands[commands:])
    assert not len(measured) or np.ptp(measured, axis=0).max() < 2e-3
    return True


def test_a_robot_that_was_lost_stands_when_it_comes_back_until_an_explicit_start(stack):
    """Not where it was: its driver would leap to a target that the guard went on to send."""
    stack.fly()
    stack.wait(lambda: abs(arm_of(stack.commands[-1]) - FRANKA.of("default_joint_pos", JOINTS)).max() > 0.2)
    stack.kill("twin")
    stack.wait(lambda: stack.state() == "stopped" and stack.still())
    stack.rest(0.2)
    stack.states.clear()
    sent = len(stack.commands)
    stack.start("twin")
    stack.wait(lambda: stack.states)
    assert stands(stack, 3.0) and len(stack.commands) == sent and stack.state() == "stopped"
    stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")
    stack.wait(lambda: any(stack.commands[-1].velocity))


def test_a_policy_that_was_lost_moves_nothing_when_it_comes_back_until_an_explicit_start(stack):
    stack.fly()
    stack.kill("policy")
    stack.wait(lambda: stack.state() == "stopped" and stack.still())
    stack.said.clear()
    stack.start("policy")
    stack.wait(lambda: "/policy" in stack.said)
    stack.wait(
        lambda: stack.node.count_publishers("guard/proposals/policy") == 1
    )  # DDS forgets the lost one after 10 s
    assert stands(stack, 2.0) and stack.state() == "stopped"
    stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")
    assert "fault" not in stack.heard["guard/state"]


def test_a_guard_that_was_lost_comes_back_idle_and_the_policy_starts_nothing(stack):
    stack.fly()
    stack.kill("guard")
    stack.wait(lambda: "the guard was silent" in stack.log("policy"))
    stack.rest(0.5)  # the arm comes to where it was told to be
    sent = len(stack.commands)
    stack.heard["guard/state"].clear()
    stack.start("guard")
    ready(stack)
    assert stack.heard["guard/state"][0] == "idle" and stands(stack, 2.0) and len(stack.commands) == sent
    stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")


# --- there twice ----------------------------------------------------------------------------------------------


def test_two_guards_both_stop(stack):
    stack.fly()
    stack.start("guard", called="second")
    stack.wait(lambda: "guard publishes on" in stack.log("guard") and "guard publishes on" in stack.log("second"))
    stack.wait(stack.still)
    assert not stack.call("guard/take/env").success
    stack.kill("second", signal.SIGINT)
    assert stack.processes["second"].wait(timeout=20) == 0
    stack.wait(lambda: stack.call("guard/reset").success and stack.state() == "idle")
    stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")


def test_of_two_policies_none_gets_authority(stack):
    stack.start("twin", "guard", "policy")
    stack.start("policy", called="second")
    ready(stack)
    stack.wait(lambda: stack.node.count_publishers("guard/proposals/policy") == 2)
    stack.wait(lambda: stack.call("policy/start").success)
    stack.wait(lambda: "more than one node proposes as policy" in stack.log("policy") + stack.log("second"))
    stack.rest(1.0)
    assert set(stack.heard["guard/state"]) == {"idle"} and not stack.commands


def test_of_two_robots_one_is_heard(stack):
    """The second stands where the first began, and says so: nothing is sent that would move either of them."""
    stack.start("twin", "guard")
    ready(stack)
    owner, there = Owner(stack), arm_of(stack.states[-1])
    there[0] += 1.5
    owner.go(there)
    stack.start("twin", called="second", words=["-r", "forward_position_controller/commands:=nothing"])
    sent = len(stack.commands)
    stack.wait(lambda: owner.propose(there) or "twin, twin" in stack.log("guard"))
    for _ in range(100):
        owner.propose(there)
    values = figures(stack, "guard")
    assert refused(values, "joint state: a joint jumped") > 5
    assert abs(np.array([c.position for c in stack.commands[sent:]]) - there).max() < 0.02


# --- names that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-p", 'sources:=["a b"]'], "sources: 'a b' is no part of a topic's name"),
        (["-p", "state_topic:=1//x"], "state_topic: '/1//x' is no name of a topic"),
        (["-r", "__ns:=a//b"], "'/a//b' is no namespace"),
    ],
)
def test_a_name_that_is_none_ends_a_node_with_one_line(stack, words, says):
    stack.start("guard", words=words)
    assert stack.processes["guard"].wait(timeout=60) == 2
    assert says in stack.log("guard") and stack.log("guard").count("\n") == 1
