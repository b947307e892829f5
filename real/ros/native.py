"""The layer's own implementation of everything that `real.ros` offers, for machines without ROS 2."""

from __future__ import annotations

import math
import time

from real.ros.action_client import ActionClient
from real.ros.action_server import ActionServer, CancelResponse, GoalResponse
from real.ros.clock import Clock, Duration, Time
from real.ros.context import init, ok, remove_ros_args, shutdown
from real.ros.definitions import definition, register_interfaces, type_hash
from real.ros.future import Future
from real.ros.messages import interface
from real.ros.node import Node
from real.ros.parameters import Parameter
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


def spin_until_future_complete(node: Node, future: Future, timeout_sec: float | None = None) -> None:
    end = time.monotonic() + timeout_sec if timeout_sec is not None else math.inf
    while ok() and not future.done() and (left := end - time.monotonic()) > 0:
        node.spin_once(min(left, 1.0))


__all__ = [
    "ActionClient",
    "ActionServer",
    "CancelResponse",
    "Clock",
    "DurabilityPolicy",
    "Duration",
    "Future",
    "GoalResponse",
    "HistoryPolicy",
    "Node",
    "Parameter",
    "QoSProfile",
    "ReliabilityPolicy",
    "Time",
    "definition",
    "init",
    "interface",
    "ok",
    "qos_profile_sensor_data",
    "register_interfaces",
    "remove_ros_args",
    "shutdown",
    "spin",
    "spin_once",
    "spin_until_future_complete",
    "type_hash",
]  # fmt: skip
