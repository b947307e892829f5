"""What launched processes print, line by line under their names, without ever making them wait.

A terminal that stands still (Ctrl-S, a full pager) must not stop a node that moves a robot: lines go through a queue
to a thread that writes, and what the queue cannot hold is counted and left out.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable

COLOURS = (36, 33, 35, 32, 34, 96, 93, 95)
OURS = "launch"
CAPACITY = 10_000
"""Lines waiting for the terminal."""


class Output:
    """Writes prefixed lines to a file descriptor; `broken` is a pipe that ends when nobody reads any more."""

    def __init__(self, fd: int, colour: bool):
        self.fd, self.colour = fd, colour
        self._queue: queue.Queue[bytes | None] = queue.Queue(CAPACITY)
        self._names: dict[str, int] = {}
        self._lost = 0
        self.broken, self._alarm = os.pipe()
        os.set_blocking(self.broken, False)
        self._thread = threading.Thread(target=self._write_all, daemon=True)

    def start(self) -> None:
        """Begin to write. Not at construction: a process is better forked before there is a thread."""
        self._thread.start()

    def say(self, message: str) -> None:
        """A line of our own; one that begins with `[name]` is about that process."""
        self.line(OURS, message.encode(errors="backslashreplace"))

    def line(self, name: str, content: bytes) -> None:
        """One line of a process; bytes that are no UTF-8 are shown as their numbers."""
        text = content.removesuffix(b"\r").decode(errors="backslashreplace").replace("\x00", "\\x00")
        self._put(f"{self._prefix(name)} {text}\n".encode())

    def close(self, hurried: Callable[[], bool]) -> None:
        """Write what is left; given up when nobody reads any more, or when the user is in a hurry."""
        if self._thread.ident is None:
            self.start()
        while self._thread.is_alive() and not hurried():
            with contextlib.suppress(queue.Full):
                self._report_loss()
                self._queue.put_nowait(None)
            self._thread.join(0.05)
        os.close(self.broken)

    def _prefix(self, name: str) -> str:
        if not self.colour:
            return f"[{name}]"
        code = 1 if name == OURS else COLOURS[self._names.setdefault(name, len(self._names)) % len(COLOURS)]
        return f"\x1b[{code}m[{name}]\x1b[0m"

    def _put(self, line: bytes) -> None:
        try:
            self._report_loss()
            self._queue.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def _report_loss(self) -> None:
        if self._lost:
            self._queue.put_nowait(f"{self._prefix(OURS)} {self._lost} lines lost: too slow a reader\n".encode())
            self._lost = 0

    def _write_all(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                self._write(line)
        except OSError:
            pass  # the terminal is gone or the pipe is closed: whoever waits for `broken` learns it
        finally:
            os.close(self._alarm)

    def _write(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(self.fd, line) :]
            except BlockingIOError:
                select.select([], [self.fd], [])
