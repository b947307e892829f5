"""How the learning goes: the figures that a learner writes into its run's folder, as they come."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from robolearn import runs
from robolearn.errors import ConfigError

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
LAST = "last"


class Figures:
    """Follows `metrics.jsonl`, which may not be there yet, or begin anew."""

    def __init__(self, run: str | Path):
        """A run's folder, or `last`: the newest under runs/, whichever that is when one looks."""
        self._last = run == LAST
        self._path: Path | None = None if self._last else Path(run) / "metrics.jsonl"
        self._begin()

    def _begin(self) -> None:
        self._read, self._rest = 0, b""
        self.latest: dict[str, float] = {}
        self.curves: dict[str, list[tuple[float, float]]] = {}

    def _moved(self) -> bool:
        """Whether another run is the last one since one looked."""
        try:
            path = runs.find_run(LAST) / "metrics.jsonl"
        except (ConfigError, OSError):
            return False
        if path == self._path:
            return False
        self._path = path
        self._begin()
        return True

    def look(self) -> bool:
        """Whether something new is there. An unfinished line is kept until its end comes."""
        moved = self._last and self._moved()
        return self._follow(self._path) or moved if self._path else False

    def _follow(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                if file.seek(0, 2) < self._read:
                    self._begin()
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
