"""A node beside a quadrotor's twin, guard and policy: it hears what they say, has the vehicle take off and land, and
tells how well it flew."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from real import ros
from real.connection import (
    LATCHED,
    NEWEST,
    DiagnosticArray,
    JointState,
    JointTrajectory,
    PoseStamped,
    String,
    seconds,
)
from real.flight.reading import ANYWHERE_S
from real.flight.state import Flight, Floats
from real.listener import Listener, Stamp, TrialError, latencies, nanoseconds

Odometry = ros.interface("nav_msgs/msg/Odometry")
EVERY = ros.QoSProfile(depth=2000)


class Place(NamedTuple):
    """Where it is, or should be."""

    stamp_s: float
    position: Floats
    velocity: Floats


@dataclass
class Heard:
    """Since the last `clear`."""

    truth: list[Place] = field(default_factory=list)
    turns: list[Floats] = field(default_factory=list)
    """Quaternions, one for each of `truth`."""
    goals: list[Place] = field(default_factory=list)
    states: list[tuple[float, str]] = field(default_factory=list)
    """The guard's, with the stamp of the truth before."""
    targets: list[Stamp] = field(default_factory=list)
    """Set-points, by their own stamps."""
    proposals: list[Stamp] = field(default_factory=list)


class FlightWatcher(Listener):
    def __init__(self, trouble: Callable[[], str] = str, namespace: str = ""):
        super().__init__("watcher", trouble, namespace)
        self.heard, self.state, self.owner = Heard(), "", ""
        self.counts: dict[str, int] = {}
        """`NODE: KEY` -> number, from the diagnostics; as of their last second."""
        node = self.node
        node.create_subscription(Odometry, "twin/truth", self._on_truth, EVERY)
        node.create_subscription(Odometry, "policy/goal", self._on_goal, EVERY)
        node.create_subscription(JointState, "guard/target", self._on_target, EVERY)
        node.create_subscription(JointTrajectory, "guard/proposals/policy", self._on_proposal, EVERY)
        node.create_subscription(String, "guard/state", self._on_state, LATCHED)
        node.create_subscription(String, "guard/owner", lambda m: setattr(self, "owner", m.data), LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._place = node.create_publisher(PoseStamped, "twin/place", NEWEST)
        self._fault = node.create_publisher(String, "twin/fault", NEWEST)

    def clear(self) -> None:
        self.heard = Heard()

    def _on_truth(self, message: Any) -> None:
        q = message.pose.pose.orientation
        self.heard.truth.append(_place_of(message))
        self.heard.turns.append(np.array([q.x, q.y, q.z, q.w]))

    def _on_goal(self, message: Any) -> None:
        self.heard.goals.append(_place_of(message))

    def _on_target(self, message: Any) -> None:
        self.heard.targets.append(Stamp(time.monotonic(), nanoseconds(message.header.stamp)))

    def _on_proposal(self, message: Any) -> None:
        self.heard.proposals.append(Stamp(time.monotonic(), nanoseconds(message.header.stamp)))

    def _on_state(self, message: Any) -> None:
        self.state = message.data
        self.heard.states.append((self.heard.truth[-1].stamp_s if self.heard.truth else math.nan, message.data))

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            for value in status.values:
                number = value.value.partition(" ")[0]
                if number.isdecimal():
                    self.counts[f"{status.name.strip('/')}: {value.key}"] = int(number)

    # --- what it has done -----------------------------------------------------------------------------------

    def position(self) -> Floats:
        return self.heard.truth[-1].position if self.heard.truth else np.full(3, math.nan)

    def await_all(self) -> None:
        """Until twin, guard and policy are there."""
        self.wait(lambda: self.heard.truth, "the vehicle's first pose")
        self.wait(lambda: self.state, "the guard's first state")
        self.call("policy/stop")

    def take_off(self) -> None:
        self.demand("guard/takeoff")
        self.wait(lambda: self.state == "flying", "it has taken off", 20.0)
        self.stay(1.2)  # on its way to its place

    def land(self) -> None:
        self.demand("guard/land")
        self.wait(lambda: self.state == "grounded", "it has landed", 20.0)

    def start(self) -> None:
        """Until the policy has authority; nothing of the time before is kept."""
        self.demand("policy/start")
        self.clear()
        self.wait(lambda: self.owner == "policy" and self.heard.goals, "the policy flies", 10.0)

    def put(self, position: Floats) -> None:
        """On the ground there, restarted, while nobody flies it; until those who have seen it jump believe it."""
        message = PoseStamped()
        message.pose.position.x, message.pose.position.y, _ = position.tolist()
        self._place.publish(message)
        self.wait(lambda: np.linalg.norm(self.position()[:2] - position[:2]) < 0.02, "the vehicle is put there", 10.0)
        self.stay(ANYWHERE_S + 0.2)

    def break_down(self, fault: str) -> None:
        """One of the twin's faults; empty: none any more."""
        self._fault.publish(String(data=fault))

    # --- what became of it ----------------------------------------------------------------------------------

    def errors(self, after_s: float = 0.0) -> Floats:
        """(n,) m, from the true place to the goal of that moment, from so long after the first goal on."""
        goals = self.heard.goals
        times = np.array([g.stamp_s for g in goals])
        rows = np.stack([g.position for g in goals])
        truth = [t for t in self.heard.truth if times[0] + after_s <= t.stamp_s <= times[-1]]
        if len(truth) < 2:
            raise TrialError(
                f"the flight was too short: the guard is {self.state}, {self.owner or 'nobody'} has authority"
            )
        there = np.stack([np.interp([t.stamp_s for t in truth], times, rows[:, k]) for k in range(3)], axis=1)
        return np.linalg.norm(np.stack([t.position for t in truth]) - there, axis=1)

    def latencies_ms(self) -> list[float]:
        """From the stamp of the pose behind each proposal to the set-point that follows it."""
        return [round(1e3 * s, 3) for s in latencies(self.heard)]

    def tilts(self) -> list[float]:
        """rad, of every true pose."""
        zero = np.zeros(3)
        return [Flight(0.0, zero, turn, zero, zero).tilt_rad for turn in self.heard.turns]


def _place_of(message: Any) -> Place:
    p, v = message.pose.pose.position, message.twist.twist.linear
    return Place(seconds(message.header.stamp), np.array([p.x, p.y, p.z]), np.array([v.x, v.y, v.z]))
