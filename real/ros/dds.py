"""DDS below the messages: participant, raw writers and readers, wait set. Payloads are bytes, encoded elsewhere.

Private parts of cyclonedds 11.0.1 are used, which is pinned for it: `dds_write` and `dds_waitset_wait` are called by
ctypes, which lets other threads run meanwhile; the binding's own codec (36 ms for an image) is never called.
"""

from __future__ import annotations

import ctypes as ct
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cyclonedds._clayer import ddspy_take_next
from cyclonedds.core import (
    Entity,
    GuardCondition,
    InstanceState,
    Qos,
    ReadCondition,
    SampleState,
    ViewState,
    WaitSet,
)
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl import types as idl_types
from cyclonedds.idl._main import IdlMeta
from cyclonedds.internal import DDS
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.topic import Topic
from rosbags.interfaces import Nodetype

from real.ros.definitions import FIELDS, dds_name

idl: Any = idl_types  # whose generics mypy does not see
ANY = ViewState.Any | SampleState.Any | InstanceState.Any
SAMPLE = struct.Struct("PN")  # what dds_write is given: address and size
NAMES = {"bool": bool, "string": str, "byte": idl.uint8, "char": idl.uint8}


class DdsError(RuntimeError):
    """A call of cyclonedds failed."""


def _function(name: str, *arguments: Any) -> Any:
    function = DDS._dll_handle[name]  # an object of ours: the binding declares other argument types
    function.argtypes, function.restype = arguments, ct.c_int32
    return function


_write = _function("dds_write", ct.c_int32, ct.c_char_p)
_attach = _function("dds_waitset_attach", ct.c_int32, ct.c_int32, ct.c_ssize_t)
_detach = _function("dds_waitset_detach", ct.c_int32, ct.c_int32)
_wait = _function("dds_waitset_wait", ct.c_int32, ct.c_void_p, ct.c_size_t, ct.c_int64)


def delete(entity: Entity | None) -> None:
    """Now, not when the last reference to it goes; a second time does nothing."""
    if entity is not None:
        entity.__del__()


# --- types ------------------------------------------------------------------------------------------------


@cache
def announced_type(type_name: str, service: bool = False) -> type[IdlStruct]:
    """The type that discovery announces, and that the C library checks payloads with before they come here.

    A service's messages stand behind the client's GUID and a sequence number.
    """
    members = {name: _idl(desc) for name, desc in FIELDS[type_name][1]}
    if service:
        members = {"client_guid_": idl.uint64, "sequence_number_": idl.int64, **members}
    return _struct(dds_name(type_name, "."), members)


def _struct(type_name: str, members: dict[str, Any]) -> type[IdlStruct]:
    space = IdlMeta.__prepare__(type_name.rpartition(".")[2], (IdlStruct,), typename=type_name)
    space["__annotations__"].update(members)
    struct: Any = IdlMeta(type_name.rpartition(".")[2], (IdlStruct,), space)
    return dataclass(struct)


def _idl(desc: Any) -> Any:
    kind, inner = desc
    if kind == Nodetype.NAME:
        return announced_type(inner)
    if kind == Nodetype.ARRAY:
        return idl.array[_idl(inner[0]), inner[1]]
    if kind == Nodetype.SEQUENCE:
        return idl.sequence[_idl(inner[0]), inner[1]] if inner[1] else idl.sequence[_idl(inner[0])]
    base, bound = inner
    if base == "string" and bound:
        return idl.bounded_str[bound]
    return NAMES.get(base) or getattr(idl, base)


# --- entities ---------------------------------------------------------------------------------------------


class Participant:
    """One a process, with one publisher and one subscriber for all endpoints, as in rmw_cyclonedds."""

    def __init__(self, domain_id: int, qos: Qos):
        self.entity = DomainParticipant(domain_id, qos)
        self.publisher, self.subscriber = Publisher(self.entity), Subscriber(self.entity)
        self.gid = self.entity.guid.bytes

    def close(self) -> None:
        for entity in (self.publisher, self.subscriber, self.entity):
            delete(entity)


class Writer:
    """Writes encoded messages on a DDS topic. From any thread."""

    def __init__(self, participant: Participant, topic: str, data_type: type[IdlStruct], qos: Qos):
        self.topic = Topic(participant.entity, topic, data_type)
        self.entity = DataWriter(participant.publisher, self.topic, qos)
        self._ref = self.entity._ref
        self.gid = self.entity.guid.bytes

    def write(self, payload: bytearray) -> None:
        first = ct.c_char.from_buffer(payload)
        code = _write(self._ref, SAMPLE.pack(ct.addressof(first), len(payload)))
        if code < 0:
            raise DdsError(f"dds_write on {self.topic.name} failed with {code}")

    def close(self) -> None:
        delete(self.entity)
        delete(self.topic)


class Reader:
    """Takes encoded messages from a DDS topic."""

    def __init__(self, participant: Participant, topic: str, data_type: type[IdlStruct], qos: Qos):
        self.topic = Topic(participant.entity, topic, data_type)
        self.entity = DataReader(participant.subscriber, self.topic, qos)
        self.condition, self._ref = ReadCondition(self.entity, ANY), self.entity._ref
        self.gid = self.entity.guid.bytes

    def take(self) -> tuple[bytes, Any] | None:
        """The next sample with its information; None when there is none. Samples without data are skipped."""
        while type(got := ddspy_take_next(self._ref)) is tuple:
            if got[1].valid_data:
                return got
        return None

    def close(self) -> None:
        for entity in (self.condition, self.entity, self.topic):
            delete(entity)


class Waiter:
    """A wait set that says what is ready: integers chosen at `attach`. `wake` may be called from any thread."""

    def __init__(self, participant: Participant):
        self.entity, self.bell = WaitSet(participant.entity), GuardCondition(participant.entity)
        self._ref, self._size = self.entity._ref, 0
        self._ready = (ct.c_ssize_t * 0)()
        self.attach(self.bell, 0)

    def attach(self, condition: Entity, tag: int) -> None:
        _attach(self._ref, condition._ref, tag)
        self._size += 1
        self._ready = (ct.c_ssize_t * self._size)()

    def detach(self, condition: Entity) -> None:
        _detach(self._ref, condition._ref)

    def wait(self, timeout_s: float) -> Sequence[int]:
        """Tags of what is ready, without waiting longer; empty after the time. The interpreter's lock is released."""
        count = _wait(self._ref, self._ready, self._size, int(timeout_s * 1e9))
        if count < 0:
            raise DdsError(f"dds_waitset_wait failed with {count}")
        ready = self._ready[:count]  # an array ends where it ends
        if 0 in ready:
            self.bell.take()
            ready.remove(0)
        return ready

    def wake(self) -> None:
        self.bell.set(True)

    def close(self) -> None:
        delete(self.entity)
        delete(self.bell)
