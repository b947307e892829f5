"""Who is there: nodes and endpoints on `ros_discovery_info` and from DDS discovery."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription
from cyclonedds.core import InstanceState, Policy

from real.ros import cdr, dds
from real.ros.messages import interface
from real.ros.qos import LATCHED, HistoryPolicy, QoSProfile, offer

INFO = "rmw_dds_common/msg/ParticipantEntitiesInfo"
TOPIC = "ros_discovery_info"
UNKNOWN = "_NODE_NAME_UNKNOWN_"
ENDPOINTS = 2**16  # of a process; with more it is not known


@dataclass(frozen=True)
class EndpointInfo:
    """A publisher or subscription, with rclpy's names of the fields."""

    node_name: str
    node_namespace: str
    topic_type: str
    topic_type_hash: str
    endpoint_gid: bytes
    offer: dict[str, Any]
    """Its QoS, with the keys and words of rosbag2."""


class Graph:
    """Announces the nodes of this process and knows those of the others."""

    def __init__(self, participant: dds.Participant):
        self.participant = participant
        kind = dds.announced_type(INFO)
        self.writer = dds.Writer(participant, TOPIC, kind, LATCHED.to_dds(""))
        heard = QoSProfile(history=HistoryPolicy.KEEP_ALL, durability=LATCHED.durability)
        self.reader = dds.Reader(participant, TOPIC, kind, heard.to_dds("", ignore_local=True))
        self.malformed = 0
        self._mine: dict[tuple[str, str], tuple[list[bytes], list[bytes]]] = {}
        self._others: dict[bytes, Any] = {}
        self._lock = threading.RLock()
        self._builtin = tuple(
            BuiltinDataReader(participant.entity, topic)
            for topic in (BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription)
        )
        self._endpoints: tuple[dict[bytes, Any], dict[bytes, Any]] = ({}, {})

    # --- what others are told ---

    def announce(self, node: tuple[str, str], writers: Iterable[bytes], readers: Iterable[bytes]) -> None:
        """The (namespace, name) of a node here, and the GIDs of all its endpoints."""
        with self._lock:
            self._mine[node] = list(writers), list(readers)
            self._publish()

    def forget(self, node: tuple[str, str]) -> None:
        with self._lock:
            if self._mine.pop(node, None) is not None:
                self._publish()

    def _publish(self) -> None:
        gid, entities = interface("rmw_dds_common/msg/Gid"), interface("rmw_dds_common/msg/NodeEntitiesInfo")
        info = interface(INFO)(
            gid=gid(data=self.participant.gid),
            node_entities_info_seq=[
                entities(
                    node_namespace=namespace, node_name=name,
                    reader_gid_seq=[gid(data=g) for g in readers], writer_gid_seq=[gid(data=g) for g in writers],
                )
                for (namespace, name), (writers, readers) in self._mine.items()
            ],
        )  # fmt: skip
        self.writer.write(cdr.encode(info, INFO))

    # --- what is known ---

    def update(self) -> None:
        """Take what has been announced since the last time."""
        with self._lock:
            while (taken := self.reader.take()) is not None:
                try:
                    info = cdr.decode(taken[0], INFO, most=ENDPOINTS)
                except cdr.MalformedError:
                    self.malformed += 1
                    continue
                self._others[bytes(info.gid.data)] = info
            for reader, known in zip(self._builtin, self._endpoints, strict=True):
                for endpoint in reader.take(N=10_000):
                    if endpoint.sample_info.instance_state == InstanceState.Alive and endpoint.qos is not None:
                        known[endpoint.key.bytes] = endpoint
                    else:
                        known.pop(endpoint.key.bytes, None)
            alive = {e.participant_key.bytes for known in self._endpoints for e in known.values()}
            self._others = {gid: info for gid, info in self._others.items() if gid in alive}

    def nodes(self) -> list[tuple[str, str]]:
        """(namespace, name) of all nodes, here and elsewhere."""
        self.update()
        found = list(self._mine)
        for info in self._others.values():
            found += [(n.node_namespace, n.node_name) for n in info.node_entities_info_seq]
        return found

    def topics(self) -> dict[str, list[str]]:
        """Full name -> types, of topics that have a publisher or a subscription."""
        self.update()
        found: dict[str, set[str]] = {}
        for endpoint in (e for known in self._endpoints for e in known.values()):
            if endpoint.topic_name.startswith("rt/"):
                found.setdefault(endpoint.topic_name[2:], set()).add(ros_type(endpoint.type_name))
        return {name: sorted(types) for name, types in sorted(found.items())}

    def endpoints(self, topic: str, publishers: bool) -> list[EndpointInfo]:
        """Those of a topic's full name."""
        self.update()
        names: dict[bytes, tuple[str, str]] = {}
        for node, (writers, readers) in self._mine.items():
            names |= dict.fromkeys([*writers, *readers], node)
        for info in self._others.values():
            for n in info.node_entities_info_seq:
                gids = [bytes(g.data) for g in (*n.writer_gid_seq, *n.reader_gid_seq)]
                names |= dict.fromkeys(gids, (n.node_namespace, n.node_name))
        known = self._endpoints[0 if publishers else 1]
        return [_info(e, names.get(gid)) for gid, e in known.items() if e.topic_name == f"rt{topic}"]

    def close(self) -> None:
        self.writer.close()
        self.reader.close()
        for reader in self._builtin:
            dds.delete(reader._next_condition)
            dds.delete(reader)


def _info(endpoint: Any, node: tuple[str, str] | None) -> EndpointInfo:
    namespace, name = node or (UNKNOWN, UNKNOWN)
    data = user_data(endpoint.qos)
    return EndpointInfo(
        name, namespace, ros_type(endpoint.type_name), data.get("typehash", ""), endpoint.key.bytes,
        offer=offer(endpoint.qos),
    )  # fmt: skip


def user_data(qos: Any) -> dict[str, str]:
    """`a=b;c=d;` of an endpoint's USER_DATA; nothing of what is not of this form."""
    text = qos[Policy.Userdata].data.decode(errors="replace") if Policy.Userdata in qos else ""
    return dict(part.split("=", 1) for part in text.split(";") if "=" in part)


def ros_type(name: str) -> str:
    """`std_msgs::msg::dds_::String_` -> `std_msgs/msg/String`; another name stays."""
    parts = name.split("::")
    return f"{parts[0]}/{parts[1]}/{parts[3].removesuffix('_')}" if len(parts) == 4 and parts[2] == "dds_" else name
