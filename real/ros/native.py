"""The layer's own implementation of everything that `real.ros` offers, for machines without ROS 2."""

from __future__ import annotations

from real.ros.clock import Clock, Duration, Time
from real.ros.context import init, ok, remove_ros_args, shutdown
from real.ros.definitions import register_interfaces
from real.ros.messages import interface
from real.ros.node import Node
from real.ros.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)


def spin(node: Node) -> None:
    """Serve the node until SIGINT, SIGTERM or `shutdown`, then return; neither signal raises here."""
    while ok():
        node.spin_once()


def spin_once(node: Node, timeout_sec: float | None = None) -> None:
    node.spin_once(timeout_sec)


__all__ = [
    "Clock",
    "DurabilityPolicy",
    "Duration",
    "HistoryPolicy",
    "Node",
    "QoSProfile",
    "ReliabilityPolicy",
    "Time",
    "init",
    "interface",
    "ok",
    "qos_profile_sensor_data",
    "register_interfaces",
    "remove_ros_args",
    "shutdown",
    "spin",
    "spin_once",
]  # fmt: skip
