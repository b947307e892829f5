"""Policies that look at the last few observations and plan a chunk of actions, of which the first ones are run.

Every environment has a history and a queue of its own: where one begins an episode, or needs a new chunk, the others go
on with theirs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.encoder import ObservationEncoder
from robolearn.nets.normalize import FixedNormalizer
from robolearn.policies.base import Policy
from robolearn.spec import PolicySpec

Windows = Mapping[str, Tensor]
"""A batch of training windows: `observation.<key>` (B, T, ...) for each key of the observation that the policy reads,
oldest first; `action` (B, H, A), whose first is the action taken at the last of these observations; and optionally
`mask` (B, H), False for actions after the episode's end."""


class ChunkedPolicy(Policy):
    """`spec.action.horizon` actions a chunk (H), of which `spec.action.execute` are run.

    config: observation_steps (T, how many observations are seen), encoder (see ObservationEncoder), action_normalizer
    (`range` or `deviation`), and what the subclass adds.
    """

    _history: dict[str, Tensor]
    _fresh: Tensor
    _left: Tensor
    _queue: Tensor

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__(spec, config)
        self.horizon, self.execute, self.steps = spec.action.horizon, spec.action.execute, config["observation_steps"]
        if not 1 <= self.execute <= self.horizon or self.steps < 1:
            raise ConfigError(
                f"{self.execute} of {self.horizon} actions after {self.steps} observations: it must be "
                f"1 <= execute <= horizon and observation_steps >= 1"
            )
        self.encoder = ObservationEncoder(spec.observation, config.get("encoder", {}))
        self.action_normalizer = FixedNormalizer(spec.action.dim, config.get("action_normalizer", "range"))
        self._forget(0, torch.device("cpu"))

    # --- learning --------------------------------------------------------------------------------------------------

    def fit_normalizers(self, statistics: Mapping[str, Mapping[str, Tensor]]) -> None:
        """From `min`, `max`, `mean` and `std` (n,) of `action` and of every `observation.<key>` that is a vector."""
        if "action" not in statistics:
            raise ConfigError(f"the data have no actions to learn from; they have {', '.join(sorted(statistics))}")
        self.action_normalizer.fit(statistics["action"], "action")
        self.encoder.fit(statistics)

    def networks(self) -> list[nn.Module]:
        """The parts that take the time, for whoever compiles them."""
        return self.encoder.backbones()

    @abstractmethod
    def loss(self, windows: Windows, generator: torch.Generator | None = None) -> Tensor:
        """Scalar; masked actions do not count. The generator is for noise and random crops."""

    def read(self, windows: Windows) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Observations by key, normalised actions (B, H, A) and weights (B, H, 1). ConfigError if the windows are not
        of this policy's observations, steps, horizon or actions."""
        obs = {k.removeprefix("observation."): v for k, v in windows.items() if k.startswith("observation.")}
        expected = {k: (self.steps, *s) for k, s in self.encoder.shapes.items()}
        wrong = [f"observation.{k} {_shape(obs, k)}, not {s}" for k, s in expected.items() if _shape(obs, k) != s]
        size = (self.horizon, self.spec.action.dim)
        if wrong or _shape(windows, "action") != size:
            wrong += [f"action {_shape(windows, 'action')}, not {size}"] if _shape(windows, "action") != size else []
            raise ConfigError("the windows do not fit the policy: " + "; ".join(wrong))
        action = self.action_normalizer(windows["action"])
        mask = windows.get("mask")
        weight = torch.ones_like(action[..., :1]) if mask is None else mask[..., None].to(action.dtype)
        return obs, action, weight

    # --- acting ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Normalised chunks (b, H, A) for the environments `rows` (b,), from their histories (b, T, ...)."""

    @property
    def usable(self) -> int:
        """How many of a chunk's actions can be run: all H, or fewer (never less than `execute`)."""
        return self.horizon

    def history(self) -> dict[str, Tensor]:
        """What chunks are planned from, (B, T, ...) by key; later observations do not change it."""
        return dict(self._history)

    @torch.no_grad()
    def chunk(self, rows: Tensor, history: Mapping[str, Tensor] | None = None) -> Tensor:
        """New chunks (b, H, A), in the units of the action, for the environments `rows` (b,), from their histories or
        those given (B, T, ...); queues stay as they are. For whoever plans beside the control loop. Only the first
        `usable` actions are finished: what follows in a chunk of the streaming sampler is still noisy."""
        seen = self._history if history is None else history
        return self.in_units(self.plan({k: v[rows] for k, v in seen.items()}, rows))

    def in_units(self, planned: Tensor) -> Tensor:
        """Normalised chunks (b, H, A) in the units of the action, within its limits."""
        return self.action_normalizer.inverse(planned).clamp(self.spec.action.low, self.spec.action.high)

    @torch.no_grad()
    def act(self, obs: dict[str, Tensor], mask: Tensor | None = None) -> Tensor:
        """The next action (B, A) of every environment's queue; those whose queue is empty plan first. With a `mask`
        (B,) only these look and move on; the rows of the others mean nothing."""
        self.observe(obs, mask)
        asks = self._left == 0
        empty = (asks if mask is None else asks & mask).nonzero().flatten()
        if len(empty):
            queue, left = self._queue.clone(), self._left.clone()
            queue[empty] = self.chunk(empty)[:, : self.execute]
            left[empty] = self.execute
            self._queue, self._left = queue, left
        rows = torch.arange(len(self._left), device=self._left.device)
        action = self._queue[rows, (self.execute - self._left).clamp_max(self.execute - 1)]
        self._left = self._left - (1 if mask is None else mask.long())
        return action

    @torch.no_grad()
    def observe(self, obs: dict[str, Tensor], mask: Tensor | None = None) -> None:
        """Append one observation to every history, or to those in `mask` (B,); the first of an episode fills it.
        Another number of environments than before starts all anew."""
        seen = {k: obs[k] for k in self.encoder.shapes}
        first = next(iter(seen.values()))
        if len(first) != len(self._left) or first.device != self._left.device:
            self._forget(len(first), first.device)
        fresh = self._fresh
        for key, frame in seen.items():
            frame = frame[:, None]
            filled = frame.repeat(1, self.steps, *[1] * (frame.dim() - 2))  # a copy: simulators reuse their tensors
            if key in self._history:
                moved = torch.cat((self._history[key][:, 1:], frame), dim=1)
                filled = torch.where(_rows(fresh, moved), filled, moved)
                filled = filled if mask is None else torch.where(_rows(mask, moved), filled, self._history[key])
            self._history[key] = filled
        self._fresh = torch.zeros_like(fresh) if mask is None else fresh & ~mask

    def reset(self, mask: Tensor) -> None:
        """These environments (B,) begin an episode: their histories and queues are empty."""
        if len(mask) != len(self._left):
            return self._forget(len(mask), mask.device)
        self._fresh = self._fresh | mask
        self._left = torch.where(mask, 0, self._left)

    def memory(self) -> dict[str, Any]:
        """What acting depends on beside the weights, for a checkpoint; `remember` puts it back."""
        return {"history": self.history(), "fresh": self._fresh, "left": self._left, "queue": self._queue}

    def remember(self, memory: dict[str, Any]) -> None:
        self._history = dict(memory.get("history", {}))  # a checkpoint drops what is empty
        self._fresh, self._left, self._queue = memory["fresh"], memory["left"], memory["queue"]

    def _forget(self, num_envs: int, device: torch.device) -> None:
        self._history = {}
        self._fresh = torch.ones(num_envs, dtype=torch.bool, device=device)
        self._left = torch.zeros(num_envs, dtype=torch.long, device=device)
        self._queue = torch.zeros(num_envs, self.execute, self.spec.action.dim, device=device)


def _rows(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.dim() - 1))


def _shape(tensors: Mapping[str, Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(tensors[key].shape[1:]) if key in tensors else None
