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

from robolearn.algos.batches import cropped, joined, part, shares
from robolearn.algos.figures import Figures
from robolearn.algos.gripper import Gripper
from robolearn.algos.imitation import require_compiler
from robolearn.algos.off_policy_cfg import BLAME, FROZEN, OffPolicyCfg
from robolearn.algos.optimizers import fall, put_state, rates_of, state_of
from robolearn.data.replay import Batch, Replay
from robolearn.env import Extras, Obs
from robolearn.errors import ConfigError
from robolearn.memory import refuse_beyond
from robolearn.nets.encoder import observed
from robolearn.nets.ensemble import Ensemble
from robolearn.nets.histogram import Histogram
from robolearn.policies.base import CORRECTION
from robolearn.policies.residual import composed
from robolearn.policies.squashed import DISCRETE, GRIPPER, SquashedPolicy
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
        net: dict[str, Any] = {"hidden": list(cfg.hidden), "activation": cfg.activation, "normalizer": cfg.normalizer}
        net |= {"stochastic": stochastic, "pictures": cfg.pictures()}
        decides = cfg.gripper == DISCRETE
        self.policy = SquashedPolicy(spec, net | ({GRIPPER: DISCRETE} if decides else {})).to(device)
        self.policy.begin_with(cfg.image_weights, cfg.encoder == FROZEN)
        self.gripper = Gripper(cfg, self.policy) if decides else None
        self._make_critics()
        self._make_optimizers()
        self.replay = self.new_replay(cfg.capacity, num_envs)
        self.demos: Replay | None = None
        self._demo_count = 0
        self._persons = self.replay.of_person()
        self._person_acted = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.updates, self.env_steps, self._owed = 0, 0, 0.0
        self._began, self._fitted = False, False
        self.figures = Figures()
        if cfg.compile:
            require_compiler(device)
        how = "reduce-overhead" if device.type == "cuda" else "default"
        self._critic_loss = torch.compile(self.critic_loss, mode=how) if cfg.compile else self.critic_loss
        self._actor_loss = torch.compile(self.actors_loss, mode=how) if cfg.compile else self.actors_loss

    def _make_critics(self) -> None:
        cfg, a = self.cfg, self.policy.arm
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
        cfg, encoders = self.cfg, [p for p in self.policy.encoders.parameters() if p.requires_grad]
        self.imitates = cfg.labels == "hg_dagger"
        decide = list(self.gripper.parameters()) if self.gripper else []
        self._critic_parameters = [*self.critic.parameters(), *([] if self.imitates else encoders + decide)]
        self._actor_parameters = [*self.policy.net.parameters(), *(encoders + decide if self.imitates else [])]
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
        """(B, A), but of a gripper that decides: (B, A - 1)."""

    @torch.no_grad()
    def act(self, obs: Obs) -> Tensor:
        obs = self.here(obs)
        if not self._began:
            self.replay.begin(obs)
            self._began = True
        return self.propose(obs).to(self.env_device)

    def propose(self, obs: Obs) -> Tensor:
        """(B, A): with noise, but of who imitates."""
        if self.imitates:
            return self.policy.act(obs)
        said = self.explore(obs)
        if self.gripper is None:
            return said
        return self.gripper.explored(self.policy.whole(said, self.policy.features(obs)), self.generator)

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
        lanes, told = torch.tensor([lane], device=self.device), (action, reward, terminated, truncated, human)
        action, reward, terminated, truncated, human = (v.to(self.device) for v in told)
        reward = self._judged(lanes, human, reward, terminated | truncated)
        self.replay.add(action, reward, terminated, truncated, self.here(final_obs), None, human, lanes)
        self._persons = self.replay.of_person()
        self._count_steps(1)

    def _count_steps(self, steps: int) -> None:
        self.env_steps += steps
        if self.learning:
            self.figures.steps += steps
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
        self.figures.seconds += time.perf_counter() - start
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
        means = self.figures.means() | {"replay": float(len(self.replay))}
        self.figures = Figures()
        fall(self.optimizers, self.cfg, progress)
        self._refuse_divergence(means)
        return means

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
        share = 1.0 if self.imitates else cfg.demo_share
        own, shown, live = shares(cfg.batch, share, self._demo_count, len(persons))
        parts = [(self.replay, own), (self.demos, shown)]
        found = [self._of(r, r.draw(n, self.generator)) for r, n in parts if r is not None and n]
        if live:
            at = torch.randint(len(persons), (live,), generator=self.generator, device=self.device)
            found.append(self._of(self.replay, persons[at]))
        return cropped(joined(found), cfg.image_crop, self.generator)

    def _of(self, replay: Replay, rows: Tensor) -> Batch:
        found = replay.gather(rows, self.cfg.n_step, self.cfg.gamma)
        return found | self.gripper.of(replay, rows) if self.gripper else found

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
            self.figures.add(figures if self.imitates else self.after_actor(figures))
            self.figures.of_actor += 1
        self.figures.updates += 1

    def _learn_values(self, batch: Batch) -> None:
        picked = self.pick()
        loss, figures = self._critic_loss(batch, self.noise(self.cfg.batch), picked)
        self._descend("critic", loss, self._critic_parameters)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(self.critic.parameters()), self.cfg.tau)
        if self.gripper:
            self.gripper.follow()
        self.figures.add(figures)

    def pick(self) -> Tensor | None:
        """The critics of a target, (k,); None for all."""
        k, n = self.cfg.sampled_critics, self.cfg.critics
        return None if k == n else torch.randperm(n, generator=self.generator, device=self.device)[:k]

    def noise(self, count: int) -> Tensor:
        """(B, `arm`) normal: drawn out here, for compiled code draws from a generator of its own."""
        return torch.randn(count, self.policy.arm, generator=self.generator, device=self.device)

    def _descend(self, name: str, loss: Tensor, parameters: list[nn.Parameter]) -> None:
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, self.cfg.max_grad_norm)
        self.optimizers[name].step()
        for parameter in parameters:
            parameter.grad = None  # of a CUDA graph it would be overwritten by the next call

    @torch.no_grad()
    def _fit(self) -> None:
        """The normalisers, from what was seen so far; then they stay, and so does what critics know."""
        self._fitted = True
        drawn = [(r, r.draw(FIT_ROWS, self.generator)) for r in (self.replay, self.demos) if r is not None]
        seen = torch.cat([r.frames["policy"][rows] for r, rows in drawn])
        self.policy.normalizer.update(seen)
        sent = self.sent({"policy": seen}, torch.cat([r.action[rows, : self.policy.arm] for r, rows in drawn]))
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
        """What the critics, or those picked, say, (E, B, 1) or (E, B, bins); of the arm's part of an action."""
        sent = (self.sent(obs, action[:, : self.policy.arm]) - self.action_mean) / self.action_std
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
        features = self.policy.features(part(batch, "obs/"))
        human, theirs = batch["human"].float(), batch["action"][:, : self.policy.arm]
        away = (((self.policy.mean(features) - theirs) ** 2).mean(1) * human).sum() / human.sum().clamp_min(1.0)
        if self.imitates:
            chosen = self.gripper.surprise(batch, features) if self.gripper else 0.0
            return away + chosen, {"actor_distance": away.detach()}
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
        features = self.policy.features(obs)
        said = self.values(self.critic, features, obs, batch["action"])
        value = self.as_value(said)
        losses = self.histogram.loss(said, target) if self.histogram else (value - target) ** 2
        figures = {"critic_loss": losses.detach().mean(), "value": value.detach().mean(), "target": target.mean()}
        if self.gripper is None:
            return losses.mean(1).sum(), figures
        decided, more = self.gripper.loss(batch, features, self.policy.features(part(batch, "next/")).detach())
        return losses.mean(1).sum() + decided, figures | more

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(), "critic": self.critic.state_dict(), "target": self.target.state_dict(),
            "actions": {"mean": self.action_mean, "std": self.action_std},
            "optimizer": state_of(self.optimizers), "rates": rates_of(self.optimizers),
            "gripper": self.gripper.state_dict() if self.gripper else {}, "replay": self.replay.state_dict(),
            "generator": {"state": self.generator.get_state()} if self._own else {},
            "counters": {"updates": self.updates, "env_steps": self.env_steps, "owed": self._owed,
                         "began": self._began, "fitted": self._fitted}, "person_acted": self._person_acted,
        }  # fmt: skip

    def load_networks(self, state: dict[str, Any]) -> None:
        """Of what `state_dict` gave: what is known, without what it was learned from."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.target.load_state_dict(state["target"])
        if self.gripper:
            self.gripper.load_state_dict(state["gripper"])
        self.action_mean, self.action_std = (state["actions"][k].to(self.device) for k in ("mean", "std"))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_networks(state)
        put_state(self.optimizers, state.get("optimizer", {}), state.get("rates", {}))
        self.replay.load_state_dict(state["replay"])
        if self._own:
            self.generator.set_state(state["generator"]["state"].cpu())
        counters = state["counters"]
        self.updates, self.env_steps, self._owed = counters["updates"], counters["env_steps"], counters["owed"]
        self._began, self._fitted = counters["began"], counters["fitted"]
        self._person_acted, self._persons = state["person_acted"].to(self.device), self.replay.of_person()
