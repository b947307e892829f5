"""A world whose rewards and ends are those of a reward source, step by step as they happen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robolearn.env import Env, Extras, Obs
from robolearn.errors import ConfigError, unknown
from robolearn.nets.encoder import observed
from robolearn.rewards.base import Live, RewardError, RewardSource, Transitions

log = logging.getLogger(__name__)
WRONG = "failure"
"""The button by which a person says, before the next episode begins, that the last one was no success."""
Doubted = Callable[[list[Obs]], object]


class RewardedEnv:
    """Fulfils `robolearn.env.Env` for one environment, which may be a robot or simulated, with or without a person.

    A success that the source sees ends the episode; so does one that a person says, which is worth 1 at least, and no
    source outweighs a person who says failure. At the first sight of an episode the source may refuse to judge it:
    then `reset` raises RewardError, and a robot holds. `on_doubt` is told the observations of an episode that the
    source called a success and the person, or the simulation, did not.
    """

    def __init__(self, env: Env, source: RewardSource, instruction: str = "", on_doubt: Doubted | None = None):
        """ConfigError for a source that needs what this world does not show."""
        if env.num_envs != 1:
            raise ValueError(f"one environment is judged, not {env.num_envs}")
        there = observed(env.observation_spec)
        for key in source.needs.observed:
            if key not in there:
                raise ConfigError(f"reward={source.cfg.name}: {unknown('observation', key, list(there))}")
            if tuple(source.shapes[key]) != tuple(there[key]):
                raise ConfigError(f"reward={source.cfg.name} was made for {key} of shape {source.shapes[key]}, here it "
                                  f"is {there[key]}")  # fmt: skip
        self.env, self.source, self.instruction, self.on_doubt = env, source, instruction, on_doubt
        self.live: Live = source.live(1)
        self.claims, self.doubts = 0, 0
        """Successes that the source has ended an episode with, and those of them that were none."""
        self._seen: list[Obs] = []
        self._claimed, self._unseen = False, False
        self._everyone = torch.ones(1, dtype=torch.bool, device=env.device)

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # not there yet, or any more
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, Extras]:
        obs, extras = self.env.reset(seed, options)
        if self._claimed and WRONG in extras.get("told", ()):
            self._doubt()
        self._begin(obs)
        return obs, extras

    @torch.no_grad()
    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        obs, _, terminated, truncated, extras = self.env.step(action)
        final, before = extras["final_obs"], self._seen[-1]
        said = extras["episode"].get("success", torch.zeros(1, device=self.env.device)) > 0.5
        self._seen.append(self._needed(final))
        judged = self.live.step(
            Transitions(final, terminated, before, extras["applied_action"], said, self.instruction)
        )
        claimed = torch.zeros_like(terminated) if judged.success is None else judged.success
        told = terminated if "awaiting_reset" in extras else torch.zeros_like(terminated)  # by a person
        won = torch.where(told, said, claimed if self.source.tells_success else said & terminated)
        reward = torch.where(told & said, judged.reward.clamp_min(1.0), judged.reward)
        reward = torch.where(told & ~said, reward.clamp_max(0.0), reward)
        extras = extras | {"episode": extras["episode"] | {"success": won.float()}}
        ended, was_over = terminated | claimed, bool(terminated | truncated)
        truncated = truncated & ~ended
        if bool(ended | truncated):
            obs, extras = self._end(obs, bool(claimed & ~told), bool(said), was_over, extras)
        return obs, reward, ended, truncated, extras

    def _end(self, obs: Obs, claimed: bool, said: bool, was_over: bool, extras: Extras) -> tuple[Obs, Extras]:
        """The episode is over: a world that resets itself begins the next one, which it has to be told of if the end
        was the source's; a robot's begins with `reset`."""
        self._claimed = claimed
        self.claims += claimed
        if "awaiting_reset" in extras:
            end = getattr(self.env, "end", None)
            if end is not None and claimed:
                end(True)
            return obs, extras | {"awaiting_reset": True}
        if claimed and not said:
            self._doubt()
        if not was_over:
            obs, _ = self.env.reset()
        try:
            self._begin(obs)
        except RewardError as error:
            log.warning("%s", error)
            return obs, extras | {"awaiting_reset": True}
        return obs, extras

    def _begin(self, obs: Obs) -> None:
        self._seen, self._claimed = [self._needed(obs)], False
        try:
            self.live.reset(self._everyone, obs)
        except RewardError:
            hold = getattr(self.env, "hold", None)
            if hold is not None:
                hold()
            raise

    def _needed(self, obs: Obs) -> Obs:
        return {k: obs[k].clone() for k in self.source.needs.observed}

    def _doubt(self) -> None:
        self._claimed = False
        self.doubts += 1
        log.warning("that was no success, says who knows: %d of %d", self.doubts, self.claims)
        if self.on_doubt is not None:
            self.on_doubt(self._seen)
