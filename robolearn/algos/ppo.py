"""Proximal policy optimisation (Schulman et al. 2017) with generalised advantages (Schulman et al. 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.algos.base import AlgoCfg
from robolearn.config import register
from robolearn.env import Extras, Obs
from robolearn.errors import unknown
from robolearn.nets.mlp import ACTIVATIONS, Normalizer, mlp
from robolearn.policies.gaussian import GaussianPolicy, log_prob
from robolearn.spec import PolicySpec


@dataclass
class PPOCfg(AlgoCfg):
    name: str = "ppo"
    horizon: int = 32
    """Periods collected an iteration."""
    epochs: int = 5
    minibatches: int = 4
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    learning_rate: float = 2e-3
    schedule: str = "linear"
    """linear: falls to zero over the training; constant; adaptive: follows desired_kl."""
    desired_kl: float = 0.01
    entropy: float = 0.0
    value_weight: float = 1.0
    max_grad_norm: float = 1.0
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "elu"
    initial_std: float = 0.5
    min_std: float = 0.05

    def __post_init__(self) -> None:
        if self.schedule not in ("adaptive", "linear", "constant"):
            raise ValueError(f"algo.schedule must be adaptive, linear or constant, got '{self.schedule}'")
        if not (0.0 <= self.gamma <= 1.0 and 0.0 <= self.lam <= 1.0):
            raise ValueError(f"algo.gamma and algo.lam must be in [0, 1], got {self.gamma}, {self.lam}")
        if not min(self.horizon, self.epochs, self.minibatches, *self.hidden) >= 1:
            raise ValueError("algo.horizon, epochs, minibatches and the sizes in hidden must be at least 1")
        for name in ("learning_rate", "clip", "initial_std", "min_std", "max_grad_norm", "desired_kl"):
            if not 0.0 < getattr(self, name) < math.inf:  # so that NaN is refused too
                raise ValueError(f"algo.{name} must be finite and above 0, got {getattr(self, name)}")
        for name in ("entropy", "value_weight"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"algo.{name} must be finite, got {getattr(self, name)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError("algo.activation: " + unknown("activation", self.activation, tuple(ACTIVATIONS)))


def gae(reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor,
        gamma: float, lam: float) -> Tensor:  # fmt: skip
    """Advantages (T, B); all inputs (T, B); `next_value` is V(final_obs) where `done`.

    A terminated step has no future; a truncated one has (its value is next_value) but hands no advantage back
    across the reset (Pardo et al. 2018).
    """
    delta = reward + gamma * next_value * ~terminated - value
    carry = gamma * lam * (~done).float()
    out, running = torch.empty_like(delta), torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + carry[t] * running
        out[t] = running
    return out


class Rollout:
    """One iteration's transitions, (T, B, ...)."""

    def __init__(self, horizon: int, num_envs: int, dims: dict[str, int], device: torch.device):
        self.data = {k: torch.zeros(horizon, num_envs, n, device=device) for k, n in dims.items()}
        flat = ("log_prob", "value", "next_value", "reward")
        self.data |= {k: torch.zeros(horizon, num_envs, device=device) for k in flat}
        flags = ("terminated", "done")
        self.data |= {k: torch.zeros(horizon, num_envs, dtype=torch.bool, device=device) for k in flags}
        self.t = 0

    def __getitem__(self, key: str) -> Tensor:
        return self.data[key]

    def put(self, **values: Tensor) -> None:
        for key, value in values.items():
            self.data[key][self.t] = value


@register("algo", "ppo", PPOCfg)
class PPO:
    """The critic reads the group `critic` if the task has one (asymmetric), else `policy`."""

    def __init__(self, cfg: PPOCfg, spec: PolicySpec, num_envs: int, device: torch.device, generator: torch.Generator):
        self.cfg, self.device, self.generator = cfg, device, generator
        self.steps_per_iteration = cfg.horizon
        self.critic_group = "critic" if "critic" in spec.observation.groups else "policy"
        n = spec.observation.dim(self.critic_group)
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator, device=device)))
        net = {"hidden": list(cfg.hidden), "activation": cfg.activation}
        self.policy = GaussianPolicy(spec, net | {"initial_std": cfg.initial_std, "min_std": cfg.min_std}).to(device)
        self.critic = mlp([n, *cfg.hidden, 1], cfg.activation).to(device)
        self.critic_normalizer = Normalizer(n).to(device)
        self.learning_rate = cfg.learning_rate
        self.parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=cfg.learning_rate, fused=True)
        dims = {"obs": spec.observation.dim("policy"), "critic_obs": n, "action": spec.action.dim}
        self.rollout = Rollout(cfg.horizon, num_envs, dims, device)

    # --- collecting ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, obs: Obs) -> Tensor:
        seen, critic_seen = (
            self.policy.normalizer(obs["policy"]),
            self.critic_normalizer(obs[self.critic_group]),
        )
        mean, log_std = self.policy.distribution(seen)
        noise = torch.randn(mean.shape, generator=self.generator, device=self.device)
        action = mean + log_std.exp() * noise
        self.rollout.put(
            obs=obs["policy"], critic_obs=obs[self.critic_group], action=action,
            log_prob=log_prob(action, mean, log_std), value=self.critic(critic_seen).squeeze(-1),
        )  # fmt: skip
        return action

    @torch.no_grad()
    def observe(self, obs: Obs, reward: Tensor, terminated: Tensor, truncated: Tensor, extras: Extras) -> None:
        done = terminated | truncated
        final = extras["final_obs"][self.critic_group]
        self.rollout.put(
            reward=reward, terminated=terminated, done=done,
            next_value=self.critic(self.critic_normalizer(final)).squeeze(-1),
        )  # fmt: skip
        self.rollout.t += 1

    # --- learning --------------------------------------------------------------------------------------------------

    def update(self, obs: Obs, progress: float) -> dict[str, float]:
        cfg, data = self.cfg, self.rollout
        if cfg.schedule == "linear":
            self.learning_rate = cfg.learning_rate * (1.0 - progress)
        advantage = gae(data["reward"], data["value"], data["next_value"], data["terminated"], data["done"],
                        cfg.gamma, cfg.lam)  # fmt: skip
        batch = {k: data[k].flatten(0, 1) for k in ("action", "log_prob", "value")}
        batch["obs"] = self.policy.normalizer(data["obs"].flatten(0, 1))
        batch["critic_obs"] = self.critic_normalizer(data["critic_obs"].flatten(0, 1))
        batch["return"] = batch["value"] + advantage.flatten()
        batch["advantage"] = (advantage.flatten() - advantage.mean()) / (advantage.std() + 1e-8)
        with torch.no_grad():
            mean, self._old_log_std = self.policy.distribution(batch["obs"])
        batch["mean"] = mean
        sums: dict[str, Tensor] = {}
        for _ in range(cfg.epochs):
            order = torch.randperm(len(batch["action"]), generator=self.generator, device=self.device)
            for ids in order.chunk(cfg.minibatches):
                for key, value in self._minibatch({k: v[ids] for k, v in batch.items()}).items():
                    sums[key] = sums.get(key, torch.zeros((), device=self.device)) + value
        self.policy.normalizer.update(data["obs"].flatten(0, 1))
        self.critic_normalizer.update(data["critic_obs"].flatten(0, 1))
        self.rollout.t = 0
        figures = {k: float(v) / (cfg.epochs * cfg.minibatches) for k, v in sums.items()}
        spread = float(self._old_log_std.exp().mean())
        return figures | {"learning_rate": self.learning_rate, "std": spread}

    def _minibatch(self, b: dict[str, Tensor]) -> dict[str, Tensor]:
        cfg = self.cfg
        mean, log_std = self.policy.distribution(b["obs"])
        ratio = torch.exp(log_prob(b["action"], mean, log_std) - b["log_prob"])
        clipped = ratio.clamp(1.0 - cfg.clip, 1.0 + cfg.clip)
        surrogate = -torch.minimum(ratio * b["advantage"], clipped * b["advantage"]).mean()
        value = self.critic(b["critic_obs"]).squeeze(-1)
        near = b["value"] + (value - b["value"]).clamp(-cfg.clip, cfg.clip)
        value_loss = torch.maximum((value - b["return"]) ** 2, (near - b["return"]) ** 2).mean()
        entropy = log_std.sum()
        loss = surrogate + cfg.value_weight * value_loss - cfg.entropy * entropy
        kl = self._kl(mean.detach(), log_std.detach(), b["mean"])
        if cfg.schedule == "adaptive":
            self._adapt(float(kl))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, cfg.max_grad_norm)
        self.optimizer.step()
        return {"surrogate": surrogate.detach(), "value_loss": value_loss.detach(), "kl": kl}

    def _kl(self, mean: Tensor, log_std: Tensor, old_mean: Tensor) -> Tensor:
        """KL(old || new), averaged over the minibatch."""
        old = self._old_log_std
        spread = (torch.exp(2 * old) + (mean - old_mean) ** 2) * torch.exp(-2 * log_std)
        return (log_std - old + 0.5 * spread - 0.5).sum(-1).mean()

    def _adapt(self, kl: float) -> None:
        """Keep the step near desired_kl (the rule of rsl_rl)."""
        if kl > 2.0 * self.cfg.desired_kl:
            self.learning_rate = max(1e-5, self.learning_rate / 1.5)
        elif 0.0 < kl < 0.5 * self.cfg.desired_kl:
            self.learning_rate = min(1e-2, self.learning_rate * 1.5)

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "critic_normalizer": self.critic_normalizer.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "learning_rate": self.learning_rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.critic_normalizer.load_state_dict(state["critic_normalizer"])
        groups = self.optimizer.state_dict()["param_groups"]
        moments = {int(i): m for i, m in state["optimizer"].items()}
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.learning_rate = state["learning_rate"]
