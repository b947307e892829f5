"""SIGINT and SIGTERM as nodes take them: the first asks for an end, a later one acts as if nobody had caught it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER_S = 0.2
"""Whoever ends a group of processes may send several signals at once: they count as one, for a guard has to brake."""


class Signals:
    """Takes them from now on, if this is the main thread, where they arrive.

    Handlers stay until `give_back`: of two signals that have come at once, the second would find none when its turn
    comes, upon which Python drops it with a complaint.
    """

    def __init__(self, stop: Callable[[], object], clock: Callable[[], float] = time.monotonic):
        self._stop, self._clock, self._first_s = stop, clock, float("inf")
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._first_s = min(self._first_s, self._clock())
        if self._clock() - self._first_s < TOGETHER_S:
            self._stop()
            return
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, before)
            signal.raise_signal(number)

    def give_back(self) -> None:
        """To who had them before."""
        if threading.current_thread() is threading.main_thread():
            while self._before:
                signal.signal(*self._before.popitem())
