"""Diffusion policy (Chi et al. 2023): a chunk of actions drawn by denoising, conditioned on the last observations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.denoiser import denoiser
from robolearn.policies.chunked import ChunkedPolicy, Windows
from robolearn.policies.noise import NoiseProcess
from robolearn.policies.samplers import Denoise, sampler
from robolearn.spec import PolicySpec


class DiffusionPolicy(ChunkedPolicy):
    """config, beside that of ChunkedPolicy: network (name `unet` or `transformer`, and its settings), sampler (name
    `ddpm`, `ddim`, `streaming` or `flow`, and its settings), alphas_cumprod (see robolearn.policies.noise) and clip.

    Its network tells a chunk's noise, or velocity for `flow`; `use_sampler` changes how chunks are drawn from it.
    """

    kind = "diffusion"
    _started: Tensor
    _buffer: Tensor

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__(spec, config)
        clip = config.get("clip", 1.0)
        if clip and self.action_normalizer.mode != "range":
            raise ConfigError(
                f"clip {clip:g} would cut actions at that many standard deviations; with action_normalizer "
                f"{self.action_normalizer.mode} set clip to 0, or take action_normalizer range"
            )
        self.process = NoiseProcess(config["alphas_cumprod"], clip)
        self.sampler = sampler(config["sampler"], self.process, self.horizon, self.execute)
        self.network = denoiser(config["network"], spec.action.dim, self.horizon, self.steps, self.encoder.dim)

    def use_sampler(self, **config: Any) -> None:
        """`name` and settings, the temperature as it is if none is given; all environments begin anew. ConfigError if
        the network was trained for another objective, or with one noise level for all positions only and the sampler is
        `streaming`."""
        config = {"temperature": self.sampler.temperature} | config
        changed = sampler(config, self.process, self.horizon, self.execute)
        trained = self.config.get("trained_as", self.sampler.kind)
        untrained_levels = changed.kind == "streaming" and trained != "streaming"
        if changed.objective != self.sampler.objective or untrained_levels:
            raise ConfigError(f"this network was trained for the sampler {trained}; {changed.kind} cannot use it")
        self.config = self.config | {"sampler": config, "trained_as": trained}
        self.sampler = changed
        self._forget(len(self._left), self._left.device)

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.network]

    def loss(self, windows: Windows, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of the network's estimate."""
        obs, clean, weight = self.read(windows)
        noisy, level, target = self.sampler.corrupt(clean, generator)
        estimate = self.network(noisy, level, self.encoder(obs, generator))
        return (weight * (estimate.float() - target) ** 2).sum() / (weight.sum() * clean.shape[-1]).clamp_min(1.0)

    @property
    def usable(self) -> int:
        return self.sampler.usable

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        features = self.encoder(obs)
        started, buffer = self._started.clone(), self._buffer.clone()
        begin = (~started[rows]).nonzero().flatten()
        if len(begin):
            first = rows[begin]
            buffer[first] = self.sampler.start(self._denoise(features[begin]), buffer[first], self.generator)
            started[first] = True
        chunk, buffer[rows] = self.sampler.advance(self._denoise(features), buffer[rows], self.generator)
        self._started, self._buffer = started, buffer
        return chunk

    def _denoise(self, features: Tensor) -> Denoise:
        return lambda noisy, level: self.network(noisy, level, features)

    def reset(self, mask: Tensor) -> None:
        super().reset(mask)
        self._started = self._started & ~mask

    def memory(self) -> dict[str, Any]:
        return super().memory() | {"started": self._started, "buffer": self._buffer}

    def remember(self, memory: dict[str, Any]) -> None:
        super().remember(memory)
        self._started, self._buffer = memory["started"], memory["buffer"]

    def _forget(self, num_envs: int, device: torch.device) -> None:
        super()._forget(num_envs, device)
        self._started = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._buffer = torch.zeros(num_envs, self.horizon, self.spec.action.dim, device=device)
