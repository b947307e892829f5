"""The way that an arm has come, for the way back: where the straight one is barred, this one was free."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

APART_RAD = 0.02
"""Points that are closer count as one."""
NEAR_RAD = 0.3
"""Of a point of the way the arm has to be, or it has come to where it is in another way."""
STUCK_S, MOVED_RAD = 2.0, 0.01


class Way:
    """Set-points (n,) in rad since the last `begin`."""

    def __init__(self) -> None:
        self._points: list[Tensor] = []

    def begin(self, at: Tensor) -> None:
        self._points = [at.clone()]

    def add(self, at: Tensor) -> None:
        if self._points and (at - self._points[-1]).abs().max() > APART_RAD:
            self._points.append(at.clone())

    def back(self, at: Tensor) -> list[Tensor]:
        """From the last point that is near to the beginning; empty if none is."""
        near = [k for k, point in enumerate(self._points) if (point - at).abs().max() < NEAR_RAD]
        return self._points[: near[-1] + 1][::-1] if near else []


class Stuck:
    """Whether something has stood still for STUCK_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._at, self._since_s = clock, torch.tensor(math.inf), clock()

    def __call__(self, at: Tensor) -> bool:
        if not (at - self._at).abs().max() < MOVED_RAD:
            self._at, self._since_s = at.clone(), self._clock()
        return self._clock() - self._since_s > STUCK_S
