"""What the off-policy learners share: replay, critics, demonstrations in every batch, and how often is learned.

The environment's action is what the actor says. Of a residual policy that is a correction, which critics see added to
the base's action: what reached the robot is what has a value, whoever said it.
"""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.algos.imitation import require_compiler
from robolearn.algos.off_policy_cfg import BLAME, OffPolicyCfg
from robolearn.data.replay import Batch, Replay
from robolearn.env import Extras, Obs
from robolearn.errors import ConfigError
from robolearn.memory import refuse_beyond
from robolearn.nets.encoder import observed
from robolearn.nets.ensemble import Ensemble
from robolearn.nets.histogram import Histogram
from robolearn.nets.vision import crop
from robolearn.policies.base import CORRECTION
from robolearn.policies.residual import composed
from robolearn.policies.squashed import SquashedPolicy
from robolearn.spec import PolicySpec

COPIES = 2
"""Of the replay, while a checkpoint is written."""
IMITATING = ("supervised", "hg_dagger")
FIT_ROWS = 20_000
"""Of the replay and of the demonstrations, from which the normalisers are made."""


class OffPolicy(ABC):
    def __init__(self, cfg: OffPolicyCfg, spec: PolicySpec, num_envs: int, device: torch.device,
                 generator: torch.Generator, stochastic: bool):  # fmt: skip
        self.cfg, self.spec, self.num_envs, self.env_device = cfg, spec, num_envs, device
        self.device = device = torch.device(cfg.device) if cfg.device else device
        self._own = device != self.env_device
        seed = int(torch.randint(2**31, (1,), generator=generator, device=self.env_device))
        self.generator = torch.Generator(device).manual_seed(seed) if self._own else generator
        self.steps_per_iteration = max(1, cfg.report_steps // num_envs)
        torch.manual_seed(seed)
        net = {"hidden": list(cfg.hidden), "activation": cfg.activation, "normalizer": cfg.normalizer}
        self.policy = SquashedPolicy(spec, net | {"stochastic": stochastic, "pictures": cfg.pictures()}).to(device)
        self._make_critics()
        self._make_optimizers()
        self.replay = self.new_replay(cfg.capacity, num_envs)
        self.demos: Replay | None = None
        self._demo_count = 0
        self._persons = self.replay.of_person()
        self._person_acted = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.updates, self.env_steps, self._owed = 0, 0, 0.0
        self._began, self._fitted = False, False
        self._sums: dict[str, Tensor] = {}
        self._count, self._actors, self._seconds, self._learned_from = 0, 0, 0.0, 0
        if cfg.compile:
            require_compiler(device)
        how = "reduce-overhead" if device.type == "cuda" else "default"
        self._critic_loss = torch.compile(self.critic_loss, mode=how) if cfg.compile else self.critic_loss
        self._actor_loss = torch.compile(self.actors_loss, mode=how) if cfg.compile else self.actors_loss

    def _make_critics(self) -> None:
        cfg, a = self.cfg, self.spec.action.dim
        self.scale = self.spec.action.params["scale"] if self.spec.action.function == CORRECTION else None
        self.histogram = (
            Histogram(cfg.value_low, cfg.value_high, cfg.hl_gauss).to(self.device) if cfg.hl_gauss else None
        )
        sizes = [self.policy.dim + a, *cfg.hidden, cfg.hl_gauss or 1]
        self.critic = Ensemble(cfg.critics, sizes, cfg.activation, cfg.layer_norm).to(self.device)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.action_mean = torch.zeros(a, device=self.device)
        self.action_std = torch.ones(a, device=self.device)

    def _make_optimizers(self) -> None:
        """The encoders of pictures are the critics' to train, where there are any; the actor reads what they see."""
        cfg, encoders = self.cfg, list(self.policy.encoders.parameters())
        self.imitates = cfg.labels == "hg_dagger"
        self._critic_parameters = [*self.critic.parameters(), *([] if self.imitates else encoders)]
        self._actor_parameters = [*self.policy.net.parameters(), *(encoders if self.imitates else [])]
        self.optimizers = {
            "critic": torch.optim.Adam(self._critic_parameters, lr=cfg.critic_rate, fused=True),
            "actor": torch.optim.Adam(self._actor_parameters, lr=cfg.actor_rate, fused=True),
        }

    def new_replay(self, capacity: int, lanes: int, what: str = "") -> Replay:
        """Of the observations that the policy reads. ConfigError, of `what`, if it would not fit into memory."""
        shapes = observed(self.spec.observation)
        dtypes = {k: torch.uint8 for k, s in shapes.items() if len(s) > 1}
        size = sum(math.prod(s) * (1 if k in dtypes else 4) for k, s in shapes.items()) + 32 + 4 * self.spec.action.dim
        refuse_beyond(COPIES * capacity * size, what or f"algo.capacity={capacity}", self.device)
        return Replay(capacity, lanes, shapes, dtypes, self.spec.action.dim, self.device)

    def learn_also_from(self, demos: Replay) -> None:
        """Their share of every batch is `demo_share`."""
        if not len(demos):
            raise ConfigError("there is not one transition in the demonstrations")
        self.demos, self._demo_count = demos, len(demos)
        if self.cfg.labels == "rlif":
            demos.reward.zero_()  # nobody had to take over

    # --- acting -----------------------------------------------------------------------------------------------------

    @property
    def learning(self) -> bool:
        return self.env_steps >= self.cfg.warmup_steps

    @abstractmethod
    def explore(self, obs: Obs) -> Tensor:
        """(B, A)"""

    @torch.no_grad()
    def act(self, obs: Obs) -> Tensor:
        obs = self.here(obs)
        if not self._began:
            self.replay.begin(obs)
            self._began = True
        return self.propose(obs).to(self.env_device)

    def propose(self, obs: Obs) -> Tensor:
        """(B, A): with noise, but of who imitates."""
        return self.policy.act(obs) if self.imitates else self.explore(obs)

    def here(self, obs: Obs) -> Obs:
        """On the device that learns."""
        return {k: v.to(self.device) for k, v in obs.items() if k in self.replay.frames}

    def observe(self, obs: Obs, reward: Tensor, terminated: Tensor, truncated: Tensor, extras: Extras) -> None:
        """Store it, and learn as often as `ratio` says: never more, whatever one takes."""
        with torch.no_grad():
            action, earned, end, cut = (
                v.to(self.device) for v in (extras["applied_action"], reward, terminated, truncated)
            )
            human = extras["intervened"].to(self.device) if "intervened" in extras else None
            everyone = torch.arange(self.num_envs, device=self.device)
            if human is not None:
                earned = self._judged(everyone, human, earned, end | cut)
            self.replay.add(action, earned, end, cut, self.here(extras["final_obs"]), self.here(obs), human)
            if human is not None:
                self._persons = self.replay.of_person()
        self._count_steps(self.num_envs)
        self.catch_up()

    def begin(self, lane: int, obs: Obs) -> None:
        """An episode's first frame (1, ...) in the environment `lane`, of those that keep no time with the others."""
        self.replay.begin(self.here(obs), torch.arange(self.num_envs, device=self.device) == lane)
        self._began, self._person_acted[lane] = True, False

    def receive(self, lane: int, action: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, final_obs: Obs,
                human: Tensor) -> None:  # fmt: skip
        """One step of the environment `lane`, (1, ...) each; `catch_up` learns of it."""
        lanes = torch.tensor([lane], device=self.device)
        reward = self._judged(lanes, human, reward, terminated | truncated)
        self.replay.add(action, reward, terminated, truncated, self.here(final_obs), None, human, lanes)
        self._persons = self.replay.of_person()
        self._count_steps(1)

    def _count_steps(self, steps: int) -> None:
        self.env_steps += steps
        if self.learning:
            self._learned_from += steps
            self._owed += self.cfg.ratio * steps

    @property
    def behind(self) -> bool:
        """Updates are owed."""
        return self._owed >= 1.0

    def catch_up(self, most: int = 2**31) -> int:
        """The updates that are owed, at most so many; how many were made."""
        start, made = time.perf_counter(), 0
        while self.behind and made < most:
            self._owed -= 1.0
            self.learn()
            made += 1
        self._seconds += time.perf_counter() - start
        return made

    def _judged(self, lanes: Tensor, human: Tensor, reward: Tensor, done: Tensor) -> Tensor:
        """The rewards (B,) that count where a person acts in the environments `lanes` (B,)."""
        onset = human & ~self._person_acted[lanes]
        self._person_acted[lanes] = human & ~done
        if self.cfg.labels != "rlif":
            return reward
        self.replay.blame(torch.zeros_like(self._person_acted).index_copy(0, lanes, onset), BLAME)
        return torch.zeros_like(reward)

    def restart(self) -> None:
        self.replay.cut(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))
        self._began = False

    def update(self, obs: Obs, progress: float) -> dict[str, float]:
        """The learning is done as the steps come: only its figures, since the last call."""
        means = {k: float(v) / n for k, (v, n) in self._totals().items()}
        rate = self._count / self._seconds if self._seconds else 0.0
        ratio = self._count / max(1, self._learned_from)
        means |= {"updates_per_s": rate, "update_ratio": ratio, "replay": float(len(self.replay))}
        self._sums, self._count, self._actors, self._seconds, self._learned_from = {}, 0, 0, 0.0, 0
        self._refuse_divergence(means)
        return means

    def _totals(self) -> dict[str, tuple[Tensor, int]]:
        return {k: (v, self._actors if k.startswith("actor") else self._count) for k, v in self._sums.items()}

    def _refuse_divergence(self, means: dict[str, float]) -> None:
        """Values ten times beyond what the greatest reward, for ever, adds up to."""
        value = means.get("value", 0.0)
        if abs(value) > 10.0 * max(1.0, self.most_return()):
            means["critics_diverged"] = math.nan  # the loop refuses what is not finite, and says at which step

    def most_return(self) -> float:
        rewards = [r.reward for r in (self.replay, self.demos) if r is not None]
        return self.for_ever(max(float(r.abs().max()) for r in rewards))

    def for_ever(self, reward: float) -> float:
        """What it adds up to; over 1,000 steps where nothing is discounted."""
        return reward / max(1e-3, 1.0 - self.cfg.gamma)

    # --- learning ---------------------------------------------------------------------------------------------------

    def batch(self) -> Batch:
        """Of the replay and the demonstrations, each its share; what a person did in the replay is in both."""
        cfg, persons = self.cfg, self._persons
        known = self._demo_count + len(persons)
        share = 1.0 if self.imitates else cfg.demo_share
        theirs = round(share * cfg.batch) if known else 0
        live = round(theirs * len(persons) / known) if known else 0
        parts = [(self.replay, cfg.batch - theirs), (self.demos, theirs - live)]
        found = [r.sample(n, self.generator, cfg.n_step, cfg.gamma) for r, n in parts if r is not None and n]
        if live:
            at = torch.randint(len(persons), (live,), generator=self.generator, device=self.device)
            found.append(self.replay.gather(persons[at], cfg.n_step, cfg.gamma))
        whole = {k: torch.cat([f[k] for f in found]) for k in found[0]} if len(found) > 1 else found[0]
        return whole | {k: self._cropped(v) for k, v in whole.items() if v.dtype == torch.uint8}

    def _cropped(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3), at random places: out here, for compiled code draws from a generator of its own."""
        size = tuple(self.cfg.image_crop)
        if not size:
            return pictures
        return crop(pictures.movedim(-1, -3), (size[0], size[1]), self.generator).movedim(-3, -1)

    def learn(self) -> None:
        """One update of the critics, and of the actor if it is its turn."""
        if not self._fitted:
            self._fit()
        cfg, batch = self.cfg, self.batch()
        if not self.imitates:
            self._learn_values(batch)
        self.updates += 1
        if self.updates > cfg.critic_warmup and self.updates % cfg.actor_every == 0:
            loss, figures = self._actor_loss(batch, self.noise(cfg.batch))
            self._descend("actor", loss, self._actor_parameters)
            self._add(figures if self.imitates else self.after_actor(figures))
            self._actors += 1
        self._count += 1

    def _learn_values(self, batch: Batch) -> None:
        picked = self.pick()
        loss, figures = self._critic_loss(batch, self.noise(self.cfg.batch), picked)
        self._descend("critic", loss, self._critic_parameters)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(self.critic.parameters()), self.cfg.tau)
        self._add(figures)

    def pick(self) -> Tensor | None:
        """The critics of a target, (k,); None for all."""
        k, n = self.cfg.sampled_critics, self.cfg.critics
        return None if k == n else torch.randperm(n, generator=self.generator, device=self.device)[:k]

    def noise(self, count: int) -> Tensor:
        """(B, A) normal: drawn out here, for compiled code draws from a generator of its own."""
        return torch.randn(count, self.spec.action.dim, generator=self.generator, device=self.device)

    def _descend(self, name: str, loss: Tensor, parameters: list[nn.Parameter]) -> None:
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, self.cfg.max_grad_norm)
        self.optimizers[name].step()
        for parameter in parameters:
            parameter.grad = None  # of a CUDA graph it would be overwritten by the next call

    def _add(self, figures: dict[str, Tensor]) -> None:
        for key, value in figures.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value.clone()

    @torch.no_grad()
    def _fit(self) -> None:
        """The normalisers, from what was seen so far; then they stay, and so does what critics know."""
        self._fitted = True
        drawn = [(r, r.draw(FIT_ROWS, self.generator)) for r in (self.replay, self.demos) if r is not None]
        seen = torch.cat([r.frames["policy"][rows] for r, rows in drawn])
        self.policy.normalizer.update(seen)
        sent = self.sent({"policy": seen}, torch.cat([r.action[rows] for r, rows in drawn]))
        self.action_mean, self.action_std = sent.mean(0), sent.std(0).clamp_min(0.05)

    # --- networks ---------------------------------------------------------------------------------------------------

    def sent(self, obs: Obs, action: Tensor) -> Tensor:
        """What reaches the robot of an actor's action (B, A)."""
        if self.scale is None:
            return action
        about = self.spec.action.params
        return composed(obs["policy"][:, -action.shape[-1] :], action, self.scale).clamp(about["low"], about["high"])

    def values(self, critic: Ensemble, features: Tensor, obs: Obs, action: Tensor,
               picked: Tensor | None = None) -> Tensor:  # fmt: skip
        """What the critics, or those picked, say, (E, B, 1) or (E, B, bins)."""
        sent = (self.sent(obs, action) - self.action_mean) / self.action_std
        return critic(torch.cat((features, sent), dim=-1), picked)

    @torch.no_grad()
    def value(self, obs: Obs, action: Tensor) -> Tensor:
        """(B,) of actions (B, A): the least that the critics say."""
        return self.as_value(self.values(self.critic, self.policy.features(obs), obs, action)).amin(0)

    def as_value(self, said: Tensor) -> Tensor:
        """(E, B)"""
        return self.histogram.value(said) if self.histogram else said.squeeze(-1)

    @abstractmethod
    def next_value(self, obs: Obs, noise: Tensor, picked: Tensor | None) -> Tensor:
        """(B,) of next observations, as the target's critics `picked` say."""

    @abstractmethod
    def actor_loss(self, batch: Batch, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...

    def actors_loss(self, batch: Batch, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """By the critics, by what a person did, or by both, as `labels` says."""
        if self.cfg.labels not in IMITATING:
            return self.actor_loss(batch, noise)
        said = self.policy.mean(self.policy.features(part(batch, "obs/")))
        human = batch["human"].float()
        away = (((said - batch["action"]) ** 2).mean(1) * human).sum() / human.sum().clamp_min(1.0)
        if self.imitates:
            return away, {"actor_distance": away.detach()}
        loss, figures = self.actor_loss(batch, noise)
        return loss + self.cfg.imitation * away, figures | {"actor_distance": away.detach()}

    def after_actor(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """What else is learned with the actor."""
        return figures

    def critic_loss(self, batch: Batch, noise: Tensor, picked: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        cfg, obs = self.cfg, part(batch, "obs/")
        with torch.no_grad():
            target = batch["reward"] + batch["discount"] * self.next_value(part(batch, "next/"), noise, picked)
            target = target.clamp(cfg.value_low, cfg.value_high)
        said = self.values(self.critic, self.policy.features(obs), obs, batch["action"])
        value = self.as_value(said)
        losses = self.histogram.loss(said, target) if self.histogram else (value - target) ** 2
        figures = {"critic_loss": losses.detach().mean(), "value": value.detach().mean(), "target": target.mean()}
        return losses.mean(1).sum(), figures

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(), "critic": self.critic.state_dict(), "target": self.target.state_dict(),
            "actions": {"mean": self.action_mean, "std": self.action_std},
            "optimizer": {name: _moments(o) for name, o in self.optimizers.items()},
            "replay": self.replay.state_dict(),
            "generator": {"state": self.generator.get_state()} if self._own else {},
            "counters": {"updates": self.updates, "env_steps": self.env_steps, "owed": self._owed,
                         "began": self._began, "fitted": self._fitted}, "person_acted": self._person_acted,
        }  # fmt: skip

    def load_networks(self, state: dict[str, Any]) -> None:
        """Of what `state_dict` gave: what is known, without what it was learned from."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.target.load_state_dict(state["target"])
        self.action_mean, self.action_std = (state["actions"][k].to(self.device) for k in ("mean", "std"))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_networks(state)
        for name, optimizer in self.optimizers.items():
            moments = {int(i): s for i, s in state.get("optimizer", {}).get(name, {}).items()}
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self.replay.load_state_dict(state["replay"])
        if self._own:
            self.generator.set_state(state["generator"]["state"].cpu())
        counters = state["counters"]
        self.updates, self.env_steps, self._owed = counters["updates"], counters["env_steps"], counters["owed"]
        self._began, self._fitted = counters["began"], counters["fitted"]
        self._person_acted, self._persons = state["person_acted"].to(self.device), self.replay.of_person()


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {str(i): s for i, s in optimizer.state_dict()["state"].items()}


def part(batch: Batch, prefix: str) -> Obs:
    return {k.removeprefix(prefix): v for k, v in batch.items() if k.startswith(prefix)}
