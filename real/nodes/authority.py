"""What the guards of all robots do alike: who has authority, who else publishes where only the guard may, and what is
told of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from real import ros
from real.connection import LATCHED, NEWEST, JointTrajectory, String, Trigger, seconds
from real.nodes.report import Report
from real.safety.guard import Answer
from real.safety.proposals import LONGEST_CHUNK, Proposal
from real.site import parameter
from real.spread import Spread
from robolearn.errors import ConfigError

SOURCES = ("teleop", "page", "env", "policy")
"""By falling priority: a person first."""
PEOPLE = ("teleop", "page")
"""None of these takes authority from another one."""
REPORT_S, WATCH_S = 1.0, 0.1
REMIND_S = 0.5
"""At most so often it is said again who has authority."""


class AuthorityNode(ros.Node):
    """A node `guard`. Subclasses have `guard`, with `take`, `release`, `reset`, `estop`, `owner`, `state` and `clips`,
    and call `serve` when it is there."""

    guard: Any

    def __init__(self) -> None:
        super().__init__("guard")
        self.latency = Spread()
        self._said = self._reported = ("", "")
        self._said_s = 0.0  # on the steady clock
        self._tellers: list[str] = []
        self.intruders: list[str] = []

    def read_sources(self) -> tuple[str, ...]:
        sources = tuple(parameter(self, "sources", SOURCES))
        for source in sources:
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", source):
                raise ConfigError(f"sources: '{source}' is no part of a topic's name; use letters, digits and _")
        return sources

    def serve(self, robot: str, command_topic: str, state_topic: str) -> None:
        """Topics and services of authority, and the watch over the robot's topics."""
        self._command_topic, self._state_topic = command_topic, state_topic
        self._state = self.create_publisher(String, "guard/state", LATCHED)
        self._owner = self.create_publisher(String, "guard/owner", LATCHED)
        self._diagnostics = Report(self, robot)
        for source in self.guard.sources:
            self.create_subscription(
                JointTrajectory, f"guard/proposals/{source}", partial(self._on_proposal, source), NEWEST
            )
            self.service(f"guard/take/{source}", partial(self.take, source))
            self.service(f"guard/release/{source}", partial(self.guard.release, source))
        self.service("guard/reset", self.guard.reset)
        self.service("guard/estop", self.guard.estop)
        self.create_timer(WATCH_S, self._watch)
        self.create_timer(REPORT_S, self.report)

    def service(self, name: str, call: Callable[[], Any]) -> None:
        def answer(request: Any, response: Any) -> Any:
            response.success, response.message = call()
            self._tell(self.guard.state)  # before the next period, in which it may be over
            self.get_logger().info(f"{name}: {response.message}")
            return response

        self.create_service(Trigger, name, answer)

    def _on_proposal(self, source: str, message: Any) -> None:
        if source == self.guard.owner:
            return self.on_proposal(source, message)
        self.guard.refuse(source, "")  # before it costs more
        return self._remind()

    def on_proposal(self, source: str, message: Any) -> None:
        """Of who has authority."""
        raise NotImplementedError

    def report(self, reasons: Any = ()) -> None:
        raise NotImplementedError

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def take(self, source: str) -> Answer:
        """Nobody gets authority beside a namesake: both would move the robot until the watch sees it."""
        if self.count_publishers(f"guard/proposals/{source}") > 1:
            return Answer(False, f"more than one node proposes as {source}")
        answer: Answer = self.guard.take(source)
        return answer

    def announce(self, state: str, reasons: Any) -> None:
        """When state or owner have changed, and with diagnostics."""
        self._tell(state)
        if self._said != self._reported:
            self._reported = self._said
            self.report(reasons)

    def _tell(self, state: str) -> None:
        said = state, self.guard.owner or ""
        if said != self._said:
            self._said = said
            self._say()

    def _say(self) -> None:
        self._said_s = time.monotonic()
        self._state.publish(String(data=self._said[0]))
        self._owner.publish(String(data=self._said[1]))

    def _remind(self) -> None:
        """Whoever goes on proposing does not know that authority is gone: the answer to `take` came after it."""
        if time.monotonic() - self._said_s > REMIND_S:
            self._say()

    def figures(self) -> dict[str, object]:
        """Of diagnostics."""
        return {
            **{k: f"{c.count}" + (f" (last: {c.last})" if c.last else "") for k, c in self.guard.clips.items()},
            "state to command, ms": str(self.latency),
            f"publishers of {self._state_topic}": ", ".join(sorted(self._tellers)),
        }

    def _watch(self) -> None:
        """A second publisher on the command topic, or of the owner's proposals, is an emergency."""
        found = self.get_publishers_info_by_topic(self._command_topic)
        mine = next((e for e in found if self._is_mine(e)), None)
        self.intruders = sorted({e.node_name for e in found if e is not mine})  # a second guard has this one's name
        if self.intruders:
            self.on_intruder(f"{', '.join(self.intruders)} publishes on {self._command_topic} too")
        self._hear_of(sorted(e.node_name for e in self.get_publishers_info_by_topic(self._state_topic)))
        owner = self.guard.owner
        if owner and self.count_publishers(f"guard/proposals/{owner}") > 1:
            self.on_namesake(f"{owner} has authority, and more than one node proposes as {owner}")

    def on_intruder(self, reason: str) -> None:
        self.guard.estop(reason)

    def on_namesake(self, reason: str) -> None:
        self.guard.estop(reason)

    def _hear_of(self, tellers: list[str]) -> None:
        """Who tells of the robot. An arm and its gripper may do so apart; two robots on one topic are a mistake, of
        which the reader hears one."""
        if len(tellers) > 1 and tellers != self._tellers:
            self.get_logger().warning(f"{', '.join(tellers)} all publish on {self._state_topic}")
        self._tellers = tellers

    def _is_mine(self, endpoint: Any) -> bool:
        return (endpoint.node_name, endpoint.node_namespace) == (self.get_name(), self.get_namespace())


def read_proposal(message: Any, most_names: int) -> Proposal | str:
    """A JointTrajectory as a proposal, or what is wrong with it: evenly spaced points of as many numbers as names."""
    points, count = message.points[: LONGEST_CHUNK + 1], len(message.joint_names)  # one too many is refused
    if any(len(p.positions) != count for p in points) or count > most_names:
        return f"{count} joints, {len(points)} points, and not as many numbers in each"
    times = [seconds(p.time_from_start) for p in points]
    period = times[0] if times else 0.0
    even = all(abs(t - period * k) <= 1e-6 + 1e-5 * abs(period * k) for k, t in enumerate(times, start=1))
    targets = [list(p.positions) for p in points]
    return Proposal(tuple(message.joint_names), targets, seconds(message.header.stamp), period if even else 0.0)
