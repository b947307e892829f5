"""Times since the last report: median, 99th percentile and largest, for diagnostics."""

from __future__ import annotations

import numpy as np


class Spread:
    """Seconds in, milliseconds out."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, seconds: float) -> None:
        self.values.append(seconds)

    def clear(self) -> None:
        self.values.clear()

    def __str__(self) -> str:
        if not self.values:
            return "none"
        p50, p99, most = 1e3 * np.percentile(self.values, (50, 99, 100))
        return f"median {p50:.2f}, 99 % below {p99:.2f}, at most {most:.2f}"
