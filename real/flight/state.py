"""A quadrotor's measured state, and where it will be in a moment. No ROS, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
G = 9.81


@dataclass(frozen=True)
class Flight:
    """Reference frame ENU, body FLU."""

    stamp_s: float
    position: Floats
    """(3,) m"""
    turn: Floats
    """(4,) unit quaternion xyzw, body to reference"""
    velocity: Floats
    """(3,) m/s, reference frame"""
    rates: Floats
    """(3,) rad/s, body frame"""

    @property
    def up(self) -> Floats:
        """(3,) the body's z axis in the reference frame."""
        x, y, z, w = self.turn
        return np.array([2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)])

    @property
    def tilt_rad(self) -> float:
        return math.acos(min(1.0, max(-1.0, float(self.up[2]))))

    @property
    def yaw_rad(self) -> float:
        x, y, z, w = self.turn.tolist()
        return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))

    def ahead(self, seconds: float, specific_thrust: float | None = None) -> Flight:
        """So much later, with constant body rates and `specific_thrust` (m/s2 along the body's z axis; none: no
        acceleration), by the direction that this axis has in the middle of the time."""
        half = _rotated(self.turn, self.rates * (0.5 * seconds))
        turn = _rotated(half, self.rates * (0.5 * seconds))
        accel = np.zeros(3)
        if specific_thrust is not None:
            accel = specific_thrust * Flight(0.0, self.position, half, self.velocity, self.rates).up
            accel[2] -= G
        velocity = self.velocity + accel * seconds
        position = self.position + 0.5 * (self.velocity + velocity) * seconds
        return Flight(self.stamp_s + seconds, position, turn, velocity, self.rates)


def rotation_between(before: Floats, after: Floats) -> Floats:
    """(3,) rad: the rotation vector, in the axes of `before`, that turns quaternion `before` (4,) into `after`."""
    x, y, z, w = before
    a, b, c, d = after
    vector = np.array([w * a - x * d - y * c + z * b, w * b + x * c - y * d - z * a, w * c - x * b + y * a - z * d])
    scalar = w * d + x * a + y * b + z * c
    length = float(np.linalg.norm(vector))
    if length < 1e-9:
        return 2.0 * np.sign(scalar or 1.0) * vector
    return vector * (2.0 * math.atan2(length, abs(scalar)) / length * (1.0 if scalar >= 0.0 else -1.0))


def _rotated(turn: Floats, vector: Floats) -> Floats:
    """Quaternion (4,) after a further rotation by `vector` (3,) rad, in the body's axes."""
    angle = float(np.linalg.norm(vector))
    s = math.sin(0.5 * angle) / angle if angle > 1e-9 else 0.5
    (x, y, z, w), (a, b, c), d = turn, vector * s, math.cos(0.5 * angle)
    return np.array([w * a + x * d + y * c - z * b, w * b - x * c + y * d + z * a,
                     w * c + x * b - y * a + z * d, w * d - x * a - y * b - z * c])  # fmt: skip


def unit(turn: Floats) -> Floats | None:
    """The quaternion with length 1; None for what is no rotation."""
    length = float(np.linalg.norm(turn))
    return turn / length if abs(length - 1.0) < 1e-2 else None  # NaN too


# --- set-points ----------------------------------------------------------------------------------------------

SETPOINTS: dict[str, tuple[str, ...]] = {
    "attitude": ("roll", "pitch", "yaw_rate", "thrust"),
    "velocity_world": ("vx", "vy", "vz", "yaw_rate"),
    "full_state": ("x", "y", "z", "vx", "vy", "vz", "ax", "ay", "az", "yaw"),
}
"""By command interface: rad, rad/s, N; m/s in the reference frame; m, m/s, m/s2 there and rad."""
