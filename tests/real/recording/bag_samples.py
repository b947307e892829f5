"""Topics and messages as a recorder hands them over, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from real.recording.bag import Bag, BagCfg
from real.recording.topic import Message, Topic

STORE = get_typestore(Stores.ROS2_JAZZY)
START_NS = 1_700_000_000_000_000_000
MS = 10**6
OFFER = {
    "history": "unknown", "depth": 0, "reliability": "best_effort", "durability": "volatile",
    "deadline": {"sec": 9223372036, "nsec": 854775807}, "lifespan": {"sec": 9223372036, "nsec": 854775807},
    "liveliness": "automatic", "liveliness_lease_duration": {"sec": 9223372036, "nsec": 854775807},
    "avoid_ros_namespace_conventions": False,
}  # fmt: skip


def topic(name: str, type_name: str) -> Topic:
    text, _ = STORE.generate_msgdef(type_name, ros_version=2)
    return Topic(name, type_name, STORE.hash_rihs01(type_name), text, offers=(OFFER,))


TOPICS = [topic("/joint_states", "sensor_msgs/msg/JointState"), topic("/camera", "sensor_msgs/msg/Image")]


def joint_state(k: int) -> bytes:
    """CDR of a state whose stamp is k seconds, with two joints."""
    kinds = STORE.types
    header = kinds["std_msgs/msg/Header"](kinds["builtin_interfaces/msg/Time"](k, 0), "base")
    values = [np.array(v, dtype=np.float64) for v in ([0.1 * k, 2.0], [0.0, 1.0], [])]
    message = kinds["sensor_msgs/msg/JointState"](header, ["a", "b"], *values)
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/JointState"))


def image(k: int, width: int = 64, height: int = 48) -> bytes:
    """CDR of an rgb8 image whose every octet is k."""
    kinds = STORE.types
    header = kinds["std_msgs/msg/Header"](kinds["builtin_interfaces/msg/Time"](k, 0), "camera")
    pixels = np.full(3 * width * height, k % 256, np.uint8)
    message = kinds["sensor_msgs/msg/Image"](header, height, width, "rgb8", 0, 3 * width, pixels)
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))


def messages(count: int) -> list[Message]:
    """A state each millisecond, an image with every tenth; published 1 ms before it was received."""
    found = []
    for k in range(count):
        at = START_NS + k * MS
        found.append(Message("/joint_states", at, at - MS, joint_state(k)))
        if k % 10 == 0:
            found.append(Message("/camera", at, at - MS, image(k)))
    return found


def write(path: Path, sent: list[Message], every: int = 7, end: bool = True, **cfg: Any) -> Bag:
    """A bag of these; flushed after each `every` messages, and left as it is if it has no `end`."""
    bag = Bag(path, BagCfg(reserve_mb=0.0, **cfg))
    for each in TOPICS:
        bag.add_topic(each)
    for k, message in enumerate(sent):
        bag.write(*message)
        if k % every == every - 1:
            bag.flush()
    if end:
        bag.close()
    else:
        bag.flush()
    return bag
