"""TD3 (Fujimoto et al. 2018) with critic ensembles and demonstrations; over a base policy, the recipe of ResFiT
(Ankile et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

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
class TD3Cfg(OffPolicyCfg):
    name: str = "td3"
    exploration: float = 0.1
    """Deviation of the noise on the actor's action."""
    smoothing: float = 0.2
    smoothing_most: float = 0.5
    """Deviation of the noise on the targets' actions, and its bound."""
    cost: float = 0.0
    """Of an action's mean square, in the actor's loss: corrections that gain nothing are not made."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("exploration", "smoothing", "smoothing_most", "cost"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"algo.{name} must be finite and at least 0, got {getattr(self, name)}")


@register("algo", "td3", TD3Cfg)
class TD3(OffPolicy):
    """The actor has no target network of its own: its noise smooths enough, and it learns from newer values."""

    cfg: TD3Cfg

    def __init__(self, cfg: TD3Cfg, spec: PolicySpec, num_envs: int, device: torch.device, generator: torch.Generator):
        super().__init__(cfg, spec, num_envs, device, generator, stochastic=False)

    def explore(self, obs: Obs) -> Tensor:
        return (self.policy.mean(self.policy.features(obs)) + self.cfg.exploration * self.noise(self.num_envs)).clamp(
            -1.0, 1.0
        )

    def next_value(self, obs: Obs, noise: Tensor, picked: Tensor | None) -> Tensor:
        cfg, features = self.cfg, self.policy.features(obs)
        off = (cfg.smoothing * noise).clamp(-cfg.smoothing_most, cfg.smoothing_most)
        action = (self.policy.mean(features) + off).clamp(-1.0, 1.0)
        return self.as_value(self.values(self.target, features, obs, action, picked)).amin(0)

    def actor_loss(self, batch: Batch, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        obs = part(batch, "obs/")
        features = self.policy.features(obs).detach()
        action = self.policy.mean(features)
        value = self.as_value(self.values(self.critic, features, obs, action)).mean()
        size = (action**2).mean()
        return self.cfg.cost * size - value, {"actor_value": value.detach(), "actor_size": size.detach().sqrt()}
