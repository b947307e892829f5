"""What an actor has told its learner, and what the learner has learned from: is any transition missing, or there twice?

The actor's journal is what it told, record by record. A checkpoint of the learner holds the number of the record that
was learned from last, the transitions themselves in its replay, and how many there ever were of both kinds of record.
So two things are compared: the transitions, as they were told and as they are there, whole (frame, action, reward, end,
whose action, next frame); and the numbers, which also count what the replay has overwritten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.distributed.journal import Cursor, Journal
from robolearn.distributed.records import from_wire, parse, wire
from robolearn.loops import checkpoint

SEEN, FLAGS = "policy", ("reward", "terminated", "human")
Parts = tuple[bytes, ...]


@dataclass(frozen=True)
class Books:
    steps: int
    """That were learned from."""
    records: int
    """That were told: first frames, and steps."""
    waiting: int
    """Of these, not learned from yet."""
    lost: int
    doubled: int
    """Transitions."""
    uncounted: int
    """Records that were passed over; below zero, that were taken twice. Zero where nothing went wrong."""

    def __str__(self) -> str:
        return (f"{self.steps} steps, {self.records} records told, {self.waiting} not learned from yet; "
                f"{self.lost} lost, {self.doubled} doubled, {self.uncounted} passed over")  # fmt: skip


def compared(run: Path, actor: str = "actor") -> Books:
    """Of a run that has ended, whose learner had this actor only. JournalError if the actor's journal no longer begins
    with its first record: a run of less than its 16 MB is whole."""
    state: dict[str, Any] = checkpoint.read_newest(run / "checkpoints")
    replay, counted = state["algo"]["replay"], int(state["algo"]["counters"]["env_steps"])
    position = int(state["counters"]["positions"][actor])
    journal = Journal(run / f"sent_{actor}")
    try:
        told, records = Counter(_told(journal, position)), journal.last
    finally:
        journal.close()
    learned = Counter(_learned(replay["slots"]))
    uncounted = position - counted - int(replay["episodes"])
    return Books(counted, records, records - position, (told - learned).total(), (learned - told).total(), uncounted)


def _told(journal: Journal, until: int) -> Iterator[Parts]:
    """The transitions of the records up to number `until`."""
    cursor, seen = Cursor(journal, 0), b""
    for _ in range(until):
        found = cursor.read()
        assert found is not None
        record = parse(wire.Record, found[1])
        tensors = from_wire(record.tensors)
        before, seen = seen, tensors[f"obs/{SEEN}"].tobytes()
        if record.kind == wire.KIND_STEP:
            flags = np.array([record.numbers[k] for k in FLAGS], dtype=np.float32)
            yield before, tensors["action"].tobytes(), flags.tobytes(), seen


def _learned(slots: dict[str, Any]) -> Iterator[Parts]:
    """Those of the only lane, whose oldest is not overwritten."""
    own = {k: v[0].numpy() for k, v in slots.items()}
    for k in np.flatnonzero(own["acted"]):
        flags = np.array([own[f][k] for f in FLAGS], dtype=np.float32)
        yield own[SEEN][k].tobytes(), own["action"][k].tobytes(), flags.tobytes(), own[SEEN][k + 1].tobytes()
