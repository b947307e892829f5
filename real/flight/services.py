"""The services of a vehicle under Crazyswarm2: orders of the guard, called one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from real import ros
from real.connection import duration_of
from real.safety.flight_states import Order

ALL = 0
"""Group mask: whatever group the vehicle is in."""
TYPES = {
    "arm": "crazyflie_interfaces/srv/Arm",
    "notify_setpoints_stop": "crazyflie_interfaces/srv/NotifySetpointsStop",
    "takeoff": "crazyflie_interfaces/srv/Takeoff",
    "go_to": "crazyflie_interfaces/srv/GoTo",
    "land": "crazyflie_interfaces/srv/Land",
    "emergency": "std_srvs/srv/Empty",
}


class Services:
    """Each order waits for the answer to the one before; an emergency waits for none. `tell(order, answered)` once for
    every order that was not put aside by an emergency."""

    def __init__(self, node: Any, timeout_s: float, tell: Callable[[Order, bool], None]):
        self._timeout_s, self._tell = timeout_s, tell
        self._clients = {name: node.create_client(ros.interface(kind), name) for name, kind in TYPES.items()}
        self._waiting: deque[Order] = deque()
        self._asked: tuple[Order, Any, float] | None = None  # and the future, and when
        self.calls: dict[str, int] = {}

    def missing(self) -> list[str]:
        """Services that nobody serves."""
        return [name for name, client in self._clients.items() if not client.service_is_ready()]

    def add(self, orders: tuple[Order, ...]) -> None:
        if any(o.service == "emergency" for o in orders):
            self._waiting.clear()
            self._forget()
        self._waiting.extend(orders)

    def advance(self) -> None:
        """To be called often."""
        if self._asked is not None:
            order, future, since_s = self._asked
            if not future.done() and time.monotonic() - since_s < self._timeout_s:
                return
            answered = bool(future.done()) and future.result() is not None
            self._forget()
            self._tell(order, answered)
        if self._asked is None and self._waiting:
            self._ask(self._waiting.popleft())

    def unanswered(self) -> list[Order]:
        """In the order in which they were, or are to be, called."""
        return [*([self._asked[0]] if self._asked else []), *self._waiting]

    def send(self, order: Order) -> None:
        """At once, whatever waits, and without waiting for an answer."""
        client = self._clients[_service(order)]
        if client.service_is_ready():
            client.call_async(request_of(order))

    def _ask(self, order: Order) -> None:
        client = self._clients[_service(order)]
        if not client.service_is_ready():
            self._asked = order, _Never(), time.monotonic()
            return
        self.calls[order.service] = self.calls.get(order.service, 0) + 1
        self._asked = order, client.call_async(request_of(order)), time.monotonic()

    def _forget(self) -> None:
        if self._asked is not None and not self._asked[1].done() and not isinstance(self._asked[1], _Never):
            self._clients[_service(self._asked[0])].remove_pending_request(self._asked[1])
        self._asked = None


class _Never:
    """The answer of nobody."""

    def done(self) -> bool:
        return False


def _service(order: Order) -> str:
    return "arm" if order.service == "disarm" else order.service


def request_of(order: Order) -> Any:
    name = _service(order)
    request = ros.interface(TYPES[name]).Request()
    if name == "arm":
        request.arm = order.service == "arm"
    elif name in ("takeoff", "land"):
        request.group_mask, request.height, request.duration = ALL, order.goal_m[2], duration_of(order.duration_s)
    elif name == "go_to":
        request.group_mask, request.relative, request.yaw = ALL, False, order.yaw_rad
        request.goal.x, request.goal.y, request.goal.z = order.goal_m
        request.duration = duration_of(order.duration_s)
    elif name == "notify_setpoints_stop":
        request.group_mask, request.remain_valid_millisecs = ALL, 0
    return request
