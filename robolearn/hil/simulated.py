"""Simulated people, for studies of learning with interventions: when they take over, how late, how well, how long.

A rule says whether a person would like to help; a person does it some time later, and holds on for a while.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from robolearn.config import register
from robolearn.env import Obs
from robolearn.errors import ConfigError
from robolearn.state import put_tensors, tensors_of

Value = Callable[[Obs, Tensor], Tensor]
"""What a critic says of actions (B, A), (B,)."""
CERTAINTY = 0.95
"""With which a person who compares actions does what the comparison says (RLIF, Luo et al. 2024)."""


class Hand(Protocol):
    """Who does the task in a person's place: a scripted expert, or a trained policy that is told the states."""

    def reset(self, mask: Tensor) -> None:
        """Episodes begin in these environments (B,)."""
        ...

    def take_over(self, mask: Tensor) -> None:
        """There it goes on with what somebody else has begun."""
        ...

    def act(self) -> Tensor:
        """(B, A), from the state as it is now; called once a step."""
        ...


@dataclass
class PersonCfg:
    name: str = "???"
    delay_s: float = 0.3
    """From the wish to the take-over."""
    hold_s: float = 0.5
    """That an intervention takes at least."""
    noise: float = 0.3
    """Of the scripted expert whose hand it is: 0 clean, 1 with errors, tremor, pauses and detours."""
    strategy: str = ""
    """Of the expert; at random if not given, as people are who have not agreed how to do it."""
    tired_after_s: float = math.inf
    """Of interventions, after which the delay has doubled."""

    def __post_init__(self) -> None:
        for name in ("delay_s", "hold_s", "noise"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"person.{name} must be finite and at least 0, got {getattr(self, name)}")
        if not self.tired_after_s > 0.0:
            raise ValueError(f"person.tired_after_s must be above 0, got {self.tired_after_s}")


class SimulatedPerson(ABC):
    """Fulfils `robolearn.hil.env.Person`. Reproducible by its generator's seed."""

    watches = False
    """Looks at every step at what the policy would do, and at what the hand would; beside a twin nobody can."""
    compares = False
    """By a critic."""

    def __init__(self, cfg: PersonCfg, hand: Hand, num_envs: int, dt: float, device: torch.device,
                 generator: torch.Generator, value: Value | None = None):  # fmt: skip
        """`value` is the critic of those who compare. ConfigError if they lack one."""
        self.cfg, self.hand, self.dt, self.generator, self.value = cfg, hand, dt, generator, value
        if value is None and self.compares:
            raise ConfigError(f"person={cfg.name} compares actions: it needs person.critic=RUN, of sac or td3")
        self.time_s, self.wish_s, self.held_s, self.lost = (torch.zeros(num_envs, device=device) for _ in range(4))
        """Of the episode; since a wish; of an intervention; and what `advantage` adds up, or `watchful` averages."""
        self.acting, self.wishing = (torch.zeros(num_envs, dtype=torch.bool, device=device) for _ in range(2))
        self.worked_s = torch.zeros((), device=device)

    def reset(self, mask: Tensor) -> None:
        for name in ("time_s", "wish_s", "held_s", "lost", "acting", "wishing"):
            setattr(self, name, getattr(self, name) * ~mask)
        self.hand.reset(mask)

    def act(self, obs: Obs, proposed: Tensor) -> tuple[Tensor, Tensor]:
        if self.watches:
            self.hand.take_over(~self.acting)
        said = self.hand.act() if self.watches or bool(self.acting.any()) else proposed
        wants = self.wants(obs, proposed, said)
        self.wishing = self.wishing | (wants & ~self.acting)  # a decision is carried out, though it be late
        delay_s = self.cfg.delay_s * (1.0 + self.worked_s / self.cfg.tired_after_s)
        takes = self.wishing & (self.wish_s >= delay_s - 1e-6)
        keeps = self.acting & (wants | (self.held_s < self.cfg.hold_s - 1e-6))
        if bool(takes.any()):
            self.hand.take_over(takes)
            said = torch.where(takes[:, None], self.hand.act(), said)
        self.acting, self.wishing = takes | keeps, self.wishing & ~takes
        self.wish_s = (self.wish_s + self.dt) * self.wishing
        self.held_s = (self.held_s + self.dt) * self.acting
        self.worked_s = self.worked_s + self.dt * self.acting.sum()
        self.time_s = self.time_s + self.dt
        return self.acting, said

    @abstractmethod
    def wants(self, obs: Obs, proposed: Tensor, said: Tensor) -> Tensor:
        """Where the person would like to act, (B,) bool; `said` (B, A) is what the hand would do, if it was looked
        at."""

    def drawn(self, share: float) -> Tensor:
        return torch.rand(len(self.acting), generator=self.generator, device=self.acting.device) < share

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        own = {k: v.clone() for k, v in tensors_of(self).items()}
        return {"own": own, "hand": getattr(self.hand, "state_dict", dict)(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        put_tensors(self, state["own"])
        if state.get("hand"):
            self.hand.load_state_dict(state["hand"])  # type: ignore[attr-defined]
        self.generator.set_state(state["generator"].cpu())


@dataclass
class LateCfg(PersonCfg):
    name: str = "late"
    patience_s: float = 4.0
    """That an episode may take before somebody helps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.patience_s < math.inf:
            raise ValueError(f"person.patience_s must be finite and at least 0, got {self.patience_s}")


@register("person", "late", LateCfg)
class Late(SimulatedPerson):
    """Takes over when an episode has gone on for so long, and brings it to its end."""

    cfg: LateCfg

    def wants(self, obs: Obs, proposed: Tensor, said: Tensor) -> Tensor:
        return self.time_s >= self.cfg.patience_s


@dataclass
class WatchfulCfg(PersonCfg):
    name: str = "watchful"
    margin: float = 0.5
    """Root mean square, over the numbers of an action, of how much else the person would do."""
    watch_s: float = 0.3
    """Over which they average it."""
    patience_s: float = math.inf
    """That an episode may take before they bring it to its end, as `late` does."""
    trust_after_s: float = math.inf
    """Of all episodes, in an environment: from then on the policy may go its own way, until `patience_s`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("margin", "watch_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"person.{name} must be finite and above 0, got {getattr(self, name)}")
        for name in ("patience_s", "trust_after_s"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"person.{name} must be at least 0, got {getattr(self, name)}")


@register("person", "watchful", WatchfulCfg)
class Watchful(SimulatedPerson):
    """Takes over where the policy goes another way than they would, until it would go half as far from theirs; or when
    it has had its time. Whoever has seen it for long enough leaves it the way, and looks at the time alone."""

    watches = True
    cfg: WatchfulCfg

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.seen_s = torch.zeros((), device=self.acting.device)

    def wants(self, obs: Obs, proposed: Tensor, said: Tensor) -> Tensor:
        cfg = self.cfg
        away = ((said - proposed) ** 2).mean(1).sqrt()
        self.lost = self.lost + (away - self.lost) * min(1.0, self.dt / cfg.watch_s)
        self.seen_s = self.seen_s + self.dt
        margin = torch.where(self.seen_s < cfg.trust_after_s, cfg.margin, math.inf)
        astray = self.lost > torch.where(self.acting, margin / 2, margin)
        return astray | (self.time_s >= cfg.patience_s)


@dataclass
class AtRandomCfg(PersonCfg):
    name: str = "at_random"
    share: float = 0.3
    """Of the steps that are the person's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"person.share must be in (0, 1), got {self.share}")


@register("person", "at_random", AtRandomCfg)
class AtRandom(SimulatedPerson):
    """Takes over now and then, whatever the policy does."""

    cfg: AtRandomCfg

    def wants(self, obs: Obs, proposed: Tensor, said: Tensor) -> Tensor:
        """So seldom that `share` is what comes of it, with the delay before and the hold after each wish."""
        cfg = self.cfg
        free = max(1.0, cfg.hold_s / self.dt) * (1.0 - cfg.share) / cfg.share
        return self.drawn(1.0 / max(1.0, free - cfg.delay_s / self.dt)) & ~self.acting


@dataclass
class ComparingCfg(PersonCfg):
    name: str = "margin"
    margin: float = 0.1
    """Of values, which no reward's sign or size can turn round, as a ratio of them would be."""
    critic: str = ""
    """A run of sac or td3."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.margin < math.inf:
            raise ValueError(f"person.margin must be finite and at least 0, got {self.margin}")


class Comparing(SimulatedPerson):
    watches = compares = True
    cfg: ComparingCfg

    def loss(self, obs: Obs, proposed: Tensor, said: Tensor) -> Tensor:
        """How much more the hand's action is worth, (B,)."""
        assert self.value is not None
        return self.value(obs, said) - self.value(obs, proposed)

    def mostly(self, right: Tensor) -> Tensor:
        return torch.where(self.drawn(CERTAINTY), right, ~right)


@register("person", "margin", ComparingCfg)
class ByMargin(Comparing):
    """Takes over where the policy's action is worth so much less than the person's."""

    def wants(self, obs: Obs, proposed: Tensor, said: Tensor) -> Tensor:
        return self.mostly(self.loss(obs, proposed, said) > self.cfg.margin)


@dataclass
class AdvantageCfg(ComparingCfg):
    name: str = "advantage"


@register("person", "advantage", AdvantageCfg)
class ByAdvantage(Comparing):
    """Takes over when what the policy's actions lost has added up to so much since the last intervention."""

    def wants(self, obs: Obs, proposed: Tensor, said: Tensor) -> Tensor:
        self.lost = self.lost * ~self.acting + self.loss(obs, proposed, said).clamp_min(0.0)
        return self.mostly(self.lost > self.cfg.margin)


@dataclass
class NobodyCfg:
    name: str = "nobody"


@register("person", "nobody", NobodyCfg)
class Nobody:
    """The policy is alone."""
