"""Soft actor-critic (Haarnoja et al. 2018) with critic ensembles and demonstrations (RLPD, Ball et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robolearn.algos.batches import part
from robolearn.algos.off_policy import OffPolicy
from robolearn.algos.off_policy_cfg import OffPolicyCfg
from robolearn.config import register
from robolearn.data.replay import Batch
from robolearn.env import Obs
from robolearn.spec import PolicySpec


@dataclass
class SACCfg(OffPolicyCfg):
    name: str = "sac"
    actor_every: int = 1
    temperature: float = 0.1
    """At the start; it follows target_entropy."""
    temperature_rate: float = 3e-4
    target_entropy: float = -0.5
    """Of an action, per number of it (that a gripper does not decide)."""
    entropy_in_targets: bool = True
    """Off: the next value is that of the task alone (RLPD on sparse rewards)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0.0 < self.temperature < math.inf and 0.0 < self.temperature_rate < math.inf):
            raise ValueError("algo.temperature and temperature_rate must be finite and above 0")
        if not math.isfinite(self.target_entropy):
            raise ValueError(f"algo.target_entropy must be finite, got {self.target_entropy}")


@register("algo", "sac", SACCfg)
class SAC(OffPolicy):
    cfg: SACCfg

    def __init__(self, cfg: SACCfg, spec: PolicySpec, num_envs: int, device: torch.device, generator: torch.Generator):
        super().__init__(cfg, spec, num_envs, device, generator, stochastic=True)
        self.log_temperature = torch.full((), math.log(cfg.temperature), device=device, requires_grad=True)
        self.optimizers["temperature"] = torch.optim.Adam([self.log_temperature], lr=cfg.temperature_rate)

    def explore(self, obs: Obs) -> Tensor:
        return self.policy.sample(self.policy.features(obs), self.noise(self.num_envs))[0]

    def next_value(self, obs: Obs, noise: Tensor, picked: Tensor | None) -> Tensor:
        features = self.policy.features(obs)
        action, log_density = self.policy.sample(features, noise)
        value = self.as_value(self.values(self.target, features, obs, action, picked)).amin(0)
        return value - self.log_temperature.detach().exp() * log_density if self.cfg.entropy_in_targets else value

    def actor_loss(self, batch: Batch, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        obs = part(batch, "obs/")
        features = self.policy.features(obs).detach()
        action, log_density = self.policy.sample(features, noise)
        value = self.as_value(self.values(self.critic, features, obs, action)).mean(0)
        loss = (self.log_temperature.detach().exp() * log_density - value).mean()
        return loss, {"actor_value": value.detach().mean(), "actor_entropy": -log_density.detach().mean()}

    def after_actor(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """The temperature rises where the entropy is below its target."""
        wanted = self.cfg.target_entropy * self.policy.arm
        self.log_temperature.grad = self.log_temperature.detach().exp() * (figures["actor_entropy"] - wanted)
        self.optimizers["temperature"].step()
        return figures | {"actor_temperature": self.log_temperature.detach().exp()}

    def most_return(self) -> float:
        """With the entropy that it is paid for."""
        if not self.cfg.entropy_in_targets:
            return super().most_return()
        temperature = max(self.cfg.temperature, float(self.log_temperature.detach().exp()))
        return super().most_return() + self.for_ever(math.log(2.0) * self.spec.action.dim * temperature)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"log_temperature": self.log_temperature.detach()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        with torch.no_grad():
            self.log_temperature.copy_(state["log_temperature"])
