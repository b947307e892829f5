"""The actor's end: records go to the learner, by way of a journal; weights come back.

    with ActorLink("127.0.0.1:5555", about, journal=folder, actor="left_arm") as link:
        link.wait_connected(timeout_s=10.0)  # a refusal, if there is one, before anything moves
        while True:
            newest = link.newest_weights()  # None before the first; the same object until there are newer ones
            ...
            link.send(Record(tensors, numbers))

A loss of the learner is no fault: records wait in the journal, and the last weights stay. Three things end it, each
by an error of `send` that says what to do, upon which the robot should hold: the learner refuses what the actor is
about or how it names itself; the journal cannot be written; it has grown to its limit.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from robolearn.distributed import service
from robolearn.distributed.access import Access, metadata
from robolearn.distributed.journal import Fsync, Journal, JournalError
from robolearn.distributed.outbox import Outbox
from robolearn.distributed.records import NAME, SCHEMA, About, Record, WireError, encode, wire
from robolearn.distributed.weights import Weights, unpack
from robolearn.errors import ConfigError, UserError
from robolearn.optional import lazy

grpc = lazy("grpc", extra="distributed")
log = logging.getLogger(__name__)

ABOUT = "about.json"
PAUSES_S = 0.1, 2.0
"""Before the first attempt to connect again, and at most; it doubles in between."""
FINAL = "FAILED_PRECONDITION", "UNAUTHENTICATED", "UNIMPLEMENTED", "INVALID_ARGUMENT"
"""Statuses that no repetition changes."""


class RefusedError(UserError):
    """The learner does not take this actor; the message is its reason."""


class JournalFullError(JournalError):
    """So much is not acknowledged that nothing more is taken."""


@dataclass(frozen=True)
class LinkState:
    """For display."""

    connected: bool
    refused: bool
    """For good: `send` raises."""
    problem: str
    """Why there is no connection, or the last weights were not taken; empty if all is well."""
    last: int
    """Number of the newest record."""
    unacknowledged: int
    """Records that the learner is not known to have."""
    journal_bytes: int
    weights_version: int | None
    weights_step: int | None
    weights_age_s: float | None


class ActorLink:
    """Connects in the background from construction to `close`. Methods may be called from any thread."""

    def __init__(self, address: str, about: About, journal: Path, actor: str = "actor", access: Access | None = None,
                 limit_mb: float = 2048.0, segment_mb: float = 16.0, fsync: Fsync = "batch", deadline_s: float = 10.0,
                 clock: Callable[[], float] = time.monotonic):  # fmt: skip
        """ConfigError for an address that is not guarded, WireError for a journal of another run or actor,
        JournalError for one that another process has open. The learner need not be there. With `fsync="batch"` what
        is sent is on the disk before, which `send` does not wait for. `deadline_s` is that of every answer."""
        access = access or Access()
        access.require(address, server=False)
        if not NAME.fullmatch(actor):
            raise ConfigError(f"an actor's name is {NAME.pattern}, not {actor!r}")
        self.address, self.about, self.actor = address, about, actor
        self._clock, self._metadata = clock, metadata(access.token())
        self._limit_bytes, self._warned = int(limit_mb * 1024**2), False
        self._sending, self._closing = threading.Lock(), threading.Event()
        self._refused, self._problem, self._weights_problem = "", "", ""
        self._weights: Weights | None = None
        self._journal = Journal(Path(journal), min(segment_mb, limit_mb / 4), fsync)
        try:
            self._origin = _origin(Path(journal) / ABOUT, actor, about)
            credentials = access.channel_credentials()
            options = list(service.CHANNEL_OPTIONS)
            self._channel = (grpc.secure_channel(address, credentials, options) if credentials
                             else grpc.insecure_channel(address, options))  # fmt: skip
        except BaseException:
            self._journal.close()
            raise
        self._outbox = Outbox(self._journal, deadline_s, clock)
        self._threads = [threading.Thread(target=self._repeat, args=(once,), daemon=True)
                         for once in (self._send_records, self._watch_weights)]  # fmt: skip
        for thread in self._threads:
            thread.start()

    def send(self, record: Record) -> int:
        """Number of the record, once it is in the journal; waits for nothing else. WireError for a record that is not
        what `about` says, RefusedError, JournalError or JournalFullError, and nothing is kept, when the robot should
        hold."""
        if self._refused:
            raise RefusedError(self._refused)
        with self._sending:
            number = self._journal.last + 1
            data = encode(replace(record, sequence=number), self.about)
            self._require_room(len(data))
            self._journal.append(data)
        self._outbox.wake()
        return number

    def newest_weights(self) -> Weights | None:
        """Those that came last, whole; None before the first. Waits for nothing."""
        return self._weights

    def state(self) -> LinkState:
        weights = self._weights
        return LinkState(
            self._outbox.connected,
            bool(self._refused),
            self._refused or "; ".join(filter(None, (self._problem, self._weights_problem))),
            self._journal.last,
            self._outbox.unacknowledged,
            self._journal.size_bytes,
            weights.version if weights else None,
            weights.step if weights else None,
            self._clock() - weights.received_s if weights else None,
        )

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the learner has welcomed this actor within the time. RefusedError if it will not."""
        self._outbox.wait(lambda: self._outbox.connected or bool(self._refused), timeout_s)
        if self._refused:
            raise RefusedError(self._refused)
        return self._outbox.connected

    def wait_acknowledged(self, timeout_s: float) -> bool:
        """Whether the learner has acknowledged all that was sent within the time."""
        return self._outbox.wait(lambda: self._outbox.unacknowledged == 0, timeout_s)

    def close(self) -> None:
        """What is not acknowledged stays in the journal, for the next start of this actor."""
        self._closing.set()
        self._outbox.cancel("")
        self._channel.close()
        for thread in self._threads:
            thread.join()
        self._journal.close()

    def __enter__(self) -> ActorLink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _require_room(self, more: int) -> None:
        size = self._journal.size_bytes + more
        if size > self._limit_bytes:
            limit_mb = self._limit_bytes / 1024**2
            raise JournalFullError(
                f"the journal {self._journal.folder} has reached its limit of {limit_mb:.3g} MB with "
                f"{self._outbox.unacknowledged} records that the learner at {self.address} has not acknowledged "
                f"({self.state().problem or 'it is slow'}): start the learner, or raise the limit"
            )
        if size > self._limit_bytes / 2 and not self._warned:
            log.warning("the journal %s is half full: the learner at %s does not keep up, or is not there",
                        self._journal.folder, self.address)  # fmt: skip
        self._warned = size > self._limit_bytes / 2

    # --- in the background ------------------------------------------------------------------------------------

    def _repeat(self, once: Callable[[], None]) -> None:
        """Calls again and again, with growing pauses while it does not go well, until a refusal or the end."""
        pause_s = PAUSES_S[0]
        while not self._closing.is_set() and not self._refused:
            began_s = self._clock()
            try:
                once()
            except (WireError, JournalError) as error:
                self._refuse(str(error))
            except grpc.RpcError as error:
                if error.code().name in FINAL:
                    self._refuse(f"the learner at {self.address} refuses {self.actor}: {error.details()}")
            except Exception as error:  # gRPC's for a channel that `close` has closed, or a fault of ours
                if not self._closing.is_set():
                    log.exception("the link of %s", self.actor)
                    self._refuse(f"the link of {self.actor} has failed: {error!r}")
            pause_s = PAUSES_S[0] if self._clock() - began_s > PAUSES_S[1] else min(2 * pause_s, PAUSES_S[1])
            self._closing.wait(pause_s)

    def _refuse(self, reason: str) -> None:
        if not self._closing.is_set():
            log.error("%s", reason)
            self._refused = reason
            self._outbox.wake()

    def _hello(self) -> Any:
        return wire.Hello(schema=SCHEMA, actor=self.actor, journal=self._origin, about=self.about.to_json(),
                          first=self._journal.first, last=self._journal.last)  # fmt: skip

    def _send_records(self) -> None:
        call = service.call(self._channel, "SendRecords")
        problem = "the learner has ended the connection"
        try:
            self._outbox.exchange(lambda messages: call(messages, metadata=self._metadata), self._hello(), self._well)
        except TimeoutError as error:
            problem = str(error)
        except grpc.RpcError as error:
            problem = f"{error.code().name.lower().replace('_', ' ')}: {error.details()}"
            raise
        finally:
            self._problem = problem

    def _well(self) -> None:
        self._problem = ""

    def _watch_weights(self) -> None:
        call = service.call(self._channel, "WatchWeights")
        for message in call(self._hello(), metadata=self._metadata):
            self._take(message)

    def _take(self, message: Any) -> None:
        now = self._weights
        if now is not None and (now.learner, now.version) == (message.learner, message.version):
            return  # again, after a new connection
        try:
            self._weights = unpack(message, self.about, self._clock())
            self._weights_problem = ""
        except WireError as error:
            log.warning("weights were refused, those before stay: %s", error)
            self._weights_problem = f"weights were refused: {error}"


def _origin(path: Path, actor: str, about: About) -> str:
    """What the journal is called: made with it, kept with it. WireError if it is of another run or actor."""
    if path.exists():
        try:
            said = json.loads(path.read_text())
            about.require(json.dumps(said["about"]), f"the journal {path.parent}")
            if said["actor"] != actor:
                raise WireError(f"the journal {path.parent} is that of {said['actor']}, not of {actor}")
            return said["journal"]
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, WireError):
                raise
            raise WireError(f"{path} cannot be read ({error!r}); move {path.parent} away to begin anew") from None
    origin, part = uuid.uuid4().hex, path.with_suffix(".part")
    part.write_text(json.dumps({"journal": origin, "actor": actor, "about": json.loads(about.to_json())}, indent=1))
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    return origin
