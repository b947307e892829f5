"""Proximal policy optimisation (Schulman et al. 2017) with generalised advantages (Schulman et al. 2016)."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.algos.base import AlgoCfg
from robolearn.config import register
from robolearn.env import Extras, Obs
from robolearn.errors import unknown
from robolearn.nets.mlp import ACTIVATIONS, NORMALIZERS, mlp, normalizer
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
    decay_from: float = 0.0
    """Part of the training at the whole rate, before the linear fall."""
    desired_kl: float = 0.01
    entropy: float = 0.0
    max_grad_norm: float = 1.0
    """Of the policy's gradient, and of the critic's."""
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "elu"
    initial_std: float = 0.5
    min_std: float = 0.05
    normalizer: str = "running"
    """Of observations: running mean and deviation; or fine, where millimetres matter (robolearn.nets.normalize)."""

    def __post_init__(self) -> None:
        if self.schedule not in ("adaptive", "linear", "constant"):
            raise ValueError(f"algo.schedule must be adaptive, linear or constant, got '{self.schedule}'")
        if not (0.0 <= self.gamma <= 1.0 and 0.0 <= self.lam <= 1.0):
            raise ValueError(f"algo.gamma and algo.lam must be in [0, 1], got {self.gamma}, {self.lam}")
        if not 0.0 <= self.decay_from < 1.0:
            raise ValueError(f"algo.decay_from must be in [0, 1), got {self.decay_from}")
        if not min(self.horizon, self.epochs, self.minibatches, *self.hidden) >= 1:
            raise ValueError("algo.horizon, epochs, minibatches and the sizes in hidden must be at least 1")
        for name in ("learning_rate", "clip", "initial_std", "min_std", "max_grad_norm", "desired_kl"):
            if not 0.0 < getattr(self, name) < math.inf:  # so that NaN is refused too
                raise ValueError(f"algo.{name} must be finite and above 0, got {getattr(self, name)}")
        if not math.isfinite(self.entropy):
            raise ValueError(f"algo.entropy must be finite, got {self.entropy}")
        if self.activation not in ACTIVATIONS:
            raise ValueError("algo.activation: " + unknown("activation", self.activation, tuple(ACTIVATIONS)))
        if self.normalizer not in NORMALIZERS:
            raise ValueError("algo.normalizer: " + unknown("normaliser", self.normalizer, tuple(NORMALIZERS)))


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
        flat = ("log_prob", "value", "final_value", "reward")
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
    """The critic reads the group `critic` if the task has one (asymmetric), else `policy`. It shares nothing with the
    policy, so on a CPU the two learn at the same time, each on a core of its own."""

    def __init__(self, cfg: PPOCfg, spec: PolicySpec, num_envs: int, device: torch.device, generator: torch.Generator):
        self.cfg, self.device, self.generator = cfg, device, generator
        self.steps_per_iteration = cfg.horizon
        self.critic_group = "critic" if "critic" in spec.observation.groups else "policy"
        n = spec.observation.dim(self.critic_group)
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator, device=device)))
        net = {"hidden": list(cfg.hidden), "activation": cfg.activation, "normalizer": cfg.normalizer}
        self.policy = GaussianPolicy(spec, net | {"initial_std": cfg.initial_std, "min_std": cfg.min_std}).to(device)
        self.critic = mlp([n, *cfg.hidden, 1], cfg.activation).to(device)
        self.critic_normalizer = normalizer(cfg.normalizer, n).to(device)
        self.learning_rate = cfg.learning_rate
        self.optimizers = {
            name: torch.optim.Adam(net.parameters(), lr=cfg.learning_rate, fused=True)
            for name, net in (("policy", self.policy), ("critic", self.critic))
        }
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="critic") if device.type == "cpu" else None
        seen, action = spec.observation.dim("policy"), spec.action.dim
        dims = {"obs": seen, "seen": seen, "critic_obs": n, "critic_seen": n, "action": action, "mean": action}
        self.rollout = Rollout(cfg.horizon, num_envs, dims, device)

    # --- collecting ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, obs: Obs) -> Tensor:
        seen, critic_seen = self.policy.normalizer(obs["policy"]), self.critic_normalizer(obs[self.critic_group])
        mean, log_std = self.policy.distribution(seen)
        noise = torch.randn(mean.shape, generator=self.generator, device=self.device)
        action = mean + log_std.exp() * noise
        self.rollout.put(
            obs=obs["policy"], critic_obs=obs[self.critic_group], seen=seen, critic_seen=critic_seen, action=action,
            mean=mean, log_prob=log_prob(action, mean, log_std), value=self.critic(critic_seen).squeeze(-1),
        )  # fmt: skip
        return action

    @torch.no_grad()
    def observe(self, obs: Obs, reward: Tensor, terminated: Tensor, truncated: Tensor, extras: Extras) -> None:
        done = terminated | truncated
        self.rollout.put(reward=reward, terminated=terminated, done=done)
        ended = truncated.nonzero().flatten()  # a terminated episode has no value afterwards
        if len(ended):
            final = extras["final_obs"][self.critic_group][ended]
            self.rollout["final_value"][self.rollout.t, ended] = self._value(final)
        self.rollout.t += 1

    def _value(self, obs: Tensor) -> Tensor:
        return self.critic(self.critic_normalizer(obs)).squeeze(-1)

    @torch.no_grad()
    def _next_values(self, obs: Obs) -> Tensor:
        """(T, B): the value after each period, of the last observation where an episode was cut off."""
        data = self.rollout
        after = torch.cat((data["value"][1:], self._value(obs[self.critic_group])[None]))
        return torch.where(data["done"], data["final_value"], after)

    def restart(self) -> None:
        """Nothing is kept from one iteration to the next."""

    # --- learning --------------------------------------------------------------------------------------------------

    def update(self, obs: Obs, progress: float) -> dict[str, float]:
        cfg, data = self.cfg, self.rollout
        if cfg.schedule == "linear":
            self.learning_rate = cfg.learning_rate * min(1.0, (1.0 - progress) / (1.0 - cfg.decay_from))
        advantage = gae(data["reward"], data["value"], self._next_values(obs), data["terminated"], data["done"],
                        cfg.gamma, cfg.lam)  # fmt: skip
        names = ("seen", "critic_seen", "action", "mean", "log_prob", "value")
        batch = {k: data[k].flatten(0, 1) for k in names}
        batch["return"] = batch["value"] + advantage.flatten()
        batch["advantage"] = (advantage.flatten() - advantage.mean()) / (advantage.std() + 1e-8)
        with torch.no_grad():
            self._old_log_std = self.policy.log_std.clamp_min(self.policy.min_log_std)
        n = len(batch["action"])
        orders = [torch.randperm(n, generator=self.generator, device=self.device) for _ in range(cfg.epochs)]
        ids = [part for order in orders for part in order.chunk(cfg.minibatches)]
        figures = self._learn(batch, ids)
        self.policy.normalizer.update(data["obs"].flatten(0, 1))
        self.critic_normalizer.update(data["critic_obs"].flatten(0, 1))
        self.rollout.t = 0
        spread = float(self._old_log_std.exp().mean())
        return figures | {"learning_rate": self.learning_rate, "std": spread}

    def _learn(self, batch: dict[str, Tensor], ids: list[Tensor]) -> dict[str, float]:
        """Both networks over the minibatches `ids`; the means of their figures."""
        rate = self.learning_rate  # the policy's may change on the way, at a moment that is nobody's choice
        if self._pool is None:
            critic_figures = self._learn_critic(batch, ids, rate)
            return self._learn_policy(batch, ids) | critic_figures
        critic = self._pool.submit(self._in_thread, torch.get_num_threads(), batch, ids, rate)
        return self._learn_policy(batch, ids) | critic.result()

    def _in_thread(self, threads: int, batch: dict[str, Tensor], ids: list[Tensor], rate: float) -> dict[str, float]:
        torch.set_num_threads(threads)  # a thread begins with one a core
        return self._learn_critic(batch, ids, rate)

    def _learn_policy(self, batch: dict[str, Tensor], ids: list[Tensor]) -> dict[str, float]:
        cfg = self.cfg
        packed, widths = _packed(batch, ("seen", "action", "mean", "log_prob", "advantage"))
        kl_sum = surrogate_sum = torch.zeros((), device=self.device)
        for rows in ids:
            obs, action, old_mean, old_log_prob, advantage = _pick(packed, rows, widths)
            mean, log_std = self.policy.distribution(obs)
            ratio = torch.exp(log_prob(action, mean, log_std) - old_log_prob[:, 0])
            clipped, advantage = ratio.clamp(1.0 - cfg.clip, 1.0 + cfg.clip), advantage[:, 0]
            surrogate = -torch.minimum(ratio * advantage, clipped * advantage).mean()
            kl = self._kl(mean.detach(), log_std.detach(), old_mean)
            if cfg.schedule == "adaptive":
                self._adapt(float(kl))
            self._descend("policy", surrogate - cfg.entropy * log_std.sum(), self.learning_rate)
            kl_sum, surrogate_sum = kl_sum + kl, surrogate_sum + surrogate.detach()
        return {"surrogate": float(surrogate_sum) / len(ids), "kl": float(kl_sum) / len(ids)}

    def _learn_critic(self, batch: dict[str, Tensor], ids: list[Tensor], rate: float) -> dict[str, float]:
        clip = self.cfg.clip
        packed, widths = _packed(batch, ("critic_seen", "value", "return"))
        total = torch.zeros((), device=self.device)
        for rows in ids:
            obs, old, target = _pick(packed, rows, widths)
            value = self.critic(obs)
            near = old + (value - old).clamp(-clip, clip)
            loss = torch.maximum((value - target) ** 2, (near - target) ** 2).mean()
            self._descend("critic", loss, rate)
            total = total + loss.detach()
        return {"value_loss": float(total) / len(ids)}

    def _descend(self, name: str, loss: Tensor, rate: float) -> None:
        """One step of Adam on the network `name`, its gradient clipped to max_grad_norm."""
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.cfg.max_grad_norm)
        optimizer.step()

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
            "optimizer": {name: o.state_dict()["state"] for name, o in self.optimizers.items()},
            "learning_rate": self.learning_rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.critic_normalizer.load_state_dict(state["critic_normalizer"])
        for name, optimizer in self.optimizers.items():
            moments = {int(i): m for i, m in state["optimizer"][name].items()}
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.learning_rate = state["learning_rate"]


def _packed(batch: dict[str, Tensor], keys: tuple[str, ...]) -> tuple[Tensor, list[int]]:
    """The columns side by side, (N, sum of widths): a minibatch is then picked by one copy of whole rows."""
    parts = [batch[k] if batch[k].dim() == 2 else batch[k][:, None] for k in keys]
    return torch.cat(parts, dim=1), [p.shape[1] for p in parts]


def _pick(packed: Tensor, rows: Tensor, widths: list[int]) -> tuple[Tensor, ...]:
    return packed.index_select(0, rows).split(widths, dim=1)
