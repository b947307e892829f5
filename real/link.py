"""One link between a source of proposals and the robot: what it hears of the robot, its goals and the guard, and what
it proposes. The policy node and RobotEnv hang on it; so does whatever else wants to move an arm."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from real.connection import (
    LATCHED,
    NEWEST,
    SENSED,
    Header,
    JointReader,
    JointState,
    JointTrajectory,
    JointTrajectoryPoint,
    Numbers,
    PoseStamped,
    String,
    Trigger,
    duration_of,
    stamp_of,
)
from real.goals import Goals
from real.pipeline import Pipeline, joints_read_by, numbers_of, objects_of, poses_of
from real.site import Site
from robolearn.actions import Command
from robolearn.errors import ConfigError, UserError
from robolearn.spec import ObservationSpec
from robolearn.state import RobotState, SceneState

NEAR_RAD = 0.1
"""A robot is where the guard's last target is, if it is this near."""


class RobotError(UserError):
    """The robot, its guard or the network is not there, or does not do what it is told."""


class Lack(NamedTuple):
    """Why nothing can be proposed now."""

    kind: str
    text: str


class Link:
    """Topics below the node's namespace; `node` serves them."""

    def __init__(self, node: Any, site: Site, pipeline: Pipeline, source: str, others: Sequence[Pipeline] = ()):
        """`others` may be used in the pipeline's place later. Raises ConfigError for a policy that commands what this
        robot's guard does not take."""
        self.node, self.site, self.source = node, site, source
        profile, wire = site.profile, site.wire_names()
        self.reader = JointReader(wire, site.robot, profile.limits.future_s)
        self.arm = self.reader.columns(site.robot.arm_joints)
        self._lower, self._upper = (torch.tensor(site.robot.of(n, site.robot.arm_joints)) for n in ("lower", "upper"))
        sizes: dict[str, int] = {}
        for each in (*others, pipeline):
            self.use(each)
            sizes |= numbers_of(each.observation)
        self.goals = Goals(torch.tensor(site.base), profile.base_frame, site.frame, sizes)
        self.guard_state, self.owner, self.patience_s = "", "", profile.limits.stop_after_s
        self.reference: Tensor | None = None
        """(n,) rad: the guard's last target of the arm."""
        self._reference_s = -math.inf  # on the steady clock
        self._hear([p.observation for p in (pipeline, *others)])
        self._proposals = node.create_publisher(JointTrajectory, f"guard/proposals/{source}", NEWEST)
        self.take = node.create_client(Trigger, f"guard/take/{source}")
        self.release = node.create_client(Trigger, f"guard/release/{source}")
        self.hand_back = node.create_client(Trigger, f"guard/hand_back/{source}")

    def use(self, pipeline: Pipeline) -> None:
        """What is observed, and proposed, from now on. ConfigError as at the beginning."""
        wire, profile, spec = self.site.wire_names(), self.site.profile, pipeline.observation
        if pipeline.commander.mode != "position":
            raise ConfigError(f"the policy commands {pipeline.commander.mode}; the guard takes positions only")
        foreign = [n for n in pipeline.joints if n not in wire]
        if foreign:
            raise ConfigError(f"the policy moves {', '.join(foreign)}; the profile of {profile.robot} does not")
        self.pipeline, self._names = pipeline, [wire[n] for n in pipeline.joints]
        longest_s = profile.limits.hold_after_s
        self.parts = 1 if pipeline.dt <= longest_s else math.ceil(2.0 * pipeline.dt / longest_s)
        """Proposals in a period: the guard holds an arm that it hears nothing of for so long."""
        self.proposal_s = pipeline.dt / self.parts
        self._gripper = self._gripper_columns()
        self.needed = [*poses_of(spec), *numbers_of(spec)], list(objects_of(spec))

    def _gripper_columns(self) -> list[int]:
        """Those of the gripper's joints that the policy reads or moves."""
        robot = self.site.robot
        used = {robot.joint_names[i] for i in joints_read_by(self.pipeline.observation)} | set(self.pipeline.joints)
        return self.reader.columns(tuple(n for n in robot.gripper_joints if n in used))

    def _hear(self, specs: Sequence[ObservationSpec]) -> None:
        node, profile, goals = self.node, self.site.profile, self.goals
        gripper = profile.gripper
        topics = {profile.state_topic} | ({gripper.state_topic or profile.state_topic} if gripper else set())
        for topic in topics:
            node.create_subscription(JointState, topic, lambda m: self.reader(m, self.now_s()), SENSED)
        for name in dict.fromkeys(n for spec in specs for n in poses_of(spec)):
            node.create_subscription(PoseStamped, name, partial(goals.set_pose, name), LATCHED)
        for name in goals.sizes:
            node.create_subscription(Numbers, name, partial(goals.set_numbers, name), LATCHED)
        for name in dict.fromkeys(n for spec in specs for n in objects_of(spec)):
            put = partial(self._on_object, name)
            node.create_subscription(PoseStamped, f"objects/{name}", put, SENSED)
        node.create_subscription(String, "guard/state", lambda m: setattr(self, "guard_state", m.data), LATCHED)
        node.create_subscription(String, "guard/owner", lambda m: setattr(self, "owner", m.data), LATCHED)
        node.create_subscription(JointState, "guard/target", self._on_target, NEWEST)

    # --- time -----------------------------------------------------------------------------------------------

    def now_s(self) -> float:
        return 1e-9 * float(self.node.get_clock().now().nanoseconds)

    def age_s(self) -> float:
        """Of the arm's state."""
        return self.now_s() - self.reader.latest.stamp_s

    def silence_s(self) -> float:
        """Since the guard's last target; infinite before there was one."""
        return time.monotonic() - self._reference_s

    # --- what it hears --------------------------------------------------------------------------------------

    def lack(self) -> Lack | None:
        """What of the observations is missing, or too old."""
        now_s, profile = self.now_s(), self.site.profile
        age_s = now_s - self.reader.latest.stamp_s
        if not age_s <= profile.limits.state_timeout_s:
            return Lack("stale state", f"no fresh joint state on {profile.state_topic} (age {age_s:.3g} s)")
        if self._gripper and profile.gripper:
            age_s, topic = now_s - self.reader.stamp_s(self._gripper), profile.gripper.state_topic
            if not age_s <= profile.gripper.state_timeout_s:
                where = topic or profile.state_topic
                return Lack("stale gripper", f"no fresh state of the gripper on {where} (age {age_s:.3g} s)")
        lacks = [n for n in self.needed[0] if n not in self.goals.commands]
        lacks += [f"objects/{n}" for n in self.needed[1] if n not in self.goals.objects]
        if lacks:
            return Lack("no goal", f"nobody has set {', '.join(lacks)}")
        for name in self.needed[1]:
            age_s = now_s - float(self.goals.objects[name].stamp_s)
            if not age_s <= self.site.object_timeout_s:
                return Lack("stale object", f"{name} was last seen {age_s:.3g} s ago")
        return None

    def scene(self) -> SceneState:
        """Goals and objects, as they were last told."""
        return self.goals.scene()

    def state(self) -> RobotState:
        """The newest measurement."""
        latest = self.reader.latest
        joints = (torch.tensor(v, dtype=torch.float32) for v in (latest.position, latest.velocity, latest.effort))
        return self.pipeline.state(latest.stamp_s, *joints)

    def standing(self) -> Tensor:
        """(J,) set-points of a robot that stands: the guard's last target, if the arm is there; else as measured."""
        target = torch.tensor(self.reader.latest.position, dtype=torch.float32)
        if self.reference is not None and (self.reference - target[self.arm]).abs().max() < NEAR_RAD:
            target[self.arm] = self.reference
        return target

    def _on_target(self, message: Any) -> None:
        names = self.site.profile.joint_names
        if tuple(message.name) != names or len(message.position) != len(names):
            return
        target = torch.tensor(message.position, dtype=torch.float32)
        if ((target >= self._lower - NEAR_RAD) & (target <= self._upper + NEAR_RAD)).all():
            self.reference, self._reference_s = target, time.monotonic()

    def _on_object(self, name: str, message: Any) -> None:
        self.goals.set_object(name, message, self.now_s())

    # --- what it says ---------------------------------------------------------------------------------------

    def propose(self, command: Command, part: int = -1) -> None:
        """Set-points of the arm at the end of a part of the period, of the last one if not given: those between are on
        the straight line. A gripper is told what is wanted of it, for it has its own pace."""
        share, n = (part % self.parts + 1) / self.parts, len(self.arm)
        begun = self.pipeline.begun[0]
        target = begun + share * (command.target[0] - begun)
        target[n:] = command.wanted[0, n:]
        self.propose_joints(target)

    def propose_joints(self, target: Tensor) -> None:
        """Set-points of the first joints of `pipeline.joints`, `proposal_s` from the newest state."""
        ahead = duration_of(self.proposal_s)
        point = JointTrajectoryPoint(positions=target.tolist(), time_from_start=ahead)
        header = Header(stamp=stamp_of(self.reader.latest.stamp_s))
        names = self._names[: len(target)]
        self._proposals.publish(JointTrajectory(header=header, joint_names=names, points=[point]))
