"""What a quadrotor's guard makes of what it sees: is the pose fresh, is there danger, must it land?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from real.flight.state import Flight, Floats
from real.safety.clips import FLIGHT_CHECKS, Clip, Counters
from real.safety.flight_limits import FlightLimits

STILL_MPS, LEVEL_RAD = 0.25, 0.35
"""What a vehicle may do that is about to take off."""
MARGIN_M = 0.1
"""Within the fence: how far inside it hovers."""
SILENT_S = 5.0
"""Age of the vehicle's status from which on it is unknown; it comes every second."""
BACK_S = 0.1
"""By which the clock may go back, and all that is known is still believed."""


@dataclass(frozen=True)
class Health:
    """What the vehicle says of itself."""

    stamp_s: float = -math.inf
    battery_v: float = math.nan
    flies: bool = False
    tumbled: bool = False
    locked: bool = False


class View:
    """The newest measurement and status, and the time."""

    def __init__(self, limits: FlightLimits):
        self.limits, self.clips = limits, Counters(FLIGHT_CHECKS)
        self.measured: Flight | None = None
        self.health = Health()
        self.now_s, self._low_since_s = -math.inf, math.inf

    def tick(self, now_s: float) -> bool:
        """The time, which never goes back by little. By more, all that was known is of another clock: False."""
        back = self.now_s - now_s
        if back < BACK_S:
            self.now_s = max(self.now_s, now_s)
            return True
        self.count(Clip("clock", "s backwards", back, BACK_S))
        self.now_s, self.measured, self.health, self._low_since_s = now_s, None, Health(now_s), math.inf
        return False

    def hear(self, health: Health) -> None:
        self.health = health
        low = not health.battery_v >= self.limits.battery_land_v  # NaN too
        self._low_since_s = min(self._low_since_s, self.now_s) if low else math.inf

    def count(self, clip: Clip) -> str:
        self.clips.add(clip, self.now_s)
        return str(clip)

    def known(self) -> bool:
        """Whether the vehicle's status is of now."""
        return self.now_s - self.health.stamp_s < SILENT_S

    def lost(self) -> str:
        """Why the pose cannot be relied on, or nothing."""
        if self.measured is None:
            return "there was no pose yet"
        age = self.now_s - self.measured.stamp_s
        if age < -BACK_S:
            return f"the pose is {-age:.2g} s of the future: the clock went back"
        return f"the pose is {age:.2g} s old" if age > self.limits.state_timeout_s else ""

    def must_land(self, flying: bool) -> str:
        """Why it cannot go on flying, or nothing. The fence's lower end counts where it is `flying`."""
        assert self.measured is not None
        if not self.known():
            return f"the vehicle has not told its status for {SILENT_S:g} s"
        if self.now_s - self._low_since_s > self.limits.battery_low_s:
            volts = self.health.battery_v
            return self.count(Clip("battery", "V", volts, self.limits.battery_land_v))
        beyond = self.beyond_fence(self.measured.position, flying)
        return "" if beyond is None else self.count(beyond)

    def beyond_fence(self, place: Floats, flying: bool = True) -> Clip | None:
        lower, upper = np.array(self.limits.fence_lower_m), np.array(self.limits.fence_upper_m)
        if not flying:
            lower = np.array([*lower[:2], -math.inf])  # it starts and ends below
        beyond = np.maximum(lower - place, place - upper)
        k = int(beyond.argmax())
        if not beyond[k] > 0.0:
            return None
        return Clip("geofence", f"m along {'xyz'[k]}", float(place[k]), float(place.clip(lower, upper)[k]))

    def danger(self) -> str:
        """Why no source can be followed now, or nothing."""
        assert self.measured is not None
        limits, at = self.limits, self.measured
        if at.tilt_rad > limits.measured_tilt_rad:
            return self.count(Clip("measured_tilt", "rad", at.tilt_rad, limits.measured_tilt_rad))
        spin, speed = float(np.linalg.norm(at.rates)), float(np.linalg.norm(at.velocity))
        if spin > limits.measured_rates_radps:
            return self.count(Clip("measured_rates", "rad/s", spin, limits.measured_rates_radps))
        if speed > 2.0 * limits.speed_mps:
            return self.count(Clip("speed", "m/s measured", speed, 2.0 * limits.speed_mps))
        beyond = self.beyond_fence(self.stop())
        return "" if beyond is None else self.count(beyond)

    def stop(self) -> Floats:
        """Where it comes to rest if it brakes from now on."""
        assert self.measured is not None
        limits, at = self.limits, self.measured
        late = limits.react_s + max(0.0, self.now_s - at.stamp_s)
        stop: Floats = at.position + at.velocity * late + at.velocity * abs(at.velocity) / (2.0 * limits.brake_mps2)
        return stop

    def tumbled(self) -> bool:
        by_pose = self.measured is not None and not self.lost() and self.measured.tilt_rad > self.limits.tumbled_rad
        return by_pose or (self.health.tumbled and self.known())

    def unfit(self) -> str:
        """Why it cannot take off, or nothing."""
        health, limits = self.health, self.limits
        wrong = self.lost()
        if wrong or self.measured is None:
            return f"not without a fresh pose: {wrong}"
        if not self.known():
            return "not without the vehicle's status"
        if health.flies:
            return "the vehicle says that it flies"
        if health.tumbled or health.locked:
            return "the vehicle is locked: restart it" if health.locked else "the vehicle lies on its back"
        if not health.battery_v >= limits.battery_takeoff_v:
            return f"the battery has {health.battery_v:.2f} V, it needs {limits.battery_takeoff_v:.2f} V"
        at, speed = self.measured, float(np.linalg.norm(self.measured.velocity))
        if speed > STILL_MPS or at.tilt_rad > LEVEL_RAD:
            return f"it moves or leans: {speed:.2f} m/s, {at.tilt_rad:.2f} rad"
        top = at.position + np.array([0.0, 0.0, limits.takeoff_m])
        low, high = np.array(limits.fence_lower_m) + MARGIN_M, np.array(limits.fence_upper_m) - MARGIN_M
        if ((top < low) | (top > high)).any():
            return f"at {np.round(top, 2).tolist()} m it would be outside the geofence, or too near to it"
        return ""
