"""The page of `robolearn sysid`: the intervals, and the log beside what the simulation makes of its commands."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.cli import _plots
from robolearn.cli._page import STYLE

if TYPE_CHECKING:
    from sim.sysid.fit import Estimate, Fit

UNITS = {"joint_pos": "rad", "joint_vel": "rad/s", "joint_effort": "N m", "position": "m", "rotation": "rad",
         "velocity": "m/s", "rates": "rad/s"}  # fmt: skip
MOST = 12
"""Channels that are drawn."""


def write(path: Path, robot: str, log: Path, fit: Fit, replay: Any, values: dict[str, Any]) -> None:
    """One HTML file that loads nothing."""
    from sim.sysid.ranges import words

    known = sum(e.identifiable for e in fit.estimates)
    parts = [
        f"<h1>{html.escape(robot)}: {known} of {len(fit.estimates)} parameters identified.</h1>"
        f'<p class="soft">From {html.escape(log.name)}. Intervals hold all true values jointly with 95 %, as far as '
        "the simulation can be made to fit the log at all.</p>",
        f"<section><h2>Parameters</h2>{intervals(list(map(plain, fit.estimates)))}{_table(fit)}</section>",
        f"<section><h2>Measured and predicted</h2>{_curves(fit, replay)}</section>",
        f"<section><h2>To train with</h2><pre>{html.escape(words(values))}</pre></section>",
    ]
    part = path.with_suffix(".part")
    part.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(robot)}: identified</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style><main>{''.join(parts)}</main></html>"
    )
    part.replace(path)


def plain(e: Estimate) -> dict[str, Any]:
    """A row of fit.json."""
    known = {"value": e.value if e.identifiable else None, "low": e.low, "high": e.high}
    thought = {"nominal": e.parameter.nominal, "least": e.parameter.low, "most": e.parameter.high}
    return {"name": e.parameter.name, "unit": e.parameter.unit, "identifiable": e.identifiable, **known, **thought}


def intervals(rows: Sequence[dict[str, Any]], truth: Mapping[str, float] | None = None) -> str:
    """Each in the range that was thought possible; the cross is the nominal value, the line across the true one."""
    figure, [[axis]] = _plots._figure(1, 1, 9.6, 0.6 + 0.3 * len(rows))
    for y, row in enumerate(reversed(rows)):
        place = _place(row)
        axis.plot((0, 1), (y, y), color=_plots.INK, alpha=0.2, linewidth=1)
        axis.plot(place(row["nominal"]), y, "x", color=_plots.INK, markersize=6)
        if row["identifiable"]:
            ends = place(row["low"]), place(row["high"])
            axis.plot(ends, (y, y), color=_plots.BLUE, linewidth=5, alpha=0.5, solid_capstyle="butt")
            axis.plot(place(row["value"]), y, "o", color=_plots.BLUE, markersize=5)
        if truth is not None and row["name"] in truth:
            axis.plot(place(truth[row["name"]]), y, "|", color=_plots.GREEN, markersize=14, markeredgewidth=2.5)
    axis.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    axis.set_xticks((0, 1), ("least thought possible", "most"))
    return _plots._svg(figure)


def _place(row: dict[str, Any]) -> Callable[[float], float]:
    """From the least to the most thought possible, 0 to 1; scales by their logarithm."""
    inner = math.log if row["least"] > 0.0 else float
    low, high = inner(row["least"]), inner(row["most"])
    return lambda value: (inner(value) - low) / (high - low)


def _table(fit: Fit) -> str:
    head = "".join(f"<th>{t}</th>" for t in ("parameter", "value", "from", "to", "unit"))
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(map(_row, fit.estimates))}</table></div>'


def _row(e: Estimate) -> str:
    numbers = [f"{v:.4g}" for v in (e.value, e.low, e.high)] if e.identifiable else ["not identifiable", "", ""]
    return (
        "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in (e.parameter.name, *numbers, e.parameter.unit)) + "</tr>"
    )


def _curves(fit: Fit, replay: Any) -> str:
    """The worst-fitted channels first among those of a kind; each window starts anew."""
    signal, period = replay.signal.double().numpy(), replay.period_s
    shown = range(min(MOST, signal.shape[2]))
    figure, axes = _plots._figure(-(-len(shown) // 2), 2, 9.6, 1.7 * (-(-len(shown) // 2)))
    time = (replay.first.numpy()[:, None] + np.arange(replay.rows)) * period
    lines = ((signal, _plots.INK, "measured", 0.8, 0.35), (fit.before.numpy(), _plots.ORANGE, "as specified", 1.0, 0.9),
             (fit.after.numpy(), _plots.BLUE, "identified", 1.4, 1.0))  # fmt: skip
    for axis, m in zip(axes.flat, shown, strict=False):
        for values, colour, label, width, alpha in lines:
            broken = np.concatenate((values[:, :, m], np.full((len(values), 1), np.nan)), axis=1)
            at = np.concatenate((time, time[:, -1:]), axis=1)
            axis.plot(at.ravel(), broken.ravel(), color=colour, linewidth=width, alpha=alpha, label=label)
        name = replay.channels[m]
        axis.set_title(f"{name} ({UNITS[name.partition('.')[0]]})", fontsize=9)
        axis.set_ylim(*_bounds(signal[:, :, m]))
    axes.flat[0].legend(frameon=False, fontsize=8, labelcolor=_plots.INK)
    residuals = ", ".join(f"{name} {fit.noise[name]:.2g}" for name in (replay.channels[m] for m in shown))
    return (
        f'{_plots._svg(figure)}<p class="soft small">Every window starts from its own state. Standard deviation of '
        f"what is left: {html.escape(residuals)}.</p>"
    )


def _bounds(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low - 0.15 * (high - low) - 1e-6, high + 0.15 * (high - low) + 1e-6
