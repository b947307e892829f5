"""The state types that a simulator and a robot both fill, so that one observation code path serves both."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from robolearn.kinematics import Chain


@dataclass
class RobotState:
    """B robots of one kind. Poses are position (m) + quaternion xyzw; velocities linear (m/s) + angular (rad/s).

    `joint_target` is the last set-point that the limits let through. `ee_pose` and `ee_vel` are those of
    RobotSpec.ee_link in the robot's base frame, from the joints by `chain`, in simulation and on hardware alike; they
    are computed when first read.
    """

    stamp_s: Tensor  # (B,) when it was measured
    joint_pos: Tensor  # (B, J) rad or m
    joint_vel: Tensor  # (B, J)
    joint_effort: Tensor  # (B, J) N m or N, as applied
    joint_target: Tensor  # (B, J)
    root_pose: Tensor  # (B, 7) in the env-local world frame
    root_vel: Tensor  # (B, 6) in the env-local world frame
    chain: Chain | None  # base to end effector; None for what has no arm

    def rows(self, ids: Tensor) -> RobotState:
        """The state of some environments."""
        picked: dict[str, Any] = {k: v[ids] for k, v in tensors_of(self).items() if not k.startswith("ee_")}
        return replace(self, **picked)

    @cached_property
    def ee_pose(self) -> Tensor:
        """(B, 7) in the base frame."""
        return self._arm.pose(self.joint_pos)

    @cached_property
    def ee_asked(self) -> Tensor:
        """(B, 7) where the set-points would have it, in the base frame."""
        return self._arm.pose(self.joint_target)

    @cached_property
    def ee_vel(self) -> Tensor:
        """(B, 6) linear, angular, in the base frame."""
        _, jacobian = self._arm.pose_and_jacobian(self.joint_pos)
        return (jacobian @ self.joint_vel[..., None]).squeeze(-1)

    @property
    def _arm(self) -> Chain:
        if self.chain is None:
            raise ValueError("this robot has no end effector; observe its base instead")
        return self.chain


@dataclass
class ObjectState:
    """A named object; on hardware `valid` is False when it is not seen, and `stamp_s` says when it last was."""

    pose: Tensor  # (B, 7) in the robot's base frame
    vel: Tensor  # (B, 6)
    stamp_s: Tensor  # (B,)
    valid: Tensor  # (B,) bool


@dataclass
class SceneState:
    """Everything around the robot that a term may read. `commands` are the task's goals by name, (B, n)."""

    objects: dict[str, ObjectState] = field(default_factory=dict)
    sensors: dict[str, Tensor] = field(default_factory=dict)
    commands: dict[str, Tensor] = field(default_factory=dict)
    _memo: dict[Hashable, Tensor] = field(default_factory=dict, repr=False)

    def rows(self, ids: Tensor) -> SceneState:
        """The state of some environments."""
        return SceneState(
            {k: ObjectState(*(t[ids] for t in tensors_of(o).values())) for k, o in self.objects.items()},
            {k: v[ids] for k, v in self.sensors.items()},
            {k: v[ids] for k, v in self.commands.items()},
        )

    def once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, remembered for the life of this state: rewards and observations often share a term."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]


def tensors_of(holder: object) -> dict[str, Tensor]:
    """The tensor attributes of an object, for a checkpoint."""
    return {k: v for k, v in vars(holder).items() if isinstance(v, Tensor)}


def put_tensors(holder: object, tensors: dict[str, Tensor]) -> None:
    """Undo `tensors_of`."""
    for name, value in tensors.items():
        setattr(holder, name, value)
