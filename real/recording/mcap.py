"""MCAP files, written chunk by chunk (the format: mcap.dev/spec; what rosbag2 expects in it: rosbag2_storage_mcap).

A chunk is written by one call and never touched again, so what was flushed stays whatever becomes of the process. The
summary at the end is an index only: readers find everything without it.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from real.recording.topic import Topic
from robolearn import optional

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = 11, 12, 13, 14, 15
RECORD = struct.Struct("<BQ")
FOOTER_BYTES = RECORD.size + 20 + len(MAGIC)
MESSAGE_START = struct.Struct("<BQHIQQ")
"""Opcode, length, channel, sequence, log time, publish time; then the payload."""
CHUNK_START = struct.Struct("<QQQI")
"""First and last log time, size before compression, CRC of that; then compression and records."""
CHUNK_BYTES = 1 << 20
NEVER = 2**63 - 1
LEVEL = 1
"""Of zstd: its fastest, twice as fast as the next and hardly larger."""


def zstd() -> Any:
    """The standard library's module, or its backport, which rosbags brings."""
    return optional.load("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "ros")


class McapFile:
    """One file of a bag; times in ns since 1970. `size` is what it takes with all that waits to be flushed."""

    SUFFIX = ".mcap"

    def __init__(self, path: Path, compress: bool = False):
        """Raises FileExistsError."""
        self._file = path.open("xb", buffering=0)
        self._compression, self._compress = _compressor(compress)
        self._end = 0
        self._definitions: list[tuple[int, bytes]] = []
        self._schemas: dict[str, int] = {}
        self._indexes: list[bytes] = []
        self._counts: dict[int, int] = {}
        self._first, self._last = NEVER, 0
        self._new_chunk()
        self._put(MAGIC + record(HEADER, text("ros2") + text("robolearn")))

    @property
    def size(self) -> int:
        return self._end + self._length

    def _new_chunk(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._length = 0
        self._entries: dict[int, list[int]] = {}
        self._chunk_first, self._chunk_last = NEVER, 0

    def add_topic(self, number: int, topic: Topic) -> None:
        """`number` is 1 to 65535, and another for each topic."""
        if topic.type not in self._schemas:
            self._schemas[topic.type] = number
            body = struct.pack("<H", number) + text(topic.type) + text(topic.encoding) + text(topic.definition)
            self._define(SCHEMA, body)
        about = {"offered_qos_profiles": topic.offers_text, "topic_type_hash": topic.hash}
        body = struct.pack("<HH", number, self._schemas[topic.type]) + text(topic.name) + text("cdr") + mapping(about)
        self._define(CHANNEL, body)
        self._counts[number] = 0

    def _define(self, kind: int, body: bytes) -> None:
        self._definitions.append((kind, body))
        whole = record(kind, body)
        self._parts.append(whole)
        self._length += len(whole)

    def write(self, number: int, log_ns: int, publish_ns: int, data: bytes | memoryview) -> None:
        """Raises OSError, and does not take the message, if those before it cannot be flushed."""
        if self._length >= CHUNK_BYTES:
            self.flush()
        self._entries.setdefault(number, []).extend((log_ns, self._length))
        self._parts.append(MESSAGE_START.pack(MESSAGE, 22 + len(data), number, 0, log_ns, publish_ns))
        self._parts.append(data)
        self._length += MESSAGE_START.size + len(data)
        self._chunk_first, self._chunk_last = min(self._chunk_first, log_ns), max(self._chunk_last, log_ns)

    def flush(self) -> None:
        """Hand what waits to the system: a kill of the process does not lose it any more."""
        if not self._entries:
            return  # definitions alone wait for their first message
        whole = b"".join(self._parts)
        packed = self._compress(whole)
        times = self._chunk_first, self._chunk_last
        begin = CHUNK_START.pack(*times, len(whole), zlib.crc32(whole)) + self._compression
        start = self._end
        self._put(RECORD.pack(CHUNK, len(begin) + 8 + len(packed)) + begin + struct.pack("<Q", len(packed)), packed)
        self._index(start, times, len(packed), len(whole))
        self._first, self._last = min(self._first, self._chunk_first), max(self._last, self._chunk_last)
        self._new_chunk()

    def _index(self, start: int, times: tuple[int, int], packed: int, whole: int) -> None:
        """The chunk's message indexes, and its entry for the summary."""
        end, offsets, tables = self._end, b"", b""
        for number, entries in self._entries.items():
            offsets += struct.pack("<HQ", number, end + len(tables))
            table = struct.pack(f"<HI{len(entries)}Q", number, 8 * len(entries), *entries)
            tables += record(MESSAGE_INDEX, table)
            self._counts[number] += len(entries) // 2
        self._put(tables)
        self._indexes.append(
            struct.pack("<QQQQI", *times, start, end - start, len(offsets)) + offsets
            + struct.pack("<Q", len(tables)) + self._compression + struct.pack("<QQ", packed, whole)
        )  # fmt: skip

    def close(self, metadata: str) -> None:
        """With rosbag2's YAML of the bag, and the summary."""
        self.flush()
        place = self._end
        self._put(record(METADATA, text("rosbag2") + mapping({"serialized_metadata": metadata})))
        entry = struct.pack("<QQ", place, self._end - place) + text("rosbag2")
        self._put(record(DATA_END, bytes(4)))
        kinds = [(kind, [body for k, body in self._definitions if k == kind]) for kind in (SCHEMA, CHANNEL)]
        groups = [*kinds, (CHUNK_INDEX, self._indexes), (METADATA_INDEX, [entry]), (STATISTICS, [self._statistics()])]
        start, summary, offsets = self._end, b"", b""
        for kind, bodies in groups:
            group = b"".join(record(kind, body) for body in bodies)
            if group:
                body = struct.pack("<BQQ", kind, start + len(summary), len(group))
                offsets += record(SUMMARY_OFFSET, body)
            summary += group
        footer = RECORD.pack(FOOTER, 20) + struct.pack("<QQ", start, start + len(summary))
        crc = zlib.crc32(summary + offsets + footer)
        self._put(summary + offsets + footer + struct.pack("<I", crc) + MAGIC)
        self._file.close()

    def _statistics(self) -> bytes:
        schemas = sum(kind == SCHEMA for kind, _ in self._definitions)
        counts = b"".join(struct.pack("<HQ", number, count) for number, count in sorted(self._counts.items()))
        total, first = sum(self._counts.values()), self._first if self._first < NEVER else 0
        head = (total, schemas, len(self._counts), 0, 1, len(self._indexes), first, self._last, len(counts))
        return struct.pack("<QHIIIIQQI", *head) + counts

    def abandon(self) -> Counter[int]:
        """Leave the file as it is, after an error of the system; how many messages of each topic had not reached it."""
        with suppress(OSError):
            self._file.close()
        return Counter({number: len(entries) // 2 for number, entries in self._entries.items()})

    def _put(self, *parts: bytes) -> None:
        for part in parts:
            view = memoryview(part)
            while view:
                count = self._file.write(view)
                self._end += count
                view = view[count:]


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def mapping(values: dict[str, str]) -> bytes:
    body = b"".join(text(key) + text(value) for key, value in values.items())
    return struct.pack("<I", len(body)) + body


def record(kind: int, body: bytes) -> bytes:
    return RECORD.pack(kind, len(body)) + body


def _compressor(compress: bool) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The name in a chunk, and the function."""
    if not compress:
        return text(""), lambda data: data
    module = zstd()
    return text("zstd"), lambda data: module.compress(data, LEVEL)
