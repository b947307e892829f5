"""A quadrotor's pose, odometry and status off the wire, read with suspicion.

Crazyswarm2 stamps a message when it comes in, so that a stamp says nothing of the radio's delay, goes on when the
estimate has stopped, and two that were held up come with nearly the same: what divides by the time between them goes by
the rate at which they come (`Pace`). Velocity is that of `odom` (reference frame; its body rates are always zero and
not used), or of the difference of poses where no odometry comes; body rates are those of a log topic of the gyroscope
(degrees a second), or of the difference of attitudes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np

from real.connection import BACK_S, NO_NUMBER, seconds, shown
from real.flight.state import Flight, Floats, rotation_between, unit

FASTEST_MPS, FASTEST_RADPS = 10.0, 35.0
"""What odometry and gyroscope cannot have measured."""
PUSH_MPS2, SPIN_RADPS2 = 20.0, 300.0
NOISE_M, NOISE_RAD = 0.05, 0.1
"""A pose cannot be further than this from where the last one, its velocity and its rates, and these accelerations
lead."""
ANYWHERE_S = 1.0
"""After which it may be anywhere."""
GRACE_S = 0.06
"""For which poses that have jumped may come back further off than the first one: not as far as a vehicle gets in the
time that passes, or every jump would be believed soon."""
PAIR_S = 0.05
"""Odometry and log data count for a pose that is at most so much younger."""
SHARE = 0.6
"""Of the newest difference in a velocity, where no odometry comes."""
BREAK_S, KNOWN, PULL = 0.5, 6, 0.2
"""A gap that begins anew; gaps after which a rate is known; how far a message pulls the time at which it seems to have
been sent."""


class Pace:
    """The time between messages that are sent at a steady rate and come late, each by as much as it likes; some never
    come."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=21)
        self._stamp_s = self._sent_s = -math.inf

    def interval_s(self, stamp_s: float) -> float:
        """Between this message and the last one, as they were sent; infinite for the first."""
        gap, before = stamp_s - self._stamp_s, self._sent_s
        self._stamp_s = stamp_s
        if not gap < BREAK_S:
            self._gaps.clear()
            self._sent_s = stamp_s
            return math.inf
        self._gaps.append(gap)
        if len(self._gaps) < KNOWN:
            self._sent_s = stamp_s
            return gap
        period = sorted(self._gaps)[len(self._gaps) // 2]
        expected = before + max(1, round((stamp_s - before) / period)) * period
        self._sent_s = expected + PULL * (stamp_s - expected)
        return self._sent_s - before


class FlightReader:
    """Messages as measurements; those that cannot be are counted in `refused`, by reason."""

    def __init__(self, frame: str, future_s: float, frozen_s: float):
        self.frame, self._future_s, self._frozen_s = frame, future_s, frozen_s
        self.latest: Flight | None = None
        self.refused: dict[str, int] = {}
        self._changed_s = self._now_s = -math.inf  # when the pose was not the one before
        self._raw: Floats | None = None
        self._velocity: tuple[float, Floats] | None = None
        self._rates: tuple[float, Floats] | None = None
        self._pace, self._dt = Pace(), math.inf  # of poses, accepted or not; since the last that was accepted
        self._suspect_s = math.inf  # of that time, when the first one came that had jumped

    def pose(self, message: Any, now_s: float) -> bool:
        """A PoseStamped."""
        if now_s < self._now_s - BACK_S:
            self._begin_anew(now_s)
        self._now_s = now_s
        p, q, stamp_s = message.pose.position, message.pose.orientation, seconds(message.header.stamp)
        raw = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
        turn = unit(raw[3:])
        reason = self._nonsense(message.header.frame_id, raw, turn, stamp_s, now_s)
        if reason or turn is None:
            return self._refuse(reason)
        self._dt += self._pace.interval_s(stamp_s)
        if self._jumped(raw[:3], turn):
            return self._refuse("it jumped")
        velocity, rates = self._moving(raw[:3], turn, stamp_s)
        self.latest, self._dt, self._suspect_s = Flight(stamp_s, raw[:3], turn, velocity, rates), 0.0, math.inf
        return True

    def _begin_anew(self, now_s: float) -> None:
        """The clock went back: all that comes would be older than what is known."""
        self.latest, self._velocity, self._rates, self._changed_s = None, None, None, now_s
        self._pace, self._dt = Pace(), 0.0

    def odom(self, message: Any, now_s: float) -> bool:
        """An Odometry: its velocity alone."""
        v, stamp_s = message.twist.twist.linear, seconds(message.header.stamp)
        velocity = np.array([v.x, v.y, v.z])
        if not np.isfinite(velocity).all():
            return self._refuse(f"odometry: {NO_NUMBER}")
        if np.linalg.norm(velocity) > FASTEST_MPS:
            return self._refuse("odometry: faster than it can be")
        if not stamp_s <= now_s + self._future_s:
            return self._refuse("odometry: its stamp lies in the future")
        self._velocity = stamp_s, velocity
        if self.latest is not None and abs(self.latest.stamp_s - stamp_s) < 1e-3:  # of the same moment, but later
            self.latest = replace(self.latest, velocity=velocity)
        return True

    def gyro(self, message: Any, now_s: float) -> bool:
        """A log block of body rates about x, y, z, degrees a second."""
        rates, stamp_s = np.radians(np.asarray(message.values, dtype=np.float64)), seconds(message.header.stamp)
        if rates.shape != (3,) or not np.isfinite(rates).all():
            return self._refuse("gyroscope: not three numbers")
        if abs(rates).max() > FASTEST_RADPS or not stamp_s <= now_s + self._future_s:
            return self._refuse("gyroscope: faster than it can be, or of the future")
        self._rates = stamp_s, rates
        return True

    def _moving(self, place: Floats, turn: Floats, stamp_s: float) -> tuple[Floats, Floats]:
        """Velocity and body rates at a new pose."""
        had = self.latest
        velocity, rates = np.zeros(3), np.zeros(3)
        if had is not None and 0.0 < self._dt < BREAK_S:
            velocity = had.velocity + SHARE * ((place - had.position) / self._dt - had.velocity)
            rates = rotation_between(had.turn, turn) / self._dt
        if self._velocity is not None and stamp_s - self._velocity[0] < PAIR_S:
            velocity = self._velocity[1]
        if self._rates is not None and stamp_s - self._rates[0] < PAIR_S:
            rates = self._rates[1]
        return velocity, rates

    def _nonsense(self, frame: str, raw: Floats, turn: Floats | None, stamp_s: float, now_s: float) -> str:
        """What is wrong with a pose, or nothing."""
        if frame != self.frame:
            return f"its frame is {shown(frame)}, not {self.frame}"
        if not np.isfinite(raw).all():
            return NO_NUMBER
        if turn is None:
            return "its quaternion is no rotation"
        if math.isnan(stamp_s) or stamp_s > now_s + self._future_s:
            return "its stamp lies in the future"
        had = self.latest
        if had is not None and stamp_s <= had.stamp_s:
            return "its stamp is not newer than the last"
        if self._raw is None or (raw != self._raw).any():
            self._raw, self._changed_s = raw, stamp_s
        if stamp_s - self._changed_s > self._frozen_s:
            return "it is frozen: bit by bit the same"
        return ""

    def _jumped(self, place: Floats, turn: Floats) -> bool:
        had, dt = self.latest, self._dt
        if had is None or dt > ANYWHERE_S:
            return False
        expected, half = had.ahead(dt), 0.5 * min(dt, self._suspect_s + GRACE_S) ** 2
        far = np.linalg.norm(place - expected.position)
        turned = np.linalg.norm(rotation_between(expected.turn, turn))
        jumped = bool(far > NOISE_M + PUSH_MPS2 * half or turned > NOISE_RAD + SPIN_RADPS2 * half)
        if jumped:
            self._suspect_s = min(self._suspect_s, dt)
        return jumped

    def _refuse(self, reason: str) -> bool:
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return False
