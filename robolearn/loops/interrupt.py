"""How a training is stopped by hand without losing anything."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


class Interrupt:
    """The first Ctrl-C or SIGTERM sets `wanted`, the second raises KeyboardInterrupt at once."""

    def __init__(self, finishing: str):
        """`finishing` is what the loop still does after the first: `this iteration`."""
        self.finishing, self.wanted = finishing, False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Takes the signals meanwhile; only in the main thread, where they arrive."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        log.info("finishing %s; once more to stop at once", self.finishing)
