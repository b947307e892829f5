"""Publishers and subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cyclonedds.internal import dds_c_t

from real.ros import cdr, dds
from real.ros.definitions import FIELDS, type_hash
from real.ros.qos import QoSProfile
from robolearn.errors import ConfigError, unknown

if TYPE_CHECKING:
    from real.ros.node import Node


Endpoints = tuple[list[dds.Writer], list[dds.Reader]]
BATCH = 100
"""Raw messages that are taken at once, before others have their turn."""


def typehash(type_name: str) -> str:
    return f"typehash={type_hash(type_name)};"


class Publisher:
    """`publish` from any thread. It never waits for a subscriber, but with a history of KEEP_ALL."""

    def __init__(self, node: Node, type_name: str, topic_name: str, qos: QoSProfile):
        self.msg_type, self.topic_name, self.qos_profile, self._node = type_name, topic_name, qos, node
        self._encode = cdr.encoder(type_name)
        self.writer = dds.Writer(
            node.context.participant, f"rt{topic_name}", dds.announced_type(type_name), qos.to_dds(typehash(type_name))
        )
        self.entities: Endpoints = ([self.writer], [])

    def publish(self, message: Any) -> None:
        """TypeError or ValueError, with the field's name, for what the type cannot hold."""
        self.writer.write(self._encode(message, b""))

    def get_subscription_count(self) -> int:
        status: dds_c_t.publication_matched_status = self.writer.entity.get_publication_matched_status()
        return status.current_count

    def close(self) -> None:
        self.writer.close()


class Inlet:
    """What reads from a topic: decodes, hands over, counts and drops what cannot be decoded."""

    def __init__(self, node: Node, dds_topic: str, type_name: str, qos: QoSProfile, user_data: str, skip: int = 0):
        self.node, self.type_name, self.dds_topic = node, type_name, dds_topic
        self._decode = cdr.decoder(type_name, skip)
        kind = dds.announced_type(type_name, service=skip > 0)
        self.reader = dds.Reader(node.context.participant, dds_topic, kind, qos.to_dds(user_data))
        self._undecoded = 0
        self._before = node.context.complaints.malformed[dds_topic]

    @property
    def malformed(self) -> int:
        """Messages that were dropped: those that DDS found malformed (on this topic, in this process), and here."""
        complaints = self.node.context.complaints
        complaints.poll()
        return complaints.malformed[self.dds_topic] - self._before + self._undecoded

    def take(self) -> tuple[Any, bytes, Any] | None:
        """The next message, its payload and the sample's information, past all that are malformed."""
        while (taken := self.reader.take()) is not None:
            data, info = taken
            try:
                return self._decode(data), data, info
            except cdr.MalformedError as error:
                self._undecoded += 1
                if self._undecoded == 1:
                    text = (
                        f"a malformed message on {self.dds_topic} was dropped ({error}); further ones are only counted"
                    )
                    self.node.get_logger().warning(text)
        return None

    def close(self) -> None:
        self.reader.close()


class Subscription:
    """Calls back with each message. `malformed` counts what was dropped."""

    def __init__(self, node: Node, type_name: str, topic_name: str, callback: Callable[[Any], object], qos: QoSProfile):
        self.msg_type, self.topic_name, self.qos_profile, self.callback = type_name, topic_name, qos, callback
        self._inlet = Inlet(node, f"rt{topic_name}", type_name, qos, typehash(type_name))
        self.entities: Endpoints = ([], [self._inlet.reader])
        self.conditions = {self._inlet.reader.condition: self._ready}

    @property
    def malformed(self) -> int:
        return self._inlet.malformed

    def _ready(self) -> None:
        if (taken := self._inlet.take()) is not None:
            self.callback(taken[0])

    def get_publisher_count(self) -> int:
        status: dds_c_t.subscription_matched_status = self._inlet.reader.entity.get_subscription_matched_status()
        return status.current_count

    def close(self) -> None:
        self._inlet.close()


class RawSubscription:
    """Calls back with the bytes of each message, and the time of its writing (ns since 1970; 0 if unknown)."""

    def __init__(
        self, node: Node, type_name: str, topic_name: str, callback: Callable[[bytes, int], object], qos: QoSProfile
    ):
        """Raises ConfigError for a type that is not known here."""
        if type_name not in FIELDS:
            raise ConfigError(unknown("message", type_name, sorted(FIELDS)))
        self.topic_name, self.qos_profile, self.callback = topic_name, qos, callback
        self._complaints = node.context.complaints
        self._before = self._complaints.malformed[f"rt{topic_name}"]
        kind = dds.announced_type(type_name)
        self._reader = dds.Reader(node.context.participant, f"rt{topic_name}", kind, qos.to_dds(typehash(type_name)))
        self.entities: Endpoints = ([], [self._reader])
        self.conditions = {self._reader.condition: self._ready}

    @property
    def malformed(self) -> int:
        self._complaints.poll()
        return self._complaints.malformed[f"rt{self.topic_name}"] - self._before

    def _ready(self) -> None:
        for _ in range(BATCH):
            if (taken := self._reader.take()) is None:
                return
            self.callback(taken[0], max(0, taken[1].source_timestamp))

    def close(self) -> None:
        self._reader.close()
