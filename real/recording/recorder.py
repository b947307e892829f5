"""A thread of its own that writes a bag: who receives messages never waits for the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from real.recording.bag import DISK_ERRORS, MB, Bag
from real.recording.topic import Message, Topic
from robolearn.errors import UserError

log = logging.getLogger(__name__)
PAUSE_S = 0.02
"""Between two looks at the queue: whole batches, rather than a wake-up for each message."""
FLUSH_S = 0.25
METADATA_S = 2.0
Order = Message | Topic | Callable[[], None]


class Recorder:
    """`put`, `add_topic` and `split` from one thread; the rest from any."""

    def __init__(self, bag: Bag, queue_mb: float = 256.0):
        """`queue_mb`: of messages that wait for the disk, beyond which new ones are dropped, and counted."""
        self.bag, self.error = bag, ""
        """Why it ended by itself."""
        self.written = 0
        """Messages."""
        self._refused, self._unwritten = Counter[str](), Counter[str]()  # each is changed by one thread only
        self._queue: deque[Order] = deque()
        self._room = queue_mb * MB
        self._came, self._done = 0, 0  # bytes; each is changed by one thread only
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bag", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> Counter[str]:
        """Messages that came and could not be written, by topic."""
        return self._refused.copy() + self._unwritten.copy()  # of one step each: the other thread may add a topic

    @property
    def waiting_bytes(self) -> int:
        return self._came - self._done

    def put(self, message: Message) -> None:
        """Its topic must have been added."""
        size = len(message.data)
        if self.error or self._came - self._done + size > self._room:
            self._refused[message.topic] += 1
            return
        self._came += size
        self._queue.append(message)

    def add_topic(self, topic: Topic) -> None:
        self._queue.append(topic)

    def split(self) -> None:
        self._queue.append(self.bag.split)

    def close(self) -> None:
        """Write what waits, and end the bag. A second time does nothing."""
        self._closing.set()
        self._thread.join()

    # --- the thread ---

    def _run(self) -> None:
        try:
            self._write_until_closed()
            self.bag.close(self.lost)
        except UserError as error:  # it is full, and whole
            self._end(error)
            self._close_whole()
        except Exception as error:  # the disk's or ours: what has been flushed stays
            log.error("the bag %s is left as it is", self.bag.path, exc_info=not isinstance(error, DISK_ERRORS))
            self._end(error)
            self._unwritten.update(self.bag.abandon())

    def _end(self, error: Exception) -> None:
        self.error = str(error) or type(error).__name__
        while self._queue:
            order = self._queue.popleft()
            if isinstance(order, Message):
                self._unwritten[order.topic] += 1

    def _close_whole(self) -> None:
        try:
            self.bag.close(self.lost)
        except DISK_ERRORS as error:
            log.error("the bag %s could not be ended: %s", self.bag.path, error)
            self._unwritten.update(self.bag.abandon())

    def _write_until_closed(self) -> None:
        flushed = described = time.monotonic()
        while True:
            closing = self._closing.wait(PAUSE_S)
            self._drain()
            now = time.monotonic()
            if closing and not self._queue:
                return
            if now - flushed >= FLUSH_S:
                flushed = now
                self.bag.flush()
            if now - described >= METADATA_S:
                described = now
                self.bag.note_lost(self.lost)
                self.bag.write_metadata()

    def _drain(self) -> None:
        """What waits now, but not longer than until the next flush is due."""
        end = time.monotonic() + FLUSH_S
        while self._queue and time.monotonic() < end:
            order = self._queue.popleft()
            if isinstance(order, Message):
                self._write(order)
            elif isinstance(order, Topic):
                self.bag.add_topic(order)
            else:
                order()

    def _write(self, message: Message) -> None:
        try:
            self.bag.write(*message)
            self.written += 1
        except Exception:
            self._unwritten[message.topic] += 1
            raise
        finally:
            self._done += len(message.data)
