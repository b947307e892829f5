"""Policies of the off-policy learners: tanh of an MLP of what is seen, without or with a Gaussian before the tanh."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.errors import ConfigError
from robolearn.nets.encoder import observed
from robolearn.nets.ensemble import Ensemble
from robolearn.nets.mlp import mlp, normalizer
from robolearn.nets.vision import PictureEncoder
from robolearn.policies.base import CORRECTION, Policy
from robolearn.spec import PolicySpec

LOG_STD = -10.0, 2.0
GRIPPER, DISCRETE = "gripper", "discrete"
CLOSED, OPEN = -1.0, 1.0
"""What a gripper's number says; its choices are in this order."""


class SquashedPolicy(Policy):
    """config: hidden (sizes), activation, normalizer (`running` or `fine`), stochastic, and with pictures `pictures`
    (features, crop, widths, blocks, points, pooling of robolearn.nets.vision). A policy of corrections begins with
    none.

    With `gripper` `discrete` the action's last number is CLOSED or OPEN, whichever `hand`, a network of values, likes
    better; to stay is to say the same again, for the number is where the fingers shall be."""

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
        self.encoders = nn.ModuleDict()
        for key in self.cameras:
            height, width, _ = shapes[key]
            self.encoders[key.replace("/", ":")] = PictureEncoder(**about, picture=(height, width))
        self.dim = shapes["policy"][0] + len(self.cameras) * about.get("features", 0)
        self.stochastic = bool(config["stochastic"])
        decides, corrects = config.get(GRIPPER) == DISCRETE, spec.action.function == CORRECTION
        if decides and (corrects or spec.action.names[-1] != GRIPPER or spec.action.dim < 2):
            raise ConfigError(f"algo.gripper=discrete needs an action whose last number is a gripper's, beside an arm; "
                              f"there are {', '.join(spec.action.names)}{', as corrections' if corrects else ''}: "
                              "leave it continuous")  # fmt: skip
        self.arm = a = spec.action.dim - decides
        width = a * (2 if self.stochastic else 1)
        self.net = mlp([self.dim, *config["hidden"], width], config["activation"], last_gain=0.0 if corrects else 0.01)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # an untrained policy leaves the robot where it is
            last.bias[:a] = torch.tensor(spec.action.params.get("rest", [0.0] * a)[:a]).clamp(-0.99, 0.99).atanh()
        self.hand: Ensemble | None = None
        if decides:
            self.hand = Ensemble(1, [self.dim, *config["hidden"], 2], config["activation"])
            nn.init.zeros_(self.hand.weights[-1])  # both are worth the same, and the hand is open

    def begin_with(self, weights: str, frozen: bool) -> None:
        """A file of pretrained weights for every camera's ResNet, if one is named, which stays as it is if `frozen`.
        ConfigError if there is no camera, or the file does not fit."""
        if (weights or frozen) and not self.cameras:
            raise ConfigError("algo.image_weights and encoder=frozen are for pictures; the task shows none: choose "
                              "task.cameras")  # fmt: skip
        for encoder in self.encoders.values():
            assert isinstance(encoder, PictureEncoder)
            if weights:
                encoder.backbone.load_weights(weights)
            encoder.backbone.requires_grad_(not frozen)

    def features(self, obs: dict[str, Tensor]) -> Tensor:
        """(B, dim): what the networks read. Pictures are cropped to their middle."""
        seen = [self.normalizer(obs["policy"])]
        for key in self.cameras:
            seen.append(self.encoders[key.replace("/", ":")](obs[key][:, None])[:, 0])
        return torch.cat(seen, dim=-1)

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        features = self.features(obs)
        return self.whole(self.mean(features), features)

    def mean(self, features: Tensor) -> Tensor:
        """(B, `arm`) in (-1, 1)."""
        return torch.tanh(self.net(features)[:, : self.arm])

    def choices(self, features: Tensor) -> Tensor:
        """What closed and open are worth, (B, 2)."""
        assert self.hand is not None
        return self.hand(features)[0]

    def whole(self, arm: Tensor, features: Tensor) -> Tensor:
        """(B, A) of what the arm does, (B, `arm`), with what the hand would choose."""
        if self.hand is None:
            return arm
        closed, opened = self.choices(features).unbind(1)
        return torch.cat((arm, torch.where(opened >= closed, OPEN, CLOSED)[:, None]), dim=1)

    def sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Of a stochastic policy and normal noise (B, `arm`): actions (B, `arm`), and their log density (B,), that of
        the tanh included (Haarnoja et al. 2018, appendix C)."""
        mean, log_std = self.net(features).chunk(2, dim=-1)
        log_std = log_std.clamp(*LOG_STD)
        raw = mean + log_std.exp() * noise
        density = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        squash = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
        return torch.tanh(raw), (density - squash).sum(-1)
