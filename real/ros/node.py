"""Nodes and the loop that serves them."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from real.ros import dds
from real.ros.clock import Clock, Time
from real.ros.complaints import PACKETS
from real.ros.context import context
from real.ros.graph import TOPIC, EndpointInfo
from real.ros.log import Logger
from real.ros.messages import interface
from real.ros.names import node_and_namespace, resolve
from real.ros.parameter_services import ParameterServices
from real.ros.parameters import EVENT, SIM_TIME, Parameter, Parameters
from real.ros.pubsub import Publisher, RawSubscription, Subscription
from real.ros.qos import PARAMETER_EVENTS, ROSOUT, QoSProfile
from real.ros.services import Client, Service
from real.ros.timers import Timer

SLICE_S = 0.2  # signals are handled, and DDS's complaints read, at least this often
E_ = TypeVar("E_", bound=Any)


class Node:
    """rclpy's, as far as the nodes here use it. One thread at a time spins it; `publish` may be called from any."""

    def __init__(self, node_name: str, *, namespace: str | None = None):
        self.context = context()
        remaps = self.context.arguments.remaps
        self._name, self._namespace = node_and_namespace(node_name, namespace or "/", remaps)
        self._remaps = [r for r in remaps if r.node in ("", node_name, self._name)]
        self._clock, self._tags = Clock(), itertools.count(1)
        self.waiter = dds.Waiter(self.context.participant)
        self._ready: dict[int, Callable[[], object]] = {}
        self._polled = 0.0
        self._entities: list[Any] = []
        self._timers: list[Timer] = []
        self._log_writer: Publisher | None = None
        self._logger = Logger(self.get_fully_qualified_name()[1:].replace("/", "."), self._publish_log)
        self.waiter.attach(self.context.graph.reader.condition, tag := next(self._tags))
        self._ready[tag] = self.context.graph.update
        self.context.nodes.append(self)
        self._log_writer = self.create_publisher(interface("rcl_interfaces/msg/Log"), "/rosout", ROSOUT)
        events = self.create_publisher(interface(EVENT), "/parameter_events", PARAMETER_EVENTS)
        given = self.context.arguments.overrides(self.get_fully_qualified_name())
        self._parameters = Parameters(self, given, events.publish)
        self.declare_parameter(SIM_TIME, False)
        ParameterServices(self, self._parameters)

    # --- names ---

    def get_name(self) -> str:
        return self._name

    def get_namespace(self) -> str:
        return self._namespace

    def get_fully_qualified_name(self) -> str:
        return f"{self._namespace.rstrip('/')}/{self._name}"

    def resolve_topic_name(self, topic: str) -> str:
        return resolve(topic, self._name, self._namespace, self._remaps)

    resolve_service_name = resolve_topic_name

    def get_clock(self) -> Clock:
        return self._clock

    def get_logger(self) -> Logger:
        return self._logger

    # --- endpoints ---

    def create_publisher(self, msg_type: Any, topic: str, qos_profile: QoSProfile | int) -> Publisher:
        return self._add(Publisher(self, msg_type.TYPE, self.resolve_topic_name(topic), QoSProfile.of(qos_profile)))

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Callable[[Any], object], qos_profile: QoSProfile | int
    ) -> Subscription:
        name = self.resolve_topic_name(topic)
        return self._add(Subscription(self, msg_type.TYPE, name, callback, QoSProfile.of(qos_profile)))

    def create_raw_subscription(
        self, type_name: str, topic: str, callback: Callable[[bytes, int], object], qos_profile: QoSProfile | int
    ) -> RawSubscription:
        """Not rclpy's: `callback` gets each message's bytes, and when it was written (ns since 1970; 0 if unknown)."""
        name = self.resolve_topic_name(topic)
        return self._add(RawSubscription(self, type_name, name, callback, QoSProfile.of(qos_profile)))

    def create_service(self, srv_type: Any, srv_name: str, callback: Callable[[Any, Any], Any]) -> Service:
        return self._add(Service(self, srv_type, self.resolve_service_name(srv_name), callback))

    def create_client(self, srv_type: Any, srv_name: str) -> Client:
        return self._add(Client(self, srv_type, self.resolve_service_name(srv_name)))

    def create_timer(self, timer_period_sec: float, callback: Callable[[], object]) -> Timer:
        self._timers.append(timer := Timer(timer_period_sec, callback))
        self.waiter.wake()
        return timer

    def _add(self, entity: E_) -> E_:
        self._entities.append(entity)
        for condition, ready in getattr(entity, "conditions", {}).items():
            self._ready[tag := next(self._tags)] = ready
            self.waiter.attach(condition, tag)
        self._announce()
        return entity

    def _announce(self) -> None:
        writers = [w.gid for entity in self._entities for w in entity.entities[0]]
        readers = [r.gid for entity in self._entities for r in entity.entities[1]]
        self.context.graph.announce((self._namespace, self._name), writers, readers)

    def _destroy(self, entity: Any) -> bool:
        if entity not in self._entities:
            return False
        self._entities.remove(entity)
        for condition, ready in getattr(entity, "conditions", {}).items():
            self.waiter.detach(condition)
            self._ready = {tag: call for tag, call in self._ready.items() if call != ready}
        entity.close()
        self._announce()
        return True

    destroy_publisher = destroy_subscription = destroy_service = destroy_client = _destroy

    def destroy_timer(self, timer: Timer) -> bool:
        timer.cancel()
        found = timer in self._timers
        self._timers = [t for t in self._timers if t is not timer]
        return found

    def destroy_node(self) -> None:
        if self not in self.context.nodes:
            return
        self.context.nodes.remove(self)
        self._log_writer = None
        self._timers = []
        self.waiter.close()
        for entity in self._entities:
            entity.close()
        self._entities, self._ready = [], {}
        self.context.graph.forget((self._namespace, self._name))

    # --- parameters ---

    def declare_parameter(self, name: str, value: Any = None, descriptor: Any = None) -> Parameter:
        return self._parameters.declare(name, value, descriptor)

    def declare_parameters(self, namespace: str, parameters: Iterable[tuple[Any, ...]]) -> list[Parameter]:
        """(name[, value[, descriptor]]) each."""
        prefix = f"{namespace}." if namespace else ""
        return [self._parameters.declare(f"{prefix}{name}", *rest) for name, *rest in parameters]

    def has_parameter(self, name: str) -> bool:
        return name in self._parameters.values

    def undeclared_parameters(self) -> list[str]:
        """Names that were given from outside and that nobody has declared: rclpy ignores them, a safety limit with a
        wrong name must not be."""
        return sorted(self._parameters.overrides.keys() - self._parameters.values.keys())

    def get_parameter(self, name: str) -> Parameter:
        return self._parameters.get(name)

    def get_parameters(self, names: Iterable[str]) -> list[Parameter]:
        return [self._parameters.get(name) for name in names]

    def set_parameters(self, parameters: Iterable[Parameter]) -> list[Any]:
        """Each by itself; a SetParametersResult for each."""
        return [self._parameters.set([parameter]) for parameter in parameters]

    def set_parameters_atomically(self, parameters: Iterable[Parameter]) -> Any:
        return self._parameters.set(list(parameters))

    def add_on_set_parameters_callback(self, callback: Callable[[list[Parameter]], Any]) -> None:
        """`callback` returns a SetParametersResult; one that is not successful refuses the change."""
        self._parameters.callbacks.append(callback)

    # --- graph ---

    def count_publishers(self, topic_name: str) -> int:
        return len(self.get_publishers_info_by_topic(topic_name))

    def count_subscribers(self, topic_name: str) -> int:
        return len(self.get_subscriptions_info_by_topic(topic_name))

    def get_publishers_info_by_topic(self, topic_name: str) -> list[EndpointInfo]:
        return self.context.graph.endpoints(self.resolve_topic_name(topic_name), publishers=True)

    def get_subscriptions_info_by_topic(self, topic_name: str) -> list[EndpointInfo]:
        return self.context.graph.endpoints(self.resolve_topic_name(topic_name), publishers=False)

    def get_offers(self, topic_name: str) -> list[dict[str, Any]]:
        """Not rclpy's: the QoS of a topic's publishers, with the keys and words of rosbag2."""
        return [info.offer for info in self.get_publishers_info_by_topic(topic_name)]

    def malformed(self) -> dict[str, int]:
        """How many messages were dropped as none of their type, by topic and service. Under rclpy: nothing."""
        self.context.complaints.poll()
        complaints = self.context.complaints.malformed
        counts = {TOPIC: self.context.graph.malformed + complaints[TOPIC], PACKETS: complaints[PACKETS]}
        found = {name: count for name, count in counts.items() if count}
        for entity in self._entities:
            if count := getattr(entity, "malformed", 0):
                name = getattr(entity, "topic_name", "") or entity.srv_name
                found[name] = found.get(name, 0) + count
        return found

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        return [(name, namespace) for namespace, name in self.context.graph.nodes()]

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        return list(self.context.graph.topics().items())

    # --- the loop ---

    def spin_once(self, timeout_s: float | None = None) -> None:
        """Serve what is due and what has come, after waiting for it, once: each timer, one message an endpoint."""
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not self.context.stopping.is_set():
            called = bool(self._timers) and self._call_timers()
            ready = self.waiter.wait(0.0 if called else self._patience(until))
            for tag in ready:
                if (call := self._ready.get(tag)) is not None:
                    call()
            now = time.monotonic()
            if now - self._polled > SLICE_S:
                self._polled = now
                self.context.complaints.poll()
            if called or ready or now >= until:
                return

    def _call_timers(self) -> bool:
        now, called = time.monotonic_ns(), False
        for timer in self._timers:
            if timer.due_ns <= now and not timer.canceled:
                called = True
                timer.call(now)
        return called

    def _patience(self, until: float) -> float:
        """Seconds until something is due, but no longer than a slice."""
        wait = SLICE_S if until == math.inf else min(SLICE_S, until - time.monotonic())
        if self._timers:
            due = min((t.due_ns for t in self._timers if not t.canceled), default=None)
            if due is not None:
                wait = min(wait, (due - time.monotonic_ns()) * 1e-9)
        return max(0.0, wait)

    def _publish_log(self, level: int, name: str, text: str, caller: Any) -> None:
        if self._log_writer is not None:
            code = caller.f_code
            self._log_writer.publish(interface("rcl_interfaces/msg/Log")(
                stamp=Time(nanoseconds=time.time_ns()).to_msg(), level=level, name=name, msg=text.replace("\0", ""),
                file=os.path.basename(code.co_filename), function=code.co_name, line=caller.f_lineno,
            ))  # fmt: skip
