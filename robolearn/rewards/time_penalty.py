"""A price for every step: what makes a success that comes sooner worth more."""

from __future__ import annotations

from dataclasses import dataclass

from robolearn.registry import register
from robolearn.rewards.base import Judgement, Needs, RewardCfg, RewardSource, Transitions, needed


@dataclass
class TimePenaltyCfg(RewardCfg):
    name: str = "time_penalty"
    cost: float = 1.0
    """Of a step that did not lead to success."""

    def __post_init__(self) -> None:
        if self.cost < 0.0:
            raise ValueError(f"reward.cost must be at least 0, got {self.cost}")


@register("reward", "time_penalty", TimePenaltyCfg)
class TimePenalty(RewardSource):
    """Minus `cost` a step until the task is done: its return is the time that was needed."""

    needs = Needs(success=True)

    def judge(self, steps: Transitions) -> Judgement:
        success = needed(steps.success, "success", self)
        return Judgement(-self.cfg.cost * (~success).float(), success)
