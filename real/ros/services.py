"""Services and clients, with rmw_cyclonedds' payload: the client's GUID and a sequence number before each message."""

from __future__ import annotations

import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from real.ros import cdr, dds
from real.ros.future import Future
from real.ros.graph import user_data
from real.ros.messages import Service as Srv
from real.ros.pubsub import Endpoints, Inlet, typehash
from real.ros.qos import SERVICES
from real.ros.timers import Timer

if TYPE_CHECKING:
    from real.ros.node import Node

HEADER = struct.Struct("<Qq")
PATIENCE_S = 0.1  # for the client's reader to be discovered, which may come after its writer
WAITING = 100  # replies; the oldest gives way


class _Pair(ABC):
    """The two topics of a service as one side has them."""

    def __init__(self, node: Node, service: type[Srv], name: str, serves: bool):
        self.srv_type, self.srv_name = service, name
        sent, taken = ("Response", "Request") if serves else ("Request", "Response")
        out, into = (f"rr{name}Reply", f"rq{name}Request") if serves else (f"rq{name}Request", f"rr{name}Reply")
        kind = service.TYPE
        self.sent_type, taken_type = f"{kind}_{sent}", f"{kind}_{taken}"
        key = "serviceid" if serves else "clientid"
        mine = f"{key}={node.context.client_service_id()};"
        announced = dds.announced_type(self.sent_type, service=True)
        qos = SERVICES.to_dds(mine + typehash(self.sent_type))
        self.writer = dds.Writer(node.context.participant, out, announced, qos)
        self.inlet = Inlet(node, into, taken_type, SERVICES, mine + typehash(taken_type), skip=HEADER.size)
        self.entities: Endpoints = ([self.writer], [self.inlet.reader])
        self.conditions = {self.inlet.reader.condition: self._ready}

    @property
    def malformed(self) -> int:
        return self.inlet.malformed

    @abstractmethod
    def _ready(self) -> None:
        """Something has come to the inlet."""

    def readers_of(self, key: str) -> list[str]:
        """What the matched readers call themselves."""
        entity = self.writer.entity
        found = (entity.get_matched_subscription_data(handle) for handle in entity.get_matched_subscriptions())
        return [user_data(endpoint.qos).get(key, "") for endpoint in found if endpoint is not None]

    def close(self) -> None:
        self.writer.close()
        self.inlet.close()


class Client(_Pair):
    """`call_async` sends a request; the future is done when a reply has been taken by `spin`."""

    def __init__(self, node: Node, service: type[Srv], name: str):
        super().__init__(node, service, name, serves=False)
        self._guid = self.writer.entity.instance_handle & (2**64 - 1)
        self._sequence = 0
        self._pending: dict[int, Future] = {}

    def call_async(self, request: Any) -> Future:
        self._sequence += 1
        payload = cdr.encode(request, self.sent_type, HEADER.pack(self._guid, self._sequence))
        self._pending[self._sequence] = future = Future()
        self.writer.write(payload)
        return future

    def remove_pending_request(self, future: Future) -> None:
        """Its reply will be ignored."""
        self._pending = {number: f for number, f in self._pending.items() if f is not future}

    def _ready(self) -> None:
        if (taken := self.inlet.take()) is not None:
            response, data, _ = taken
            guid, number = HEADER.unpack_from(data, 4)
            if guid == self._guid and (future := self._pending.pop(number, None)) is not None:
                future.set_result(response)

    def service_is_ready(self) -> bool:
        """Both of the server's endpoints are matched."""
        entity = self.inlet.reader.entity
        found = (entity.get_matched_publication_data(handle) for handle in entity.get_matched_publications())
        writers = [user_data(endpoint.qos).get("serviceid", "") for endpoint in found if endpoint is not None]
        return bool(set(writers) & set(self.readers_of("serviceid")))

    def wait_for_service(self, timeout_sec: float | None = None) -> bool:
        end = time.monotonic() + timeout_sec if timeout_sec is not None else float("inf")
        while not self.service_is_ready():
            if time.monotonic() >= end or self.inlet.node.context.stopping.is_set():
                return False
            time.sleep(0.01)
        return True


class Service(_Pair):
    """Answers each request with what `callback(request, response)` returns; with a future's result when it is done."""

    def __init__(self, node: Node, service: type[Srv], name: str, callback: Callable[[Any, Any], Any]):
        super().__init__(node, service, name, serves=True)
        self.callback = callback
        self._answered: deque[int] = deque(maxlen=WAITING)  # clients whose readers are known to be there
        self._waiting: deque[tuple[float, int, bytearray]] = deque(maxlen=WAITING)
        self._timer: Timer | None = None

    def _ready(self) -> None:
        if (taken := self.inlet.take()) is not None:
            request, data, info = taken
            header, client = data[4 : 4 + HEADER.size], info.publication_handle
            response = self.callback(request, self.srv_type.Response())
            if isinstance(response, Future):
                response.add_done_callback(lambda future: self._reply(header, client, future.result()))
            else:
                self._reply(header, client, response)

    def _reply(self, header: bytes, client: int, response: Any) -> None:
        payload = cdr.encode(response, self.sent_type, header)
        self._waiting.append((time.monotonic() + PATIENCE_S, client, payload))
        self._send()

    def _send(self) -> None:
        """What can be answered; the rest is tried again soon, so that a client without a reader delays nobody."""
        later = []
        while self._waiting:
            end, client, payload = self._waiting.popleft()
            if client in self._answered or (there := self._listens(client)):
                self.writer.write(payload)
            elif there is False and time.monotonic() < end:
                later.append((end, client, payload))
        self._waiting.extend(later)
        if later and self._timer is None:
            self._timer = self.inlet.node.create_timer(0.005, self._send)
        elif not later and self._timer is not None:
            self.inlet.node.destroy_timer(self._timer)
            self._timer = None

    def _listens(self, client: int) -> bool | None:
        """Whether the client's reader is matched; None if the client is gone."""
        endpoint = self.inlet.reader.entity.get_matched_publication_data(client)
        if endpoint is None:
            return None
        name = user_data(endpoint.qos).get("clientid", "")
        there = not name or name in self.readers_of("clientid")  # nameless: another vendor's, taken to be there
        if there:
            self._answered.append(client)
        return there
