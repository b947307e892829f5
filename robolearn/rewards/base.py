"""What every source of rewards can do, whoever asks: a learner with batches, a relabelling of episodes, a live robot.

A source is a module: its parameters and buffers are its state, and what it compares with (demonstrations, goal
pictures) is among them, so that a batch, an episode and a live step are judged alike, and a bundle is all there is to
keep.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from robolearn import config
from robolearn.env import Obs
from robolearn.errors import ConfigError, UserError

if TYPE_CHECKING:
    from robolearn.data.read import Episodes

Shapes = Mapping[str, tuple[int, ...]]
"""Of observations by key: `policy`, and `policy/NAME` of a camera."""


class RewardError(UserError):
    """A source cannot be trusted or used here; the message says why, and what to do."""


@dataclass
class RewardCfg:
    name: str = "???"


@dataclass(frozen=True)
class Needs:
    """What a source reads; whoever makes transitions for it gives no less, and may leave out the rest."""

    observed: tuple[str, ...] = ()
    """Keys of `obs` and `next_obs`; pictures are those with a slash."""
    before: bool = False
    """`obs` too, not only what the step led to."""
    action: bool = False
    success: bool = False
    """What the world says of success: a simulation's check, or a person."""
    instruction: bool = False


@dataclass(frozen=True)
class Transitions:
    """N steps: a batch in any order, the steps of one episode in theirs, or one step of N environments."""

    next_obs: Obs
    """(N, ...) by key; before a reset (`final_obs`)."""
    terminated: Tensor
    """(N,) bool."""
    obs: Obs = field(default_factory=dict)
    action: Tensor | None = None
    """(N, A) as applied."""
    success: Tensor | None = None
    """(N,) bool."""
    instruction: str = ""


@dataclass(frozen=True)
class Judgement:
    reward: Tensor
    """(N,) float32."""
    success: Tensor | None
    """(N,) bool: the task is done, and an episode may end with it; None of a source that does not tell."""


class RewardSource(nn.Module):
    """Made from a registered configuration (`register("reward", name, Cfg)`) and the shapes of the observations.

    A source defines `judge`. One whose verdict depends on an episode's other steps (optimal transport, progress)
    defines `episode` as well, one that remembers while it runs (debouncing) `live`; what these give then agrees.
    """

    needs: Needs = Needs()
    tells_success: ClassVar[bool] = True

    def __init__(self, cfg: Any, shapes: Shapes):
        """ConfigError, with what there is, for a needed observation that `shapes` lacks."""
        super().__init__()
        self.cfg, self.shapes = cfg, dict(shapes)

    @abstractmethod
    def judge(self, steps: Transitions) -> Judgement:
        """Each step by itself, whatever stands beside it."""

    def episode(self, steps: Transitions) -> Judgement:
        """All steps of one episode, in their order."""
        return self.judge(steps)

    def live(self, num_envs: int) -> Live:
        """Its memory in so many environments; several may run from one source."""
        return Live(self, num_envs)

    @classmethod
    def learned(cls, cfg: Any, sets: Sequence[Episodes], seed: int, device: str,
                progress: Callable[[int, dict[str, float]], None]) -> tuple[RewardSource, dict[str, Any]]:  # fmt: skip
        """A source made from sets of episodes, and figures about it as plain data. `progress` is told updates."""
        raise ConfigError(f"there is nothing to learn in the reward {cfg.name}; use it as it is")

    @property
    def digest(self) -> str:
        """Of all that its verdicts depend on: two sources of one digest judge alike."""
        about = {"config": config.to_plain(self.cfg), "shapes": {k: list(v) for k, v in sorted(self.shapes.items())}}
        text = json.dumps(about, sort_keys=True).encode()
        return hashlib.sha256(text + weights_of(self)).hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        return next((t.device for t in (*self.parameters(), *self.buffers())), torch.device("cpu"))


class Live:
    """One that remembers nothing; others extend it."""

    def __init__(self, source: RewardSource, num_envs: int):
        self.source, self.num_envs = source, num_envs

    def reset(self, mask: Tensor, obs: Obs) -> None:
        """Environments `mask` (B,) begin an episode with `obs` (B, ...). RewardError if their first sight shows that
        the source cannot be right here: then nothing may be rewarded, and the robot shall hold."""

    @torch.inference_mode()
    def step(self, steps: Transitions) -> Judgement:
        """Of the step that every environment made, in their order."""
        return self.source.judge(steps)


def weights_of(source: RewardSource) -> bytes:
    """As safetensors, which depends on names and values alone."""
    return save_tensors({k: v.detach().cpu().contiguous() for k, v in sorted(source.state_dict().items())})


def needed(what: Tensor | None, name: str, source: RewardSource) -> Tensor:
    """RewardError where transitions lack what a source reads."""
    if what is None:
        raise RewardError(f"the reward {source.cfg.name} reads `{name}`, which these transitions do not have")
    return what
