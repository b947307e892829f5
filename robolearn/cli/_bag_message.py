"""A message as one vector of numbers, for episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robolearn.errors import ConfigError

FIELDS = {
    "sensor_msgs/msg/JointState": "position",
    "trajectory_msgs/msg/JointTrajectory": "points[0].positions",
    "nav_msgs/msg/Odometry": "pose.pose",
    "std_msgs/msg/Float64MultiArray": "data",
    "std_msgs/msg/Float32MultiArray": "data",
}
"""What is meant where no field is named; of other types all but the header."""
BY_JOINT = {"sensor_msgs/msg/JointState": "name", "trajectory_msgs/msg/JointTrajectory": "joint_names"}
"""Field with the names that the elements of the others are in the order of."""
QUATERNION = "geometry_msgs/msg/Quaternion"


@dataclass
class Entry:
    """(D,) numbers of a message, what they are called, and where quaternions (xyzw) begin."""

    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    names: tuple[str, ...] = ()
    quaternions: tuple[int, ...] = ()
    joints: bool = False
    """Whether the names are those of joints, whose order may differ from message to message."""


def entry(message: Any, path: str = "") -> Entry:
    """Of the field at `path`, or what is meant without one. Raises ConfigError for what is no number, IndexError for
    an element that a list lacks."""
    from real.recording.decode import part

    kind = message.__msgtype__
    path = path or FIELDS.get(kind, "")
    value = part(message, path) if path else message
    parts, quaternions = list[tuple[str, np.ndarray]](), list[int]()
    _flatten(value, "", path or kind, parts, quaternions)
    arrays = [array for _, array in parts]
    values = np.concatenate(arrays) if arrays else np.zeros(0)
    if values.dtype.kind == "f" or len({a.dtype for a in arrays}) > 1:
        values = values.astype(np.float64)
    joints = list(getattr(message, BY_JOINT[kind])) if kind in BY_JOINT else []
    if joints and len(joints) == len(values):
        return Entry(values, tuple(joints), (), True)
    names = tuple(name for name, array in parts for name in ([name] if len(array) == 1 else []) if name)
    return Entry(values, names if len(names) == len(values) else (), tuple(quaternions))


def _flatten(value: Any, name: str, path: str, parts: list[tuple[str, np.ndarray]], quaternions: list[int]) -> None:
    fields = [f for f in getattr(value, "__dataclass_fields__", {}) if not f.startswith("_")]
    if getattr(value, "__msgtype__", "") == QUATERNION:
        quaternions.append(sum(len(array) for _, array in parts))
    for each in fields:
        if each != "header":
            inner = f"{name}.{each}" if name else each
            _flatten(getattr(value, each), inner, f"{path}.{each}", parts, quaternions)
    if not fields:
        array = np.atleast_1d(np.asarray(value))
        if array.ndim != 1 or array.dtype.kind not in "biuf":
            raise ConfigError(f"{path} is no number: name a field that is one, as KEY=/TOPIC:FIELD")
        parts.append((name, array))


def like(found: Entry, first: Entry) -> np.ndarray | None:
    """The values in the order of the topic's first message; None of a message about other joints. Raises ConfigError
    for one that lacks some, or has another number of values."""
    if first.joints and found.joints and found.names != first.names:
        if not set(found.names) & set(first.names):
            return None
        if lacking := [name for name in first.names if name not in found.names]:
            raise ConfigError(f"it lacks the joints {', '.join(lacking)} of the topic's first message")
        return found.values[[found.names.index(name) for name in first.names]]
    if found.values.shape != first.values.shape:
        raise ConfigError(f"it has {len(found.values)} numbers, the topic's first message {len(first.values)}")
    return found.values


def time_ns(message: Any, log_ns: int, stamps: str) -> int:
    """Since 1970: a message's own stamp, or when it was received if that is asked for or it has none."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    if stamps == "receive" or stamp is None or not (stamp.sec or stamp.nanosec):
        return log_ns
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
