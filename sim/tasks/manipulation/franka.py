"""What the Franka tasks share: the choice of arm action, and the shape of a reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robolearn.config import ConfigError
from robolearn.spec import ActionSpec, RobotSpec
from sim.task import TaskCfg

FINE_DT_S = 1.0 / 480.0
"""For work that needs millimetres. With the hand down in the middle of the table joints 1 and 3 turn about nearly the
same axis, and their damping against each other, evaluated once in 1/240 s, lets both chatter at their limits of torque:
the largest eigenvalue of M^-1 kd dt is 2.3 there, and 2 is what is stable. The hand then swings by some 3 cm."""


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
    relative: bool = False
    """Observe and act as the hand sees it: its pose relative to where the episode began, its twist, the objects and the
    action along its axes; nothing tells which way the base faces. For tasks with objects and action=ee_delta."""
    own_commands: bool = True
    """Observe how far the joints are behind their set-points, and the last action where the task has it. Who learns
    from demonstrations had better not: they foretell the next action better than the scene does, and are copied.
    Without them things are seen from where the set-points would have the hand: from there a person's action follows,
    which behind a hand that lags it does not. For tasks with objects."""
    start_spread_rad: float = 0.1
    """With relative, of each joint where episodes begin: it takes the place of randomize.initial_joint_pos."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.start_spread_rad < math.inf:
            raise ValueError(f"task.start_spread_rad must be finite and at least 0, got {self.start_spread_rad}")
        if self.relative:
            if self.action != "ee_delta":
                raise ValueError(f"task.relative needs task.action=ee_delta, not {self.action}")
            self.randomize.initial_joint_pos = self.start_spread_rad
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
        frame = "tool" if cfg.relative else "base"
        return ActionSpec("ee_delta", names + grip, "m, rad", frame=frame, scale=steps, params=params)
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


def check_ranges(cfg: TaskCfg, names: Sequence[str], above: Mapping[str, float] | None = None) -> None:
    """Raise ValueError unless each is (low, high), finite, and more than `above` says."""
    for name in names:
        low, high = getattr(cfg, name)
        least = (above or {}).get(name, -math.inf)
        if not least < low <= high < math.inf:
            raise ValueError(f"task.{name} must be a range (low, high) above {least}, got {low}, {high}")


def check_reward(cfg: Any, kinds: tuple[str, ...]) -> None:
    """Raise ValueError for a reward that there is not; a sparse one has no weights but that of success."""
    if cfg.reward not in kinds:
        raise ValueError(f"task.reward must be {' or '.join(kinds)}, got '{cfg.reward}'")
    if cfg.reward == "sparse":
        cfg.weights = {k: v for k, v in cfg.weights.items() if k == "success"}


def success_worth(cfg: Any) -> float:
    """What a success that ends the episode counts: 1 alone; among the terms of a dense reward, each at most 1, as much
    as these can earn in an episode, or it would pay to put it off."""
    if cfg.reward == "sparse":
        return 1.0
    return cfg.episode_length_s * sum(max(v, 0.0) for k, v in cfg.weights.items() if k != "success")
