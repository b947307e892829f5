"""A node beside twin, guard and policy that hears what they say, and puts the twin's arm where an episode starts. It
starts no process and proposes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from real import ros
from real.connection import LATCHED, DiagnosticArray, JointState, JointTrajectory, PoseStamped, String
from real.listener import Listener, Stamp, TrialError, nanoseconds
from real.robots.base import ArmProfile

Floats = NDArray[np.float64]
EVERY = ros.QoSProfile(depth=5000)
SILENCE_S = 0.03
"""Without a target for so long the guard says nothing: many of its periods."""
ELSEWHERE = (-2.4, 0.0, 2.4)
"""Of the last joint, rad: one of them is more than a radian from any two angles; the guard trusts 0.7."""

START_S = 20.0
"""In which a policy that is asked again and again has to start."""


class Motion(NamedTuple):
    """A target of the guard, or a measured state of the arm."""

    at_s: float
    """On the steady clock, when it was taken from the wire."""
    stamp_ns: int
    position: Floats
    velocity: Floats


@dataclass
class Heard:
    """Since the last `clear`."""

    targets: list[Motion] = field(default_factory=list)
    joints: list[Motion] = field(default_factory=list)
    proposals: list[Stamp] = field(default_factory=list)
    states: list[tuple[float, str]] = field(default_factory=list)
    """The guard's, and when (steady clock)."""


class Watcher(Listener):
    """Of an arm."""

    def __init__(self, profile: ArmProfile, goals: Sequence[str], trouble: Callable[[], str] = str):
        """`goals`: names of the poses that the policy reads. `trouble` says why there is nothing to wait for, if so."""
        super().__init__("watcher", trouble)
        self.profile, self.heard, self.state = profile, Heard(), ""
        self._arm = list(profile.joint_names)
        self.counts: dict[str, int] = {}
        """`NODE: KEY` -> number, from the diagnostics; as of their last second."""
        node = self.node
        node.create_subscription(JointState, "guard/target", self._on_target, EVERY)
        node.create_subscription(JointState, profile.state_topic, self._on_joints, EVERY)
        node.create_subscription(JointTrajectory, "guard/proposals/policy", self._on_proposal, EVERY)
        node.create_subscription(String, "guard/state", self._on_state, LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._goals = {name: node.create_publisher(PoseStamped, name, LATCHED) for name in goals}
        self._place = node.create_publisher(JointState, "twin/place", 10)

    # --- what is heard --------------------------------------------------------------------------------------

    def _on_target(self, message: Any) -> None:
        self.heard.targets.append(self._motion(message, slice(None)))

    def _on_joints(self, message: Any) -> None:
        names = list(message.name)
        if self._arm[0] in names:  # a gripper's driver may tell its own joints there
            self.heard.joints.append(self._motion(message, [names.index(n) for n in self._arm]))

    def _motion(self, message: Any, columns: Any) -> Motion:
        rows = (np.array(v, dtype=np.float64)[columns] for v in (message.position, message.velocity))
        return Motion(time.monotonic(), nanoseconds(message.header.stamp), *rows)

    def _on_proposal(self, message: Any) -> None:
        self.heard.proposals.append(Stamp(time.monotonic(), nanoseconds(message.header.stamp)))

    def _on_state(self, message: Any) -> None:
        self.state = message.data
        self.heard.states.append((time.monotonic(), message.data))

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            for value in status.values:
                number = value.value.partition(" ")[0]  # the guard tells the last value after it
                if number.isdecimal():
                    self.counts[f"{status.name.strip('/')}: {value.key}"] = int(number)

    def clear(self) -> None:
        self.heard = Heard()

    def speed(self) -> float:
        """Of the commanded joint that moves fastest, rad/s."""
        return float(abs(self.heard.targets[-1].velocity).max()) if self.heard.targets else 0.0

    def state_period_s(self) -> float:
        """Between two states of the arm, as it stamps them: the median."""
        return float(np.median(np.diff([1e-9 * j.stamp_ns for j in self.heard.joints])))

    # --- strings --------------------------------------------------------------------------------------------

    def await_all(self) -> None:
        """Until twin, guard and policy are there."""
        self.wait(lambda: self.heard.joints, "the arm's first joint state")
        self.wait(lambda: self.state, "the guard's first state")
        self.call("policy/stop")

    def halt(self) -> None:
        """The policy has no authority, and the guard's target is at rest."""
        self.demand("policy/stop")
        self.wait(lambda: self.state != "active" and self.speed() == 0.0, "the arm stops", 10.0)

    def set_goal(self, name: str, pose: Sequence[float]) -> None:
        """x y z (m) and a quaternion x y z w, in the base frame."""
        message = PoseStamped()
        place, turn = message.pose.position, message.pose.orientation
        place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w = map(float, pose)
        self._goals[name].publish(message)

    def place(self, arm: Floats) -> None:
        """The twin's arm stands at rest at joints (n,), and so does the next owner's first target.

        The guard keeps sending its last target while the arm is near it, which would bring the arm back there. So the
        arm is first put where the guard falls silent, somebody takes authority there and gives it back, and from there
        it is put where it belongs, which is far from that.
        """
        others = [arm[-1], *(t.position[-1] for t in self.heard.targets[-1:])]
        far = arm.copy()
        far[-1] = max(ELSEWHERE, key=lambda angle: min(abs(angle - other) for other in others))
        self._put(far)
        self.demand("guard/take/env")
        self.call("guard/release/env")  # refused where the guard has stopped meanwhile, which will do too
        self._put(arm)

    def _put(self, arm: Floats) -> None:
        """At once; and again when the commands that were on their way have come."""
        message = JointState(name=self._arm, position=arm)
        self._place.publish(message)
        until = time.monotonic() + 5.0
        while not self._silent_at(arm):
            if time.monotonic() > until:
                raise TrialError("the arm cannot be placed: somebody commands it")
            self.spin(0.005)
            if self._silent():
                self._place.publish(message)
                self.stay(0.02)
        self.stay(1.25 * self.profile.limits.state_timeout_s)  # who does not believe the jump yet knows no fresh state

    def _silent(self) -> bool:
        targets = self.heard.targets
        return not targets or time.monotonic() - targets[-1].at_s > SILENCE_S

    def _silent_at(self, arm: Floats) -> bool:
        """Silent, and seen there in two states that follow each other, for the guard has seen one of them."""
        seen = self.heard.joints[-2:]
        near = len(seen) == 2 and all(abs(j.position - arm).max() < 1e-3 for j in seen)
        return near and self._silent()

    def begin(self, start: Floats, goals: Mapping[str, Sequence[float]]) -> None:
        """An episode, from joints (n,) at rest to goals (7,) by name, until its first proposal; nothing of the time
        before is kept."""
        self.halt()
        for name, pose in goals.items():
            self.set_goal(name, pose)
        self.place(start)
        self.clear()
        until = time.monotonic() + START_S
        while not self.heard.proposals:
            if time.monotonic() > until:
                raise TrialError(f"the policy proposes nothing, {START_S:g} s after policy/start; the log says why")
            self.demand("policy/start")  # again, for the guard may have refused it
            patience_s = time.monotonic() + 1.0
            while not self.heard.proposals and time.monotonic() < patience_s:
                self.spin()
