"""Policies of the off-policy learners: tanh of an MLP of what is seen, without or with a Gaussian before the tanh."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.errors import ConfigError
from robolearn.nets.encoder import observed
from robolearn.nets.mlp import mlp, normalizer
from robolearn.nets.vision import PictureEncoder
from robolearn.policies.base import CORRECTION, Policy
from robolearn.spec import PolicySpec

LOG_STD = -10.0, 2.0


class SquashedPolicy(Policy):
    """config: hidden (sizes), activation, normalizer (`running` or `fine`), stochastic, and with pictures `pictures`
    (features, crop, widths, blocks, points of robolearn.nets.vision). A policy of corrections begins with none."""

    kind = "squashed"

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__(spec, config)
        shapes = observed(spec.observation)
        if "policy" not in shapes:
            raise ConfigError("off-policy learners need a vector beside the pictures, such as joint positions, in the "
                              "task's group `policy`")  # fmt: skip
        self.cameras = [k for k, s in shapes.items() if len(s) > 1]
        self.normalizer = normalizer(config["normalizer"], shapes["policy"][0])
        about = config.get("pictures") or {}
        size: tuple[int, ...] = tuple(about.get("crop") or ())
        small = [k for k in self.cameras if size and (shapes[k][0] < size[0] or shapes[k][1] < size[1])]
        if small:
            raise ConfigError(f"algo.image_crop {size} is larger than {small[0]}, which is {shapes[small[0]][:2]}")
        self.encoders = nn.ModuleDict({k.replace("/", ":"): PictureEncoder(**about) for k in self.cameras})
        self.dim = shapes["policy"][0] + len(self.cameras) * about.get("features", 0)
        self.stochastic = bool(config["stochastic"])
        a, corrects = spec.action.dim, spec.action.function == CORRECTION
        width = a * (2 if self.stochastic else 1)
        self.net = mlp([self.dim, *config["hidden"], width], config["activation"], last_gain=0.0 if corrects else 0.01)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # an untrained policy leaves the robot where it is
            last.bias[:a] = torch.tensor(spec.action.params.get("rest", [0.0] * a)).clamp(-0.99, 0.99).atanh()

    def features(self, obs: dict[str, Tensor]) -> Tensor:
        """(B, dim): what the networks read. Pictures are cropped to their middle."""
        seen = [self.normalizer(obs["policy"])]
        for key in self.cameras:
            seen.append(self.encoders[key.replace("/", ":")](obs[key][:, None])[:, 0])
        return torch.cat(seen, dim=-1)

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        return self.mean(self.features(obs))

    def mean(self, features: Tensor) -> Tensor:
        """(B, A) in (-1, 1)."""
        return torch.tanh(self.net(features)[:, : self.spec.action.dim])

    def sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Of a stochastic policy and normal noise (B, A): actions (B, A), and their log density (B,), that of the tanh
        included (Haarnoja et al. 2018, appendix C)."""
        mean, log_std = self.net(features).chunk(2, dim=-1)
        log_std = log_std.clamp(*LOG_STD)
        raw = mean + log_std.exp() * noise
        density = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        squash = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
        return torch.tanh(raw), (density - squash).sum(-1)
