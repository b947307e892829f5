"""A diagonal Gaussian policy on a vector observation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robolearn.nets.mlp import mlp, normalizer
from robolearn.policies.base import CORRECTION, Policy
from robolearn.spec import PolicySpec


class GaussianPolicy(Policy):
    """Mean by an MLP of the normalised `policy` observation, state-independent standard deviation.

    config: hidden (sizes), activation, initial_std, min_std, normalizer (`running` or `fine`). A policy of corrections
    (see robolearn.policies.residual) begins with exactly none.
    """

    kind = "gaussian"

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__(spec, config)
        n, a = spec.observation.dim("policy"), spec.action.dim
        self.normalizer = normalizer(config.get("normalizer", "running"), n)
        self.mean = mlp(
            [n, *config["hidden"], a], config["activation"], 0.0 if spec.action.function == CORRECTION else 0.01
        )
        last = self.mean[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # an untrained policy leaves the robot where it is
            last.bias.copy_(torch.tensor(spec.action.params.get("rest", [0.0] * a)))
        self.log_std = nn.Parameter(torch.full((a,), float(config["initial_std"])).log())
        self.min_log_std = float(torch.tensor(config["min_std"]).log())

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        return self.mean(self.normalizer(obs["policy"])).clamp(-1.0, 1.0)

    def distribution(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, A) and log standard deviation (A,) for an observation that is normalised already."""
        return self.mean(normalized), self.log_std.clamp_min(self.min_log_std)


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density (B,) of a diagonal Gaussian."""
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - log_std.sum() - 0.5 * action.shape[-1] * 1.8378770664093453
