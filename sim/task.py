"""What a task is: a scene, what is observed and commanded, rewards and ends, in batched torch for every engine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robolearn import config
from robolearn.env import Env
from robolearn.spec import ActionSpec, ObservationSpec, RobotSpec
from robolearn.state import RobotState, SceneState
from sim.backends.base import Backend, BackendCfg
from sim.experts import Expert
from sim.randomize import RandomizeCfg
from sim.scene import SceneCfg


@dataclass
class TaskCfg:
    name: str = "???"
    episode_length_s: float = 3.0
    physics_dt_s: float = 1.0 / 240.0
    decimation: int = 8
    """Physics sub-steps a control period; the policy's rate is 1 / (physics_dt_s * decimation)."""
    randomize: RandomizeCfg = field(default_factory=RandomizeCfg)
    weights: dict[str, float] = field(default_factory=dict)
    """What each reward term counts, per second; a term that is not named counts once."""

    def __post_init__(self) -> None:
        in_order = 0.0 < self.physics_dt_s < math.inf and self.step_dt_s <= self.episode_length_s < math.inf
        if self.decimation < 1 or not in_order:
            raise ValueError("a task needs decimation >= 1, physics_dt_s > 0 and at least one period an episode")

    @property
    def step_dt_s(self) -> float:
        return self.physics_dt_s * self.decimation


@dataclass(frozen=True)
class ActionState:
    """What was asked for and what came of it, (B, A) each, in the policy's units."""

    commanded: Tensor
    """As it came out of the delay, inside the action's bounds: what the limits then left of it is `applied`."""
    applied: Tensor
    previous: Tensor
    """Applied, one period earlier."""


class Task(ABC):
    """The hooks of one task. Tensors are (B, ...); what a hook needs it takes as arguments.

    `metrics` must hold `success` (B,) bool; everything else in it carries its unit in the name and is reported by
    evaluation as it is at an episode's last step.
    """

    asset = "robot"
    camera = "view"
    instruction = ""
    """What is to be done, in words, as a person would tell the robot; the task's name if it is empty."""

    def __init__(self, cfg: TaskCfg, robot: str):
        self.cfg = cfg
        self.robot: RobotSpec = config.entry("robot", robot).value

    @classmethod
    def fast_env(cls, cfg: TaskCfg, backend: BackendCfg, *args: Any) -> Env | None:
        """An Env that does the same as `SimEnv(cfg, backend, *args)` in less time; None where there is none."""
        return None

    def rest(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Joint positions (J,) about which episodes start, and the set-points there: a hand that holds something has
        closed further than its fingers can go."""
        return self.robot.default_joint_pos, self.robot.default_joint_pos

    def expert(self, num_envs: int, device: torch.device, noise: float, generator: torch.Generator) -> Expert:
        """Whoever can do the task without learning. ConfigError where nobody can."""
        raise config.ConfigError(f"task {self.cfg.name} has no scripted expert; take a trained policy (run=RUN; in "
                                 "`robolearn collect` policy=run:RUN) or another task")  # fmt: skip

    @abstractmethod
    def scene(self) -> SceneCfg: ...

    @abstractmethod
    def observation_spec(self) -> ObservationSpec: ...

    @abstractmethod
    def action_spec(self) -> ActionSpec: ...

    def setup(self, backend: Backend, generator: torch.Generator) -> None:  # noqa: B027 - often nothing to do
        """Allocate the task's own state, once, after the build."""

    def reset(self, backend: Backend, mask: Tensor, generator: torch.Generator) -> None:  # noqa: B027 - likewise
        """Draw goals and place objects for the masked environments; the robot already stands at its start."""

    def advance(self, backend: Backend) -> None:  # noqa: B027 - goals that stand still
        """A period of physics is over: move goals, count; before anything of the period is read."""

    def scene_state(self, backend: Backend) -> SceneState:
        """What terms may read of the world besides the robot: objects, sensors, and the task's commands."""
        return SceneState()

    @abstractmethod
    def rewards(self, robot: RobotState, scene: SceneState, action: ActionState) -> dict[str, Tensor]:
        """Terms by name, (B,) each; the environment multiplies them by `cfg.weights` and by the period."""

    @abstractmethod
    def terminated(self, robot: RobotState, scene: SceneState) -> Tensor:
        """(B,) bool: the episode ended by what happened, not by the clock."""

    @abstractmethod
    def metrics(self, robot: RobotState, scene: SceneState) -> dict[str, Tensor]: ...

    def state_dict(self) -> dict[str, Tensor]:
        """The task's own tensors (goals, counters), for exact resumption."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - nothing by default
        """Put back what `state_dict` gave."""
