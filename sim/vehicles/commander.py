"""What flies a Crazyflie when nobody sends attitudes: a model of its commander and its position controller, in plain
numpy, of one vehicle.

Low-level set-points come before those of the high-level commander until `notify_stop`, or until the watchdog: one that
is older than 0.5 s is levelled, than 2 s cuts the motors. Attitude set-points have no thrust before one without thrust
has come, and again after the watchdog. The high-level commander plans fifth-order polynomials from where it is to where
it was told to be. Positions and velocities are followed by a controller on accelerations, which asks the attitude loop
for tilt and thrust; its gains are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robolearn.spec import QuadrotorSpec

Floats = NDArray[np.float64]
G = 9.81
DISABLED, HIGH_LEVEL, LOW_LEVEL = 0, 1, 2
"""Priorities."""
LEVEL_S, CUT_S = 0.5, 2.0
POSITION, VELOCITY, INTEGRAL, YAW = 6.0, 4.0, 2.0, 2.0
"""Gains: 1/s2, 1/s, 1/s3, 1/s."""
AREA_MS, STEEPEST = 0.4, 0.7
"""Bounds of the integral (m s) and of the tilt's tangent."""
IDLE = np.zeros(4)
FOOT_M = 0.03
"""Above the ground, to which a landing comes; there the motors stop."""


@dataclass(frozen=True)
class State:
    """Position (3,) m, velocity (3,) m/s, yaw rad."""

    position: Floats
    velocity: Floats
    yaw: float


class Plan:
    """A fifth-order polynomial for each of x, y, z and a straight line for yaw; it stands at its end."""

    def __init__(self, at: State, goal: Floats, yaw: float, duration_s: float, ends_off: bool = False):
        """`ends_off`: the motors stop at its end."""
        self.duration, self.ends_off, self.goal, self.yaw = max(duration_s, 0.1), ends_off, goal, yaw
        self._yaws = at.yaw, math.remainder(yaw - at.yaw, math.tau)
        T, p, v = self.duration, at.position, at.velocity
        a = np.array([[T**3, T**4, T**5], [3 * T**2, 4 * T**3, 5 * T**4], [6 * T, 12 * T**2, 20 * T**3]])
        rest = np.stack((goal - p - v * T, -v, np.zeros(3)))
        self._rows = np.concatenate((p[None], v[None], np.zeros((1, 3)), np.linalg.solve(a, rest)))

    def at(self, t: float) -> tuple[Floats, Floats, Floats, float]:
        """Position, velocity, acceleration and yaw."""
        s = min(max(t, 0.0), self.duration)
        powers = s ** np.arange(6)
        k = np.arange(6)
        slope = np.array([0.0, *(k[1:] * powers[:-1])])
        curve = np.array([0.0, 0.0, *(k[2:] * k[1:-1] * powers[:-2])])
        yaw = self._yaws[0] + self._yaws[1] * s / self.duration
        moving = float(t < self.duration)
        return powers @ self._rows, moving * (slope @ self._rows), moving * (curve @ self._rows), yaw


class Commander:
    """Set-points in, roll, pitch (rad), yaw rate (rad/s) and thrust (N) for the attitude loop out."""

    def __init__(self, vehicle: QuadrotorSpec):
        self.mass = vehicle.mass_kg
        self.armed = self.locked = False
        self.priority, self.thrust_locked = DISABLED, True
        self._low: tuple[str, Floats, float] | None = None  # interface, set-point, when
        self._plan: tuple[Plan, float] | None = None
        self._area, self._stopped_s = np.zeros(3), -math.inf

    # --- what it is told ------------------------------------------------------------------------------------

    def setpoint(self, interface: str, row: Floats, now_s: float) -> None:
        """A low-level one: attitude, velocity_world or full_state, in the order of `real.flight.state.SETPOINTS`."""
        if interface == "attitude":
            self.thrust_locked = (self.thrust_locked or self.priority == DISABLED) and row[3] > 0.0
        if self._low is None or self._low[0] != interface:
            self._area = np.zeros(3)
        self.priority, self._low = LOW_LEVEL, (interface, row, now_s)

    def notify_stop(self, now_s: float) -> None:
        """The high-level commander comes in again, from where the vehicle is."""
        if self._low is not None:  # though the watchdog may have levelled it
            self.priority, self._low, self._plan = HIGH_LEVEL, None, None
            self._stopped_s = now_s

    def arm(self, armed: bool) -> None:
        self.armed = armed and not self.locked

    def emergency(self) -> None:
        """Until it is restarted."""
        self.armed, self.locked, self._plan = False, True, None

    def go(self, at: State, goal: Floats, yaw: float, duration_s: float, now_s: float, off: bool = False) -> bool:
        """Plan from here; False, and ignored, while low-level set-points have priority."""
        if self.priority == LOW_LEVEL or not self.armed:
            return False
        if self._plan is None:
            self._area = np.zeros(3)
        else:  # from where it should be, as the real one does
            plan, since_s = self._plan
            place, speed, _, its_yaw = plan.at(now_s - since_s)
            at = State(place, speed, its_yaw)
        self.priority, self._low, self._plan = HIGH_LEVEL, None, (Plan(at, goal, yaw, duration_s, off), now_s)
        return True

    # --- what it does ---------------------------------------------------------------------------------------

    def flies(self) -> bool:
        return self.armed and (self._plan is not None or self.priority == LOW_LEVEL)

    def command(self, at: State, now_s: float, dt: float) -> Floats:
        """(4,): all zero is motors off."""
        if not self.armed:
            return IDLE
        if self._low is not None:
            return self._of_low(at, now_s, dt, *self._low)
        if self._plan is not None:
            return self._of_plan(at, now_s, dt, *self._plan)
        if now_s - self._stopped_s < LEVEL_S:  # between notify_stop and what comes then
            return np.array([0.0, 0.0, 0.0, self.mass * G])
        return IDLE

    def _of_low(self, at: State, now_s: float, dt: float, interface: str, row: Floats, since_s: float) -> Floats:
        age = now_s - since_s
        if age > CUT_S:
            self.priority, self._low, self._plan = DISABLED, None, None
            return IDLE
        if age > LEVEL_S:
            self.priority = DISABLED
            lift = row[3] if interface == "attitude" and not self.thrust_locked else self.mass * G
            return np.array([0.0, 0.0, 0.0, lift])
        if interface == "attitude":
            return IDLE if self.thrust_locked else row
        if interface == "velocity_world":
            wanted = VELOCITY * (row[:3] - at.velocity) + INTEGRAL * self._grown(row[:3] - at.velocity, dt)
            return self._tilted(wanted, at.yaw, row[3])
        return self._to(at, row[:3], row[3:6], row[6:9], row[9], dt)

    def _of_plan(self, at: State, now_s: float, dt: float, plan: Plan, since_s: float) -> Floats:
        if plan.ends_off and now_s - since_s > plan.duration:
            self._plan, self.priority = None, DISABLED
            return IDLE
        return self._to(at, *plan.at(now_s - since_s), dt)

    def _to(self, at: State, place: Floats, speed: Floats, accel: Floats, yaw: float, dt: float) -> Floats:
        off = place - at.position
        wanted = accel + POSITION * off + VELOCITY * (speed - at.velocity) + INTEGRAL * self._grown(off, dt)
        turn = float(np.clip(YAW * math.remainder(yaw - at.yaw, math.tau), -2.0, 2.0))
        return self._tilted(wanted, at.yaw, turn)

    def _grown(self, error: Floats, dt: float) -> Floats:
        self._area = (self._area + error * dt).clip(-AREA_MS, AREA_MS)
        return self._area

    def _tilted(self, accel: Floats, yaw: float, turn: float) -> Floats:
        up = float(np.clip(accel[2] + G, 0.4 * G, 1.8 * G))
        forward = math.cos(yaw) * accel[0] + math.sin(yaw) * accel[1]
        left = math.cos(yaw) * accel[1] - math.sin(yaw) * accel[0]
        steep = max(1.0, math.hypot(forward, left) / (STEEPEST * up))
        forward, left = forward / steep, left / steep
        pitch, roll = math.atan2(forward, up), math.atan2(-left, math.hypot(forward, up))
        return np.array([roll, pitch, turn, self.mass * math.sqrt(forward**2 + left**2 + up**2)])
