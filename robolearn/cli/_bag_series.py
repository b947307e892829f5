"""What can be drawn of a bag: numbers over time by topic, texts over time, ages on arrival."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.errors import ConfigError, unknown

if TYPE_CHECKING:
    from real.recording.read import Recording

MOST = 12
"""Numbers of a vector that are drawn."""
Panels = dict[str, dict[str, float]]


def _vector(value: Any) -> dict[str, float]:
    return {axis: float(getattr(value, axis)) for axis in "xyz"}


def _joints(names: Sequence[str], **vectors: Any) -> Panels:
    panels = {panel: dict(zip(names, map(float, v), strict=False)) for panel, v in vectors.items() if len(v)}
    return {panel: values for panel, values in panels.items() if values}


def _trajectory(message: Any) -> Panels:
    if not len(message.points):
        return {}
    point = message.points[0]
    return _joints(message.joint_names, position=point.positions, velocity=point.velocities)


def _array(message: Any) -> Panels:
    return {"data": {str(k): float(v) for k, v in enumerate(message.data[:MOST])}}


def _twist(twist: Any) -> Panels:
    return {"linear": _vector(twist.linear), "angular": _vector(twist.angular)}


DRAWN: dict[str, Callable[[Any], Panels]] = {
    "sensor_msgs/msg/JointState": lambda m: _joints(m.name, position=m.position, velocity=m.velocity),
    "trajectory_msgs/msg/JointTrajectory": _trajectory,
    "std_msgs/msg/Float64MultiArray": _array,
    "std_msgs/msg/Float32MultiArray": _array,
    "geometry_msgs/msg/PoseStamped": lambda m: {"position (m)": _vector(m.pose.position)},
    "nav_msgs/msg/Odometry": lambda m: {"position (m)": _vector(m.pose.pose.position), **_twist(m.twist.twist)},
    "geometry_msgs/msg/Twist": _twist,
    "geometry_msgs/msg/TwistStamped": lambda m: _twist(m.twist),
    "geometry_msgs/msg/WrenchStamped": lambda m: {
        "force (N)": _vector(m.wrench.force),
        "torque (N m)": _vector(m.wrench.torque),
    },
}
JOINTS = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"
TEXT = "std_msgs/msg/String"


@dataclass
class Series:
    """Numbers of one topic over time."""

    topic: str
    panel: str
    names: tuple[str, ...]
    joints: bool = False
    times: list[float] = field(default_factory=list)
    """s since the bag began."""
    rows: list[list[float]] = field(default_factory=list)

    def add(self, time_s: float, values: dict[str, float]) -> None:
        self.times.append(time_s)
        self.rows.append([values.get(name, math.nan) for name in self.names])


@dataclass
class Found:
    series: dict[tuple[str, str], Series] = field(default_factory=dict)
    texts: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    ages: dict[str, list[float]] = field(default_factory=dict)
    """ms from a message's stamp to its reception, by topic."""
    undecoded: dict[str, str] = field(default_factory=dict)
    """Topics -> why."""
    end_s: float = 0.0


def collect(recording: Recording, fields: Sequence[str], update: Callable[[int], object]) -> Found:
    """Raises ConfigError for a field that is not there."""
    from real.recording.decode import Decoder

    wanted = _fields(recording, fields)
    topics = {n for n, t in recording.topics.items() if t.type in DRAWN or t.type == TEXT or n in wanted}
    decode = Decoder([recording.topics[name] for name in topics])
    found, first = Found(), 0
    for m in recording.messages(topics, update) if topics else ():
        first = first or m.log_ns
        found.end_s = (m.log_ns - first) * 1e-9
        kind = recording.topics[m.topic].type
        try:
            message = decode(m.data, kind)
        except ConfigError as error:
            found.undecoded.setdefault(m.topic, str(error))
            continue
        _take(found, m.topic, kind, message, m.log_ns, wanted.get(m.topic, ()))
    return found


def _fields(recording: Recording, fields: Sequence[str]) -> dict[str, list[str]]:
    """Topic -> paths in its messages."""
    wanted: dict[str, list[str]] = {}
    for text in fields:
        name, dot, path = text.partition(".")
        if name not in recording.topics:
            raise ConfigError(unknown("topic", name, sorted(recording.topics)))
        if not dot or not path:
            raise ConfigError(f"fields: {text!r} names no field; write {name}.FIELD")
        wanted.setdefault(name, []).append(path)
    return wanted


def _take(found: Found, topic: str, kind: str, message: Any, log_ns: int, paths: Sequence[str]) -> None:
    at = found.end_s
    for panel, values in DRAWN[kind](message).items() if kind in DRAWN else ():
        key = topic, panel
        if key not in found.series:
            found.series[key] = Series(topic, panel, tuple(values), kind in JOINTS)
        found.series[key].add(at, values)
    if kind == TEXT:
        found.texts.setdefault(topic, []).append((at, str(message.data)))
    for path in paths:
        _add_field(found, topic, path, message)
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    if stamp is not None and (stamp.sec or stamp.nanosec):
        found.ages.setdefault(topic, []).append((log_ns - stamp.sec * 10**9 - stamp.nanosec) * 1e-6)


def _add_field(found: Found, topic: str, path: str, message: Any) -> None:
    from real.recording.decode import numbers

    try:
        value = numbers(message, path)
    except IndexError:  # a list that is shorter in this message
        return
    row = (
        {path: value} if isinstance(value, float) else {f"[{k}]": float(v) for k, v in enumerate(value.ravel()[:MOST])}
    )
    key = topic, f".{path}"
    if row and key not in found.series:
        found.series[key] = Series(topic, f".{path}", tuple(row))
    if row:
        found.series[key].add(found.end_s, row)


def thinned(times: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) each, to at most 2 `most` points: the least and the greatest of each stretch, so that no peak is lost."""
    if len(times) <= 2 * most:
        return times, values
    edges = np.linspace(0, len(times), most + 1).astype(int)[:-1]
    safe = np.where(np.isfinite(values), values, 0.0)
    keep = []
    for a, b in zip(edges, [*edges[1:], len(times)], strict=True):
        keep += sorted({a + int(safe[a:b].argmin()), a + int(safe[a:b].argmax())})
    return times[keep], values[keep]
