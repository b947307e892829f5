"""Numbered payloads in append-only files that survive a kill at any byte.

    FOLDER/00000000000000000001.journal     a segment, named by the number of its first frame
    FOLDER/lock                             held by the process that writes; goes with it

A segment is MAGIC and then frames (`frames`). Numbers have no holes. Only the last segment can have a torn end; opening
cuts it, and says what was lost. The last segment is never dropped, so the next number is known however much was.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Literal

from robolearn.distributed.frames import HEADER, MAGIC, TornFrameError, frame, read_frame
from robolearn.errors import UserError

log = logging.getLogger(__name__)

SUFFIX = ".journal"
Fsync = Literal["record", "batch", "never"]
"""When what was appended is on the disk itself, so that a loss of power cannot take it: before `append` returns, before
`sync` returns, or whenever the operating system likes. A kill of the process takes nothing with any of them."""


class JournalError(UserError):
    """A journal cannot be written or read; the message names the file and the remedy."""


class Journal:
    """The writer. Any thread may append, and any other read what was appended by a `Cursor`."""

    def __init__(self, folder: Path, segment_mb: float = 16.0, fsync: Fsync = "record"):
        """Open or begin. JournalError if another process has it open or a segment is not ours."""
        self.folder, self.fsync = Path(folder), fsync
        self.segment_bytes = int(segment_mb * 1024**2)
        self.lost_bytes = 0
        """Cut off at opening."""
        self._guard, self._syncing = threading.Lock(), threading.Lock()
        self._unsynced: list[int] = []
        self._file, self._lock = -1, lock(self.folder)
        try:
            paths = sorted(self.folder.glob("*" + SUFFIX))
            self._sizes = {int(p.stem): p.stat().st_size for p in paths}
            self._last = (max(self._sizes) if self._sizes else 1) - 1
            self._open_last()
        except (JournalError, OSError, ValueError) as error:
            for descriptor in (d for d in (self._lock, self._file) if d >= 0):
                os.close(descriptor)
            if isinstance(error, JournalError):
                raise
            raise JournalError(f"{self.folder} cannot be opened as a journal: {error}") from error

    @property
    def first(self) -> int:
        """Number of the oldest frame that is still there; last + 1 if there is none."""
        with self._guard:
            return min(self._sizes)

    @property
    def last(self) -> int:
        """Number of the newest frame, 0 before the first."""
        return self._last

    @property
    def size_bytes(self) -> int:
        with self._guard:
            return sum(self._sizes.values())

    def append(self, payload: bytes) -> int:
        """Its number. JournalError if the disk does not take it: the journal is as before, or, where it could be
        written but not brought to the disk itself, has it none the less."""
        with self._guard:
            if self._file < 0:
                raise JournalError(f"the journal {self.folder} is closed")
            if self._sizes[max(self._sizes)] >= self.segment_bytes:
                self._rotate()
            number, start = self._last + 1, max(self._sizes)
            self._write(frame(number, payload), start)
            self._last = number
        if self.fsync == "record":
            self._flush()
        return number

    def sync(self) -> None:
        """Return when all that was appended before is on the disk, unless the policy is `never`."""
        if self.fsync == "batch":
            self._flush()

    def drop(self, until: int) -> None:
        """Remove the segments that hold nothing past `until`, the oldest first; never the last one."""
        with self._guard:
            starts = sorted(self._sizes)
            old = [a for a, b in pairwise(starts) if b - 1 <= until]
            for start in old:
                del self._sizes[start]
        for start in old:
            self._path(start).unlink(missing_ok=True)

    def close(self) -> None:
        with self._guard:
            if self._file < 0:
                return
            descriptor, self._file = self._file, -1
            self._unsynced.append(descriptor)
        if self.fsync == "never":
            self._close_unsynced()
        else:
            self._flush()
        os.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def segment_of(self, number: int) -> tuple[int, Path]:
        """First number and file of the segment that holds `number`; JournalError if it was dropped."""
        with self._guard:
            starts = sorted(self._sizes)
        at = bisect_right(starts, number) - 1
        if at < 0:
            raise JournalError(f"{self.folder}: record {number} was dropped; the oldest is {starts[0]}")
        return starts[at], self._path(starts[at])

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:020d}{SUFFIX}"

    def _open_last(self) -> None:
        start = max(self._sizes, default=1)
        path = self._path(start)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._file).st_size
        head = os.pread(self._file, len(MAGIC), 0)
        if not MAGIC.startswith(head):
            raise JournalError(f"{path} is not a journal of this version; move {self.folder} away to begin a new one")
        if len(head) < len(MAGIC):  # new, or killed while it was begun
            os.ftruncate(self._file, 0)
            os.write(self._file, MAGIC)
            _fsync_folder(self.folder)
            self._sizes[start] = len(MAGIC)
            return
        end, reason = self._scan()
        if end < size:
            os.ftruncate(self._file, end)
            self.lost_bytes = size - end
            log.warning("%s: the last %d bytes, after record %d, were cut off: %s",
                        path, self.lost_bytes, self._last, reason)  # fmt: skip
        self._sizes[start] = end

    def _scan(self) -> tuple[int, str]:
        """Where the whole frames of the open segment end, and what is wrong with what follows."""
        offset = len(MAGIC)
        while True:
            try:
                found = read_frame(self._file, offset)
            except TornFrameError as error:
                return offset, str(error)
            if found is None:
                return offset, ""
            if found[0] != self._last + 1:
                return offset, f"record {found[0]} where {self._last + 1} belongs"
            self._last = found[0]
            offset += HEADER.size + len(found[1])

    def _rotate(self) -> None:
        start = self._last + 1
        path = self._path(start)
        try:
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
            os.write(opened, MAGIC)
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error}") from error
        self._unsynced.append(self._file)
        self._file, self._sizes[start] = opened, len(MAGIC)

    def _write(self, data: bytes, start: int) -> None:
        """One call, unbuffered: after it a kill of the process takes nothing."""
        before = self._sizes[start]
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(f"{written} of {len(data)} bytes were written; is the disk full?")
        except OSError as error:
            os.ftruncate(self._file, before)
            raise JournalError(f"{self._path(start)} cannot be written: {error}") from error
        self._sizes[start] = before + len(data)

    def _flush(self) -> None:
        """Outside the guard: a slow disk delays who waits for it, and no one who appends."""
        with self._syncing:
            with self._guard:
                rotated, self._unsynced = self._unsynced, []
                current = os.dup(self._file) if self._file >= 0 else -1
            try:
                for descriptor in (d for d in (*rotated, current) if d >= 0):
                    os.fsync(descriptor)
                    os.close(descriptor)
                if rotated:
                    _fsync_folder(self.folder)
            except OSError as error:
                raise JournalError(f"{self.folder} cannot be brought to the disk: {error}") from error

    def _close_unsynced(self) -> None:
        for descriptor in self._unsynced:
            os.close(descriptor)
        self._unsynced = []


class Cursor:
    """Reads on from a number, in order; of one thread at a time."""

    _file = -1

    def __init__(self, journal: Journal, after: int):
        """JournalError if `after` is past the journal's end, or what follows it was dropped."""
        if not journal.first - 1 <= after <= journal.last:
            raise JournalError(
                f"{journal.folder} holds the records {journal.first} to {journal.last}, so nothing can be read from "
                f"{after + 1} on: it was replaced, or lost its end; take the checkpoint and the journal of one run"
            )
        self._journal, self._next = journal, after + 1
        self._offset, self._path = 0, journal.folder

    def read(self) -> tuple[int, bytes] | None:
        """The next frame; None while there is none. JournalError, naming the file, if it is corrupt."""
        if self._next > self._journal.last:
            return None
        if self._file < 0:
            self._seek()
        found = self._frame()
        if found is None:  # the segment's end
            self._seek()
            found = self._frame()
        if found is None or found[0] != self._next:
            there = "nothing" if found is None else f"record {found[0]}"
            raise JournalError(f"{self._path}: {there} where record {self._next} belongs; restore the file, or move "
                               "the journal away")  # fmt: skip
        self._next += 1
        return found

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()

    def _frame(self) -> tuple[int, bytes] | None:
        try:
            found = read_frame(self._file, self._offset)
        except TornFrameError as error:
            raise JournalError(f"{self._path}: {error} at byte {self._offset}, before record {self._journal.last}; "
                               "restore the file, or move the journal away") from None  # fmt: skip
        self._offset += 0 if found is None else HEADER.size + len(found[1])
        return found

    def _seek(self) -> None:
        """To the frame `_next`, by the headers of those before it."""
        self.close()
        number, self._path = self._journal.segment_of(self._next)
        self._file, self._offset = os.open(self._path, os.O_RDONLY), len(MAGIC)
        while number < self._next:
            header = os.pread(self._file, HEADER.size, self._offset)
            if len(header) < HEADER.size:
                return  # `read` finds that nothing is here, and says so
            self._offset += HEADER.size + HEADER.unpack(header)[0]
            number += 1


def lock(folder: Path) -> int:
    """A descriptor that holds the folder, which is made if it is missing, for this process; JournalError if another
    process does. Killed processes let go."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise JournalError(f"another process has {folder} open; end it, or give another folder") from None
    return descriptor


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
