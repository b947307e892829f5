"""Streams of values, each with times of its own, at the ticks of one rate.

| kind | at a tick |
|---|---|
| `line` | on the line between the values before and after it; quaternions on the shorter great arc (slerp) |
| `hold` | the last value at or before it |

A stream with a `gap_ns` is not used across a longer hole: a line is not drawn over it, and a value is not held longer.
Without one a value holds until the next, as a command does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from robolearn.data.layout import DataError, not_finite

KINDS = "line", "hold"


@dataclass(frozen=True)
class Stream:
    """`times_ns` (N,) int64, ascending, no two alike, and `values` (N, D) finite; D = 0 where only the times count."""

    name: str
    kind: str
    times_ns: np.ndarray
    values: np.ndarray
    quaternions: tuple[int, ...] = ()
    """First columns of those (xyzw) among the values; drawn as arcs by `line`."""
    gap_ns: int = 0
    """0: no limit."""


def stream(name: str, kind: str, times_ns: Sequence[int], values: np.ndarray, quaternions: Sequence[int] = (),
           gap_s: float = 0.0) -> tuple[Stream, np.ndarray]:  # fmt: skip
    """Of values (N, D) in any order; of two at one time the later one counts. And which of the N were taken, in the
    order of time. Raises DataError, naming the stream and the moment, for what is not finite."""
    times = np.asarray(times_ns, dtype=np.int64)
    order = np.argsort(times, kind="stable")
    last = np.append(np.diff(times[order]) > 0, True)[: len(order)]
    order = order[last]
    taken = values[order]
    if bad := not_finite(taken):
        after = (times[order[bad[0]]] - times[order[0]]) * 1e-9
        raise DataError(f"{name}: {after:.3f} s after its first message: {bad[1]}")
    return Stream(name, kind, times[order], taken, tuple(quaternions), round(gap_s * 1e9)), order


def ticks_of(streams: Sequence[Stream], fps: float) -> np.ndarray:
    """(T,) ns at which every stream has a value: from the first one's that begins last, to the last of the one with a
    limit (`gap_ns`) that ends first. Raises DataError, showing all streams, if there is no such time."""
    start = max(int(s.times_ns[0]) for s in streams)
    ends = [int(s.times_ns[-1]) for s in streams if s.gap_ns]
    end = min(ends) if ends else max(int(s.times_ns[-1]) for s in streams)
    if end < start:
        first = min(int(s.times_ns[0]) for s in streams)
        spans = [f"{s.name} {(s.times_ns[0] - first) * 1e-9:.3f} to {(s.times_ns[-1] - first) * 1e-9:.3f} s"
                 for s in streams]  # fmt: skip
        raise DataError(f"at no time there is a value of all: {', '.join(spans)}")
    count = int((end - start) * fps / 1e9) + 2  # one too many: times in whole nanoseconds may be a little early
    ticks = start + np.round(np.arange(count) * (1e9 / fps)).astype(np.int64)
    return np.asarray(ticks[ticks <= end])


def before(stream: Stream, ticks_ns: np.ndarray) -> np.ndarray:
    """(T,) number of the last value at or before each tick."""
    return np.searchsorted(stream.times_ns, ticks_ns, side="right") - 1


def holes(stream: Stream, ticks_ns: np.ndarray) -> np.ndarray:
    """(T,) bool: ticks at which the stream's next values are further away than its limit."""
    if not stream.gap_ns:
        return np.zeros(len(ticks_ns), dtype=bool)
    at = before(stream, ticks_ns)
    there = stream.times_ns[at]
    if stream.kind == "hold":
        return np.asarray(ticks_ns - there > stream.gap_ns)
    after = stream.times_ns[np.minimum(at + 1, len(stream.times_ns) - 1)]
    return np.asarray((after - there > stream.gap_ns) & (ticks_ns > there))


def sample(stream: Stream, ticks_ns: np.ndarray) -> np.ndarray:
    """(T, D) at ticks from the stream's first time on; for a `line` also up to its last. Lines are float64."""
    at = before(stream, ticks_ns)
    if stream.kind == "hold":
        return stream.values[at]
    after = np.minimum(at + 1, len(stream.times_ns) - 1)
    span = np.maximum(stream.times_ns[after] - stream.times_ns[at], 1)
    share = ((ticks_ns - stream.times_ns[at]) / span)[:, None]
    a, b = stream.values[at].astype(np.float64), stream.values[after].astype(np.float64)
    out = a + share * (b - a)
    for first in stream.quaternions:
        columns = slice(first, first + 4)
        out[:, columns] = slerp(a[:, columns], b[:, columns], share)
    return out


def slerp(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Unit quaternions (T, 4) at `share` (T, 1) of the shorter way from a to b; those that were given need not have
    length 1. Zeros, which is how a message says that it knows of none, stay zeros."""
    a, b = (q / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-12) for q in (a, b))
    cosine = np.sum(a * b, axis=1, keepdims=True)
    b = np.where(cosine < 0.0, -b, b)
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    near = angle < 1e-6  # a line, not 0 / 0
    sine = np.where(near, 1.0, np.sin(angle))
    mine = np.where(near, 1.0 - share, np.sin((1.0 - share) * angle) / sine)
    out = mine * a + np.where(near, share, np.sin(share * angle) / sine) * b
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class Resampled:
    """Episodes of one recording: the ticks (T,) ns of each, and what was left out."""

    runs: list[np.ndarray]
    left_out: list[str] = field(default_factory=list)


def runs_of(streams: Sequence[Stream], fps: float, split: bool = False) -> Resampled:
    """One run of ticks; with `split` as many as the holes leave, of two ticks or more. Raises DataError, naming the
    stream and the moment of the first hole, if there is one and it must not split."""
    ticks = ticks_of(streams, fps)
    found = [(s, holes(s, ticks)) for s in streams]
    hole = np.logical_or.reduce([mine for _, mine in found])
    if not hole.any():
        return Resampled([ticks])
    said = list(dict.fromkeys(_said(s, ticks, mine) for s, mine in found if mine.any()))
    if not split:
        raise DataError(f"{said[0]}: allow more with gap_s=, or gaps=split makes an episode of each side")
    edges = np.flatnonzero(np.diff(hole.astype(np.int8))) + 1
    parts = [run for run in np.split(np.arange(len(ticks)), edges) if not hole[run[0]]]
    kept = [ticks[run] for run in parts if len(run) > 1]
    if not kept:
        raise DataError(f"{said[0]}, and no two ticks of {fps:g} Hz lie between the holes: allow more with gap_s=")
    return Resampled(kept, said)


def _said(stream: Stream, ticks: np.ndarray, hole: np.ndarray) -> str:
    at = int(before(stream, ticks[hole][:1])[0])
    there = int(stream.times_ns[at])
    after = int(stream.times_ns[min(at + 1, len(stream.times_ns) - 1)])
    return (f"{stream.name} has a gap of {(after - there) * 1e-9:.3f} s (limit {stream.gap_ns * 1e-9:g} s) "
            f"{(there - int(ticks[0])) * 1e-9:.3f} s after the first tick")  # fmt: skip
