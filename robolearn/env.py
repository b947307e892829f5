"""The contract between a world and whoever acts in it; simulation and hardware both fulfil it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, device

from robolearn.spec import ActionSpec, ObservationSpec, RobotSpec

Obs = dict[str, Tensor]
Extras = dict[str, Any]


@runtime_checkable
class Env(Protocol):
    """B copies of a task, in Isaac Lab's vocabulary. Tensors are float32 on `device`, batch first.

    `step` applies action (B, A) in [-1, 1] for `step_dt` seconds and returns obs (dict), reward (B,), terminated (B,)
    bool, truncated (B,) bool and extras:

    - `final_obs`: the observation before the automatic reset; equal to obs where no environment was reset.
    - `applied_action` (B, A): what reached the robot after limits and delay, in the policy's units. Learners store it.
    - `log`: scalars (tensors) to plot.
    - `episode`: per-environment results, each (B,), meaningful where terminated | truncated: `return`, `length`,
      `success` (1 or 0) and the task's errors with their unit in the name.
    - hardware only: `awaiting_reset` (it never resets itself), `observation_age_s`, `deadline_missed`.

    `reset(seed=..., options=...)` starts every environment anew and returns (obs, extras); on hardware it runs the
    reset policy. The same seed gives the same rollout.
    """

    num_envs: int
    device: device
    physics_dt: float
    step_dt: float
    max_episode_length: int
    max_episode_length_s: float
    common_step_counter: int
    episode_length_buf: Tensor
    robot: RobotSpec
    observation_spec: ObservationSpec
    action_spec: ActionSpec

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, Extras]: ...

    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]: ...

    def close(self) -> None: ...
