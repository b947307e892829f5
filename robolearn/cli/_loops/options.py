"""Settings of the loops that learn from data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robolearn.cli._options import option

PRELOAD = ("auto", "true", "false")


@dataclass
class DataOptions:
    path: str = option("", "folder of the set of episodes; robolearn collect makes one")
    episodes: int = option(0, "the first so many; 0 for all")
    only_success: bool = option(False, "only those that succeeded")
    preload: str = option("auto", "pictures in memory", PRELOAD)
    memory_mb: float = option(4000.0, "up to which `auto` does that")
    workers: int = option(0, "processes that decode pictures that are not in memory")

    def __post_init__(self) -> None:
        self.preload = self.preload.lower()  # YAML's true
        if self.preload not in PRELOAD:
            raise ValueError(f"data.preload must be one of {', '.join(PRELOAD)}, got {self.preload}")
        if self.episodes < 0 or self.workers < 0 or not self.memory_mb >= 0.0:
            raise ValueError("data.episodes, data.workers and data.memory_mb must be at least 0")


@dataclass
class ResidualOptions:
    base: str = option("", "a run or bundle of a policy that plans chunks, to be corrected")
    scale: float = option(0.1, "the largest correction, in units of the action")
    switch_steps: int = option(0, "environment steps in which more and more episodes are corrected; 0: all at once")

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < math.inf or self.switch_steps < 0:
            raise ValueError(f"residual.scale must be finite and above 0, switch_steps at least 0, got {self.scale}, "
                             f"{self.switch_steps}")  # fmt: skip
