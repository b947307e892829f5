"""A node's subscriptions to a quadrotor's pose, odometry and gyroscope."""

from __future__ import annotations

from typing import Any

from real import ros
from real.connection import SENSED, PoseStamped
from real.flight.reading import FlightReader
from real.site import FlightSite

Odometry = ros.interface("nav_msgs/msg/Odometry")
LogData = ros.interface("crazyflie_interfaces/msg/LogDataGeneric")


def listen(node: Any, site: FlightSite) -> FlightReader:
    """A reader that hears them."""
    profile = site.profile
    reader = FlightReader(profile.base_frame, profile.limits.future_s, profile.limits.frozen_s)

    def now_s() -> float:
        return 1e-9 * float(node.get_clock().now().nanoseconds)

    for kind, topic, take in (
        (PoseStamped, profile.state_topic, reader.pose),
        (Odometry, profile.odom_topic, reader.odom),
        (LogData, profile.gyro_topic, reader.gyro),
    ):
        if topic:
            node.create_subscription(kind, topic, lambda m, take=take: take(m, now_s()), SENSED)
    return reader
