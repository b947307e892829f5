"""The state types that a simulator and a robot both fill, so that one observation code path serves both."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class RobotState:
    """B robots of one kind. Poses are position (m) + quaternion xyzw; velocities linear (m/s) + angular (rad/s).

    `joint_target` is the last set-point that the limits let through. `ee_*` are those of RobotSpec.ee_link in the
    robot's base frame, from the joint positions by `robolearn.kinematics`, in simulation and on hardware alike.
    """

    stamp_s: Tensor  # (B,) when it was measured
    joint_pos: Tensor  # (B, J) rad or m
    joint_vel: Tensor  # (B, J)
    joint_effort: Tensor  # (B, J) N m or N, as applied
    joint_target: Tensor  # (B, J)
    root_pose: Tensor  # (B, 7) in the env-local world frame
    root_vel: Tensor  # (B, 6) in the env-local world frame
    ee_pose: Tensor  # (B, 7) in the base frame
    ee_vel: Tensor  # (B, 6) in the base frame


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


def tensors_of(holder: object) -> dict[str, Tensor]:
    """The tensor attributes of an object, for a checkpoint."""
    return {k: v for k, v in vars(holder).items() if isinstance(v, Tensor)}


def put_tensors(holder: object, tensors: dict[str, Tensor]) -> None:
    """Undo `tensors_of`."""
    for name, value in tensors.items():
        setattr(holder, name, value)
