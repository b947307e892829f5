"""What a training loop needs of an algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from robolearn.env import Extras, Obs
from robolearn.policies.base import Policy


@dataclass
class AlgoCfg:
    name: str = "???"
    loop: ClassVar[str] = "online"
    """Of the registered kinds of loop, the one that runs it."""


class Algorithm(Protocol):
    """Learns from whole batches of environments; knows neither simulator nor robot."""

    policy: Policy
    steps_per_iteration: int
    """Environment periods that one iteration collects, each of num_envs steps."""

    def act(self, obs: Obs) -> Tensor:
        """Exploring action (B, A)."""
        ...

    def observe(self, obs: Obs, reward: Tensor, terminated: Tensor, truncated: Tensor, extras: Extras) -> None:
        """What came of the last action."""
        ...

    def update(self, obs: Obs, progress: float) -> dict[str, float]:
        """Learn from the iteration whose last observation is obs; progress in [0, 1]. Figures to plot."""
        ...

    def restart(self) -> None:
        """What comes next is no sequel of what was observed: a robot went on without us."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that, loaded, continue the training exactly."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
