"""The learner's end: records of all actors come in, are journalled and acknowledged; weights go out.

    with LearnerServer("127.0.0.1:5555", about, journal=run / "records") as server:
        for record in server.read(positions, timeout_s=0.1):
            replay.add(record)
            positions[record.actor] = record.sequence  # belongs in the checkpoint
        server.publish(version, policy.state_dict(), step)

Folder: about.json, and of each actor actors/NAME with its segments.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from robolearn.distributed import journal as journals
from robolearn.distributed.access import Access, admitted
from robolearn.distributed.inbox import GapError, Inbox, ReplacedError
from robolearn.distributed.journal import Cursor, Fsync, JournalError
from robolearn.distributed.records import NAME, SCHEMA, About, Record, WireError, decode, wire
from robolearn.distributed.service import SERVER_OPTIONS, handlers
from robolearn.distributed.weights import pack
from robolearn.errors import ConfigError
from robolearn.optional import lazy

grpc = lazy("grpc", extra="distributed")
log = logging.getLogger(__name__)

ABOUT, ACTORS = "about.json", "actors"
DETAILS = 2000
"""Characters of a refusal: gRPC sends it in a header, whose length is limited."""


@dataclass(frozen=True)
class ActorState:
    """For display."""

    connected: bool
    last: int
    """Records that are journalled."""
    problem: str
    """Why the actor's last connection was ended from this side; empty if it was not."""


class LearnerServer:
    """Serves from construction to `close`. Methods may be called from any thread."""

    def __init__(self, address: str, about: About, journal: Path, access: Access | None = None, actors: int = 16,
                 segment_mb: float = 64.0, fsync: Fsync = "record"):  # fmt: skip
        """ConfigError for an address that is not guarded or not free; WireError for a journal of another run;
        JournalError for one that another learner has open. Port 0 takes a free one: see `address`."""
        access = access or Access()
        access.require(address, server=True)
        self.about, self.folder = about, Path(journal)
        self.learner = uuid.uuid4().hex
        self._token = access.token()
        self._segment_mb, self._fsync = segment_mb, fsync
        self._changed = threading.Condition()
        self._arrived, self._published, self._closing = 0, 0, False
        self._weights: Any = None
        self._inboxes: dict[str, Inbox] = {}
        self._lock = journals.lock(self.folder)
        try:
            _require_same_run(self.folder / ABOUT, about)
            for folder in sorted((self.folder / ACTORS).glob("*")):
                self._inbox(folder.name)
            self._server = grpc.server(ThreadPoolExecutor(2 * actors + 2, "actor"), [], None, SERVER_OPTIONS,
                                       maximum_concurrent_rpcs=2 * actors + 2)  # fmt: skip
            methods = {"SendRecords": self._send_records, "WatchWeights": self._watch_weights}
            self._server.add_generic_rpc_handlers((handlers(methods),))
            self.address = _bind(self._server, address, access)
            self._server.start()
        except BaseException:
            self._release()
            raise

    def read(self, positions: Mapping[str, int] | None = None, timeout_s: float = 0.0) -> Iterator[Record]:
        """Journalled records past `positions` (of each actor the sequence number of the last one that was read): of
        each actor in order and without holes, the actors in turn. Ends when none has come for `timeout_s`.

        JournalError if a journal does not reach as far as its position, or is corrupt."""
        after, cursors = dict(positions or {}), dict[str, Cursor]()
        for name in after:
            if after[name] and name not in self._inboxes:
                raise JournalError(f"{self.folder} holds nothing of {name}, of which {after[name]} records were read: "
                                   "take the checkpoint and the journal of one run")  # fmt: skip
        while True:
            with self._changed:
                arrived, inboxes = self._arrived, dict(self._inboxes)
            read = False
            for name, inbox in inboxes.items():
                if name not in cursors:
                    cursors[name] = Cursor(inbox.journal, after.get(name, 0))
                found = cursors[name].read()
                if found is not None:
                    read = True
                    yield decode(found[1], self.about, name)
            if not read and not self._wait_for_arrival(arrived, timeout_s):
                return

    def publish(self, version: int, tensors: Mapping[str, Any], step: int) -> None:
        """Send to every actor, now and when it connects. WireError, and nothing is sent, for weights that are not
        finite or not what `about` states, or a version that is not above the one before."""
        if self._weights is not None and version <= self._weights.version:
            raise WireError(f"weights {version} do not follow {self._weights.version}: versions go up")
        message = pack(tensors, version, step, self.learner, self.about)
        with self._changed:
            self._weights, self._published = message, self._published + 1
            self._changed.notify_all()

    def actors(self) -> dict[str, ActorState]:
        with self._changed:
            inboxes = dict(self._inboxes)
        return {k: ActorState(i.connected, i.journal.last, i.problem) for k, i in inboxes.items()}

    def forget(self, positions: Mapping[str, int]) -> None:
        """Remove what lies, segment by segment, wholly before the positions of a checkpoint."""
        for name, position in positions.items():
            self._inboxes[name].journal.drop(position)

    def close(self) -> None:
        """Connections end; what was acknowledged is in the journals. Once more does nothing."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._server.stop(grace=0.2).wait()
        self._release()

    def __enter__(self) -> LearnerServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- what the actors call, each in a thread of its own ----------------------------------------------------

    def _send_records(self, messages: Iterator[Any], context: Any) -> Iterator[Any]:
        self._admit(context)
        inbox, turn, said = None, 0, list[str]()
        try:
            with _refusals(context, said):
                hello = next(messages, wire.FromActor()).hello
                inbox = self._greeted(hello)
                turn, last, checksum = inbox.greet(hello)
                yield wire.FromLearner(welcome=wire.Welcome(last=last, checksum=checksum))
                for message in messages:
                    stored = inbox.store(turn, message.record)
                    self._wake(arrived=1)
                    yield wire.FromLearner(acknowledged=stored)
        finally:
            if inbox is not None:
                inbox.leave(turn, "".join(said))

    def _watch_weights(self, hello: Any, context: Any) -> Iterator[Any]:
        self._admit(context)
        with _refusals(context, []):
            self._greeted(hello)
        context.add_callback(self._wake)
        seen = 0
        while True:
            with self._changed:
                while self._published == seen and context.is_active() and not self._closing:
                    self._changed.wait()
                if self._closing or not context.is_active():
                    return
                message, seen = self._weights, self._published
            yield message

    def _admit(self, context: Any) -> None:
        if not admitted(context.invocation_metadata(), self._token):
            log.warning("%s was turned away: its token is missing or wrong", context.peer())
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")

    def _greeted(self, hello: Any) -> Inbox:
        """WireError, naming what differs, unless the actor speaks this schema about the same thing."""
        if hello.schema != SCHEMA:
            raise WireError(f"the actor speaks schema {hello.schema}, the learner {SCHEMA}: install the same version")
        if not NAME.fullmatch(hello.actor):
            raise WireError(f"an actor's name is {NAME.pattern}, not {hello.actor!r}")
        self.about.require(hello.about, f"the actor {hello.actor}")
        return self._inbox(hello.actor)

    def _inbox(self, name: str) -> Inbox:
        with self._changed:
            if name not in self._inboxes:
                folder = self.folder / ACTORS / name
                self._inboxes[name] = Inbox(folder, self.about, self._segment_mb, self._fsync)
            return self._inboxes[name]

    def _wake(self, arrived: int = 0) -> None:
        with self._changed:
            self._arrived += arrived
            self._changed.notify_all()

    def _wait_for_arrival(self, arrived: int, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._arrived > arrived or self._closing, timeout_s) and (
                not self._closing
            )

    def _release(self) -> None:
        for inbox in self._inboxes.values():
            inbox.journal.close()
        os.close(self._lock)


@contextmanager
def _refusals(context: Any, said: list[str]) -> Iterator[None]:
    """Ends the call with a status that tells the actor whether to come again, and the reason, which `said` gets."""
    codes = {WireError: "FAILED_PRECONDITION", GapError: "OUT_OF_RANGE", ReplacedError: "ABORTED",
             JournalError: "UNAVAILABLE"}  # fmt: skip
    try:
        yield
    except tuple(codes) as error:
        said.append(str(error))
        log.warning("%s was refused: %s", context.peer(), error)
        context.abort(grpc.StatusCode[codes[type(error)]], str(error)[:DETAILS])


def _bind(server: Any, address: str, access: Access) -> str:
    """The address with the port that it got."""
    credentials = access.server_credentials()
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"nothing can be served at {address}: another process has it, or it is none of this "
                          f"machine's ({error})") from None  # fmt: skip
    return address if address.startswith("unix") else f"{address.rpartition(':')[0]}:{port}"


def _require_same_run(path: Path, about: About) -> None:
    if path.exists():
        about.require(path.read_text(), f"the journal {path.parent}")
        return
    part = path.with_suffix(".part")
    part.write_text(json.dumps(json.loads(about.to_json()), indent=1))
    part.replace(path)
