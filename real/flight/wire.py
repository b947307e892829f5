"""A quadrotor's set-points as the messages of Crazyswarm2's topics, and back.

The topics pass on what the firmware takes. `cmd_vel_legacy`: linear.y is roll and linear.x is pitch (degrees; the
server turns the pitch's sign, as the firmware's does not follow the right hand), angular.z is the yaw rate (degrees a
second, clockwise seen from above: the firmware turns its sign), linear.z is the thrust in motor counts. The yaw rate of
`cmd_velocity_world` is the same. Full states are SI units and the right hand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from real import ros
from real.connection import Header, stamp_of
from real.flight.state import Floats
from real.robots.base import Interface
from robolearn.errors import ConfigError
from robolearn.spec import QuadrotorSpec, RobotSpec

COMMANDS: dict[str, Interface] = {
    "attitude": Interface("cmd_vel_legacy", "geometry_msgs/msg/Twist"),
    "velocity_world": Interface("cmd_velocity_world", "crazyflie_interfaces/msg/VelocityWorld"),
    "full_state": Interface("cmd_full_state", "crazyflie_interfaces/msg/FullState"),
}
MOST_COUNTS, LEAST_COUNTS = 60000.0, 1000.0
"""Of thrust that the firmware takes; below, it is none."""


class Wire:
    """Of one command interface."""

    def __init__(self, interface: str, robot: RobotSpec, frame: str):
        """`frame`: that of the vehicle's pose. Raises ConfigError."""
        if robot.quadrotor is None or robot.quadrotor.firmware is None:
            raise ConfigError(f"{robot.name} is no quadrotor whose firmware is known")
        self.vehicle, self.frame = robot.quadrotor, frame
        self.topic, self.type = COMMANDS[interface].topic, ros.interface(COMMANDS[interface].type)
        self.encode, self.decode = {
            "attitude": (self._attitude, self._of_attitude),
            "velocity_world": (self._velocity, self._of_velocity),
            "full_state": (self._state, self._of_state),
        }[interface]
        """encode(set-point, seconds) -> message; decode(message) -> set-point, NaN where it says none."""

    def _attitude(self, row: Floats, now_s: float) -> Any:
        message = self.type()
        message.linear.y, message.linear.x = math.degrees(row[0]), math.degrees(row[1])
        message.angular.z = -math.degrees(row[2])
        message.linear.z = float(counts_of(self.vehicle, row[3]))
        return message

    def _of_attitude(self, message: Any) -> Floats:
        linear, thrust = message.linear, thrust_of(self.vehicle, message.linear.z)
        return np.array([math.radians(linear.y), math.radians(linear.x), -math.radians(message.angular.z), thrust])

    def _velocity(self, row: Floats, now_s: float) -> Any:
        message = self.type(header=self._header(now_s), yaw_rate=-math.degrees(row[3]))
        message.vel.x, message.vel.y, message.vel.z = row[:3].tolist()
        return message

    def _of_velocity(self, message: Any) -> Floats:
        v = message.vel
        return np.array([v.x, v.y, v.z, -math.radians(message.yaw_rate)])

    def _state(self, row: Floats, now_s: float) -> Any:
        message = self.type(header=self._header(now_s))
        parts = message.pose.position, message.twist.linear, message.acc
        for part, values in zip(parts, row[:9].reshape(3, 3).tolist(), strict=True):
            part.x, part.y, part.z = values
        turn = message.pose.orientation
        turn.z, turn.w = math.sin(0.5 * row[9]), math.cos(0.5 * row[9])
        return message

    def _of_state(self, message: Any) -> Floats:
        parts, q = (message.pose.position, message.twist.linear, message.acc), message.pose.orientation
        yaw = math.atan2(2.0 * (q.w * q.z + q.x * q.y), 1.0 - 2.0 * (q.y * q.y + q.z * q.z))
        return np.array([v for p in parts for v in (p.x, p.y, p.z)] + [yaw])

    def _header(self, now_s: float) -> Any:
        return Header(stamp=stamp_of(now_s), frame_id=self.frame)


def counts_of(vehicle: QuadrotorSpec, thrust_n: float) -> float:
    """Motor counts for a collective thrust, by the curves of the specification."""
    assert vehicle.firmware is not None
    if not thrust_n > 0.0:
        return 0.0
    counts = (vehicle.speed_radps(0.25 * thrust_n) - vehicle.firmware.speed_offset_radps) / (
        vehicle.firmware.speed_per_count_radps
    )
    return min(MOST_COUNTS, max(0.0, round(counts)))


def thrust_of(vehicle: QuadrotorSpec, counts: float) -> float:
    """Collective thrust, N, that motor counts mean."""
    assert vehicle.firmware is not None
    if counts < LEAST_COUNTS:
        return 0.0
    speed = vehicle.firmware.speed_offset_radps + vehicle.firmware.speed_per_count_radps * min(counts, MOST_COUNTS)
    return 4.0 * vehicle.thrust_n(speed)
