"""CDR compiled for each type: nested messages inline, neighbouring numbers in one call with what is between them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype

from real.ros.cdr_values import (
    DTYPES,
    FORMATS,
    array,
    counted,
    flag,
    items,
    sequence,
    string,
    strings,
    text,
    texts,
    wrong,
)
from real.ros.definitions import DUMMY, FIELDS

NAMES: dict[str, Any] = {
    f.__name__: f for f in (array, flag, sequence, text, texts, items, wrong, counted, string, strings)
} | {"ZEROS": tuple(bytes(n) for n in range(8)), "new": object.__new__, "frombuffer": np.frombuffer}


class _Code:
    """Lines of a function and the names that they use.

    Numbers wait for their neighbours, until `flush` makes one call of them. The position behind them is `offset`
    modulo `known`: padding is worked out here where that says enough, and by the function (`pad`) where not.
    """

    pad, call, of_struct = "", "", ""

    def __init__(self, head: str):
        self.lines, self.names, self.depth = [head], dict(NAMES), 1
        self.known, self.offset, self.form, self.values = 8, 0, "", list[str]()

    def add(self, *lines: str) -> None:
        self.flush()
        self.declare(*lines)

    def declare(self, *lines: str) -> None:
        """Lines that neither move the position nor need it: the numbers go on waiting."""
        self.lines += [" " * self.depth + line for line in lines]

    def name(self, value: Any) -> str:
        """A new one, for the value."""
        self.names[name := f"n{len(self.names)}"] = value
        return name

    def message_class(self, type_name: str) -> str:
        from real.ros.messages import message_class

        return self.name(message_class(type_name))

    def number(self, base: str, value: str) -> None:
        size = DTYPES[base].itemsize
        self.align(size)
        self.form, self.offset = self.form + FORMATS[base], self.offset + size
        self.values.append(value)

    def align(self, size: int) -> None:
        if size > self.known:
            self.add(self.pad.format(size - 1))
            self.known, self.offset = size, 0
        elif gap := -self.offset % size:
            self.form, self.offset = f"{self.form}{gap}x", self.offset + gap

    def flush(self) -> None:
        if self.form:
            packed = struct.Struct(f"<{self.form}")
            values, self.form, self.values = ", ".join(self.values), "", []
            self.declare(self.call.format(self.name(getattr(packed, self.of_struct)), values, packed.size))

    def moved(self, known: int) -> None:
        """By what is not known: to a multiple of `known`."""
        self.known, self.offset = known, 0

    def compiled(self) -> Any:
        self.flush()
        exec("\n".join(self.lines), self.names)
        return self.names["f"]


class _Writing(_Code):
    pad, call, of_struct = "out += ZEROS[(4 - len(out)) & {}]", "out += {}({})", "pack"


class _Reading(_Code):
    pad, call, of_struct = "p += (4 - p) & {}", "[{1}] = {0}(b, p); p += {2}", "unpack_from"


@cache
def writer(type_name: str, only: str = "") -> Callable[[bytearray, Any], None]:
    """Appends a message to the bytes; with `only`, just that field."""
    code = _Writing("def f(out, m):")
    _write_message("m", type_name, code, only)
    return code.compiled()


def _write_message(value: str, type_name: str, code: _Code, only: str = "") -> None:
    code.declare(f"if {value}.__class__ is not {code.message_class(type_name)}: raise wrong({value}, {type_name!r})")
    for name, desc in FIELDS[type_name][1]:
        if only in ("", name):
            _write(f"{value}.{name}" if name != DUMMY else "0", desc, code)


def _write(value: str, desc: Any, code: _Code) -> None:
    kind, inner = desc
    if kind == Nodetype.NAME:
        code.declare(f"{(nested := code.name(None))} = {value}")
        _write_message(nested, inner, code)
    elif kind != Nodetype.BASE:
        _write_many(value, inner[0], kind == Nodetype.SEQUENCE, inner[1], code)
    elif inner[0] == "string":
        code.align(4)
        code.add(f"out += text({value}, {inner[1]})")
        code.moved(1)
    else:
        code.number(inner[0], f"flag({value})" if inner[0] == "bool" else value)


def _write_many(value: str, element: Any, counts: bool, limit: int, code: _Code) -> None:
    """A sequence, which is counted and has at most `limit` elements (0: any number), or an array of so many."""
    base = element[1][0]
    if element[0] == Nodetype.BASE and base != "string":
        size = DTYPES[base].itemsize
        code.align(4 if counts else size)
        write = f"sequence(out, {value}, {base!r}, {4 if size == 8 else 0}, {limit})"
        code.add(write if counts else f"out += array({value}, {base!r}, {limit})")
        code.moved(min(size, 4) if counts else size)
        return
    code.declare(f"v = items({value}, {f'0, {limit}' if counts else f'{limit}, 0'})")
    if element[0] == Nodetype.BASE:
        code.align(4)
        code.add(f"out += texts(tuple(v), {counts}, {element[1][1]})")
    else:
        if counts:
            code.number("uint32", "len(v)")
        code.add(f"for {(each := code.name(None))} in v:")
        code.depth += 1
        code.moved(1)
        _write_message(each, element[1], code)
        code.flush()
        code.depth -= 1
    code.moved(1)


@cache
def reader(type_name: str) -> Callable[[bytes, int, int], tuple[Any, int]]:
    """(bytes, position, most elements of its lists together) -> message, position behind it, which may lie behind the
    end: `decode` sees that."""
    code = _Reading("def f(b, p, most):")
    _read_message("m", type_name, code)
    code.add("return m, p")
    return code.compiled()


def _read_message(target: str, type_name: str, code: _Code) -> None:
    code.declare(f"{target} = new({code.message_class(type_name)})")
    for name, desc in FIELDS[type_name][1]:
        _read(f"{target}.{name}" if name != DUMMY else "_", desc, code)


def _read(target: str, desc: Any, code: _Code) -> None:
    kind, inner = desc
    if kind == Nodetype.NAME:
        _read_message(nested := code.name(None), inner, code)
        code.declare(f"{target} = {nested}")
    elif kind != Nodetype.BASE:
        _read_many(target, inner[0], kind == Nodetype.SEQUENCE, inner[1], code)
    elif inner[0] == "string":
        code.number("uint32", "k")
        code.add(f"{target} = string(b[p:p + k]); p += k")
        code.moved(1)
    else:
        code.number(inner[0], target)


def _read_many(target: str, element: Any, counts: bool, length: int, code: _Code) -> None:
    base = element[1][0]
    if counts and element == (Nodetype.BASE, ("string", 0)):
        code.align(4)
        memory = code.name([(), []])  # the last one's bytes, which nothing begins with at first, and what they say
        code.add(
            f"last, known = {memory}",
            f"if b.startswith(last, p): {target} = known.copy(); p += len(last)",
            f"else: {target}, p = strings(b, p, {memory}, most)",
            f"most -= len({target})",
        )
        code.moved(1)
        return
    if counts:
        code.number("uint32", "n")
    else:
        code.declare(f"n = {length}")
    if element[0] == Nodetype.BASE and base != "string":
        _read_numbers(target, base, counts, code)
        return
    many, each = code.name(None), code.name(None)
    code.add(f"{many} = []", "most -= n", "for _ in counted(n, len(b) - p, most):")
    code.depth += 1
    code.moved(1)
    _read_message(each, element[1], code) if element[0] == Nodetype.NAME else _read(each, element, code)
    code.add(f"{many}.append({each})")
    code.depth -= 1
    code.add(f"{target} = {many}")
    code.moved(1)


def _read_numbers(target: str, base: str, counts: bool, code: _Code) -> None:
    size, ones = DTYPES[base].itemsize, " != 0" if base == "bool" else ""
    if not counts:
        code.align(size)
    elif size > 4:
        code.add(f"if n: {code.pad.format(size - 1)}")
    code.add(f"{target} = frombuffer(b, {code.name(DTYPES[base])}, n, p){ones}; p += n * {size}")
    code.moved(min(size, 4) if counts else size)
