"""Statistics of features, as LeRobot has them: of each episode (`stats/KEY/NAME`), and of the set (meta/stats.json).

Those of numbers are exact, also over the whole set. Those of pictures are per channel, in [0, 1], over frames and
pixels taken at even steps; over the set their quantiles are the episodes' means weighted by count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]
FRAMES, SIDE_PX = 20, 150
"""Of a video, that an episode's statistics are over, about."""


def of_numbers(values: np.ndarray) -> Stats:
    """(T, ...) -> arrays (...); `count` is (1,). float64, also of bool."""
    x = values.astype(np.float64)
    out = {"min": x.min(0), "max": x.max(0), "mean": x.mean(0), "std": x.std(0), "count": np.array([len(x)])}
    return out | dict(zip(QUANTILES, np.quantile(x, list(QUANTILES.values()), axis=0), strict=True))


def of_pictures(frames: Sequence[np.ndarray]) -> Stats:
    """(H, W, 3) uint8 each -> arrays (3, 1, 1) in [0, 1]; `count` is the number of frames."""
    pixels = np.concatenate([f.reshape(-1, 3) for f in frames])
    found = of_numbers(pixels)
    return {k: v if k == "count" else v.reshape(3, 1, 1) / 255.0 for k, v in found.items()} | {
        "count": np.array([len(frames)])
    }


class Thinned:
    """Takes every frame, keeps up to 2 FRAMES at even steps: nobody knows how long an episode becomes."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self._stride, self._seen = 1, 0

    def add(self, frame: np.ndarray) -> None:
        if self._seen % self._stride == 0:
            apart = -(-max(frame.shape[:2]) // SIDE_PX)
            self.frames.append(frame[::apart, ::apart].copy())
        self._seen += 1
        if len(self.frames) == 2 * FRAMES:
            self.frames, self._stride = self.frames[::2], 2 * self._stride


def merged(parts: Sequence[Stats]) -> Stats:
    """Of the union of what the parts are of; quantiles approximately."""
    count = np.array([float(p["count"][0]) for p in parts])
    share = count / count.sum()

    def mean(name: str) -> np.ndarray:
        return np.tensordot(share, np.stack([p[name] for p in parts]), axes=1)

    middle = mean("mean")
    square = np.stack([p["std"] ** 2 + p["mean"] ** 2 for p in parts])
    variance = np.maximum(np.tensordot(share, square, axes=1) - middle**2, 0.0)
    out = {"min": np.stack([p["min"] for p in parts]).min(0), "max": np.stack([p["max"] for p in parts]).max(0),
           "mean": middle, "std": np.sqrt(variance), "count": np.array([int(count.sum())])}  # fmt: skip
    return out | {name: mean(name) for name in QUANTILES}


def to_json(stats: Mapping[str, Stats]) -> dict[str, Any]:
    return {key: {name: v.tolist() for name, v in found.items()} for key, found in stats.items()}


def to_row(stats: Mapping[str, Stats]) -> dict[str, Any]:
    return {f"stats/{key}/{name}": v.tolist() for key, found in stats.items() for name, v in found.items()}


def from_row(row: Mapping[str, Any], key: str) -> Stats | None:
    """None where an episode has none."""
    names = ("min", "max", "mean", "std", "count", *QUANTILES)
    found = {n: row.get(f"stats/{key}/{n}") for n in names}
    return None if any(v is None for v in found.values()) else {n: np.asarray(v) for n, v in found.items()}
