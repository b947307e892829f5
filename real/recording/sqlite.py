"""SQLite files as rosbag2_storage_sqlite3 makes them (schema 4), with its resilient settings: a write-ahead log, so
that what was committed stays whatever becomes of the process."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import suppress
from pathlib import Path

from real.recording.topic import Topic

# A checkpoint of the log waits for the disk: after 64 MB, not after 4 as by default.
SCHEMA = """
PRAGMA page_size = 4096;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 16384;
BEGIN;
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
  serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
  encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
  data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema VALUES (4, '');
COMMIT;
"""
ROW_BYTES = 40
"""What a message takes beside its data, about."""
PAGE_BYTES = 4096
"""Larger data fill pages of their own."""
PENDING_BYTES = 4 << 20
VERSION = 9


class SqliteFile:
    """One file of a bag. `size` is what it takes, about, with all that waits to be flushed."""

    SUFFIX = ".db3"

    def __init__(self, path: Path, compress: bool = False):
        """Raises FileExistsError; `compress` is for MCAP only."""
        path.open("xb").close()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(SCHEMA)
        self._types: set[str] = set()
        self._pending: list[tuple[int, int, bytes | memoryview]] = []
        self._waiting, self.size = 0, 15 * PAGE_BYTES

    def add_topic(self, number: int, topic: Topic) -> None:
        self._db.execute(
            "INSERT INTO topics VALUES (?, ?, ?, 'cdr', ?, ?)",
            (number, topic.name, topic.type, topic.offers_text, topic.hash),
        )
        if topic.type not in self._types:
            self._types.add(topic.type)
            self._db.execute(
                "INSERT INTO message_definitions VALUES (NULL, ?, ?, ?, ?)",
                (topic.type, topic.encoding, topic.definition, topic.hash),
            )

    def write(self, number: int, log_ns: int, publish_ns: int, data: bytes | memoryview) -> None:
        """Such a file has no place for the time of publishing. Raises sqlite3.Error, and does not take the message, if
        those before it cannot be flushed."""
        if self._waiting >= PENDING_BYTES:
            self.flush()
        self._pending.append((number, log_ns, data))
        self._waiting += len(data)
        pages = -(-len(data) // PAGE_BYTES)
        self.size += ROW_BYTES + (len(data) if pages == 1 else pages * PAGE_BYTES)

    def flush(self) -> None:
        """Commit what waits: a kill of the process does not lose it any more."""
        if not self._pending:
            return
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO messages VALUES (NULL, ?, ?, ?)", self._pending)
        self._db.execute("COMMIT")
        self._pending, self._waiting = [], 0

    def close(self, metadata: str) -> None:
        """With rosbag2's YAML of the bag; one file is left, which can be read where nothing can be written."""
        self.flush()
        self._db.execute("INSERT INTO metadata VALUES (NULL, ?, ?)", (VERSION, metadata))
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def abandon(self) -> Counter[int]:
        """Leave what was committed, after an error of the system; how many messages of each topic were not."""
        with suppress(sqlite3.Error):
            self._db.close()
        return Counter(number for number, *_ in self._pending)
