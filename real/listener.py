"""A node beside others that waits for what they say and calls what they serve; it starts no process."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from real import ros
from real.connection import Trigger
from robolearn.errors import UserError

L = TypeVar("L", bound="Listener")


class Stamp(NamedTuple):
    """Of a proposal: that of the state which it was computed from."""

    at_s: float
    stamp_ns: int


class Timed(Protocol):
    """What was heard of proposals and of what the guard sent."""

    @property
    def targets(self) -> Sequence[Any]:
        """Each with `at_s` and `stamp_ns`, as a Stamp."""

    @property
    def proposals(self) -> Sequence[Stamp]: ...


class TrialError(UserError):
    """What should have happened did not, or not in time: there is nothing to measure."""


class Listener:
    """Use it as a context, which joins the domain that the environment names and leaves it."""

    def __init__(self, name: str, trouble: Callable[[], str] = str, namespace: str = ""):
        """`trouble` says why there is nothing to wait for, if so."""
        ros.init(args=[name])
        self.node, self.trouble = ros.Node(name, namespace=namespace), trouble
        self._clients: dict[str, Any] = {}

    def __enter__(self: L) -> L:
        return self

    def __exit__(self, *error: object) -> None:
        ros.shutdown()

    def spin(self, seconds: float = 0.01) -> None:
        ros.spin_once(self.node, timeout_sec=seconds)
        if not ros.ok():
            raise KeyboardInterrupt  # the signal that ROS took

    def stay(self, seconds: float) -> None:
        """Listen for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0.0:
            self.spin(left)

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
        until = time.monotonic() + timeout_s
        while not condition():
            if trouble := self.trouble():
                raise TrialError(f"{what}: {trouble}")
            if time.monotonic() > until:
                raise TrialError(f"{what}: not within {timeout_s:g} s")
            self.spin()

    def call(self, name: str, timeout_s: float = 60.0) -> Any:
        """A service's answer. A call to one whose process was killed is repeated: it seems to be there for seconds."""
        client = self._clients.setdefault(name, self.node.create_client(Trigger, name))
        until = time.monotonic() + timeout_s
        while True:
            self.wait(client.service_is_ready, f"the service {name} is there", until - time.monotonic())
            future, patience_s = client.call_async(Trigger.Request()), time.monotonic() + 1.0
            while not future.done() and time.monotonic() < patience_s:
                self.spin()
            if future.done():
                return future.result()
            client.remove_pending_request(future)

    def demand(self, name: str, timeout_s: float = 20.0) -> None:
        """Call until the answer is yes: who has just started may not have heard the robot yet."""
        until, answer = time.monotonic() + timeout_s, self.call(name)
        while not answer.success:
            if time.monotonic() > until:
                raise TrialError(f"{name} was refused for {timeout_s:g} s: {answer.message}")
            self.stay(0.05)
            answer = self.call(name)


def nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def latencies(heard: Timed, clock_s: float | None = None) -> list[float]:
    """Seconds from the state's stamp of each proposal until a listener has the first target that the guard computed
    after the listener had the proposal. Who of the two had it first is not known: to within a period of the guard.
    `clock_s`: the stamps' clock less the steady one."""
    offset_s = time.time() - time.monotonic() if clock_s is None else clock_s
    stamps = [t.stamp_ns for t in heard.targets]
    found = []
    for proposal in heard.proposals:
        k = bisect_left(stamps, round(1e9 * (proposal.at_s + offset_s)))
        if k < len(stamps):
            found.append(heard.targets[k].at_s + offset_s - 1e-9 * proposal.stamp_ns)
    return found
