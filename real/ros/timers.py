"""Timers on the steady clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Timer:
    """Calls back every `period_s`; a late call does not move the later ones, missed ones are left out."""

    def __init__(self, period_s: float, callback: Callable[[], object]):
        if not (math.isfinite(period_s) and period_s >= 0):
            raise ValueError(f"a timer's period is not {period_s} s")
        self.period_ns, self.callback = round(period_s * 1e9), callback
        self.canceled = False
        self.reset()

    def reset(self) -> None:
        """Start again: the next call is a period from now."""
        self.due_ns, self.canceled = time.monotonic_ns() + self.period_ns, False

    def cancel(self) -> None:
        self.canceled = True

    def is_canceled(self) -> bool:
        return self.canceled

    def call(self, now_ns: int) -> None:
        behind = now_ns - self.due_ns
        self.due_ns += self.period_ns * (1 + (behind // self.period_ns if self.period_ns else 0))
        self.callback()
