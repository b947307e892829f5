"""Where a quadrotor will be when it hears the next set-point: its newest measurement, carried on with the set-points
that it has not answered yet (Smith 1957: a delay that is known need not be in the loop)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np

from real.flight.state import Flight, Floats
from robolearn.spec import QuadrotorSpec

STEP_S = 0.01
RATE_S = 0.02
"""Time constant of an attitude loop's inner loop, rotors included."""
REMEMBERED_S = 1.0


class Prediction:
    """Of a vehicle whose firmware turns it towards commanded attitudes: roll and pitch at a rate of `angle[0]` times
    what is missing, yaw at the rate that is commanded."""

    def __init__(self, vehicle: QuadrotorSpec, state_delay_s: float, command_delay_s: float):
        """Delays of the radio: of the pose until it is stamped, of set-points beyond the firmware's own."""
        firmware = vehicle.firmware
        self._gain = firmware.angle[0] if firmware else 0.0
        self._late_s = command_delay_s + (firmware.link_delay_s if firmware else 0.0)
        self._mass, self._state_delay_s, self._command_delay_s = vehicle.mass_kg, state_delay_s, command_delay_s
        self._sent: deque[tuple[float, Floats]] = deque()

    def clear(self) -> None:
        """Nobody has sent set-points lately."""
        self._sent.clear()

    def sent(self, now_s: float, setpoint: Floats) -> None:
        """Roll, pitch (rad), yaw rate (rad/s), thrust (N) went out."""
        if self._sent and now_s < self._sent[-1][0]:  # the clock went back: those would be of the future, and stay
            self._sent.clear()
        self._sent.append((now_s, setpoint))
        while self._sent[0][0] < now_s - REMEMBERED_S:
            self._sent.popleft()

    def __call__(self, flight: Flight, now_s: float) -> Flight:
        """`flight` at the time at which a set-point that is sent now arrives; without a firmware that is known, and
        before the first set-point, its body rates stay as they are."""
        begin_s = flight.stamp_s - self._state_delay_s
        ahead_s = min(max(now_s + self._command_delay_s - begin_s, 0.0), REMEMBERED_S)
        n = max(1, math.ceil(ahead_s / STEP_S))
        dt, share = ahead_s / n, 1.0 - math.exp(-ahead_s / n / RATE_S)
        for k in range(n):
            setpoint = self._heard(begin_s + (k + 0.5) * dt)
            flight = flight.ahead(dt) if setpoint is None else self._turned(flight, setpoint, dt, share)
        return replace(flight, stamp_s=now_s + self._command_delay_s)

    def _heard(self, at_s: float) -> Floats | None:
        """The set-point that is in force then."""
        return next((setpoint for sent_s, setpoint in reversed(self._sent) if sent_s + self._late_s <= at_s), None)

    def _turned(self, flight: Flight, setpoint: Floats, dt: float, share: float) -> Flight:
        before, after = flight.rates, flight.rates
        if self._gain:
            x, y, z, w = flight.turn.tolist()
            roll = math.atan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y))
            pitch = math.asin(min(1.0, max(-1.0, 2.0 * (w * y - z * x))))
            missing = self._gain * (setpoint[0] - roll), self._gain * (setpoint[1] - pitch), setpoint[2]
            after = before + share * (np.array(missing) - before)
        middle = replace(flight, rates=0.5 * (before + after))
        return replace(middle.ahead(dt, float(setpoint[3]) / self._mass), rates=after)
