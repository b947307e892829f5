"""What a bag keeps of a topic beside its messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from robolearn.errors import ConfigError

DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class UnbegunError(ConfigError):
    """A file of a bag that was made, and into which nothing was written yet."""


@dataclass(frozen=True)
class Topic:
    name: str
    type: str
    """`pkg/msg/Name`."""
    hash: str = ""
    """`RIHS01_...` of the type."""
    definition: str = ""
    """The type's text, followed by those of the types it uses."""
    encoding: str = "ros2msg"
    """Of the definition: ros2msg or ros2idl."""
    offers: tuple[Mapping[str, Any], ...] = ()
    """QoS of the publishers, with rosbag2's keys and words."""

    @property
    def offers_text(self) -> str:
        return dumped(self.offers_list).strip()

    @property
    def offers_list(self) -> list[dict[str, Any]]:
        return [dict(offer) for offer in self.offers]


class Message(NamedTuple):
    topic: str
    log_ns: int
    """When it was received, since 1970."""
    publish_ns: int
    """When it was published; when received, where the file does not tell."""
    data: bytes | memoryview
    """CDR with its header of 4 bytes."""


def dumped(value: Any) -> str:
    return str(yaml.dump(value, Dumper=DUMPER, sort_keys=False))
