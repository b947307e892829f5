"""Values of CDR: what the compiled code of cdr_code.py calls for arrays, text and lists."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np

SHORT = 64  # items, up to which struct is faster than numpy, and a copy than a view
OCTETS = ("bool", "byte")  # which struct would take for more than they are
REMEMBERED = 1024
"""Characters or bytes of text up to which it is: names of joints and frames come again with every message."""
COUNT = struct.Struct("<I")
FORMATS = {
    "bool": "?", "byte": "c", "char": "B", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i",
    "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
DTYPES = {base: np.dtype(f"<{'B' if code in '?c' else code}") for base, code in FORMATS.items()}


class MalformedError(ValueError):
    """Bytes that are no message of the type."""


@cache
def packer(base: str, count: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{count}{FORMATS[base]}").pack


@cache
def counting_packer(base: str, count: int, padding: int) -> Callable[..., bytes]:
    return struct.Struct(f"<I{padding}x{count}{FORMATS[base]}").pack


def sequence(out: bytearray, value: Any, base: str, wide: int, bound: int) -> None:
    """Append numbers with their count, at a multiple of 4. `wide`: 4 for numbers of 8 bytes, which may need as much
    padding behind the count, else 0."""
    count = len(value)
    padding = len(out) & wide if count else 0
    kind = type(value) if count < SHORT and not 0 < bound < count else None
    if (kind is list or kind is tuple) and base not in OCTETS:
        out += counting_packer(base, count, padding)(count, *value)
    elif kind is np.ndarray and value.dtype is DTYPES[base] and value.ndim == 1:
        out += counting_packer(base, 0, padding)(count)
        out += value.tobytes()
    else:
        data = array(value, base, bound=bound)
        out += counting_packer(base, 0, padding)(count)
        out += data


def array(value: Any, base: str, length: int = 0, bound: int = 0) -> Any:
    """The bytes of numbers on the wire; refuses what would change them."""
    dtype, count = DTYPES[base], len(value)
    if (length and count != length) or (bound and count > bound):
        raise ValueError(f"{count} values, {length or f'at most {bound}'} expected")
    if type(value) in (list, tuple) and count < SHORT and base not in OCTETS:
        return packer(base, count)(*value)
    if isinstance(value, bytes | bytearray | memoryview) and dtype.itemsize == 1:
        return value
    if not (type(value) is np.ndarray and value.dtype is dtype and value.ndim == 1):
        value = _converted(value, base, dtype)
    return value.tobytes() if count < SHORT else np.ascontiguousarray(value).data


def _converted(value: Any, base: str, dtype: np.dtype) -> np.ndarray:
    if base == "byte" and type(value) in (list, tuple):
        joined = np.frombuffer(b"".join(value), dtype)
        if len(joined) != len(value):
            raise ValueError("bytes of length 1 expected")
        return joined
    got = np.asarray(value)
    if got.ndim != 1:
        raise ValueError(f"an array of shape {got.shape}, one dimension expected")
    if not len(got):
        return np.empty(0, dtype)
    if base == "bool":
        if got.dtype.kind != "b":
            raise TypeError(f"{got.dtype} values, bool expected")
    elif dtype.kind in "iu":
        info = np.iinfo(dtype)
        if got.dtype.kind not in "iu" or got.min() < info.min or got.max() > info.max:
            raise ValueError(f"values that are no {base}")
    elif got.dtype.kind not in "iuf":
        raise TypeError(f"{got.dtype} values, numbers expected")
    return np.ascontiguousarray(got, dtype)


def flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{value!r} is not a bool")
    return bool(value)


def items(value: Any, length: int, bound: int) -> Any:
    """A list of messages or strings, if it is one and of the right length."""
    if isinstance(value, str | bytes) or (length and len(value) != length) or (bound and len(value) > bound):
        raise ValueError(f"{type(value).__name__} of {len(value)}, list of {length or bound or 'any number'} expected")
    return value


def texts(values: tuple[Any, ...], how: tuple[tuple[bool | None, int], ...]) -> bytes:
    """Texts, and tuples of texts, from a position that is a multiple of 4 on. `how`: whether a tuple is counted, None
    for a text; and the most bytes of a text, 0 for any number."""
    out = bytearray()
    for value, (counts, bound) in zip(values, how, strict=True):
        if counts:
            out += bytes(-len(out) & 3) + COUNT.pack(len(value))
        for text in (value,) if counts is None else value:
            out += bytes(-len(out) & 3) + _text(text, bound)
    return bytes(out)


recent_texts = lru_cache(1024)(texts)


def _text(value: str, bound: int) -> bytes:
    encoded = value.encode()
    if bound and len(encoded) > bound:
        raise ValueError(f"{len(encoded)} bytes of text, at most {bound} allowed")
    if b"\0" in encoded:
        raise ValueError("text with a zero byte, which ends it on the wire")
    return COUNT.pack(len(encoded) + 1) + encoded + b"\0"


def wrong(value: Any, type_name: str) -> TypeError:
    return TypeError(f"{type(value).__name__} in place of {type_name}")


def counted(count: int, left: int, spare: int) -> range:
    """For as many elements in `left` bytes; `spare`: how many more the message's lists may hold then."""
    if count > left:
        raise MalformedError(f"{count} elements in {left} bytes")
    if spare < 0:
        raise MalformedError(f"lists of more elements than we decode, by {-spare}")
    return range(count)


def string(data: bytes, at: int) -> tuple[str, int]:
    """A text and the position behind it."""
    at += -at & 3
    end = at + 4 + COUNT.unpack_from(data, at)[0]
    text = data[at + 4 : end]
    if not text or text[-1]:
        raise MalformedError("text without a zero byte behind it")
    if 0 in text[:-1]:
        raise MalformedError("text with a zero byte within, which nobody could pass on")
    return str(text[:-1], "utf-8"), end


def strings(data: bytes, at: int, most: int) -> tuple[list[str], int]:
    """A sequence of texts and the position behind it."""
    at += -at & 3
    (count,) = COUNT.unpack_from(data, at)
    values, at = [], at + 4
    for _ in counted(count, len(data) - at, most - count):
        value, at = string(data, at)
        values.append(value)
    return values, at


def remember(memory: list[Any], data: bytes, start: int, end: int, *values: Any) -> None:
    """For who reads the same bytes again."""
    if start < end <= min(len(data), start + REMEMBERED):
        memory[:] = data[start:end], *values
