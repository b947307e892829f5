"""CDR compiled for each type: nested messages inline, numbers of one size in one call."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype

from real.ros.cdr_values import DTYPES, FORMATS, array, counted, flag, items, string, strings, text, texts, wrong
from real.ros.definitions import DUMMY, FIELDS

NAMES: dict[str, Any] = {f.__name__: f for f in (array, flag, text, texts, items, wrong, counted, string, strings)}
NAMES |= {"ZEROS": tuple(bytes(n) for n in range(8)), "new": object.__new__, "frombuffer": np.frombuffer}


class _Code:
    """Lines of a function, and the names that they use."""

    def __init__(self, head: str):
        self.lines, self.names, self.depth = [head], dict(NAMES), 1

    def add(self, *lines: str) -> None:
        self.lines += [" " * self.depth + line for line in lines]

    def name(self, value: Any) -> str:
        """A new one, for the value."""
        self.names[name := f"n{len(self.names)}"] = value
        return name

    def message_class(self, type_name: str) -> str:
        from real.ros.messages import message_class

        return self.name(message_class(type_name))

    def compiled(self) -> Any:
        exec("\n".join(self.lines), self.names)
        return self.names["f"]


def _runs(fields: list[tuple[str, Any]]) -> Iterator[tuple[int, list[tuple[str, Any]]]]:
    """Fields in order: numbers of the same size (its bytes) together, everything else (0) by itself."""
    for size, group in groupby(fields, _size):
        run = list(group)
        yield from [(size, run)] if size else [(0, [field]) for field in run]


def _size(field: tuple[str, Any]) -> int:
    kind, inner = field[1]
    return DTYPES[inner[0]].itemsize if kind == Nodetype.BASE and inner[0] in DTYPES else 0


@cache
def writer(type_name: str, only: str = "") -> Callable[[bytearray, Any], None]:
    """Appends a message to the bytes; with `only`, just that field."""
    code = _Code("def f(out, m):")
    _write_message("m", type_name, code, only)
    return code.compiled()


def _write_message(value: str, type_name: str, code: _Code, only: str = "") -> None:
    code.add(f"if {value}.__class__ is not {code.message_class(type_name)}: raise wrong({value}, {type_name!r})")
    for size, run in _runs([f for f in FIELDS[type_name][1] if not only or f[0] == only]):
        if size:
            form = "".join(FORMATS[desc[1][0]] for _, desc in run)
            pack = code.name(struct.Struct(f"<{form}").pack)
            values = (_scalar(f"{value}.{name}", name, desc) for name, desc in run)
            code.add(*_pad(size), f"out += {pack}({', '.join(values)})")
        else:
            _write(f"{value}.{run[0][0]}", run[0][1], code)


def _scalar(value: str, name: str, desc: Any) -> str:
    return "0" if name == DUMMY else f"flag({value})" if desc[1][0] == "bool" else value


def _write(value: str, desc: Any, code: _Code) -> None:
    kind, inner = desc
    if kind == Nodetype.NAME:
        code.add(f"{(nested := code.name(None))} = {value}")
        _write_message(nested, inner, code)
    elif kind == Nodetype.BASE:
        code.add(*_pad(4), f"out += text({value}, {inner[1]})")
    else:
        _write_many(value, kind, inner, code)


def _write_many(value: str, kind: Nodetype, inner: Any, code: _Code) -> None:
    element, count = inner
    limits = f"{count}, 0" if kind == Nodetype.ARRAY else f"0, {count}"
    pack = code.name(struct.Struct("<I").pack)
    number = [*_pad(4), f"out += {pack}(len(v))"] if kind == Nodetype.SEQUENCE else []
    if element[0] == Nodetype.BASE and element[1][0] != "string":
        counted = [*_pad(4), f"out += {pack}(n)"] if kind == Nodetype.SEQUENCE else []
        padded = [f"if n: {line}" for line in _pad(DTYPES[element[1][0]].itemsize)]
        code.add(f"n, v = array({value}, {element[1][0]!r}, {limits})", *counted, *padded, "out += v")
    elif element[0] == Nodetype.BASE:
        code.add(f"v = items({value}, {limits})", *(number or _pad(4)), f"out += texts(tuple(v), {element[1][1]})")
    else:
        code.add(f"v = items({value}, {limits})", *number, f"for {(each := code.name(None))} in v:")
        code.depth += 1
        _write_message(each, element[1], code)
        code.depth -= 1


def _pad(size: int) -> list[str]:
    return [f"out += ZEROS[(4 - len(out)) & {size - 1}]"] if size > 1 else []


@cache
def reader(type_name: str) -> Callable[[bytes, int], tuple[Any, int]]:
    """(bytes, position) -> message, position behind it, which may lie behind the end: `decode` sees that."""
    code = _Code("def f(b, p):")
    _read_message("m", type_name, code)
    code.add("return m, p")
    return code.compiled()


def _read_message(target: str, type_name: str, code: _Code) -> None:
    code.add(f"{target} = new({code.message_class(type_name)})")
    for size, run in _runs(FIELDS[type_name][1]):
        if size:
            form = struct.Struct("<" + "".join(FORMATS[desc[1][0]] for _, desc in run))
            targets = ", ".join("_" if name == DUMMY else f"{target}.{name}" for name, _ in run)
            code.add(*_align(size), f"{targets}, = {code.name(form.unpack_from)}(b, p); p += {form.size}")
        else:
            _read(f"{target}.{run[0][0]}", run[0][1], code)


def _read(target: str, desc: Any, code: _Code) -> None:
    kind, inner = desc
    number = code.name(struct.Struct("<I").unpack_from)
    if kind == Nodetype.NAME:
        _read_message(nested := code.name(None), inner, code)
        code.add(f"{target} = {nested}")
    elif kind == Nodetype.BASE:
        code.add(*_align(4), f"k, = {number}(b, p); {target} = string(b[p + 4:p + 4 + k]); p += 4 + k")
    elif kind == Nodetype.SEQUENCE and inner[0] == (Nodetype.BASE, ("string", 0)):
        code.add(*_align(4), f"{target}, p = strings(b, p, {code.name([b'', []])})")
    else:
        start = [*_align(4), f"n, = {number}(b, p); p += 4"] if kind == Nodetype.SEQUENCE else [f"n = {inner[1]}"]
        code.add(*start)
        _read_many(target, inner[0], code)


def _read_many(target: str, element: Any, code: _Code) -> None:
    base = element[1][0]
    if element[0] == Nodetype.BASE and base != "string":
        size, ones = DTYPES[base].itemsize, " != 0" if base == "bool" else ""
        values = f"frombuffer(b, {code.name(DTYPES[base])}, n, p)"
        aligned = [f"if n: {line}" for line in _align(size)]
        code.add(*aligned, f"{target} = {values}{ones}; p += n * {size}")
        return
    many, each = code.name(None), code.name(None)
    code.add(f"{many} = []", "for _ in counted(n, len(b) - p):")
    code.depth += 1
    _read_message(each, element[1], code) if element[0] == Nodetype.NAME else _read(each, element, code)
    code.add(f"{many}.append({each})")
    code.depth -= 1
    code.add(f"{target} = {many}")


def _align(size: int) -> list[str]:
    return [f"p += (4 - p) & {size - 1}"] if size > 1 else []
