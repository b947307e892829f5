"""MCAP files, read from the start, record by record, as far as they are whole: no summary is needed."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from real.recording import mcap
from real.recording.mcap import MAGIC, RECORD, zstd
from real.recording.topic import Message, Topic, UnbegunError
from robolearn import optional
from robolearn.errors import ConfigError

MESSAGE_HEAD = 22
"""Bytes of a message's record before its payload."""
CUT = (struct.error, IndexError, UnicodeDecodeError)


class Found(NamedTuple):
    """A message; `start` is where its payload begins in `buffer`."""

    channel: int
    log_ns: int
    publish_ns: int
    buffer: memoryview
    start: int
    end: int


class McapReader:
    def __init__(self, path: Path):
        self.path, self.trouble = path, list[str]()
        self.topics: dict[str, Topic] = {}
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._names: dict[int, str] = {}
        self._map: mmap.mmap | None = None
        with path.open("rb") as file:
            begin = file.read(len(MAGIC))
            if begin != MAGIC:
                if MAGIC.startswith(begin):
                    raise UnbegunError(f"{path} is no MCAP file yet: it is empty")
                raise ConfigError(f"{path} is no MCAP file: it does not begin like one")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._data = memoryview(self._map)
        self.complete = self._data[-len(MAGIC) :] == MAGIC and len(self._data) > mcap.FOOTER_BYTES + len(MAGIC)
        self._learn()

    def _learn(self) -> None:
        """The topics: from the summary, or from all records."""
        start = self._summary() if self.complete else 0
        if start:
            for _ in self._records(self._data, start, len(self._data) - mcap.FOOTER_BYTES):
                pass
        if not self.topics:
            for _ in self._found(lambda done: None, check=False):
                pass

    def _summary(self) -> int:
        """Where it begins; zero if there is none."""
        (start,) = struct.unpack_from("<Q", self._data, len(self._data) - mcap.FOOTER_BYTES + RECORD.size)
        return int(start) if len(MAGIC) <= start < len(self._data) else 0

    # --- messages ---

    def messages(self, topics: Collection[str], progress: Callable[[int], object]) -> Iterator[Message]:
        wanted = {number for number, name in self._names.items() if name in topics}
        for m in self._found(progress, check=True):
            if m.channel in wanted:
                yield Message(self._names[m.channel], m.log_ns, m.publish_ns, bytes(m.buffer[m.start : m.end]))

    def headers(self, progress: Callable[[int], object]) -> Iterator[tuple[str, int, int, int]]:
        for m in self._found(progress, check=not self.complete):
            if m.channel in self._names:
                yield self._names[m.channel], m.log_ns, m.publish_ns, m.end - m.start

    def _found(self, progress: Callable[[int], object], check: bool = True) -> Iterator[Found]:
        """All messages, those of each chunk in the order of reception; `check` their CRC."""
        self.trouble = []
        loose: list[Found] = []  # outside of chunks
        for kind, start, end in self._records(self._data, len(MAGIC), len(self._data)):
            if kind == mcap.CHUNK:
                progress(end)
                yield from sorted(self._chunk(start, end, check), key=lambda m: m.log_ns)
            elif kind == mcap.MESSAGE and end - start >= MESSAGE_HEAD:
                loose.append(_message(self._data, start, end))
            elif kind in (mcap.DATA_END, mcap.FOOTER):
                break
        yield from sorted(loose, key=lambda m: m.log_ns)
        progress(len(self._data))

    def _chunk(self, start: int, end: int, check: bool) -> list[Found]:
        try:
            *_, size, crc = mcap.CHUNK_START.unpack_from(self._data, start)
            compression, at = _text(self._data, start + mcap.CHUNK_START.size)
            whole = _unpacked(self._data[at + 8 : end], compression)
        except (*CUT, ValueError, RuntimeError) as error:
            self.trouble.append(f"the chunk at byte {start} cannot be unpacked ({error})")
            return []
        if len(whole) != size or (check and crc and zlib.crc32(whole) != crc):
            self.trouble.append(f"the chunk at byte {start} is damaged")
            return []
        records = self._records(whole, 0, size)
        return [_message(whole, a, b) for kind, a, b in records if kind == mcap.MESSAGE and b - a >= MESSAGE_HEAD]

    # --- records ---

    def _records(self, data: memoryview, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(opcode, start and end of its content); definitions are taken in on the way. Ends where one is cut."""
        while at + RECORD.size <= stop:
            kind, length = RECORD.unpack_from(data, at)
            start, end = at + RECORD.size, at + RECORD.size + length
            if not kind or end > stop:
                break
            try:
                if kind == mcap.SCHEMA:
                    self._schema(data[start:end])
                elif kind == mcap.CHANNEL:
                    self._channel(data[start:end])
                yield kind, start, end
            except CUT as error:
                self.trouble.append(f"a record at byte {at} makes no sense ({error})")
            at = end
            if kind == mcap.FOOTER:
                return
        if at < stop and data is self._data and stop == len(data):
            self.trouble.append(f"ends in the middle of a record, {stop - at} bytes after the last whole one")

    def _schema(self, body: memoryview) -> None:
        (number,) = struct.unpack_from("<H", body)
        name, at = _text(body, 2)
        encoding, at = _text(body, at)
        definition, _ = _text(body, at)
        self._schemas[number] = name, encoding, definition

    def _channel(self, body: memoryview) -> None:
        number, schema = struct.unpack_from("<HH", body)
        name, at = _text(body, 4)
        encoding, at = _text(body, at)
        about, end = {}, at + 4 + struct.unpack_from("<I", body, at)[0]
        at += 4
        while at < end:
            key, at = _text(body, at)
            about[key], at = _text(body, at)
        if encoding != "cdr":
            self.trouble.append(f"{name} is encoded as {encoding!r}, not cdr, and left out")
            return
        type_name, kind, definition = self._schemas.get(schema, ("", "", ""))
        self._names[number] = name
        offers = offers_of(about.get("offered_qos_profiles", ""))
        topic = Topic(name, type_name, about.get("topic_type_hash", ""), definition, kind, offers)
        self.topics.setdefault(name, topic)

    def close(self) -> None:
        """As far as nobody holds a part of it."""
        self._data = memoryview(b"")
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:  # closed with the last reference
                self._map = None


def _message(data: memoryview, start: int, end: int) -> Found:
    channel, _, log_ns, publish_ns = struct.unpack_from("<HIQQ", data, start)
    return Found(channel, log_ns, publish_ns, data, start + MESSAGE_HEAD, end)


def _text(data: memoryview, at: int) -> tuple[str, int]:
    """A string, and where it ends."""
    (length,) = struct.unpack_from("<I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise IndexError(f"a text of {length} bytes")
    return str(data[at + 4 : end], "utf-8"), end


def _unpacked(data: memoryview, compression: str) -> memoryview:
    if compression == "":
        return data
    if compression == "zstd":
        module = zstd()
        try:
            return memoryview(module.decompress(data))
        except module.ZstdError as error:
            raise ValueError(str(error)) from None
    if compression == "lz4":
        return memoryview(optional.load("lz4.frame", "ros").decompress(data))
    raise ValueError(f"compression {compression!r} is not known")


def offers_of(text: str) -> tuple[dict[str, object], ...]:
    """Of the YAML in a file; none if it is none."""
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return ()
    return tuple(offer for offer in read if isinstance(offer, dict)) if isinstance(read, list) else ()
