"""CDR compiled for each type: nested messages inline, neighbouring numbers in one call, neighbouring texts in one."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype

from real.ros.cdr_values import (
    DTYPES,
    FORMATS,
    REMEMBERED,
    array,
    counted,
    flag,
    items,
    recent_texts,
    remember,
    sequence,
    string,
    strings,
    texts,
    wrong,
)
from real.ros.definitions import DUMMY, FIELDS

NAMES: dict[str, Any] = {
    f.__name__: f for f in (array, counted, flag, items, remember, sequence, string, strings, texts, wrong)
} | {
    "recent_texts": recent_texts,
    "ZEROS": tuple(bytes(n) for n in range(8)),
    "new": object.__new__,
    "frombuffer": np.frombuffer,
}


class _Code(ABC):
    """Lines of a function and the names that they use.

    Numbers wait for their neighbours, and so do texts, until `flush` makes one call of them. The position behind them
    is `offset` modulo `known`: padding is worked out here where that says enough, else by the function (`pad`).
    """

    pad, call, of_struct = "", "", ""

    def __init__(self, head: str):
        self.lines, self.names, self.depth = [head], dict(NAMES), 1
        self.known, self.offset, self.form, self.values = 8, 0, "", list[str]()
        self.texts: list[tuple[str, bool, Any]] = []

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

    def text(self, value: str, many: bool = False, how: Any = None) -> None:
        if not self.texts:
            self.align(4)
            self.flush()
        self.texts.append((value, many, how))
        self.moved(1)

    def align(self, size: int) -> None:
        if self.texts or size > self.known:
            self.flush()
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
        if self.texts:
            texts, self.texts = self.texts, []
            self.call_texts(texts)

    @abstractmethod
    def call_texts(self, texts: list[tuple[str, bool, Any]]) -> None:
        """For texts (where, whether a sequence of them, how to write it) behind one another."""

    def moved(self, known: int) -> None:
        """By what is not known: to a multiple of `known`."""
        self.known, self.offset = known, 0

    def compiled(self) -> Any:
        self.flush()
        exec("\n".join(self.lines), self.names)
        return self.names["f"]


class _Writing(_Code):
    pad, call, of_struct = "out += ZEROS[(4 - len(out)) & {}]", "out += {}({})", "pack"

    def call_texts(self, texts: list[tuple[str, bool, Any]]) -> None:
        values = "".join(f"{value}, " for value, _, _ in texts)
        size = " + ".join(f"len({value})" for value, many, _ in texts if not many)
        call = f"(recent_texts if {size} <= {REMEMBERED} else texts)" if size else "recent_texts"
        self.declare(f"out += {call}(({values}), {self.name(tuple(how for _, _, how in texts))})")


class _Reading(_Code):
    pad, call, of_struct = "p += (4 - p) & {}", "[{1}] = {0}(b, p); p += {2}", "unpack_from"

    def call_texts(self, texts: list[tuple[str, bool, Any]]) -> None:
        """Names rarely change: what comes as it came last is not read again. But in lists, where others came last."""
        found, spare, read = [self.name(None) for _ in texts], "most", []
        for name, (_, many, _) in zip(found, texts, strict=True):
            read.append(f"{name}, p = strings(b, p, {spare})" if many else f"{name}, p = string(b, p)")
            spare += f" - len({name})" if many else ""
        if self.depth == 1:
            names, last = ", ".join(found), self.name([(), *(None for _ in texts)])  # nothing begins with ()
            read = [f" {line}" for line in ("start = p", *read, f"remember({last}, b, start, p, {names})")]
            read = [f"last, {names} = {last}", "if b.startswith(last, p): p += len(last)", "else:", *read]
        self.declare(*read)
        for name, (value, many, _) in zip(found, texts, strict=True):
            self.declare(f"{value} = {name}.copy(); most -= len({name})" if many else f"{value} = {name}")


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
        code.text(value, how=(None, inner[1]))
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
    listed = f"items({value}, {f'0, {limit}' if counts else f'{limit}, 0'})"
    if counts and not limit:
        listed = f"{value} if {value}.__class__ is list else {listed}"
    if element[0] == Nodetype.BASE:
        code.text(f"tuple({listed})", True, (counts, element[1][1]))
        return
    code.declare(f"v = {listed}")
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
        code.text(target)
    else:
        code.number(inner[0], target)


def _read_many(target: str, element: Any, counts: bool, length: int, code: _Code) -> None:
    base = element[1][0]
    if counts and element == (Nodetype.BASE, ("string", 0)):
        code.text(target, many=True)
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
