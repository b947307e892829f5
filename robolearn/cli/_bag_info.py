"""`robolearn bag info`: a table of what a bag holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robolearn.cli._table import table

if TYPE_CHECKING:
    from real.recording.read import Recording

MB = 10**6
FEW = 10
"""Messages, below which nothing is said of gaps."""
GAP = 3.0
"""Times the median period, above which the time between two messages is a gap."""


@dataclass(frozen=True)
class Flow:
    """How the messages of a topic came."""

    count: int
    bytes: int
    rate_hz: float
    gaps: int
    longest_s: float
    """Time without a message; between two."""

    @classmethod
    def of(cls, times_ns: np.ndarray, size: int) -> Flow:
        """`times_ns` (N,) of reception, in any order."""
        steps = np.diff(np.sort(times_ns))
        span, usual = float(steps.sum()) * 1e-9, float(np.median(steps)) if len(steps) else 0.0
        rate = len(steps) / span if span else 0.0
        gaps = int((steps > GAP * usual).sum()) if len(times_ns) >= FEW else 0
        longest = float(steps.max()) * 1e-9 if len(steps) else 0.0
        return cls(len(times_ns), size, rate, gaps, longest)


def flows(recording: Recording, update: Callable[[int], object]) -> tuple[dict[str, Flow], tuple[int, int]]:
    """Of each topic; the first and last time (ns since 1970), both 0 without messages."""
    times: dict[str, list[int]] = {name: [] for name in recording.topics}
    sizes = dict.fromkeys(recording.topics, 0)
    for name, log_ns, _, size in recording.headers(update):
        times[name].append(log_ns)
        sizes[name] += size
    found = {name: np.array(stamps, dtype=np.int64) for name, stamps in times.items()}
    ends = [end for stamps in found.values() if len(stamps) for end in (int(stamps.min()), int(stamps.max()))]
    span = (min(ends), max(ends)) if ends else (0, 0)
    return {name: Flow.of(stamps, sizes[name]) for name, stamps in found.items()}, span


def describe(recording: Recording, update: Callable[[int], object]) -> str:
    found, (first, last) = flows(recording, update)
    count, lost = sum(flow.count for flow in found.values()), recording.lost
    state = "" if recording.complete else ", not ended by its recorder"
    kinds = sorted({file.suffix.removeprefix(".") for file in recording.files})
    lines = [
        f"{recording.path}: {len(recording.files)} {'/'.join(kinds)} file{'s' * (len(recording.files) > 1)}, "
        f"{recording.size / MB:.1f} MB{state}"
    ]
    if count:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(first * 1e-9))
        lines.append(f"{count} messages, {(last - first) * 1e-9:.2f} s from {began}")
    else:
        lines.append("no messages")
    head = ("topic", "messages", "Hz", "MB", "gaps", "longest", "lost", "type")
    rows = [_row(name, flow, lost.get(name, 0), recording.topics[name].type) for name, flow in sorted(found.items())]
    return "\n".join([*lines, "", table(rows, head)]) if rows else "\n".join(lines)


def _row(name: str, flow: Flow, lost: int, kind: str) -> tuple[str, ...]:
    longest = f"{flow.longest_s:.3g} s" if flow.count > 1 else ""
    gaps = str(flow.gaps) if flow.count >= FEW else ""
    rate = f"{flow.rate_hz:.1f}" if flow.count > 1 else ""
    return name, str(flow.count), rate, f"{flow.bytes / MB:.2f}", gaps, longest, str(lost or ""), kind
