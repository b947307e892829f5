"""How the learning goes: the figures that a learner writes into its run's folder, as they come."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

NAMES = {
    "episode/success": "success rate",
    "episode/intervened": "intervention rate",
    "episode/cycle_steps": "cycle time, steps",
    "episode/ratio": "updates a step",
    "episode/stale": "weights behind",
}
"""Of metrics.jsonl, and as they are shown."""
STEP = "steps learned from"
MOST_POINTS = 300
"""Of a curve; every other one goes when there are more."""
MOST_BYTES = 1_000_000
"""Read at a time."""


class Figures:
    """Follows `metrics.jsonl`, which may not be there yet, or begin anew."""

    def __init__(self, folder: Path):
        self._path, self._read, self._rest = folder / "metrics.jsonl", 0, b""
        self.latest: dict[str, float] = {}
        self.curves: dict[str, list[tuple[float, float]]] = {}

    def look(self) -> bool:
        """Whether something new has been written. An unfinished line is kept until its end comes."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._read:
                    self._read, self._rest, self.curves = 0, b"", {}
                file.seek(self._read)
                new = file.read(MOST_BYTES)
        except OSError:
            return False
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._take(line)
        return bool(lines)

    def _take(self, line: bytes) -> None:
        try:
            row: dict[str, Any] = json.loads(line)
            step = float(row["step"])
            row = {name: float(row[key]) for key, name in NAMES.items() if key in row}
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # no line of ours
        row = {name: value for name, value in row.items() if math.isfinite(value)}
        self.latest = {STEP: step, **row}
        for name, value in row.items():
            curve = self.curves.setdefault(name, [])
            curve.append((step, value))
            if len(curve) > MOST_POINTS:
                del curve[1::2]
