"""What an actor has journalled and the learner has not acknowledged, and the connections that send it."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from robolearn.distributed.journal import Cursor, Journal, JournalError
from robolearn.distributed.records import WireError, wire

LOOK_S = 0.25
"""How often a connection's deadline is looked at."""


class Outbox:
    """Which records of a journal the learner is known to have, over one connection after the other."""

    def __init__(self, journal: Journal, deadline_s: float, clock: Callable[[], float]):
        self._journal, self._deadline_s, self._clock = journal, deadline_s, clock
        self._changed = threading.Condition()
        self._connection: _Connection | None = None
        self._acknowledged = journal.first - 1

    @property
    def connected(self) -> bool:
        connection = self._connection
        return connection is not None and connection.welcomed

    @property
    def unacknowledged(self) -> int:
        return self._journal.last - self._acknowledged

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, until: Callable[[], bool], timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(until, timeout_s)

    def cancel(self, reason: str) -> None:
        """End the connection, if there is one."""
        connection = self._connection
        if connection is not None:
            connection.cancel(reason)

    def exchange(self, start: Callable[[Iterator[Any]], Any], hello: Any, well: Callable[[], None]) -> None:
        """One connection, until it ends: `start` takes the messages to the learner and returns gRPC's call; `well` is
        told of the welcome. Raises gRPC's RpcError, TimeoutError when an answer is late, JournalError, and WireError
        for answers that cannot be true."""
        connection = _Connection(self._journal, self._changed, self._clock)
        self._connection = connection
        guard = threading.Thread(target=self._watch, args=(connection,), daemon=True)
        try:
            connection.call = start(connection.messages(hello))
            guard.start()
            for answer in connection.call:
                if answer.HasField("welcome"):
                    connection.require_same(answer.welcome)
                    self._acknowledge(answer.welcome.last)
                    connection.go_on(answer.welcome.last)
                    well()
                else:
                    self._acknowledge(answer.acknowledged)
                    connection.answered(answer.acknowledged)
        finally:
            self._connection = None
            connection.end()
            if guard.ident is not None:
                guard.join()
            if connection.fault is not None:
                raise connection.fault

    def _acknowledge(self, until: int) -> None:
        if until > self._journal.last:
            raise WireError(f"the learner acknowledges record {until}; the last one is {self._journal.last}")
        with self._changed:
            self._acknowledged = max(self._acknowledged, until)
            self._changed.notify_all()
        self._journal.drop(self._acknowledged)

    def _watch(self, connection: _Connection) -> None:
        while not connection.ended.wait(LOOK_S):
            if connection.awaited_s() > self._deadline_s:
                connection.cancel(f"the learner has not answered for {self._deadline_s:g} s")


class _Connection:
    """gRPC takes the messages in a thread of its own; the answers come in another."""

    def __init__(self, journal: Journal, changed: threading.Condition, clock: Callable[[], float]):
        self._journal, self._changed, self._clock = journal, changed, clock
        self._answered_s = clock()
        self.call: Any = None
        self.welcomed, self.sent, self.acknowledged = False, 0, 0
        self.ended = threading.Event()
        self.fault: Exception | None = None

    def require_same(self, welcome: Any) -> None:
        """WireError if the learner holds another record by the number of the last one that it has."""
        if not welcome.checksum or not self._journal.first <= welcome.last <= self._journal.last:
            return
        found = Cursor(self._journal, welcome.last - 1).read()
        if found is None or zlib.crc32(found[1]) != welcome.checksum:
            raise WireError(
                f"the learner holds another record {welcome.last} than {self._journal.folder}, which has lost its end: "
                "let the actor begin a new journal under another name"
            )

    def go_on(self, after: int) -> None:
        """Send what follows."""
        self.sent = after
        self.answered(after)
        with self._changed:
            self.welcomed = True
            self._changed.notify_all()

    def answered(self, acknowledged: int) -> None:
        self.acknowledged, self._answered_s = acknowledged, self._clock()

    def awaited_s(self) -> float:
        """How long an answer has been outstanding; 0 if none is."""
        outstanding = not self.welcomed or self.sent > self.acknowledged
        return self._clock() - self._answered_s if outstanding else 0.0

    def messages(self, hello: Any) -> Iterator[Any]:
        yield wire.FromActor(hello=hello)
        with self._changed:
            self._changed.wait_for(lambda: self.welcomed or self.ended.is_set())
        if not self.welcomed:
            return
        try:
            yield from self._records()
        except JournalError as error:
            self.fault = error
            self.cancel("")

    def _records(self) -> Iterator[Any]:
        cursor = Cursor(self._journal, self.sent)
        while not self.ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._journal.last > self.sent or self.ended.is_set())
            last = self._journal.last
            self._journal.sync()  # what the learner knows, this journal must never lose
            while self.sent < last and not self.ended.is_set():
                found = cursor.read()
                if found is None:
                    break
                if self.sent == self.acknowledged:  # the time of an answer begins
                    self._answered_s = self._clock()
                self.sent = found[0]
                yield wire.FromActor(record=found[1])

    def cancel(self, reason: str) -> None:
        if reason and self.fault is None:
            self.fault = TimeoutError(reason)
        if self.call is not None:
            self.call.cancel()
        self.end()

    def end(self) -> None:
        self.ended.set()
        with self._changed:
            self._changed.notify_all()
