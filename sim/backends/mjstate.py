"""What the two engines that run MuJoCo's models share: reading and writing qpos and qvel, whose order is wxyz."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from robolearn.rotations import quat_apply, quat_conjugate
from sim.backends.base import Backend
from sim.backends.mjcontrol import Slots, Targets

EXPLODED = 1e6  # rad, m or their rates: no robot moves so


class MujocoState(Backend):
    """`_qpos` (B, nq) and `_qvel` (B, nv) are views of the engine's state."""

    _qpos: Tensor
    _qvel: Tensor
    _slots: dict[str, Slots]
    _targets: Targets

    def _remember_fixed(self) -> None:
        """The poses of what never moves."""
        things: dict[str, Any] = {**self.scene.robots, **self.scene.objects}
        poses = {n: torch.tensor(thing.pose, device=self.device) for n, thing in things.items()}
        self._fixed = {n: pose.expand(self.num_envs, 7) for n, pose in poses.items()}
        self._still = torch.zeros(self.num_envs, 6, device=self.device)

    def _is_fixed(self, asset: str) -> bool:
        return asset in self.scene.robots or self.scene.objects[asset].fixed

    def joint_pos(self, asset: str) -> Tensor:
        return self._qpos[:, self._slots[asset].qpos].float()

    def joint_vel(self, asset: str) -> Tensor:
        return self._qvel[:, self._slots[asset].qvel].float()

    def pose(self, asset: str) -> Tensor:
        if self._is_fixed(asset):
            return self._fixed[asset]
        q = self._qpos[:, self._slots[asset].qpos].float()
        return torch.cat((q[:, :3], q[:, 4:], q[:, 3:4]), dim=1)

    def velocity(self, asset: str) -> Tensor:
        if self._is_fixed(asset):
            return self._still
        v = self._qvel[:, self._slots[asset].qvel].float()  # MuJoCo: linear in the world, angular in the body
        return torch.cat((v[:, :3], quat_apply(self.pose(asset)[:, 3:], v[:, 3:])), dim=1)

    def write_joints(self, asset: str, position: Tensor, velocity: Tensor, mask: Tensor) -> None:
        slots = self._slots[asset]
        _put(self._qpos, slots.qpos, position, mask)
        _put(self._qvel, slots.qvel, velocity, mask)
        self._targets.rest(asset, position, mask)
        self._cold_start(mask)

    def write_pose(self, asset: str, pose: Tensor, velocity: Tensor, mask: Tensor) -> None:
        slots = self._slots[asset]
        _put(self._qpos, slots.qpos, torch.cat((pose[:, :3], pose[:, 6:], pose[:, 3:6]), dim=1), mask)
        angular = quat_apply(quat_conjugate(pose[:, 3:]), velocity[:, 3:])
        _put(self._qvel, slots.qvel, torch.cat((velocity[:, :3], angular), dim=1), mask)
        self._cold_start(mask)

    @abstractmethod
    def _cold_start(self, mask: Tensor) -> None:
        """Nothing of what was before a write is left in the solver or in the sensors."""


def _put(rows: Tensor, columns: Any, value: Tensor, mask: Tensor) -> None:
    rows[:, columns] = torch.where(mask[:, None], value.to(rows.dtype), rows[:, columns])
