"""Learning curves: `python -m benchmarks.curves OUT.png ROW [ROW ...] [base=ROW]`, of rows of benchmarks.results.

Success in training (with exploration, and on short episodes where the experiment has them) over environment steps and
over time: a thin line a seed, a thick one their mean. `base` draws the evaluated success of the runs that were
corrected. Rows whose training is not there are refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import FOLDER
from robolearn import optional
from robolearn.loops.log import read_metrics

SMOOTH = 5
"""Lines of figures that a point is the mean of."""
POINTS = 200
AXES = {"step": "environment steps", "time/seconds": "seconds"}
Curve = tuple[np.ndarray, np.ndarray]


def curves(row: str, axis: str) -> list[Curve]:
    """Of each seed: places on the axis, and success smoothed (%). SystemExit where there is none."""
    found = []
    for folder in sorted((FOLDER / row).glob("seed*")):
        lines = [m for m in read_metrics(folder) if "episode/success" in m]
        if len(lines) >= SMOOTH:
            success = np.convolve([100 * m["episode/success"] for m in lines], np.ones(SMOOTH) / SMOOTH, "valid")
            found.append((np.array([m[axis] for m in lines[SMOOTH - 1 :]]), success))
    if not found:
        raise SystemExit(f"error: there is no training in {FOLDER / row}: python -m benchmarks.results {row}")
    return found


def mean(found: list[Curve]) -> Curve:
    """Where all seeds have values."""
    places = np.linspace(max(x[0] for x, _ in found), min(x[-1] for x, _ in found), POINTS)
    return places, np.mean([np.interp(places, x, y) for x, y in found], axis=0)


def draw(out: Path, rows: list[str], base: str) -> None:
    plt: Any = optional.load("matplotlib", "report")
    plt.use("Agg")
    pyplot: Any = optional.load("matplotlib.pyplot", "report")
    figure, panels = pyplot.subplots(1, len(AXES), figsize=(10, 3.6), sharey=True, layout="constrained")
    for panel, (axis, label) in zip(panels, AXES.items(), strict=True):
        for k, row in enumerate(rows):
            found = curves(row, axis)
            for x, y in found:
                panel.plot(x, y, color=f"C{k}", alpha=0.35, linewidth=0.8)
            seeds = f"{len(found)} seeds" if len(found) > 1 else "1 seed"
            panel.plot(*mean(found), color=f"C{k}", linewidth=2.0, label=f"{row}, {seeds}")
        for k, success in enumerate(bases(base)):
            panel.axhline(100 * success, color="0.6", linestyle=":", label=f"{base}, evaluated" if not k else None)
        panel.set(xlabel=label, ylim=(0, 100), xscale="log" if axis == "step" else "linear")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("success in training, %")
    panels[-1].legend(fontsize=8, loc="lower right")
    figure.savefig(out, dpi=110)


def bases(row: str) -> list[float]:
    files = sorted((FOLDER / row).glob("seed*/scores_own.json")) if row else []
    return [json.loads(f.read_text())["success"] for f in files]


def main(words: list[str]) -> None:
    rows = [w for w in words[1:] if "=" not in w]
    named = dict(w.partition("=")[::2] for w in words[1:] if "=" in w)
    if not words or not words[0].endswith(".png") or not rows or named.keys() - {"base"}:
        raise SystemExit(f"usage: python -m benchmarks.curves OUT.png ROW [ROW ...] [base=ROW]\n\n{__doc__}")
    draw(Path(words[0]), rows, named.get("base", ""))
    print(f"{words[0]}: {', '.join(rows)}")


if __name__ == "__main__":
    main(sys.argv[1:])
