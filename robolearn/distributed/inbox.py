"""What the learner holds of one actor: a journal, and the rules by which a record enters it."""

from __future__ import annotations

import threading
import zlib
from pathlib import Path
from typing import Any

from robolearn.distributed.journal import Cursor, Fsync, Journal
from robolearn.distributed.records import About, WireError, decode

ORIGIN = "origin"


class GapError(Exception):
    """A record came that does not follow the last one; the message names the wanted number."""


class ReplacedError(Exception):
    """The actor has connected anew, so what still arrives by the old connection is not heard."""


class Inbox:
    """Thread safe. Each connection of the actor takes a turn, and only the newest turn may store."""

    def __init__(self, folder: Path, about: About, segment_mb: float, fsync: Fsync):
        self.name, self.about = folder.name, about
        self.journal = Journal(folder, segment_mb, fsync)
        self.problem = ""
        self._guard = threading.Lock()
        self._turn, self._connected = 0, False
        self._origin = folder / ORIGIN

    @property
    def connected(self) -> bool:
        return self._connected

    def greet(self, hello: Any) -> tuple[int, int, int]:
        """Turn, number of the last record held, and its checksum. WireError if the actor's journal cannot go on where
        this one ends."""
        with self._guard:
            self._require_same_origin(hello.journal)
            last = self.journal.last
            if hello.last < last:
                raise WireError(
                    f"{self.name}'s journal ends at record {hello.last}, but {last} are held here: it lost its end; "
                    "let the actor begin a new journal under another name"
                )
            if hello.first > last + 1:
                raise WireError(
                    f"record {last + 1} of {self.name} is wanted, but its journal begins at {hello.first}: what this "
                    "learner had acknowledged is gone; restore its journals, or begin a new run"
                )
            self._turn, self._connected, self.problem = self._turn + 1, True, ""
            return self._turn, last, _last_checksum(self.journal)

    def store(self, turn: int, data: bytes) -> int:
        """Number up to which all is in the journal. A record that is there already is not stored again."""
        with self._guard:
            if turn != self._turn:
                raise ReplacedError(f"{self.name} has another connection, which is newer")
            record = decode(data, self.about, self.name)
            last = self.journal.last
            if record.sequence > last + 1:
                raise GapError(f"record {last + 1} of {self.name} is wanted, {record.sequence} came")
            if record.sequence == last + 1:
                self.journal.append(data)
            return self.journal.last

    def leave(self, turn: int, problem: str) -> None:
        with self._guard:
            if turn == self._turn:
                self._connected, self.problem = False, problem

    def _require_same_origin(self, journal: str) -> None:
        known = self._origin.read_text() if self._origin.exists() else ""
        if not known and self.journal.last == 0:
            part = self._origin.with_suffix(".part")
            part.write_text(journal)
            part.replace(self._origin)
        elif known != journal:
            raise WireError(
                f"the {self.journal.last} records of {self.name} that are held here came from the journal {known}, "
                f"not {journal}: give the actor its old journal, or another name"
            )


def _last_checksum(journal: Journal) -> int:
    """0 if there is no record, or it was dropped."""
    if journal.first > journal.last:
        return 0
    found = Cursor(journal, journal.last - 1).read()
    return zlib.crc32(found[1]) if found else 0
