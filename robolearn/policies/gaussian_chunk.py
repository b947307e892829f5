"""Behaviour cloning's policy: a diagonal Gaussian over the actions of a chunk."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.nets.mlp import mlp
from robolearn.policies.chunked import ChunkedPolicy, Windows
from robolearn.spec import PolicySpec


class GaussianChunkPolicy(ChunkedPolicy):
    """Mean by an MLP of the last observations, one standard deviation for every number of the chunk. The mean is run.

    config, beside that of ChunkedPolicy: hidden (sizes), activation, initial_std and min_std in normalised units.
    """

    kind = "gaussian_chunk"

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__(spec, config)
        size = self.horizon, spec.action.dim
        sizes = [self.steps * self.encoder.dim, *config["hidden"], size[0] * size[1]]
        self.mean = mlp(sizes, config["activation"], last_gain=0.01)
        self.log_std = nn.Parameter(torch.full(size, math.log(config["initial_std"])))
        self.min_log_std = math.log(config["min_std"])

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.mean]

    def distribution(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, H, A) and log standard deviation (H, A) of the normalised chunk, from features (B, T, F)."""
        mean = self.mean(features.flatten(1)).unflatten(1, self.log_std.shape)
        return mean, self.log_std.clamp_min(self.min_log_std)

    def loss(self, windows: Windows, generator: torch.Generator | None = None) -> Tensor:
        """Mean negative log likelihood of an action's number."""
        obs, action, weight = self.read(windows)
        mean, log_std = self.distribution(self.encoder(obs, generator))
        z = (action - mean.float()) * torch.exp(-log_std)
        nll = 0.5 * z * z + log_std + 0.5 * math.log(2.0 * math.pi)
        return (weight * nll).sum() / (weight.sum() * action.shape[-1]).clamp_min(1.0)

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        return self.distribution(self.encoder(obs))[0]
