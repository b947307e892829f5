"""CDR (XCDR1, little-endian), compiled for each type: bytes of the wire to messages and back.

Why not rosbags' codec: here a message's lists and numbers are checked in the same pass, the bytes come out padded as
DDS wants them, behind the header of a service's payload where there is one, and `byte` is bytes as in rclpy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from rosbags.interfaces import Nodetype

from real.ros.cdr_code import reader, writer
from real.ros.cdr_values import DTYPES, MalformedError
from real.ros.definitions import FIELDS

__all__ = ["DTYPES", "MalformedError", "decode", "decoder", "encode", "encoder"]

HEADER = b"\x00\x01\x00\x00"  # CDR, little-endian
LITTLE_ENDIAN = HEADER[:2]
MOST = 4096
"""Elements of all of a message's lists of messages and strings, which take Python microseconds each: a million points
would stop a node for seconds. Arrays of numbers are not counted."""
MALFORMED = (struct.error, ValueError, IndexError, OverflowError, MemoryError)
WRONG = (struct.error, TypeError, ValueError, AttributeError, OverflowError)


@cache
def encoder(type_name: str) -> Callable[[Any, bytes], bytearray]:
    """For many messages of a type: `encode` without the search for what it needs."""
    write = writer(type_name)

    def encode(message: Any, prefix: bytes = b"") -> bytearray:
        out = bytearray(HEADER + prefix)
        try:
            write(out, message)
        except WRONG as error:
            where, reason = explain(message, type_name) or ("", str(error))
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{type_name}{where}: {reason}") from None
        if missing := -len(out) & 3:
            out += bytes(missing)
        return out

    return encode


def encode(message: Any, type_name: str, prefix: bytes = b"") -> bytearray:
    """The payload, padded to a multiple of 4; `prefix` (a multiple of 8 bytes) stands before the message.

    TypeError or ValueError name the field that holds what its type cannot.
    """
    return encoder(type_name)(message, prefix)


@cache
def decoder(type_name: str, skip: int = 0, most: int = MOST) -> Callable[[bytes], Any]:
    """For many messages of a type: `decode` without the search for what it needs."""
    read, start = reader(type_name), 4 + skip

    def decode(data: bytes) -> Any:
        if data[:2] != LITTLE_ENDIAN:
            raise MalformedError("not little-endian CDR")
        try:
            message, end = read(data, start, most)
        except MALFORMED as error:
            raise MalformedError(str(error)) from None
        if not 0 <= len(data) - end < 4:
            raise MalformedError(f"{len(data)} bytes for a message of {end}")
        return message

    return decode


def decode(data: bytes, type_name: str, skip: int = 0, most: int = MOST) -> Any:
    """The message whose CDR begins `skip` bytes behind the header; MalformedError if it is none, or has lists of more
    than `most` elements.

    Numeric arrays are read-only views of `data`.
    """
    return decoder(type_name, skip, most)(data)


def explain(message: Any, type_name: str) -> tuple[str, str] | None:
    """Where in the message, and why, writing fails."""
    for name, desc in FIELDS[type_name][1]:
        try:
            writer(type_name, name)(bytearray(HEADER), message)
        except WRONG as error:
            value = getattr(message, name, None)
            known = desc[0] == Nodetype.NAME and getattr(value, "TYPE", "") == desc[1]
            inner = explain(value, desc[1]) if known else None
            return (f".{name}{inner[0]}", inner[1]) if inner else (f".{name}", str(error))
    return None
