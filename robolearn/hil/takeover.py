"""Who is in control: a person who takes hold of a device, several devices of which one has the say, and the way back to
the policy without a bump. Numbers and times come in; nothing here reads a clock or a device.

A device's deflection is the largest of its axes as a share of the full one. Decided by a threshold alone, a stick that
does not return quite to its middle, or noise, would be an intervention (HIL-SERL's code takes 0.001 of a norm).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class TakeoverCfg:
    above: float = 0.2
    """Deflection above which a person may be meant,"""
    above_s: float = 0.06
    """and is, if it stays there for so long."""
    below: float = 0.1
    """Deflection below which they may have let go,"""
    below_s: float = 0.4
    """and have, if it stays there for so long."""

    def __post_init__(self) -> None:
        if not 0.0 < self.below < self.above < 1.0:
            raise ValueError(f"take-over needs 0 < below < above < 1, got below {self.below} and above {self.above}")
        for name in ("above_s", "below_s"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"take-over's {name} must be at least 0 and finite, got {getattr(self, name)}")


class Takeover:
    """Whether a person has hold of one device: `held`. What is deflected or pressed from the start, after a loss, or
    after `let_go` counts only when it was at rest once."""

    def __init__(self, cfg: TakeoverCfg):
        self.cfg = cfg
        self.held, self._ready = False, False
        self._since_s: float | None = None  # from when on it has been where the other state begins
        self._now_s = -math.inf

    def __call__(self, now_s: float, deflection: float, pressed: bool = False) -> bool:
        """`pressed`: a button that means "I take over", with no delay. What is no number counts as let go."""
        if not (math.isfinite(deflection) and math.isfinite(now_s)):
            self.let_go()
            return False
        if now_s < self._now_s:  # another clock: what has lasted so far is not known
            self._since_s = None
        self._now_s = now_s
        rests = deflection < self.cfg.below and not pressed
        if not self._ready:
            self._ready = rests
        elif self.held:
            self.held = not self._lasted(rests, self.cfg.below_s)
        else:
            self.held = self._lasted(deflection > self.cfg.above, self.cfg.above_s) or pressed
            self._since_s = None if self.held else self._since_s
        return self.held

    def _lasted(self, true: bool, long_s: float) -> bool:
        """Whether it has been true since `long_s` ago; that over, it begins anew."""
        if not true:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = self._now_s
        if self._now_s - self._since_s < long_s:
            return False
        self._since_s = None
        return True

    def let_go(self) -> None:
        """By a button, a loss of the device, or because somebody else has the authority."""
        self.held, self._ready, self._since_s = False, False, None


class Claim(NamedTuple):
    """What one device says."""

    deflection: float
    take: bool = False
    let_go: bool = False


class Verdict(NamedTuple):
    owner: str
    """Device that is in control, or empty."""
    lost: bool
    """The one that was in control has just been lost: nobody has let go, and nothing may go on by itself."""
    refused: tuple[str, ...]
    """Messages, once for each attempt."""


class Desk:
    """Several devices: who came first stays in control until they let go. Who was refused has to let go, too, before
    the next attempt counts, lest the arm changes hands unnoticed."""

    def __init__(self, cfg: TakeoverCfg, names: Sequence[str]):
        """`names` decide between those who take over at the same moment."""
        self.takeovers = {name: Takeover(cfg) for name in names}
        self.owner = ""
        self._refused: set[str] = set()

    def __call__(self, now_s: float, claims: Mapping[str, Claim | None]) -> Verdict:
        """Of each device what it says now; None if it is lost."""
        for name, takeover in self.takeovers.items():
            claim = claims.get(name)
            if claim is None or claim.let_go:
                takeover.let_go()
            else:
                takeover(now_s, claim.deflection, claim.take)
        held = [name for name, takeover in self.takeovers.items() if takeover.held]
        self._refused &= set(held)
        lost = bool(self.owner) and claims.get(self.owner) is None
        if self.owner not in held:
            self.owner = next((name for name in held if name not in self._refused), "")
        late = [name for name in held if name != self.owner and name not in self._refused]
        self._refused |= set(late)
        return Verdict(self.owner, lost, tuple(f"{n} is refused: {self.owner} is in control, and must let go first"
                                               for n in late))  # fmt: skip

    def drop(self) -> None:
        """The authority went to somebody else, or was refused: whoever has hold of a device must let go first."""
        for takeover in self.takeovers.values():
            takeover.let_go()
        self.owner = ""


class HandBack:
    """The policy's actions after a person's last one: what lies between the two is added to what the policy wants, and
    taken away by `step` an action. So the first is the person's last, and from one action to the next it changes by no
    more than the policy changes its own and `step`; it is over after at most the largest gap divided by `step`.

    Batched; environments that nothing was handed back in are left alone."""

    def __init__(self, num_envs: int, step: Tensor, low: float = -1.0, high: float = 1.0):
        """`step` (A,) above zero, in the action's units; infinite where a jump does no harm (a gripper)."""
        if not (step > 0.0).all():
            raise ValueError(f"every step of a hand-back must be above 0, got {step.tolist()}")
        self.step, self.low, self.high = step, low, high
        self.gap = torch.zeros(num_envs, len(step), device=step.device)

    def begin(self, mask: Tensor, human: Tensor, policy: Tensor) -> None:
        """The environments in mask (B,) go from the person's last action to what the policy wants now, each (B, A)."""
        gap = torch.nan_to_num(human - policy, nan=0.0, posinf=0.0, neginf=0.0)
        gap = torch.where(torch.isinf(self.step), torch.zeros_like(gap), gap)
        self.gap = torch.where(mask[:, None], gap, self.gap)

    def __call__(self, policy: Tensor) -> Tensor:
        """The next action (B, A) for what the policy wants (B, A)."""
        action = (policy + self.gap).clamp(self.low, self.high)
        self.gap = self.gap - self.gap.clamp(-self.step, self.step)
        return action

    def reset(self, mask: Tensor) -> None:
        """A new episode in the environments of mask (B,)."""
        self.gap = torch.where(mask[:, None], torch.zeros_like(self.gap), self.gap)

    @property
    def active(self) -> Tensor:
        """(B,) bool: in these environments the next action is not the policy's alone."""
        return (self.gap != 0.0).any(1)
