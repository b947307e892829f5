"""How it goes on a robot: steps and episodes of a RobotEnv, for who watches; told once a second on /diagnostics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from real.nodes.report import OK, Report

RECENT = 20
"""Episodes, whoever ended them."""
EVERY_S = 1.0


class Episode(NamedTuple):
    length: int
    human: int
    """Steps of the person's."""
    success: bool


class Progress:
    def __init__(self, node: Any, robot: str, dt: float, clock: Callable[[], float] = time.monotonic):
        """`dt` of a step, s."""
        self.dt, self._clock, self._told_s = dt, clock, float("-inf")
        self.steps = self.late = self._length = self._human = 0
        self.recent: deque[Episode] = deque(maxlen=RECENT)
        self._report = Report(node, robot)

    def __call__(self, human: bool, late: bool, done: bool, success: bool) -> None:
        """One step; `done`: the last one of its episode."""
        self.steps, self.late = self.steps + 1, self.late + late
        self._length, self._human = self._length + 1, self._human + human
        if done:
            self.end(success)
        if self._clock() - self._told_s >= EVERY_S:
            self._told_s = self._clock()
            self._report(OK, "acting", {name: f"{value:.4g}" for name, value in self.figures().items()})

    def end(self, success: bool) -> None:
        """The last step was its episode's last one; once more, if it turns out what came of it."""
        if self._length:
            self.recent.append(Episode(self._length, self._human, success))
        elif self.recent:
            self.recent[-1] = self.recent[-1]._replace(success=success)
        self._length = self._human = 0

    def figures(self) -> dict[str, float]:
        """By the names under which the operator's page shows them."""
        found: dict[str, float] = {"steps": self.steps, "late steps": self.late}
        if self.recent:
            good = [e.length for e in self.recent if e.success]
            found["success rate"] = len(good) / len(self.recent)
            found["intervention rate"] = sum(e.human for e in self.recent) / sum(e.length for e in self.recent)
            found |= {"cycle time, s": self.dt * sum(good) / len(good)} if good else {}
        return found
