"""The same names from rclpy, where ROS 2 is installed."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node as _Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.time import Time
from rclpy.utilities import remove_ros_args as _remove_ros_args

from real.ros.share_definitions import collected
from real.ros.signals import Signals
from robolearn.errors import ConfigError

SLICE_S = 0.2  # signals are noticed at least this often


class Node(_Node):
    """rclpy's, with timers on the steady clock."""

    def create_timer(self, timer_period_sec: float, callback: Callable[[], object], **how: Any) -> Any:
        steady = how.pop("clock", None) or Clock(clock_type=ClockType.STEADY_TIME)
        return super().create_timer(timer_period_sec, callback, clock=steady, **how)

    def declare_parameter(self, *args: Any, **how: Any) -> Any:
        try:
            return super().declare_parameter(*args, **how)
        except InvalidParameterTypeException as error:
            raise ConfigError(f"{self.get_name()}: {error}") from None

    def create_raw_subscription(
        self, type_name: str, topic: str, callback: Callable[[bytes, int], object], qos_profile: Any
    ) -> Any:
        """`callback` gets each message's bytes, and when it was written (ns since 1970; 0 if unknown)."""

        def received(data: bytes, info: Any) -> None:
            callback(data, info["source_timestamp"])

        return self.create_subscription(interface(type_name), topic, received, qos_profile, raw=True)

    def get_offers(self, topic_name: str) -> list[dict[str, Any]]:
        """The QoS of a topic's publishers, with the keys and words of rosbag2."""
        return [_offer(info.qos_profile) for info in self.get_publishers_info_by_topic(topic_name)]

    def undeclared_parameters(self) -> list[str]:
        """Names that were given from outside and that nobody has declared."""
        return sorted(n for n in self._parameter_overrides if not self.has_parameter(n))

    def malformed(self) -> dict[str, int]:
        """The middleware drops what is none of its type, and does not say so."""
        return {}


def _offer(profile: Any) -> dict[str, Any]:
    words = {name: getattr(profile, name).name.lower() for name in ("history", "reliability", "durability")}
    times = {name: getattr(profile, name).nanoseconds for name in ("deadline", "lifespan", "liveliness_lease_duration")}
    return {
        "history": words["history"], "depth": profile.depth, "reliability": words["reliability"],
        "durability": words["durability"], "liveliness": profile.liveliness.name.lower(),
        **{name: dict(zip(("sec", "nsec"), divmod(ns, 10**9), strict=True)) for name, ns in times.items()},
        "avoid_ros_namespace_conventions": profile.avoid_ros_namespace_conventions,
    }  # fmt: skip


_stopping = threading.Event()
_signals: Signals | None = None


def init(args: Sequence[str] | None = None) -> None:
    """Join the domain. `args`: the command line, with or without `--ros-args`; sys.argv if not given. SIGINT and
    SIGTERM end `spin`, and leave what is open open: a guard has to brake first."""
    global _signals
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    _stopping.clear()
    _signals = Signals(_stopping.set)


def ok() -> bool:
    return rclpy.ok() and not _stopping.is_set()


def shutdown() -> None:
    """A second time, or before `init`, nothing happens."""
    global _signals
    leaving, _signals = _signals, None
    if leaving is not None:
        leaving.give_back()
    rclpy.try_shutdown()


def spin(node: Node) -> None:
    """Serve the node until SIGINT, SIGTERM or `shutdown`, then return; neither signal raises here."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while ok():
            executor.spin_once(timeout_sec=SLICE_S)
    except ExternalShutdownException:
        pass
    finally:
        executor.remove_node(node)


def spin_once(node: Node, timeout_sec: float | None = None) -> None:
    try:
        rclpy.spin_once(node, timeout_sec=timeout_sec)
    except (KeyboardInterrupt, ExternalShutdownException):
        rclpy.try_shutdown()


def spin_until_future_complete(node: Node, future: Any, timeout_sec: float | None = None) -> None:
    try:
        rclpy.spin_until_future_complete(node, future, timeout_sec=timeout_sec)
    except (KeyboardInterrupt, ExternalShutdownException):
        rclpy.try_shutdown()


def remove_ros_args(args: Sequence[str] | None = None) -> list[str]:
    return _remove_ros_args(sys.argv if args is None else args)


def interface(name: str) -> Any:
    """The class of `sensor_msgs/msg/JointState`, `std_srvs/srv/Trigger` or `pkg/action/Name`, from its package."""
    package, kind, member = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), member)


def definition(type_name: str) -> str:
    """The text of a message, followed by those of the messages it uses, as bags hold it. ConfigError if unknown."""
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        interface(type_name)
        return collected(type_name, lambda package: Path(get_package_share_directory(package)))
    except (ImportError, AttributeError, PackageNotFoundError, ValueError) as error:
        raise ConfigError(f"no message '{type_name}' is installed ({error})") from None


def type_hash(type_name: str) -> str:
    """Not known here: the publishers tell it."""
    return ""


def register_interfaces(folder: str | Path) -> list[str]:
    """Nothing to do: rclpy takes interfaces from installed packages only. Their names."""
    return [f"{p.parent.parent.name}/{p.parent.name}/{p.stem}" for p in sorted(Path(folder).glob("*/*/*.*"))]


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
