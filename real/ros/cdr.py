"""CDR (XCDR1, little-endian), compiled for each type: bytes of the wire to messages and back.

Why not rosbags' codec: here a message's lists and numbers are checked in the same pass, the bytes come out padded as
DDS wants them, behind the header of a service's payload where there is one, and `byte` is bytes as in rclpy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype

from real.ros.definitions import DUMMY, FIELDS

HEADER = b"\x00\x01\x00\x00"  # CDR, little-endian
FORMATS = {
    "bool": "?", "byte": "c", "char": "B", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i",
    "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
DTYPES = {base: np.dtype(f"<{'B' if code in '?c' else code}") for base, code in FORMATS.items()}
MALFORMED = (struct.error, ValueError, IndexError, OverflowError, MemoryError)
WRONG = (struct.error, TypeError, ValueError, AttributeError, OverflowError)


class MalformedError(ValueError):
    """Bytes that are no message of the type."""


def encode(message: Any, type_name: str, prefix: bytes = b"") -> bytearray:
    """The payload, padded to a multiple of 4; `prefix` (a multiple of 8 bytes) stands before the message.

    TypeError or ValueError name the field that holds what its type cannot.
    """
    out = bytearray(HEADER + prefix)
    try:
        writer(type_name)(out, message)
    except WRONG as error:
        where, reason = explain(message, type_name) or ("", str(error))
        raise type(error if isinstance(error, TypeError) else ValueError())(f"{type_name}{where}: {reason}") from None
    out += bytes(-len(out) & 3)
    return out


def decode(data: bytes, type_name: str, skip: int = 0) -> Any:
    """The message whose CDR begins `skip` bytes behind the header; MalformedError if it is none.

    Numeric arrays are read-only views of `data`.
    """
    if data[:2] != HEADER[:2]:
        raise MalformedError("not little-endian CDR")
    try:
        message, end = reader(type_name)(data, 4 + skip)
    except MALFORMED as error:
        raise MalformedError(str(error)) from None
    if not 0 <= len(data) - end < 4:
        raise MalformedError(f"{len(data)} bytes for a message of {end}")
    return message


# --- what the compiled code calls --------------------------------------------------------------------------


def array(value: Any, base: str, length: int = 0, bound: int = 0) -> np.ndarray:
    """The numbers as a contiguous vector of the wire's type; refuses what would change them."""
    dtype = DTYPES[base]
    if type(value) is np.ndarray and value.dtype is dtype and value.ndim == 1 and value.flags.c_contiguous:
        got = value
    elif isinstance(value, bytes | bytearray | memoryview) and dtype.itemsize == 1:
        got = np.frombuffer(value, dtype)
    else:
        got = _converted([b"".join(value)] if base == "byte" and len(value) else value, base, dtype)
    if (length and len(got) != length) or (bound and len(got) > bound):
        raise ValueError(f"{len(got)} values, {f'{length}' if length else f'at most {bound}'} expected")
    return got


def _converted(value: Any, base: str, dtype: np.dtype) -> np.ndarray:
    if base == "byte" and len(value):
        return np.frombuffer(value[0], dtype)
    got = np.asarray(value)
    if got.ndim != 1:
        raise ValueError(f"an array of shape {got.shape}, one dimension expected")
    if not len(got):
        return np.empty(0, dtype)
    if base == "bool" and got.dtype.kind != "b":
        raise TypeError(f"{got.dtype} values, bool expected")
    if dtype.kind in "iu" and base != "bool":
        info = np.iinfo(dtype)
        if got.dtype.kind not in "iu" or got.min() < info.min or got.max() > info.max:
            raise ValueError(f"values that are no {base}")
    elif dtype.kind == "f" and got.dtype.kind not in "iuf":
        raise TypeError(f"{got.dtype} values, numbers expected")
    return np.ascontiguousarray(got, dtype)


def flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{value!r} is not a bool")
    return bool(value)


@lru_cache(1024)  # names of joints and frames come again with every message
def text(value: str, bound: int) -> bytes:
    encoded = value.encode()
    if bound and len(encoded) > bound:
        raise ValueError(f"{len(encoded)} bytes of text, at most {bound} allowed")
    if b"\0" in encoded:
        raise ValueError("text with a zero byte, which ends it on the wire")
    return struct.pack("<I", len(encoded) + 1) + encoded + b"\0"


def items(value: Any, length: int, bound: int) -> Any:
    """A list of messages or strings, if it is one and of the right length."""
    if isinstance(value, str | bytes) or (length and len(value) != length) or (bound and len(value) > bound):
        raise ValueError(f"{type(value).__name__} of {len(value)}, list of {length or bound or 'any number'} expected")
    return value


def vector(data: bytes, base: str, count: int, at: int) -> np.ndarray:
    if count * DTYPES[base].itemsize > len(data) - at:
        raise MalformedError(f"{count} values in {len(data) - at} bytes")
    got = np.frombuffer(data, DTYPES[base], count, at)
    return got != 0 if base == "bool" else got


def counted(count: int, left: int) -> range:
    if count > left:
        raise MalformedError(f"{count} elements in {left} bytes")
    return range(count)


def string(data: bytes, at: int, length: int) -> str:
    if at + length > len(data):
        raise MalformedError(f"text of {length} bytes in {len(data) - at}")
    return terminated(data[at : at + length])


@lru_cache(1024)
def terminated(data: bytes) -> str:
    if not data or data[-1]:
        raise MalformedError("text without a zero byte behind it")
    return str(data[:-1], "utf-8")


# --- compilation -------------------------------------------------------------------------------------------

NAMES: dict[str, Any] = {f.__name__: f for f in (array, flag, text, items, vector, counted, string)}
NAMES["ZEROS"] = tuple(bytes(n) for n in range(8))
for _code in set(FORMATS.values()):
    NAMES[f"pack_{_code.replace('?', 'o')}"] = struct.Struct(f"<{_code}").pack
    NAMES[f"unpack_{_code.replace('?', 'o')}"] = struct.Struct(f"<{_code}").unpack_from


@cache
def writer(type_name: str, only: str = "") -> Callable[[bytearray, Any], None]:
    """Appends a message to the bytes; with `only`, just that field."""
    from real.ros.messages import message_class

    names: dict[str, Any] = dict(NAMES, C=message_class(type_name), writer=writer)
    fields = [f for f in FIELDS[type_name][1] if not only or f[0] == only]
    lines = ["def write(out, m):", " if m.__class__ is not C: raise TypeError(f'{type(m).__name__} in place of %s')"]
    lines[1] %= type_name
    for name, desc in fields:
        lines += [" out += b'\\0'"] if name == DUMMY else [f" {line}" for line in _write(f"m.{name}", desc, names)]
    return _compiled(lines, "write", names)


def _write(value: str, desc: Any, names: dict[str, Any]) -> list[str]:
    kind, inner = desc
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        element, count = inner
        limits = f"{count}, 0" if kind == Nodetype.ARRAY else f"0, {count}"
        number = [] if kind == Nodetype.ARRAY else [*_pad(4), "out += pack_I(len(v))"]
        if element[0] == Nodetype.BASE and element[1][0] != "string":
            size = DTYPES[element[1][0]].itemsize
            padded = [f"if len(v): {line}" for line in _pad(size)] if size == 8 else _pad(size)
            return [f"v = array({value}, {element[1][0]!r}, {limits})", *number, *padded, "out += v.data"]
        each = [f" {line}" for line in _write("x", element, names)]
        return [f"v = items({value}, {limits})", *number, "for x in v:", *each]
    if kind == Nodetype.NAME:
        return [f"{_nested(inner, names, 'writer')}(out, {value})"]
    base, bound = inner
    if base == "string":
        return [*_pad(4), f"out += text({value}, {bound})"]
    code = FORMATS[base].replace("?", "o")
    return [*_pad(DTYPES[base].itemsize), f"out += pack_{code}({f'flag({value})' if base == 'bool' else value})"]


def _pad(size: int) -> list[str]:
    return [f"out += ZEROS[(4 - len(out)) & {size - 1}]"] if size > 1 else []


@cache
def reader(type_name: str) -> Callable[[bytes, int], tuple[Any, int]]:
    """(bytes, position) -> message, position behind it."""
    from real.ros.messages import message_class

    names: dict[str, Any] = dict(NAMES, C=message_class(type_name), new=object.__new__)
    lines = ["def read(b, p):", " m = new(C)"]
    for name, desc in FIELDS[type_name][1]:
        lines += [" p += 1"] if name == DUMMY else [f" {line}" for line in _read(f"m.{name}", desc, names)]
    return _compiled([*lines, " return m, p"], "read", names)


def _read(target: str, desc: Any, names: dict[str, Any]) -> list[str]:
    kind, inner = desc
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        element, count = inner
        number = [f"n = {count}"] if kind == Nodetype.ARRAY else [*_align(4), "n, = unpack_I(b, p); p += 4"]
        if element[0] == Nodetype.BASE and element[1][0] != "string":
            size = DTYPES[element[1][0]].itemsize
            aligned = [f"if n: {line}" for line in _align(size)]
            return [*number, *aligned, f"{target} = vector(b, {element[1][0]!r}, n, p); p += n * {size}"]
        each = [f" {line}" for line in _read("x", element, names)]
        start = ["v = []", "for _ in counted(n, len(b) - p):"]
        return [*number, *start, *each, " v.append(x)", f"{target} = v"]
    if kind == Nodetype.NAME:
        return [f"{target}, p = {_nested(inner, names, 'reader')}(b, p)"]
    base, _ = inner
    if base == "string":
        return [*_align(4), "k, = unpack_I(b, p)", f"{target} = string(b, p + 4, k); p += 4 + k"]
    code, size = FORMATS[base].replace("?", "o"), DTYPES[base].itemsize
    return [*_align(size), f"{target}, = unpack_{code}(b, p); p += {size}"]


def _align(size: int) -> list[str]:
    return [f"p += (4 - p) & {size - 1}"] if size > 1 else []


def _nested(type_name: str, names: dict[str, Any], which: str) -> str:
    name = f"{which}_{type_name.replace('/', '_')}"
    names[name] = {"writer": writer, "reader": reader}[which](type_name)
    return name


def _compiled(lines: list[str], name: str, names: dict[str, Any]) -> Any:
    exec("\n".join(lines), names)
    return names[name]


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
