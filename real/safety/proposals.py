"""What a source asks for: checked when it comes, and followed as straight lines between its targets."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LONGEST_CHUNK, LONGEST_TEXT = 256, 200


@dataclass(frozen=True)
class Proposal:
    """Targets of the next H policy periods, as they came off the wire.

    Row k is where the arm should be at the end of period k: (k + 1) `period_s` after `stamp_s`, the stamp of the
    measurement that the proposal was computed from, on the guard's clock.
    """

    joint_names: tuple[str, ...]
    targets: Any
    """(H, J) rad, columns in the order of `joint_names`."""
    stamp_s: float
    period_s: float


def read_targets(proposal: Proposal, joints: tuple[str, ...], longest_s: float) -> Floats | str:
    """The targets (H, J) in the order of `joints`, or what is wrong with the proposal. With a period of more than
    `longest_s` the arm would stop between two proposals."""
    try:
        rows = np.array(proposal.targets, dtype=np.float64)
        names = [str(name) for name in proposal.joint_names]
        stamp_s, period_s = float(proposal.stamp_s), float(proposal.period_s)
    except (TypeError, ValueError, OverflowError) as error:
        return f"not numbers ({error})"[:LONGEST_TEXT]
    if sorted(names) != sorted(joints):
        return f"for joints {names}"[:LONGEST_TEXT]
    if rows.ndim != 2 or rows.shape[1] != len(joints) or not 0 < len(rows) <= LONGEST_CHUNK:
        return f"targets of shape {rows.shape}, not (1 to {LONGEST_CHUNK}, {len(joints)})"
    if not np.isfinite(rows).all() or not math.isfinite(stamp_s):
        return "a number that is not finite"
    if not 0.0 < period_s <= longest_s:
        return f"a period of {period_s} s, not within {longest_s}"
    return rows[:, [names.index(n) for n in joints]]


class Timeline:
    """A reference in time: straight lines through places, each with the time at which it is due; then it stands."""

    def __init__(self, times_s: Sequence[float], places: Floats):
        """Ascending times (N,) and places (N, J) rad."""
        self.times, self.places = list(times_s), places

    @classmethod
    def standing(cls, now_s: float, place: Floats) -> Timeline:
        return cls([now_s], place[None])

    def at(self, now_s: float) -> tuple[Floats, Floats]:
        """Reference (J,) rad and its rate (J,) rad/s."""
        k = bisect_right(self.times, now_s) - 1
        if k < 0 or k + 1 == len(self.times):
            place = self.places[max(k, 0)]
            return place, np.zeros_like(place)
        rate = (self.places[k + 1] - self.places[k]) / (self.times[k + 1] - self.times[k])
        return self.places[k] + rate * (now_s - self.times[k]), rate


def due_times(count: int, stamp_s: float, period_s: float, now_s: float) -> Floats:
    """When each of `count` targets should be reached. The last one is never due sooner than a period from now, so a
    single target takes a whole period, as it does in simulation."""
    due = stamp_s + period_s * np.arange(1, count + 1)
    return due + max(0.0, now_s + period_s - due[-1])
