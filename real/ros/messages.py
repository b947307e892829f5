"""Message classes, made when they are first asked for: keyword arguments, defaults, no other attributes.

A field takes what its type can hold (lists, tuples, arrays, bytes for octets); that is checked when the message is
published. Numeric arrays of a received message are read-only numpy vectors.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import numpy as np
from rosbags.interfaces import Nodetype

from real.ros.definitions import DEFAULTS, FIELDS, constants_of, fields_of
from robolearn.errors import ConfigError, unknown

ZEROS: dict[str, Any] = {"bool": False, "byte": b"\0", "string": "", "float32": 0.0, "float64": 0.0}


class Message:
    """Base of all message classes."""

    __slots__: ClassVar[tuple[str, ...]] = ()
    TYPE: ClassVar[str] = ""
    _fields: ClassVar[tuple[tuple[str, Any], ...]] = ()

    def __init__(self, **fields: Any):
        for name, make in self._fields:
            setattr(self, name, fields.pop(name) if name in fields else make())
        if fields:
            raise TypeError(f"{unknown('field', next(iter(fields)), self.__slots__)} in {self.TYPE}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.TYPE}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


@cache
def message_class(type_name: str) -> type[Message]:
    """The class of `pkg/msg/Name`, or of a part of a service or an action."""
    if type_name not in FIELDS:
        raise ConfigError(unknown("message", type_name, sorted(FIELDS)))
    fields = fields_of(type_name)
    content = constants_of(type_name) | {
        "__slots__": tuple(name for name, _ in fields),
        "__module__": __name__,
        "TYPE": type_name,
        "_fields": tuple((name, _default(type_name, name, desc)) for name, desc in fields),
    }
    return type(type_name.rpartition("/")[2], (Message,), content)


def _default(type_name: str, name: str, desc: Any) -> Any:
    """Makes a field's value: a new one each time."""
    kind, inner = desc
    if (type_name, name) in DEFAULTS:
        value = DEFAULTS[type_name, name]
        return lambda: list(value) if isinstance(value, list) else value
    if kind == Nodetype.SEQUENCE:
        return list
    if kind == Nodetype.NAME:
        return lambda: message_class(inner)()
    if kind == Nodetype.ARRAY:
        (element, of), length = inner
        if element == Nodetype.NAME:
            return lambda: [message_class(of)() for _ in range(length)]
        zero = ZEROS.get(of[0], 0)
        return (lambda: [zero] * length) if of[0] in ("string", "byte") else (lambda: np.zeros(length, type(zero)))
    zero = ZEROS.get(inner[0], 0)
    return lambda: zero


class Service:
    """Base of service classes, which hold `Request` and `Response`."""

    TYPE: ClassVar[str] = ""
    Request: ClassVar[type[Message]]
    Response: ClassVar[type[Message]]


class Action:
    """Base of action classes, which hold `Goal`, `Result` and `Feedback`."""

    TYPE: ClassVar[str] = ""
    Goal: ClassVar[type[Message]]
    Result: ClassVar[type[Message]]
    Feedback: ClassVar[type[Message]]


@cache
def service_class(name: str) -> type[Service]:
    """Of the two messages whose names begin with this one; also of the services inside an action."""
    content = {part: message_class(f"{name}_{part}") for part in ("Request", "Response")}
    return type(name.rpartition("/")[2], (Service,), content | {"TYPE": name, "__module__": __name__})


@cache
def interface(name: str) -> Any:
    """The class of `sensor_msgs/msg/JointState`, `std_srvs/srv/Trigger` or `pkg/action/Name`."""
    kind = name.split("/")[1] if name.count("/") == 2 else ""
    if kind not in ("srv", "action"):
        return message_class(name)
    first = "_Request" if kind == "srv" else "_Goal"
    if f"{name}{first}" not in FIELDS:
        known = sorted(t.removesuffix(first) for t in FIELDS if f"/{kind}/" in t and t.endswith(first))
        raise ConfigError(unknown("service" if kind == "srv" else "action", name, known))
    if kind == "srv":
        return service_class(name)
    content = {part: message_class(f"{name}_{part}") for part in ("Goal", "Result", "Feedback")}
    return type(name.rpartition("/")[2], (Action,), content | {"TYPE": name, "__module__": __name__})
