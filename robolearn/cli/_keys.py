"""Single keys in a terminal, held or pressed, and a picture beside them."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, Any

import numpy as np

from robolearn.errors import ConfigError, UserError

SPACE = " "
COLUMNS = 56
"""Of a shown picture, at most."""


class Keys:
    """What is typed, key by key, without a line's end; Ctrl-C still interrupts."""

    def __init__(self, file: IO[Any] | None = None):
        """ConfigError if the input is no terminal."""
        file = sys.stdin if file is None else file
        if not file.isatty():
            raise ConfigError("keys are read from a terminal, and the input is none")
        self._number = file.fileno()
        self._before = termios.tcgetattr(self._number)
        tty.setcbreak(self._number, termios.TCSADRAIN)
        self._ahead = ""

    def typed(self, wait_s: float | None = 0.0) -> str:
        """All that was typed since, after `wait_s` at most (None: for ever) for the first key. UserError when the
        terminal is gone."""
        if not select.select([self._number], [], [], wait_s)[0]:
            return ""
        try:
            found = os.read(self._number, 1024)
        except OSError:  # of a terminal whose other end was closed
            found = b""
        if not found:
            raise UserError("the terminal is gone: nobody can be asked")
        return found.decode(errors="replace")

    def one_of(self, keys: Sequence[str]) -> str:
        """Waits for one of these; other keys are forgotten, what is typed ahead is not."""
        while True:
            for at, key in enumerate(self._ahead):
                if key in keys:
                    self._ahead = self._ahead[at + 1 :]
                    return key
            self._ahead = self.typed(None)

    def close(self) -> None:
        """The terminal is as it was."""
        termios.tcsetattr(self._number, termios.TCSADRAIN, self._before)

    def __enter__(self) -> Keys:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()


class HeldKey:
    """Whether a key is down. A terminal reports no release: a held key repeats, so it is up when it has been silent
    for `hold_s`, which must be longer than the wait before the first repetition (often 0.5 s)."""

    def __init__(self, keys: Keys, key: str, hold_s: float, now: Callable[[], float] = time.monotonic):
        self._keys, self.key, self.hold_s, self._now = keys, key, hold_s, now
        self._last = -float("inf")

    def held(self) -> bool:
        if self.key in self._keys.typed():
            self._last = self._now()
        return self._now() - self._last < self.hold_s


class Screen:
    """Real time: shows what is seen now, waits for the step's end, and says whether the space bar is held."""

    def __init__(self, hold_s: float, file: IO[Any] | None = None, out: IO[str] | None = None):
        self._keys, self._out = Keys(file), sys.stderr if out is None else out
        self._key, self._due = HeldKey(self._keys, SPACE, hold_s), time.monotonic()
        self._out.write("\x1b[2J")

    def show(self, picture: np.ndarray | None, step_s: float) -> bool:
        """picture: (H, W, 3) uint8."""
        self._due = max(self._due + step_s, time.monotonic())
        said = "SUCCESS" if self._key.held() else "hold the space bar while the task is done"
        self._out.write(f"\x1b[H{'' if picture is None else blocks(picture)}\x1b[2K{said}\n")
        self._out.flush()
        time.sleep(max(0.0, self._due - time.monotonic()))
        return self._key.held()

    def close(self) -> None:
        self._keys.close()


def blocks(picture: np.ndarray, columns: int = COLUMNS) -> str:
    """(H, W, 3) uint8 as lines of coloured half blocks, two rows of pixels a line."""
    step = max(1, -(-picture.shape[1] // columns))
    small = picture[::step, ::step]
    lines = []
    for upper, lower in zip(small[0:-1:2], small[1::2], strict=False):
        cells = (f"\x1b[38;2;{a[0]};{a[1]};{a[2]}m\x1b[48;2;{b[0]};{b[1]};{b[2]}m\u2580" for a, b in
                 zip(upper, lower, strict=True))  # fmt: skip
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)
