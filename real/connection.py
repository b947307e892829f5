"""Messages on one side, arrays on the other: what all nodes hear and say; joint states, read with suspicion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from real import ros
from robolearn.spec import RobotSpec

Floats = NDArray[np.float64]
NEWEST = ros.QoSProfile(depth=1)
SENSED = ros.QoSProfile(depth=1, reliability=ros.ReliabilityPolicy.BEST_EFFORT)
"""Hears drivers of either reliability."""
LATCHED = ros.QoSProfile(depth=1, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL)
BACK_S = 0.1
"""A clock that goes back by more is another clock."""
BEYOND, TOO_FAST, NOISE = 0.2, 10.0, 0.02
"""rad or m beyond a joint's end, times its speed limit, and rad or m that a measurement may be off: one that says more,
or is further from the last than that speed leads, is none. So of two robots on one topic one is heard."""
NO_NUMBER = "a number is not finite"
LONGEST_TEXT = 60

Header = ros.interface("std_msgs/msg/Header")
String = ros.interface("std_msgs/msg/String")
Numbers = ros.interface("std_msgs/msg/Float64MultiArray")
JointState = ros.interface("sensor_msgs/msg/JointState")
JointTrajectory = ros.interface("trajectory_msgs/msg/JointTrajectory")
JointTrajectoryPoint = ros.interface("trajectory_msgs/msg/JointTrajectoryPoint")
PoseStamped = ros.interface("geometry_msgs/msg/PoseStamped")
WrenchStamped = ros.interface("geometry_msgs/msg/WrenchStamped")
Trigger = ros.interface("std_srvs/srv/Trigger")
DiagnosticArray = ros.interface("diagnostic_msgs/msg/DiagnosticArray")
DiagnosticStatus = ros.interface("diagnostic_msgs/msg/DiagnosticStatus")
KeyValue = ros.interface("diagnostic_msgs/msg/KeyValue")


def seconds(stamp: Any) -> float:
    """Of a stamp or a duration; NaN if it is none, with more than a second of nanoseconds."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec) if 0 <= stamp.nanosec < 10**9 else math.nan


def shown(text: str) -> str:
    """What others wrote, as it may stand in a line of ours."""
    return repr(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}...")


def stamp_of(time_s: float) -> Any:
    whole = math.floor(time_s)
    return ros.interface("builtin_interfaces/msg/Time")(sec=whole, nanosec=int((time_s - whole) * 1e9))


def duration_of(time_s: float) -> Any:
    return ros.Duration(seconds=time_s).to_msg()


@dataclass
class Reading:
    """Joints in the order of the robot's names; what is not measured is zero."""

    stamp_s: float
    position: Floats
    velocity: Floats
    effort: Floats


class JointReader:
    """JointState messages as readings: by name, in any order; a message may hold some of the joints only."""

    def __init__(self, wire_names: dict[str, str], robot: RobotSpec, future_s: float):
        """`wire_names`: the robot's joint names -> the driver's. `future_s`: how far a stamp may lie ahead."""
        self._robot, self._future_s = robot, future_s
        self._column = {wire_names.get(n, n): i for i, n in enumerate(robot.joint_names)}
        self._needed = self.columns(robot.arm_joints)
        self._lower = np.array(robot.of("lower", robot.joint_names)) - BEYOND
        self._upper = np.array(robot.of("upper", robot.joint_names)) + BEYOND
        self._fastest = TOO_FAST * np.array(robot.of("velocity_limit", robot.joint_names))
        rest = np.array(robot.default_joint_pos)
        self.latest = Reading(-math.inf, rest, np.zeros_like(rest), np.zeros_like(rest))
        self._stamps, self._now_s = np.full(len(rest), -math.inf), -math.inf
        self.refused: dict[str, int] = {}

    def columns(self, joints: tuple[str, ...]) -> list[int]:
        """Of these joints of the robot in a reading."""
        return [self._robot.joint_names.index(n) for n in joints]

    def stamp_s(self, columns: list[int]) -> float:
        """Of the one of these that was measured longest ago; -inf if one never was."""
        return float(self._stamps[columns].min())

    def __call__(self, message: Any, now_s: float) -> bool:
        """Take it in; False, and counted by reason, if it cannot be used."""
        if now_s < self._now_s - BACK_S:
            self._stamps[:] = -math.inf  # the clock went back: all that comes would be older than these
        self._now_s = now_s
        ks = [k for k, name in enumerate(message.name) if name in self._column]
        ids = [self._column[message.name[k]] for k in ks]
        reason = _misshapen(message) or self._nonsense(message, now_s, ks, ids)
        if reason:
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return False
        stamp = seconds(message.header.stamp)
        old = self.latest
        new = Reading(old.stamp_s, old.position.copy(), old.velocity.copy(), old.effort.copy())
        for values, into in ((message.position, new.position), (message.velocity, new.velocity),
                             (message.effort, new.effort)):  # fmt: skip
            if len(values):
                into[ids] = np.asarray(values, dtype=np.float64)[ks]
        new.effort[~np.isfinite(new.effort)] = 0.0  # what drivers say where they measure none
        self._stamps[ids] = stamp
        new.stamp_s = self.stamp_s(self._needed)
        self.latest = new
        return True

    def _nonsense(self, message: Any, now_s: float, ks: list[int], ids: list[int]) -> str:
        """What is wrong with the joints of these places in the message, and columns here; or nothing."""
        if not ids:
            return "none of its joints is the robot's"
        at, fastest, stamp = np.asarray(message.position)[ks], self._fastest[ids], seconds(message.header.stamp)
        if not ((at >= self._lower[ids]) & (at <= self._upper[ids])).all():  # NaN too
            return "a joint is where it cannot be" if np.isfinite(at).all() else NO_NUMBER
        if len(message.velocity):
            speed = abs(np.asarray(message.velocity)[ks])
            if not (speed <= fastest).all():
                return "a joint is faster than it can be" if np.isfinite(speed).all() else NO_NUMBER
        if math.isnan(stamp):
            return "its stamp is none"
        if stamp > now_s + self._future_s:
            return "its stamp lies in the future"
        last = self._stamps[ids]
        if stamp <= last.max():
            return "its stamp is not newer than the last"
        if (abs(at - self.latest.position[ids]) > NOISE + fastest * (stamp - last)).any():
            return "a joint jumped: is this another robot's?"
        return ""


def _misshapen(message: Any) -> str:
    """What is wrong with a JointState whoever's it is, or nothing."""
    n = len(message.name)
    if len(message.position) != n or any(len(v) not in (0, n) for v in (message.velocity, message.effort)):
        return "its arrays differ in length"
    return "a joint is named twice" if len(set(message.name)) != n else ""
