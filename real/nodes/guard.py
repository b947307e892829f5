"""The only publisher on the robot's command topics: what policy, teleoperation and learners propose reaches the driver
through here, or not at all. The rules are in real/safety/guard.py.

Topics below the robot's namespace: `guard/proposals/SOURCE` (trajectory_msgs/JointTrajectory, stamped with the state
that it was computed from), `guard/state` and `guard/owner` (std_msgs/String, latched), `guard/target`
(sensor_msgs/JointState: what was sent), `/diagnostics`. Services (std_srvs/Trigger): `guard/take/SOURCE`,
`guard/release/SOURCE`, `guard/hand_back/SOURCE` (to whom it was taken from), `guard/reset`, `guard/estop`. Parameters:
`sources` by falling priority, and `people`, those of them that are a person.

A proposal names the arm's joints, or these and the gripper's. The gripper is moved by its driver's action, within its
range and effort, by good proposals of the owner only; it keeps what it was told last whatever happens to the arm, for
what is held must not fall.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from real import ros
from real.connection import (
    NEWEST,
    SENSED,
    Header,
    JointReader,
    JointState,
    JointTrajectoryPoint,
    WrenchStamped,
    duration_of,
    seconds,
    stamp_of,
)
from real.nodes.authority import PEOPLE, AuthorityNode, read_proposal
from real.nodes.gripper import GripperClient
from real.nodes.run import run
from real.safety.guard import Answer, Decision, Guard
from real.site import Site, parameter, read_site

LAST_S = 2.0
"""The longest that it brakes when it is told to end."""
LEVELS = {"idle": 0, "active": 0, "holding": 1, "stopped": 1, "fault": 2}


class GuardNode(AuthorityNode):
    def __init__(self) -> None:
        super().__init__()
        self.site = read_site(self)
        sources = self.read_sources()
        profile, robot = self.site.profile, self.site.robot
        self.dt = 1.0 / profile.command_rate_hz
        people = tuple(parameter(self, "people", PEOPLE))
        self.guard = Guard(profile.limits, robot, sources, self.dt, profile.wrench_topic is not None, people)
        self.reader = JointReader(self.site.wire_names(), robot, profile.limits.future_s)
        self._arm = self.reader.columns(robot.arm_joints)
        self.gripper = GripperClient(self, profile.gripper, robot) if profile.gripper else None
        self._grips: list[tuple[float, float]] = []  # when, and where to
        self._followed_s: float | None = None  # stamp of the proposal that no command has used yet
        self._command = Commands(self, self.site)
        self._target = self.create_publisher(JointState, "guard/target", NEWEST)
        self.serve(profile.robot, self._command.topic, profile.state_topic)
        for source in sources:
            self.service(f"guard/hand_back/{source}", partial(self.guard.hand_back, source))
        self.create_subscription(JointState, profile.state_topic, self._on_state, SENSED)
        if profile.wrench_topic:
            self.create_subscription(WrenchStamped, profile.wrench_topic, self._on_wrench, SENSED)
        self.create_timer(self.dt, self._tick)
        self.announce("idle", ())
        self.get_logger().info(f"guards {profile.robot}: commands on {self._command.topic} at {1 / self.dt:.0f} Hz")

    # --- what comes in --------------------------------------------------------------------------------------

    def _on_state(self, message: Any) -> None:
        now_s = self.now_s()
        if self.reader(message, now_s):
            latest = self.reader.latest
            self.guard.observe(now_s, latest.position[self._arm], latest.velocity[self._arm], latest.stamp_s)

    def _on_wrench(self, message: Any) -> None:
        f, t = message.wrench.force, message.wrench.torque
        self.guard.observe_wrench(self.now_s(), (f.x, f.y, f.z, t.x, t.y, t.z), seconds(message.header.stamp))

    def on_proposal(self, source: str, message: Any) -> None:
        proposal = read_proposal(message, len(self.site.robot.joint_names))
        if isinstance(proposal, str):
            self.guard.refuse(source, proposal)
            return
        grips: list[float] = []
        if set(proposal.joint_names) & set(self._gripper_names):
            wrong, names, targets, grips = self._split(list(proposal.joint_names), proposal.targets)
            if wrong:
                self.guard.refuse(source, wrong)
                return
            proposal = dataclasses.replace(proposal, joint_names=tuple(names), targets=targets)
        if self.guard.propose(source, self.now_s(), proposal):
            stamp_s, period_s = proposal.stamp_s, proposal.period_s
            self._grips = [(stamp_s + k * period_s, grip) for k, grip in enumerate(grips)]
            self._followed_s = stamp_s

    def _split(
        self, names: list[str], rows: list[list[float]]
    ) -> tuple[str, list[str], list[list[float]], list[float]]:
        """What is wrong, or else the arm's names and targets, and the targets of the gripper's first joint."""
        count, theirs = len(self.site.robot.arm_joints), self._gripper_names
        if self.gripper is None or not self.gripper.ready():
            where = self.site.profile.gripper.action if self.site.profile.gripper else ""
            return f"there is no gripper at {where}", [], [], []
        if len(names) != count + len(theirs) or not set(theirs) <= set(names):
            return f"joints {names} are not the arm's and the gripper's"[:200], [], [], []
        first, arm = names.index(theirs[0]), [k for k, n in enumerate(names) if n not in theirs]
        grips = [float(row[first]) for row in rows]
        if not np.isfinite(grips).all():
            return "a gripper's target that is not finite", [], [], []
        return "", [names[k] for k in arm], [[row[k] for k in arm] for row in rows], grips

    @property
    def _gripper_names(self) -> tuple[str, ...]:
        gripper = self.site.profile.gripper
        return gripper.joint_names if gripper else ()

    # --- what goes out --------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = self.now_s()
        decision = self.guard.command(now_s)
        self._send(decision, now_s)
        if self._followed_s is not None:
            self.latency.add(self.now_s() - self._followed_s)
            self._followed_s = None
        self._grip(decision, now_s)
        self.announce(decision.state, decision.reasons)

    def _grip(self, decision: Decision, now_s: float) -> None:
        if self.gripper is None or not self._grips:
            return
        if decision.state != "active":
            self._grips = []
            self.gripper.stay()
            return
        due = [place for when, place in self._grips if when <= now_s]
        if due:
            self.gripper.move(due[-1])
            self._grips = self._grips[len(due) :]

    def _send(self, decision: Decision, now_s: float) -> None:
        if decision.target is None:
            return
        self._command(decision)
        names = list(self.site.profile.joint_names)
        self._target.publish(
            JointState(header=header(now_s), name=names, position=decision.target, velocity=decision.velocity)
        )

    def take(self, source: str) -> Answer:
        had, answer = self.guard.owner, super().take(source)
        if answer.ok and had is None and self.gripper:
            self.gripper.forget()
        return answer

    def report(self, reasons: Sequence[str] = ()) -> None:
        gripper, state = self.gripper.counts if self.gripper else {}, self.guard.state
        figures = {
            **self.figures(),
            **{f"joint state: {k}": n for k, n in self.reader.refused.items()},
            **{f"gripper: {k}": n for k, n in gripper.items()},
        }
        self._diagnostics(LEVELS[state], state + (f": {reasons[0]}" if reasons else ""), figures)
        self.latency.clear()

    def close(self) -> None:
        """Bring the arm to rest before the commands end."""
        self.guard.estop("the guard ends")
        until = time.monotonic() + LAST_S
        while time.monotonic() < until:
            now_s = self.now_s()
            decision = self.guard.command(now_s)
            self._send(decision, now_s)
            if decision.velocity is None or not decision.velocity.any():
                return
            time.sleep(self.dt)


class Commands:
    """A decision's target as the driver's message."""

    def __init__(self, node: GuardNode, site: Site):
        self.node, self.profile = node, site.profile
        self.topic = site.profile.command.topic
        self._type = ros.interface(site.profile.command.type)
        self._publisher = node.create_publisher(self._type, self.topic, NEWEST)
        self._make = {
            "forward_position": self._array, "joint_trajectory": self._trajectory, "cartesian_pose": self._pose,
        }[site.profile.command_interface]  # fmt: skip

    def __call__(self, decision: Decision) -> None:
        self._publisher.publish(self._make(decision))

    def _array(self, decision: Decision) -> Any:
        return self._type(data=decision.target)

    def _trajectory(self, decision: Decision) -> Any:
        ahead = duration_of(self.node.dt)
        point = JointTrajectoryPoint(positions=decision.target, velocities=decision.velocity, time_from_start=ahead)
        return self._type(joint_names=list(self.profile.joint_names), points=[point])

    def _pose(self, decision: Decision) -> Any:
        message = self._type(header=header(self.node.now_s(), self.profile.base_frame))
        pose = self.node.guard.tool_pose(decision.target)
        for part, names, values in (
            (message.pose.position, "xyz", pose[:3]),
            (message.pose.orientation, "xyzw", pose[3:]),
        ):
            for name, value in zip(names, values.tolist(), strict=True):
                setattr(part, name, value)
        return message


def header(now_s: float, frame: str = "") -> Any:
    return Header(stamp=stamp_of(now_s), frame_id=frame)


def main(args: Sequence[str] | None = None) -> int:
    return run(GuardNode, args, on_time=True)


if __name__ == "__main__":
    raise SystemExit(main())
