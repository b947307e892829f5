"""Bad input for one node: `python vandal.py NODE COUNT SEED [DDS_TOPIC ...]`, without the topics named; `long` among
them leaves out the messages of many megabytes.

It finds in the node graph what the node hears: topics, requests to its services, replies to its clients. On each it
announces itself as a writer of the type and throws what no node should follow, or fall over. What a node would follow
rightly (`is_good`) it does not throw. At the end it prints, as JSON, how much it threw of what kind and where.
"""

from __future__ import annotations

import json
import math
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype

sys.path.insert(0, str(Path(__file__).parents[1] / "ros"))
from peer import RawWriter

from real import ros
from real.ros import cdr, dds, native, qos
from real.ros.context import context
from real.ros.definitions import FIELDS, fields_of
from real.ros.graph import TOPIC, ros_type
from real.ros.messages import message_class
from robolearn.robots.franka import FRANKA

RATE_HZ = 1500.0
MANY = 1_000_000  # points of a trajectory, which are 24 MB
HEADER = b"\0\1\0\0"
ARM = list(FRANKA.arm_joints)
LOW, HIGH = (np.array(FRANKA.of(n, FRANKA.arm_joints)) for n in ("lower", "upper"))
REST = np.array(FRANKA.of("default_joint_pos", FRANKA.arm_joints))
TEXTS = ("", "a b", "1//x", "panda_joint1", "é漢", "\x01\x7f\n", "x" * 5000, "policy", "../../etc")
NUMBERS = {"nan": math.nan, "inf": -math.inf, "1e300": 1e300, "1e30": 1e30, "denormal": 5e-324}
STAMPS = {"past": (1, 0), "future": (2**31 - 1, 0), "negative": (-5, 0), "nanosec": (None, 3_999_999_999)}


# --- what the node hears ------------------------------------------------------------------------------------


def heard_by(node: str) -> dict[str, str]:
    """DDS topic -> type of the messages, of all that a node with this full name reads."""
    graph = context().graph
    graph.update()
    gids = {
        bytes(g.data)
        for info in graph._others.values() for n in info.node_entities_info_seq
        if f"{n.node_namespace.rstrip('/')}/{n.node_name}" == node for g in n.reader_gid_seq
    }  # fmt: skip
    known = graph._endpoints[1]
    if not gids or not gids <= known.keys():
        return {}
    return {known[g].topic_name: ros_type(known[g].type_name) for g in gids}


def wait_for(node: str) -> dict[str, str]:
    found: dict[str, str] = {}
    while not found or found != heard_by(node):
        found = heard_by(node)
        time.sleep(0.5)
    return found | {TOPIC: "rmw_dds_common/msg/ParticipantEntitiesInfo"}


# --- messages as they should be -----------------------------------------------------------------------------


def stamp(g: random.Random) -> Any:
    return ros.interface("builtin_interfaces/msg/Time")(sec=int(time.time()), nanosec=time.time_ns() % 10**9)


def proper(type_name: str, g: random.Random) -> Any:
    """A message of the type, one that means something where the types of an arm are concerned."""
    message, near = filled(type_name, g), REST + 0.2
    if type_name == "sensor_msgs/msg/JointState":
        message.name, message.position, message.velocity, message.effort = ARM, near, 0.0 * REST, 0.0 * REST
    elif type_name == "trajectory_msgs/msg/JointTrajectory":
        point = ros.interface("trajectory_msgs/msg/JointTrajectoryPoint")
        message.joint_names = ARM
        message.points = [point(positions=near, time_from_start=ros.Duration(seconds=0.05).to_msg())]
    elif type_name == "std_msgs/msg/Float64MultiArray":
        message.data = near
    elif type_name == "geometry_msgs/msg/PoseStamped":
        message.pose.orientation = ros.interface("geometry_msgs/msg/Quaternion")(x=1.0, w=0.0)
        message.header.frame_id = ""
    return message


def filled(type_name: str, g: random.Random) -> Any:
    return message_class(type_name)(**{name: value(desc, g) for name, desc in fields_of(type_name)})


def value(desc: Any, g: random.Random) -> Any:
    kind, inner = desc
    if kind == Nodetype.NAME:
        return stamp(g) if inner == "builtin_interfaces/msg/Time" else filled(inner, g)
    if kind != Nodetype.BASE:
        count = inner[1] if kind == Nodetype.ARRAY else g.randint(0, 3)
        got = [value(inner[0], g) for _ in range(count)]
        base = inner[0][1][0]
        if inner[0][0] != Nodetype.BASE or base == "string":
            return got
        return np.frombuffer(b"".join(got), "u1") if base == "byte" else np.array(got, cdr.DTYPES[base])
    base = inner[0]
    if base == "string":
        return g.choice(("", "a", "base"))
    if base in ("bool", "byte"):
        return g.random() < 0.5 if base == "bool" else g.randbytes(1)
    if base.startswith("float"):
        return float(np.float32(g.uniform(-1.0, 1.0)))
    return g.randint(0, 100)


def is_good(topic: str, type_name: str, payload: bytes) -> bool:
    """Whether a node should do what this says, whoever says it."""
    service = topic[:3] in ("rq/", "rr/")
    if payload[:2] == b"\0\0":  # the other byte order, which is thrown where it is nonsense
        return type_name.startswith("std_srvs/") and len(payload) == len(HEADER) + 16 + 4
    try:
        message = cdr.decode(payload, type_name, 16 if service else 0)
    except cdr.MalformedError:
        return False
    if topic.startswith("rq/"):
        if type_name.endswith("GripperCommand_SendGoal_Request"):
            return 0.0 <= message.goal.command.position <= 0.04
        return type_name.startswith("std_srvs/")
    if type_name == "sensor_msgs/msg/JointState":
        stamp_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        at = dict(zip(message.name, message.position, strict=False))
        whole = len(at) == len(message.name) == len(message.position) and bool(set(at) & set(ARM))
        values = np.array([at.get(n, rest) for n, rest in zip(ARM, REST, strict=True)])
        if not (whole and ((values >= LOW - 1e-3) & (values <= HIGH + 1e-3)).all()):
            return False
        timely = message.header.stamp.nanosec < 10**9 and abs(time.time() - stamp_s) < 1.0
        return "place" in topic or (timely and bool(np.isfinite(message.velocity).all()))
    if type_name == "trajectory_msgs/msg/JointTrajectory" and topic.endswith("_controller/joint_trajectory"):
        last = message.points[-1].positions if message.points else []
        return sorted(message.joint_names) == sorted(ARM) and len(last) == len(ARM) and is_float32(last)
    if type_name == "std_msgs/msg/Float64MultiArray":
        return len(message.data) == len(ARM) and is_float32(message.data)
    return False


def is_float32(values: Any) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.asarray(values).astype(np.float32)).all())


# --- messages as they should not be -------------------------------------------------------------------------


def encoded(message: Any, service: bool, g: random.Random) -> bytes:
    return bytes(cdr.encode(message, message.TYPE, g.randbytes(16) if service else b""))


def old(message: Any) -> Any:
    """With a stamp that nobody takes, so that damage to the rest of it cannot make sense."""
    if hasattr(message, "header"):
        message.header.stamp.sec = 1
    return message


def damaged(kind: str, type_name: str, service: bool, g: random.Random) -> bytes:
    data = bytearray(encoded(old(proper(type_name, g)), service, g))
    if kind == "random bytes":
        return HEADER + g.randbytes(4 * g.randint(1, 60))
    if kind == "truncated":
        return bytes(data[: 4 * g.randint(2, max(2, len(data) // 4 - 1))])
    if kind == "extended":
        return bytes(data) + g.randbytes(4 * g.randint(2, 20))
    if kind == "flipped bits":
        for _ in range(g.randint(1, 8)):
            data[g.randrange(4, len(data))] ^= 1 << g.randrange(8)
    elif kind == "huge length":
        at = 4 * g.randrange(1, len(data) // 4)
        data[at : at + 4] = struct.pack("<I", g.choice((2**31, 2**32 - 1, 10**6)))
    elif kind == "other byte order":
        data[1] = 0
    return bytes(data)


DAMAGES = ("random bytes", "truncated", "extended", "flipped bits", "huge length", "other byte order")


def places(message: Any, wanted: Callable[[Any], bool]) -> list[tuple[Any, str, Any]]:
    """(message, field, description) of every field, of nested messages too, whose description is wanted."""
    found = []
    for name, desc in fields_of(message.TYPE):
        if wanted(desc):
            found.append((message, name, desc))
        inner = getattr(message, name)
        for nested in [inner] if desc[0] == Nodetype.NAME else inner if isinstance(inner, list) else []:
            if hasattr(nested, "TYPE"):
                found += places(nested, wanted)
    return found


def is_number(desc: Any) -> bool:
    base = desc[1][0][1] if desc[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE) else desc[1]
    return desc[0] != Nodetype.NAME and isinstance(base, tuple) and str(base[0]).startswith("float")


def is_text(desc: Any) -> bool:
    return desc == (Nodetype.BASE, ("string", 0)) or (
        desc[0] == Nodetype.SEQUENCE and desc[1][0] == (Nodetype.BASE, ("string", 0))
    )


def is_list(desc: Any) -> bool:
    return desc[0] == Nodetype.SEQUENCE


def is_stamp(desc: Any) -> bool:
    return desc == (Nodetype.NAME, "builtin_interfaces/msg/Time")


def spoiled(kind: str, type_name: str, g: random.Random) -> Any:
    """A message that is well-formed and makes no sense; None where the type has nothing to spoil in this way."""
    message = proper(type_name, g)
    wanted = {"number": is_number, "names": is_text, "length": is_list, "stamp": is_stamp}[kind.split()[0]]
    found = places(message, wanted)
    if not found:
        return None
    owner, name, desc = g.choice(found)
    had = getattr(owner, name)
    if kind.startswith("number"):
        bad = NUMBERS[kind.split()[1]]
        if desc[0] == Nodetype.BASE:
            setattr(owner, name, bad if desc[1][0] == "float64" or not math.isfinite(bad) else min(bad, 3e38))
        else:
            values = np.array(had if len(had) else [0.0])
            values[g.randrange(len(values))] = bad
            setattr(owner, name, values)
        if kind.endswith("denormal"):
            old(message)  # a number like any other
    elif kind.startswith("names"):
        if desc[0] == Nodetype.BASE:
            setattr(owner, name, g.choice(TEXTS))
        else:
            other = [had + had, [*had[:-1], *had[:1]], had[:-1], [], [g.choice(TEXTS) for _ in had], ["x"] * 5000]
            setattr(owner, name, g.choice(other))
    elif kind.startswith("length"):
        if isinstance(had, list):
            setattr(owner, name, g.choice(([], had[:-1], had * 3, had * 3000)))
        else:
            setattr(owner, name, g.choice((had[:0], had[:-1], np.tile(had, 2), np.zeros(100_000, had.dtype))))
    else:
        sec, nanosec = STAMPS[kind.split()[1]]
        when = getattr(owner, name)
        when.sec, when.nanosec = sec if sec is not None else when.sec - 3, nanosec
    return message


SPOILS = (*(f"number {k}" for k in NUMBERS), "names", "length", *(f"stamp {k}" for k in STAMPS))


@cache
def long_message(type_name: str) -> bytes | None:
    """With so many elements of the type's last list, all zeros or empty."""
    found = [name for name, desc in fields_of(type_name) if is_list(desc)]
    if not found:
        return None
    count = MANY if type_name == "trajectory_msgs/msg/JointTrajectory" else MANY // 5
    message = message_class(type_name)()
    setattr(message, found[-1], _ones(FIELDS[type_name][1], found[-1], count))
    return bytes(cdr.encode(message, type_name))


def _ones(fields: Any, name: str, count: int) -> Any:
    element = dict(fields)[name][1][0]
    if element[0] == Nodetype.NAME:
        return [message_class(element[1])()] * count
    base = element[1][0]
    return [""] * count if base == "string" else np.zeros(count, cdr.DTYPES[base])


def strangers(heard: dict[str, str]) -> list[Any]:
    """Writers of another type on each topic."""
    kind = dds.announced_type("geometry_msgs/msg/Vector3")
    profile = qos.QoSProfile(depth=1, durability=qos.DurabilityPolicy.TRANSIENT_LOCAL).to_dds("")
    made = [dds.Writer(context().participant, topic, kind, profile) for topic in heard]
    for writer in made:
        writer.write(cdr.encode(ros.interface("geometry_msgs/msg/Vector3")(), "geometry_msgs/msg/Vector3"))
    return made


# --- throwing -----------------------------------------------------------------------------------------------


def main(node: str, count: str, seed: str, *without: str) -> None:
    g = random.Random(int(seed))
    here = native.Node("vandal")
    heard = {t: kind for t, kind in sorted(wait_for(node).items()) if t not in without}
    writers = {t: RawWriter(t, kind, t[:3] in ("rq/", "rr/")) for t, kind in heard.items()}
    while not all(w.readers() for w in writers.values()):
        time.sleep(0.01)
    foreign = strangers(heard)
    kinds: Counter[str] = Counter()
    topics: Counter[str] = Counter()
    began = time.monotonic()
    for topic, kind in heard.items():
        if "long" not in without and topic.startswith("rt/") and (payload := long_message(kind)) is not None:
            writers[topic].write(payload)
            writers[topic].flush()
            topics[topic] += 1
            kinds["long"] += 1
    print(json.dumps({"long": kinds["long"]}), flush=True)
    while sum(topics.values()) < int(count):
        topic = g.choice(list(heard))
        what, payload = one(topic, heard[topic], g)
        if payload is None or is_good(topic, heard[topic], payload):
            continue
        writers[topic].write(payload)
        topics[topic] += 1
        kinds[what] += 1
        ahead = sum(topics.values()) / RATE_HZ - (time.monotonic() - began)
        if ahead > 0.0:
            time.sleep(ahead)
    for writer in writers.values():
        writer.flush()
    matched = sum(w.entity.get_publication_matched_status().total_count for w in foreign)
    print(json.dumps({"topics": topics, "kinds": kinds, "types": heard, "strangers matched": matched}))
    here.destroy_node()


def one(topic: str, type_name: str, g: random.Random) -> tuple[str, bytes | None]:
    service = topic[:3] in ("rq/", "rr/")
    what = g.choice(DAMAGES + SPOILS)
    if what in DAMAGES:
        return what, damaged(what, type_name, service, g)
    message = spoiled(what, type_name, g)
    return what, None if message is None else encoded(message, service, g)


if __name__ == "__main__":
    ros.init(args=["vandal"])
    main(*sys.argv[1:])
    ros.shutdown()
