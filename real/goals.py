"""Goals and objects that a policy is told of, as tensors in the robot's base frame; read with suspicion."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from real.connection import BACK_S, seconds, shown
from robolearn.rotations import quat_apply, quat_conjugate, quat_mul
from robolearn.state import ObjectState, SceneState

log = logging.getLogger(__name__)

FARTHEST_M = 100.0
"""Of a goal or an object: no arm's policy knows what to make of more."""
KINDS = 50
"""Reasons that are told apart: a sender can think of more."""


@dataclass
class Goals:
    """Commands and objects that were set from outside, by name. Poses in the `frame` of the site's calibration are
    turned into the base frame by `base` (7,), the robot's base in it. What cannot be used is counted in `refused`."""

    base: Tensor
    base_frame: str
    frame: str
    sizes: dict[str, int] = field(default_factory=dict)
    """How many numbers a command has that is no pose."""
    commands: dict[str, Tensor] = field(default_factory=dict)
    objects: dict[str, ObjectState] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def set_pose(self, name: str, message: Any) -> None:
        pose = self._pose(name, message)
        if pose is not None:
            self.commands[name] = pose

    def set_numbers(self, name: str, message: Any) -> None:
        values, size = torch.tensor(np.asarray(message.data, dtype=np.float32))[None], self.sizes[name]
        if values.shape[1] != size:
            self._refuse(f"{name}: {values.shape[1]} numbers in place of {size}")
        elif not values.isfinite().all():
            self._refuse(f"{name}: a number is not finite")
        else:
            self.commands[name] = values

    def set_object(self, name: str, message: Any, now_s: float) -> None:
        pose, stamp_s = self._pose(name, message), seconds(message.header.stamp)
        had = self.objects.get(name)
        if pose is None:
            return
        if not stamp_s <= now_s + BACK_S:
            self._refuse(f"{name}: its stamp lies in the future")
        elif had is not None and stamp_s <= float(had.stamp_s) <= now_s + BACK_S:
            self._refuse(f"{name}: its stamp is not newer than the last")
        else:
            stamp = torch.tensor([stamp_s], dtype=torch.float64)
            self.objects[name] = ObjectState(pose, torch.zeros(1, 6), stamp, torch.ones(1, dtype=torch.bool))

    def scene(self) -> SceneState:
        return SceneState(dict(self.objects), commands=dict(self.commands))

    def _pose(self, name: str, message: Any) -> Tensor | None:
        """(1, 7) in the base frame; None for what is no pose."""
        pose, frame = pose_of(message), message.header.frame_id
        if pose is None:
            self._refuse(f"{name}: no pose with a unit quaternion")
        elif not pose[0, :3].norm() <= FARTHEST_M:
            self._refuse(f"{name}: further away than {FARTHEST_M:g} m")
            return None
        elif frame not in ("", self.base_frame, self.frame):
            self._refuse(f"{name}: frame {shown(frame)} is neither {self.base_frame} nor {self.frame}")
            return None
        if pose is None or frame != self.frame:
            return pose
        back = quat_conjugate(self.base[None, 3:])
        return torch.cat((quat_apply(back, pose[:, :3] - self.base[:3]), quat_mul(back, pose[:, 3:])), dim=1)

    def _refuse(self, why: str) -> None:
        if why not in self.refused:
            if len(self.refused) >= KINDS:
                why = "others"
            log.warning("%s; further ones are only counted", why)
        self.refused[why] = self.refused.get(why, 0) + 1


def pose_of(message: Any) -> Tensor | None:
    """(1, 7) of a PoseStamped with a unit quaternion; None for anything else."""
    p, q = message.pose.position, message.pose.orientation
    pose = torch.tensor([[p.x, p.y, p.z, q.x, q.y, q.z, q.w]], dtype=torch.float32)
    length = float(pose[0, 3:].norm())
    if not (pose.isfinite().all() and abs(length - 1.0) < 1e-2):
        return None
    pose[:, 3:] /= length
    return pose
