"""Counts of what the guard changed or refused, with the last value and the limit that it met."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

REFUSALS = ("malformed", "stale", "future", "repeated", "unauthorised")
"""Of proposals and measurements."""
TIMING = ("clock", "gap")
CHECKS = (
    "workspace_box", "joint_position", "joint_velocity", "joint_acceleration", "joint_jerk", "cartesian_speed",
    "reference_error", "force_torque", "self_collision", "floor",
)  # fmt: skip
FLIGHT_CHECKS = (
    "geofence", "speed", "acceleration", "tilt", "tilt_rate", "yaw_rate", "thrust", "measured_tilt", "measured_rates",
    "battery",
)  # fmt: skip
QUIET_S = 1.0
"""A kind of clip is logged at most that often; all are counted."""


@dataclass(frozen=True)
class Clip:
    kind: str
    what: str
    """Joint, link, source ... ."""
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{self.kind}: {self.what} {self.value:.6g}, limit {self.limit:.6g}"


@dataclass
class Count:
    count: int = 0
    last: Clip | None = None
    last_s: float = float("-inf")


class Counters(dict[str, Count]):
    """Of every kind, from the start."""

    def __init__(self, checks: Sequence[str] = CHECKS) -> None:
        super().__init__({kind: Count() for kind in (*REFUSALS, *TIMING, *checks)})

    def add(self, clip: Clip, now_s: float) -> None:
        had = self[clip.kind]
        if not 0.0 <= now_s - had.last_s < QUIET_S:
            log.warning("%s (%d so far)", clip, had.count + 1)
            had.last_s = now_s
        had.count, had.last = had.count + 1, clip
