"""Twin, guard and policy as processes over DDS, and a node beside them that watches and pulls the strings."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from real import ros
from real.robots.base import ArmProfile
from robolearn import bundle, config
from robolearn.spec import PolicySpec, RobotSpec

Floats = NDArray[np.float64]
DOMAINS = 100
DEEP = ros.QoSProfile(depth=5000)
LATCHED = ros.QoSProfile(depth=1, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL)
ROBOT = "franka"
SILENCE_S = 0.03
"""Without a command for so long the guard says nothing: thirty of its periods."""
SWING_RAD, SWING_RADPS = 0.2, 4.0
"""Amplitude, and angle of the phase a second: up to 0.8 rad/s."""
ELSEWHERE = (-2.4, 0.0, 2.4)
"""Of the last joint, rad: one of them is more than a radian from any two angles; the guard trusts 0.7."""

JointState = ros.interface("sensor_msgs/msg/JointState")
JointTrajectory = ros.interface("trajectory_msgs/msg/JointTrajectory")
Point = ros.interface("trajectory_msgs/msg/JointTrajectoryPoint")
PoseStamped = ros.interface("geometry_msgs/msg/PoseStamped")
String = ros.interface("std_msgs/msg/String")
Trigger = ros.interface("std_srvs/srv/Trigger")
DiagnosticArray = ros.interface("diagnostic_msgs/msg/DiagnosticArray")
Log = ros.interface("rcl_interfaces/msg/Log")


class MeasurementError(RuntimeError):
    """What should have happened did not, or not in time: there is nothing to measure."""


@dataclass
class Heard:
    """Since the last `clear`; times are on the steady clock when the message was taken, stamps in ns."""

    targets: list[tuple[float, int, Floats, Floats]] = field(default_factory=list)
    """guard/target: time, stamp, position (n,), velocity (n,)."""
    commands: list[tuple[float, Floats]] = field(default_factory=list)
    """The command topic: time, position (n,)."""
    states: list[tuple[float, str]] = field(default_factory=list)
    joints: list[tuple[float, int, Floats, Floats]] = field(default_factory=list)
    """The state topic: time, stamp, position and velocity (n,) of the arm."""
    proposals: list[tuple[float, int]] = field(default_factory=list)
    """guard/proposals/policy: time, stamp."""
    log: list[tuple[float, str, str]] = field(default_factory=list)
    """/rosout: time of the clock (not steady), node, text."""


class Stack:
    """Processes of one domain, which ROS_DOMAIN_ID names before. Only what it started is ever killed."""

    def __init__(self, folder: Path, run: Path | str, words: Sequence[str] = (), interface: str = "forward_position",
                 topics: Sequence[str] = ()):  # fmt: skip
        """`words` for every process. `topics`: to listen to these only, where listening would take the processor."""
        config.discover(["robolearn.robots", "real.robots"])
        self.robot: RobotSpec = config.entry("robot", ROBOT).value
        self.profile: ArmProfile = config.entry("profile", ROBOT).value
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()
        self.words = ["-p", f"robot:={ROBOT}", "-p", f"run:={run}", "-p", f"command_interface:={interface}", *words]
        self.heard, self.state = Heard(), ""
        self.rest = np.array(self.robot.of("default_joint_pos", self.robot.arm_joints))
        ros.init(args=["watcher"])
        self.node = ros.Node("watcher")
        self._listen(interface, topics)
        self._goal = self.node.create_publisher(PoseStamped, "goal", LATCHED)
        self._place = self.node.create_publisher(JointState, "twin/place", 10)
        self.env = self.node.create_publisher(JointTrajectory, "guard/proposals/env", 1)
        self._clients: dict[str, Any] = {}

    def _listen(self, interface: str, topics: Sequence[str]) -> None:
        from real.robots.base import COMMANDS

        command = COMMANDS[interface]  # type: ignore[index]
        for kind, topic, call, qos in (
            (JointState, "guard/target", self._on_target, DEEP),
            (ros.interface(command.type), command.topic, self._on_command, DEEP),
            (JointState, self.profile.state_topic, self._on_joints, DEEP),
            (String, "guard/state", self._on_state, LATCHED),
            (JointTrajectory, "guard/proposals/policy", self._on_proposal, DEEP),
            (Log, "/rosout", self._on_log, DEEP),
        ):
            if not topics or topic in topics:
                self.node.create_subscription(kind, topic, call, qos)

    # --- what is heard --------------------------------------------------------------------------------------

    def _on_target(self, m: Any) -> None:
        self.heard.targets.append((time.monotonic(), _ns(m.header.stamp), _array(m.position), _array(m.velocity)))

    def _on_command(self, m: Any) -> None:
        values = m.data if hasattr(m, "data") else m.points[-1].positions
        self.heard.commands.append((time.monotonic(), _array(values)))

    def _on_joints(self, m: Any) -> None:
        names = list(m.name)
        if self.profile.joint_names[0] in names:  # a gripper's driver may tell its own joints there
            arm = [names.index(n) for n in self.profile.joint_names]
            both = _array(m.position)[arm], _array(m.velocity)[arm]
            self.heard.joints.append((time.monotonic(), _ns(m.header.stamp), *both))

    def _on_state(self, m: Any) -> None:
        self.state = m.data
        self.heard.states.append((time.monotonic(), m.data))

    def _on_proposal(self, m: Any) -> None:
        self.heard.proposals.append((time.monotonic(), _ns(m.header.stamp)))

    def _on_log(self, m: Any) -> None:
        self.heard.log.append((1e-9 * _ns(m.stamp), m.name, m.msg))

    def clear(self) -> None:
        self.heard = Heard()

    def speed(self) -> float:
        """Of the commanded joint that moves fastest, rad/s."""
        return float(abs(self.heard.targets[-1][3]).max()) if self.heard.targets else 0.0

    # --- processes ------------------------------------------------------------------------------------------

    def start(self, *names: str, module: Sequence[str] = ("real.nodes.{}",), words: Sequence[str] = ()) -> None:
        """Processes of these nodes; what they print is in the folder."""
        for name in names:
            program = [part.format(name) for part in module]
            command = [sys.executable, "-m", *program, "--ros-args", *self.words, *words]
            with (self.folder / f"{name}.log").open("a") as log:
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> float:
        """Send the signal; the time before it was sent."""
        began = time.monotonic()
        os.kill(self.processes[name].pid, how)
        return began

    def end(self, *names: str) -> None:
        """As Ctrl-C does, and wait."""
        for name in names:
            self.kill(name, signal.SIGINT)
        for name in names:
            self.processes.pop(name).wait(timeout=30.0)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        ros.shutdown()

    # --- strings --------------------------------------------------------------------------------------------

    def spin(self, seconds: float = 0.01) -> None:
        ros.spin_once(self.node, timeout_sec=seconds)

    def stay(self, seconds: float) -> None:
        """Listen for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0.0:
            self.spin(left)

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
        until = time.monotonic() + timeout_s
        while not condition():
            dead = [n for n, p in self.processes.items() if p.poll() is not None and p.returncode != -signal.SIGKILL]
            if dead or time.monotonic() > until:
                tails = "".join(f"\n{n}: {(self.folder / f'{n}.log').read_text()[-500:]}" for n in self.processes)
                raise MeasurementError(f"{what}: not within {timeout_s} s{f', {dead} ended' if dead else ''}{tails}")
            self.spin()

    def call(self, name: str, timeout_s: float = 60.0) -> Any:
        """A service's answer. A call to one whose process was killed is repeated: it seems to be there for seconds."""
        client = self._clients.setdefault(name, self.node.create_client(Trigger, name))
        until = time.monotonic() + timeout_s
        while True:
            self.wait(client.service_is_ready, name, until - time.monotonic())
            future, patience = client.call_async(Trigger.Request()), time.monotonic() + 1.0
            while not future.done() and time.monotonic() < patience:
                self.spin()
            if future.done():
                return future.result()
            client.remove_pending_request(future)

    def begin(self) -> None:
        """The policy starts, and the guard follows it; again where the guard refused, which comes after the answer."""
        for _ in range(5):
            self.wait(lambda: self.call("policy/start").success, "the policy starts")
            until = time.monotonic() + 2.0
            while self.state != "active" and time.monotonic() < until:
                self.spin()
            if self.state == "active":
                return
        raise MeasurementError(f"the guard does not follow the policy: it is {self.state}")

    def set_goal(self, pose: Sequence[float]) -> None:
        """x y z (m) and a quaternion x y z w, in the base frame."""
        message = PoseStamped()
        place, turn = message.pose.position, message.pose.orientation
        place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w = map(float, pose)
        self._goal.publish(message)

    def again(self, *names: str, **how: Any) -> None:
        """Start these nodes, and wait until they are there, as their logs tell."""
        self.clear()
        signs = {
            "twin": "a simulated franka on", "guard": "guards franka", "policy": "start with the service policy/start",
        }  # fmt: skip
        self.start(*names, **how)
        for name in names:
            self.wait(lambda n=name: self.said(n, signs[n]), f"the {name} is up")  # type: ignore[misc]

    def said(self, node: str, text: str) -> bool:
        """Since the last `clear`, on /rosout."""
        return any(name == node and text in line for _, name, line in self.heard.log)

    # --- the arm --------------------------------------------------------------------------------------------

    def place(self, arm: Floats) -> None:
        """The twin's arm stands at rest at joints (n,), and so does the next owner's first target.

        The guard keeps sending its last target while the arm is near it, which would bring the arm back there. So the
        arm is first put where the guard falls silent, somebody takes authority there and gives it back, and from there
        it is put where it belongs, which is far from that.
        """
        others = [arm[-1], *(t[2][-1] for t in self.heard.targets[-1:])]
        far = arm.copy()
        far[-1] = max(ELSEWHERE, key=lambda angle: min(abs(angle - other) for other in others))
        self._put(far)
        self.wait(lambda: self.call("guard/take/env").success, "authority for env", 10.0)
        self.call("guard/release/env")
        self._put(arm)

    def _put(self, arm: Floats) -> None:
        """At once; and again when the commands that were on their way have come."""
        message = JointState(name=list(self.profile.joint_names), position=arm)
        self._place.publish(message)
        until = time.monotonic() + 5.0
        while not self._silent_at(arm):
            if time.monotonic() > until:
                raise MeasurementError("the arm cannot be placed: somebody commands it")
            self.spin(0.005)
            if self._silent():
                self._place.publish(message)
                self.stay(0.02)

    def _silent(self) -> bool:
        commands = self.heard.commands
        return not commands or time.monotonic() - commands[-1][0] > SILENCE_S

    def _silent_at(self, arm: Floats) -> bool:
        """Silent, and seen there in two states that follow each other, for the guard has seen one of them."""
        seen = self.heard.joints[-2:]
        near = len(seen) == 2 and all(abs(j[2] - arm).max() < 1e-3 for j in seen)
        return near and self._silent()


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _ns(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _array(values: Any) -> Floats:
    return np.array(values, dtype=np.float64)


@contextmanager
def domain(number: int | None = None) -> Iterator[int]:
    """A ROS_DOMAIN_ID that nobody uses who asks in the same way (the tests do), in the environment."""
    for candidate in [number] if number is not None else range(DOMAINS, 0, -1):
        with open(Path(tempfile.gettempdir()) / f"robolearn-test-domain-{candidate}", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            os.environ["ROS_DOMAIN_ID"] = str(candidate)
            yield candidate
            return
    raise SystemExit("error: no free domain")


def restless(folder: Path, rate_hz: float | None = None) -> Path:
    """A bundle whose policy, an MLP of the size that is trained, swings all joints about SWING_RAD beyond their rest
    for ever: the action, a change of the set-points, changes in proportion to their distance from there."""
    from dataclasses import replace

    from robolearn.cli import _world
    from robolearn.policies.gaussian import GaussianPolicy
    from sim.env import SimEnv

    _world.discover()
    task = config.entry("task", "franka_reach").config
    engine = config.entry("backend", "mujoco").config
    assert task is not None and engine is not None
    env = SimEnv(task(), engine(), 1)
    spec = replace(env.policy_spec(), rate_hz=rate_hz or env.policy_spec().rate_hz)
    net = {"hidden": [128, 128], "activation": "elu", "initial_std": 0.5, "min_std": 0.05}
    policy = GaussianPolicy(spec, net)
    _swing(policy, spec)
    env.close()
    return bundle.save(folder / "restless.zip", bundle.Bundle(policy, env.robot))


@torch.no_grad()
def _swing(policy: Any, spec: PolicySpec) -> None:
    """ELU is a straight line above zero: with `lift` added and taken away again the network is linear."""
    first, second, last = (policy.mean[k] for k in (0, 2, 4))
    lift, n = 10.0, spec.action.dim
    at, columns = 0, dict[str, int]()
    for term in spec.observation.terms("policy"):
        columns[term.field.name], at = at, at + term.field.size
    for layer in (first, second, last):
        layer.weight.zero_()
        layer.bias.zero_()
    pull = torch.tensor((SWING_RADPS / spec.rate_hz) ** 2) / torch.tensor(spec.action.scale)
    for j in range(n):
        first.weight[j, columns["joint_pos"] + j] = first.weight[j, columns["joint_target_error"] + j] = 1.0
        first.weight[n + j, columns["last_action"] + j] = 1.0
        last.weight[j, j], last.weight[j, n + j] = -pull[j], 1.0
        last.bias[j] = pull[j] * (lift + SWING_RAD) - lift
    first.bias[: 2 * n] = lift
    second.weight[: 2 * n, : 2 * n] = torch.eye(2 * n)
