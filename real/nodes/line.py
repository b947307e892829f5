"""A connection that is worse than the loopback."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable

from robolearn.errors import ConfigError


class Line:
    """A connection that delays by `delay_s` and up to `jitter_s` more, and loses a share. Order may change, but not
    where it is `ordered`, as in a radio's queue."""

    def __init__(self, delay_s: float, jitter_s: float, loss: float, seed: int, ordered: bool = False):
        if not (delay_s >= 0.0 and jitter_s >= 0.0 and 0.0 <= loss < 1.0):
            raise ConfigError(
                f"delay_s and jitter_s must be at least 0, loss in [0, 1), got {delay_s}, {jitter_s}, {loss}"
            )
        self.delay_s, self.jitter_s, self.loss = delay_s, jitter_s, loss
        self._ordered, self._latest_s = ordered, 0.0
        self._random, self._order = random.Random(seed), itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self.due_s = -math.inf
        """When what is delivered now should have been."""

    def send(self, now_s: float, deliver: Callable[[], object], repeated: bool = False) -> None:
        """At once, where there is no delay. `repeated`: until it is there, so that it is never lost."""
        if not repeated and self._random.random() < self.loss:
            return
        if not (self.delay_s or self.jitter_s):
            self.due_s = now_s
            deliver()
            return
        due = now_s + self.delay_s + self.jitter_s * self._random.random()
        if self._ordered:
            due = self._latest_s = max(due, self._latest_s)
        heapq.heappush(self._waiting, (due, next(self._order), deliver))

    @property
    def next_s(self) -> float:
        """When the next one is due."""
        return self._waiting[0][0] if self._waiting else math.inf

    def deliver(self, now_s: float) -> None:
        """What is due."""
        while self._waiting and self._waiting[0][0] <= now_s:
            self.due_s, _, deliver = heapq.heappop(self._waiting)
            deliver()
