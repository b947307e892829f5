"""What benchmarks.hil_chaos says of lost and doubled transitions: a journal and a replay that were filled by hand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("grpc", reason="grpc is not installed (extra distributed)")
from robolearn.data.replay import Replay
from robolearn.distributed.journal import Journal, JournalError
from robolearn.distributed.records import About, Field, Record, encode
from robolearn.loops import checkpoint

NUMBERS = ("reward", "terminated", "human")
ABOUT = About("here", {}, {"obs/policy": Field("float32", (2,), first=True), "action": Field("float32", (1,))}, NUMBERS)
TOLD = "f..|f.h!f.."
"""f a first frame, . a step of the policy's, h of the person's; | an actor that was killed, ! the end. Nine records."""


def books() -> Any:
    """The measurements are not installed."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    try:
        return importlib.import_module("benchmarks.hil_books")
    finally:
        sys.path.pop(0)


def frame(number: int) -> np.ndarray:
    return np.array([number, 0.1], dtype=np.float32)


def tell(folder: Path, segment_mb: float = 16.0) -> None:
    """TOLD; the n-th record's frame and action say n."""
    with Journal(folder, segment_mb, "never") as journal:
        for k, kind in enumerate(c for c in TOLD if c in "f.h"):
            seen, number = {"obs/policy": frame(k + 1)}, journal.last + 1
            action = {} if kind == "f" else {"action": np.array([k + 1], dtype=np.float32)}
            flags = {} if kind == "f" else {"reward": 0.5, "terminated": float(kind == "h"), "human": kind == "h"}
            journal.append(encode(Record(seen | action, flags, kind == "f", sequence=number), ABOUT))


def learn(run: Path, position: int, omitted: tuple[int, ...] = (), again: int = 0, reward: float = 0.5) -> None:
    """A checkpoint of a learner that has read up to the record `position`, but for those `omitted`, and the one `again`
    once more."""
    replay, steps = Replay(40, 1, {"policy": (2,)}, {}, 1), 0
    kinds = [c for c in TOLD if c in "f.h"]
    for number in [n for n in range(1, position + 1) if n not in omitted for _ in range(2 if n == again else 1)]:
        kind, seen = kinds[number - 1], {"policy": torch.from_numpy(frame(number))[None]}
        if kind == "f":
            replay.begin(seen)
            continue
        human, steps = torch.tensor([kind == "h"]), steps + 1
        replay.add(torch.tensor([[float(number)]]), torch.tensor([reward]), human, ~human & human, seen, human=human)
    state = {"replay": replay.state_dict(), "counters": {"env_steps": steps}}
    checkpoint.write(run / "checkpoints", steps, {"algo": state, "counters": {"positions": {"actor": position}}})


@pytest.mark.parametrize(
    ("position", "given", "found"),
    [
        (9, {}, (6, 0, 0, 0, 0)),
        (7, {}, (4, 2, 0, 0, 0)),  # the last two wait
        (9, {"omitted": (9,)}, (5, 0, 1, 0, 1)),
        (9, {"omitted": (8,)}, (5, 0, 2, 1, 1)),  # the 9th seems to follow the 7th
        (9, {"omitted": (4,)}, (6, 0, 1, 1, 1)),  # the second episode's first frame: the 5th seems to follow the 3rd
        (9, {"again": 9}, (7, 0, 0, 1, -1)),
        (9, {"reward": 0.25}, (6, 0, 6, 6, 0)),  # another one is none that was told
    ],
    ids=str,
)
def test_what_is_missing_or_there_twice_is_counted(
    tmp_path: Path, position: int, given: dict[str, Any], found: tuple[int, ...]
) -> None:
    tell(tmp_path / "sent_actor")
    learn(tmp_path, position, **given)
    said = books().compared(tmp_path)
    assert (said.steps, said.waiting, said.lost, said.doubled, said.uncounted) == found and said.records == 9


def test_a_journal_without_its_beginning_is_refused(tmp_path: Path) -> None:
    tell(tmp_path / "sent_actor", segment_mb=1e-4)
    with Journal(tmp_path / "sent_actor", fsync="never") as journal:
        journal.drop(journal.last)
    learn(tmp_path, 9)
    with pytest.raises(JournalError, match="nothing can be read from 1 on"):
        books().compared(tmp_path)
