"""SQLite files of bags, with what their write-ahead log still holds after a kill."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from real.recording.read_mcap import offers_of
from real.recording.topic import Message, Topic, UnbegunError
from robolearn.errors import ConfigError

EVERY = 1000
"""Messages between two words of progress."""


class SqliteReader:
    def __init__(self, path: Path):
        self.path, self.trouble = path, list[str]()
        self.topics: dict[str, Topic] = {}
        self._names: dict[int, str] = {}
        self._log = path.with_name(f"{path.name}-wal")
        with path.open("rb") as file:
            if file.read(16) not in (b"SQLite format 3\0", b""):
                raise ConfigError(f"{path} is no SQLite file: it does not begin like one")
        self.complete = False
        try:
            self._db = self._opened("mode=ro")
        except sqlite3.OperationalError:  # a log that cannot be read, where nothing may be written
            self.trouble.append("its write-ahead log could not be read: copy the bag to where you may write")
            try:
                self._db = self._opened("immutable=1")
            except sqlite3.OperationalError as error:
                raise ConfigError(f"{path} cannot be read: {_line(error)}") from None

    def _opened(self, how: str) -> sqlite3.Connection:
        """Raises OperationalError, and ConfigError for what is no bag."""
        db = sqlite3.connect(f"file:{self.path.absolute().as_posix()}?{how}", uri=True, check_same_thread=False)
        db.text_factory = lambda data: data.decode(errors="replace")
        try:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                raise UnbegunError(f"{self.path} is no bag yet: it has no tables")
            if not {"topics", "messages"} <= tables:
                raise ConfigError(f"{self.path} is no bag: it has no tables of topics and messages")
            self._learn(db, "message_definitions" in tables)
            self.complete = self._ended(db, "metadata" in tables)
        except (sqlite3.OperationalError, ConfigError):
            raise
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.path} cannot be read: {_line(error)}") from None
        return db

    def _learn(self, db: sqlite3.Connection, defines: bool) -> None:
        columns = {row[1] for row in db.execute("PRAGMA table_info(topics)")}
        defined: dict[str, tuple[str, str]] = {}
        if defines:
            rows = db.execute("SELECT topic_type, encoding, encoded_message_definition FROM message_definitions")
            defined = {name: (str(definition), str(encoding)) for name, encoding, definition in rows}
        extra = [c if c in columns else "''" for c in ("offered_qos_profiles", "type_description_hash")]
        for number, name, kind, offers, digest in db.execute(f"SELECT id, name, type, {', '.join(extra)} FROM topics"):
            self._names[number] = str(name)
            definition = defined.get(kind, ("", "ros2msg"))
            self.topics[str(name)] = Topic(str(name), str(kind), str(digest), *definition, offers_of(str(offers)))

    def _ended(self, db: sqlite3.Connection, described: bool) -> bool:
        """The metadata are written last; bags from before there were any are believed."""
        if not described:
            return not self._log.exists()
        return bool(db.execute("SELECT count(*) FROM metadata").fetchone()[0])

    # --- messages ---

    def messages(self, topics: Collection[str], progress: Callable[[int], object]) -> Iterator[Message]:
        for name, log_ns, data in self._rows("data", topics, progress):
            yield Message(name, log_ns, log_ns, data)

    def headers(self, progress: Callable[[int], object]) -> Iterator[tuple[str, int, int, int]]:
        for name, log_ns, size in self._rows("length(data)", self.topics, progress):
            yield name, log_ns, log_ns, size

    def _rows(self, what: str, topics: Collection[str], progress: Callable[[int], object]) -> Iterator[tuple]:
        """(topic, log ns, `what`) in the order of reception."""
        numbers = [number for number, name in self._names.items() if name in topics]
        size, done = self.path.stat().st_size, 0
        try:
            (total,) = self._db.execute("SELECT count(*) FROM messages").fetchone()
            marks = ", ".join("?" * len(numbers))
            query = (
                f"SELECT topic_id, timestamp, {what} FROM messages WHERE topic_id IN ({marks}) "
                "AND typeof(data) = 'blob' AND typeof(timestamp) = 'integer' ORDER BY timestamp"
            )
            for number, log_ns, value in self._db.execute(query, numbers):
                done += 1
                if done % EVERY == 0:
                    progress(size * done // max(1, total))
                yield self._names[number], log_ns, value
        except sqlite3.DatabaseError as error:
            self.trouble.append(f"cannot be read beyond message {done}: {_line(error)}")
        progress(size)

    def close(self) -> None:
        self._db.close()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
