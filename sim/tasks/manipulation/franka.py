"""What the Franka tasks share: the choice of arm action, and the shape of a reward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robolearn.config import ConfigError
from robolearn.spec import ActionSpec, RobotSpec
from sim.task import TaskCfg


@dataclass
class FrankaCfg(TaskCfg):
    decimation: int = 12
    action: str = "joint_position_delta"
    """Or joint_position (about the default posture), or ee_delta (by differential IK)."""
    joint_step_rad: float = 0.06
    """joint_position_delta: what one means."""
    joint_range_rad: float = 0.7
    """joint_position: what one means."""
    ee_step_m: float = 0.04
    ee_step_rad: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("joint_step_rad", "joint_range_rad", "ee_step_m", "ee_step_rad"):
            demand_positive(self, name)


def demand_positive(cfg: TaskCfg, name: str) -> None:
    if not 0.0 < getattr(cfg, name) < math.inf:
        raise ValueError(f"task.{name} must be positive, got {getattr(cfg, name)}")


def arm_action(cfg: FrankaCfg, robot: RobotSpec, gripper: bool = False) -> ActionSpec:
    """The configured action of the arm; with `gripper`, its last number opens (+1) and closes (-1) the hand."""
    joints, params = robot.arm_joints, gripper_params(robot) if gripper else {}
    grip = ("gripper",) if gripper else ()
    if cfg.action == "ee_delta":
        names, steps = ("x", "y", "z", "rx", "ry", "rz"), (cfg.ee_step_m,) * 3 + (cfg.ee_step_rad,) * 3
        return ActionSpec("ee_delta", names + grip, "m, rad", frame="base", scale=steps, params=params)
    ranges = {"joint_position_delta": cfg.joint_step_rad, "joint_position": cfg.joint_range_rad}
    if cfg.action in ranges:
        scale = (ranges[cfg.action],) * len(joints)
        return ActionSpec(cfg.action, joints + grip, "rad", scale=scale, params=params)
    raise ConfigError(
        f"no action '{cfg.action}' for {cfg.name}; there are joint_position_delta, joint_position, ee_delta"
    )


def gripper_params(robot: RobotSpec) -> dict[str, Any]:
    """A hand that is closed at its joints' lower limits."""
    joints = robot.gripper_joints
    closed, opened = list(robot.of("lower", joints)), list(robot.of("upper", joints))
    return {"gripper": {"joints": list(joints), "closed": closed, "open": opened}}


def nearness(error: Tensor, scale: float) -> Tensor:
    """One at zero error, 0.24 at `scale`: 1 - tanh(error / scale)."""
    return 1.0 - (error / scale).tanh()
