"""What a source of proposals hears of one robot, and says to its guard: topics on one side, tensors on the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from real import ros
from robolearn.rotations import quat_apply, quat_conjugate, quat_mul
from robolearn.spec import RobotSpec
from robolearn.state import ObjectState, SceneState

Floats = NDArray[np.float64]
NEWEST = ros.QoSProfile(depth=1)
LATCHED = ros.QoSProfile(depth=1, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL)
FUTURE_S = 0.1
"""A stamp further ahead than this is of another clock."""
NEAR_RAD = 0.1
"""A robot is where the guard's last target is, if it is this near."""


def seconds(stamp: Any) -> float:
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def stamp_of(time_s: float) -> Any:
    whole = math.floor(time_s)
    return ros.interface("builtin_interfaces/msg/Time")(sec=whole, nanosec=int((time_s - whole) * 1e9))


def duration_of(time_s: float) -> Any:
    return ros.Duration(seconds=time_s).to_msg()


@dataclass
class Reading:
    """Joints in the order of the robot's names; what is not measured is zero."""

    stamp_s: float
    position: Floats
    velocity: Floats
    effort: Floats


class JointReader:
    """JointState messages as readings: by name, in any order; a message may hold some of the joints only."""

    def __init__(self, wire_names: dict[str, str], robot: RobotSpec):
        """`wire_names`: the robot's joint names -> the driver's."""
        self._robot = robot
        self._column = {wire_names.get(n, n): i for i, n in enumerate(robot.joint_names)}
        self._needed = {i for i, n in enumerate(robot.joint_names) if n in robot.arm_joints}
        rest = np.array(robot.default_joint_pos)
        self.latest = Reading(-math.inf, rest, np.zeros_like(rest), np.zeros_like(rest))
        self._stamps, self._now_s = np.full(len(rest), -math.inf), -math.inf
        self.refused: dict[str, int] = {}

    def columns(self, joints: tuple[str, ...]) -> list[int]:
        """Of these joints of the robot in a reading."""
        return [self._robot.joint_names.index(n) for n in joints]

    def __call__(self, message: Any, now_s: float) -> bool:
        """Take it in; False, and counted by reason, if it cannot be used."""
        if now_s < self._now_s - FUTURE_S:
            self._stamps[:] = -math.inf  # the clock went back: all that comes would be older than these
        self._now_s = now_s
        reason = self._why_not(message, now_s)
        if reason:
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return False
        stamp = seconds(message.header.stamp)
        pairs = [(k, self._column[n]) for k, n in enumerate(message.name) if n in self._column]
        ks, ids = (list(part) for part in zip(*pairs, strict=True))
        old = self.latest
        new = Reading(old.stamp_s, old.position.copy(), old.velocity.copy(), old.effort.copy())
        for values, into in ((message.position, new.position), (message.velocity, new.velocity),
                             (message.effort, new.effort)):  # fmt: skip
            if len(values):
                into[ids] = np.asarray(values, dtype=np.float64)[ks]
        self._stamps[ids] = stamp
        new.stamp_s = float(self._stamps[list(self._needed)].min())
        self.latest = new
        return True

    def _why_not(self, message: Any, now_s: float) -> str:
        n, stamp = len(message.name), seconds(message.header.stamp)
        if len(message.position) != n or any(len(v) not in (0, n) for v in (message.velocity, message.effort)):
            return "its arrays differ in length"
        if len(set(message.name)) != n:
            return "a joint is named twice"
        ids = [self._column[name] for name in message.name if name in self._column]
        if not ids:
            return "none of its joints is the robot's"
        if not all(np.isfinite(np.asarray(v, dtype=np.float64)).all() for v in (message.position, message.velocity)):
            return "a number is not finite"
        if stamp > now_s + FUTURE_S:
            return "its stamp lies in the future"
        if stamp <= self._stamps[ids].min():
            return "its stamp is not newer than the last"
        return ""


@dataclass
class Goals:
    """Commands and objects that were set from outside, by name. Poses whose header names another frame than the base's
    are in that of `base` (7,), the robot's base in it, and are turned into the base frame."""

    base: Tensor
    base_frame: str
    commands: dict[str, Tensor] = field(default_factory=dict)
    objects: dict[str, ObjectState] = field(default_factory=dict)

    def set_pose(self, name: str, message: Any) -> None:
        pose = self._pose(message)
        if pose is not None:
            self.commands[name] = pose

    def set_numbers(self, name: str, message: Any) -> None:
        values = torch.tensor(np.asarray(message.data, dtype=np.float32))[None]
        if values.isfinite().all():
            self.commands[name] = values

    def set_object(self, name: str, message: Any) -> None:
        pose = self._pose(message)
        if pose is not None:
            stamp = torch.tensor([seconds(message.header.stamp)], dtype=torch.float64)
            self.objects[name] = ObjectState(pose, torch.zeros(1, 6), stamp, torch.ones(1, dtype=torch.bool))

    def scene(self) -> SceneState:
        return SceneState(dict(self.objects), commands=dict(self.commands))

    def _pose(self, message: Any) -> Tensor | None:
        """(1, 7) in the base frame; None for what is no pose."""
        pose = pose_of(message)
        if pose is None or message.header.frame_id in ("", self.base_frame):
            return pose
        back = quat_conjugate(self.base[None, 3:])
        return torch.cat((quat_apply(back, pose[:, :3] - self.base[:3]), quat_mul(back, pose[:, 3:])), dim=1)


def pose_of(message: Any) -> Tensor | None:
    """(1, 7) of a PoseStamped with a unit quaternion; None for anything else."""
    p, q = message.pose.position, message.pose.orientation
    pose = torch.tensor([[p.x, p.y, p.z, q.x, q.y, q.z, q.w]], dtype=torch.float32)
    length = float(pose[0, 3:].norm())
    if not (pose.isfinite().all() and abs(length - 1.0) < 1e-2):
        return None
    pose[:, 3:] /= length
    return pose
