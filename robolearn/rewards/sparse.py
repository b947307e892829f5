"""The reward that the world itself gives: success, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from robolearn.registry import register
from robolearn.rewards.base import Judgement, Needs, RewardCfg, RewardSource, Transitions, needed


@dataclass
class SparseCfg(RewardCfg):
    name: str = "sparse"
    worth: float = 1.0
    """Of a step that led to success."""


@register("reward", "sparse", SparseCfg)
class Sparse(RewardSource):
    """What the simulation's check, or a person, said of success."""

    needs = Needs(success=True)

    def judge(self, steps: Transitions) -> Judgement:
        success = needed(steps.success, "success", self)
        return Judgement(self.cfg.worth * success.float(), success)
