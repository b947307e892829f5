"""A quadrotor's set-points within its limits: one function for each command interface (see `real.flight.state`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from real.flight.state import Flight, Floats
from real.safety.clips import Clip
from real.safety.flight_limits import FlightLimits

TOUCH = 1e-9
"""What is cut off by less has not been cut."""


@dataclass(frozen=True)
class Moment:
    """What a set-point is judged by."""

    dt: float
    last: Floats | None
    """The set-point before, of the same interface; None for the first."""
    measured: Flight
    limits: FlightLimits


def limit_attitude(row: Floats, now: Moment) -> tuple[Floats, list[Clip]]:
    """Roll, pitch, yaw rate and thrust (4,)."""
    limits, clips, out = now.limits, list[Clip](), row.copy()
    tilt = float(np.hypot(*row[:2]))
    if tilt > limits.tilt_rad + TOUCH:
        clips.append(Clip("tilt", "rad", tilt, limits.tilt_rad))
        out[:2] *= limits.tilt_rad / tilt
    if now.last is not None:
        step, most = out[:2] - now.last[:2], limits.tilt_rate_radps * now.dt
        size = float(np.hypot(*step))
        if size > most + TOUCH:
            clips.append(Clip("tilt_rate", "rad/s", size / now.dt, limits.tilt_rate_radps))
            out[:2] = now.last[:2] + step * (most / size)
    clips += _clip(out, slice(2, 3), "yaw_rate", "rad/s", -limits.yaw_rate_radps, limits.yaw_rate_radps)
    clips += _clip(out, slice(3, 4), "thrust", "N", limits.thrust_lower_n, limits.thrust_upper_n)
    return out, clips


def limit_velocity(row: Floats, now: Moment) -> tuple[Floats, list[Clip]]:
    """Velocity and yaw rate (4,): slow enough to stop before the fence."""
    limits, out = now.limits, row.copy()
    clips = _clip_norm(out, slice(0, 3), "speed", "m/s", limits.speed_mps)
    lower, upper = (np.array(v) for v in (limits.fence_lower_m, limits.fence_upper_m))
    room = np.maximum(0.0, np.stack((now.measured.position - lower, upper - now.measured.position)))
    most = np.sqrt(2.0 * limits.brake_mps2 * room)
    inside = out[:3].clip(-most[0], most[1])
    if (abs(inside - out[:3]) > TOUCH).any():
        k = int(abs(inside - out[:3]).argmax())
        clips.append(Clip("geofence", f"m/s along {'xyz'[k]}", float(out[k]), float(inside[k])))
        out[:3] = inside
    return out, clips + _clip(out, slice(3, 4), "yaw_rate", "rad/s", -limits.yaw_rate_radps, limits.yaw_rate_radps)


def limit_full_state(row: Floats, now: Moment) -> tuple[Floats, list[Clip]]:
    """Position, velocity, acceleration and yaw (10,)."""
    limits, out = now.limits, row.copy()
    clips = _clip(out, slice(0, 3), "geofence", "m", np.array(limits.fence_lower_m), np.array(limits.fence_upper_m))
    clips += _clip_norm(out, slice(3, 6), "speed", "m/s", limits.speed_mps)
    return out, clips + _clip_norm(out, slice(6, 9), "acceleration", "m/s2", limits.acceleration_mps2)


LIMITERS = {"attitude": limit_attitude, "velocity_world": limit_velocity, "full_state": limit_full_state}


def _clip(out: Floats, at: slice, kind: str, what: str, low: float | Floats, high: float | Floats) -> list[Clip]:
    had = out[at].copy()
    out[at] = had.clip(low, high)
    off = abs(out[at] - had)
    k = int(off.argmax())
    return [Clip(kind, what, float(had[k]), float(out[at][k]))] if off[k] > TOUCH else []


def _clip_norm(out: Floats, at: slice, kind: str, what: str, most: float) -> list[Clip]:
    size = float(np.linalg.norm(out[at]))
    if size <= most + TOUCH:
        return []
    out[at] *= most / size
    return [Clip(kind, what, size, most)]
