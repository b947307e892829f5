"""The report's figures as SVG that takes its text colour, and so light or dark, from the page."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robolearn import optional

INK = "#010203"
"""Stands for the page's text colour and is replaced by it."""
NUMBERS = itertools.count()
BLUE, GREEN, ORANGE, RED = "#3b82d6", "#2fa866", "#e08a2e", "#d6524a"
BINS = 30
DEGREES = 180.0 / math.pi
UNITS = {
    "m": ("mm", 1000.0), "rad": ("degrees", DEGREES), "radps": ("degrees/s", DEGREES), "mps": ("m/s", 1.0),
    "s": ("s", 1.0), "ms": ("ms", 1.0), "n": ("N", 1.0), "nm": ("N m", 1.0), "kg": ("kg", 1.0), "j": ("J", 1.0),
    "w": ("W", 1.0),
}  # fmt: skip
"""How a metric's unit, the last part of its name, is shown."""


def metric(name: str) -> tuple[str, str, float]:
    """What to call a metric, the unit to show it in (empty if its name has none), and the factor."""
    stem, _, unit = name.rpartition("_")
    if not stem or unit not in UNITS:
        return name.replace("_", " "), "", 1.0
    return stem.replace("_", " "), *UNITS[unit]


def curves(rows: list[dict[str, float]]) -> str:
    """Success and return of the episodes that ended, over environment steps and over seconds of training."""
    ended = [r for r in rows if "episode/return" in r]
    if len(ended) < 2:
        return ""
    word, by = ("millions", 1e6) if ended[-1]["step"] >= 2e6 else ("thousands", 1e3)
    across = {f"environment steps ({word})": [r["step"] / by for r in ended],
              "training time (s)": [r["time/seconds"] for r in ended]}  # fmt: skip
    down = {"success (%)": ([100.0 * r["episode/success"] for r in ended], GREEN),
            "return": ([r["episode/return"] for r in ended], BLUE)}  # fmt: skip
    figure, axes = _figure(2, 2, 9.6, 4.6, sharex="col", sharey="row")
    for row, (y_label, (y, colour)) in zip(axes, down.items(), strict=True):
        row[0].set_ylabel(y_label)
        for axis, x in zip(row, across.values(), strict=True):
            axis.plot(x, y, color=colour, alpha=0.3, linewidth=1)
            axis.plot(x, smooth(y), color=colour, linewidth=2)
    for axis, x_label in zip(axes[-1], across, strict=True):
        axis.set_xlabel(x_label)
    axes[0][0].set_ylim(-3, 103)
    return _svg(figure)


def smooth(values: Sequence[float], width: int = 7) -> list[float]:
    """Centred moving average; narrower at the ends."""
    half = width // 2
    return [float(np.mean(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]


def intervals(rates: dict[str, tuple[float, float, float]]) -> str:
    """Share of success and its 95 % interval (low, high), all in [0, 1], a line for each name."""
    figure, [[axis]] = _figure(1, 1, 9.6, 0.6 + 0.42 * len(rates))
    colours = (GREEN, ORANGE, BLUE, RED) * len(rates)
    for row, ((rate, low, high), colour) in enumerate(zip(rates.values(), colours, strict=False)):
        axis.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
        axis.plot(100 * rate, row, "o", color=colour, markersize=8)
    axis.set_yticks(range(len(rates)), list(rates))
    axis.set_ylim(len(rates) - 0.4, -0.6)
    axis.set_xlim(max(0.0, min(90.0, 100 * min(low for _, low, _ in rates.values()) - 1.0)), 100.4)
    axis.set_xlabel("success (%), with its 95 % interval")
    return _svg(figure)


def histogram(
    name: str, values: Mapping[str, Sequence[float]], limit: float | None = None, of: str = "episodes"
) -> str:
    """One metric over the episodes (or what else it is `of`) of each engine, the first one filled; with the medians
    and, where the task has one, the limit of success."""
    title, unit, factor = metric(name)
    shown = {engine: np.asarray(v) * factor for engine, v in values.items()}
    low, top = _range(np.concatenate(list(shown.values())), limit, factor)
    figure, [[axis]] = _figure(1, 1, 4.7, 2.5)
    beyond = 0
    for k, (engine, x) in enumerate(shown.items()):
        inside = (x >= low) & (x <= top)
        beyond += int((~inside).sum())
        looks = {"histtype": "step", "linewidth": 1.6, "color": ORANGE} if k else {"color": BLUE, "alpha": 0.85}
        share = np.full(int(inside.sum()), 100.0 / len(x))
        label = f"{engine}, median {np.median(x):.3g} {unit}"
        axis.hist(x[inside], BINS, range=(low, top), weights=share, label=label, **looks)
    if limit is not None:
        text = f"limit {limit * factor:.3g} {unit}"
        axis.axvline(limit * factor, color=RED, linewidth=1.6, linestyle="--", label=text)
    axis.set_xlabel(f"{title} ({unit})" if unit else title)
    axis.set_ylabel(f"{of} (%)")
    axis.margins(y=0.3)  # room for the legend
    legend = axis.legend(frameon=False, fontsize=9, labelcolor=INK, title=_beyond(beyond), title_fontsize=9)
    legend.get_title().set_color(INK)
    return _svg(figure)


def _range(values: np.ndarray, limit: float | None, factor: float) -> tuple[float, float]:
    """Of the axis: nearly all of the values, zero where it is near, and the limit."""
    low, top = (float(np.quantile(values, q)) for q in (0.005, 0.995))
    if 0.0 <= low < 0.5 * top or limit is not None:
        low = 0.0
    return low, max(top, (limit or 0.0) * factor * 1.15, low + 1e-3)


def _beyond(count: int) -> str | None:
    return f"{count} outside this range" if count else None


def shares(parts: dict[str, float]) -> str:
    """One bar cut into named parts, in seconds."""
    figure, [[axis]] = _figure(1, 1, 9.6, 1.0)
    left, total = 0.0, sum(parts.values())
    for (name, seconds), colour in zip(parts.items(), (BLUE, ORANGE, GREEN, RED) * len(parts), strict=False):
        axis.barh(0, seconds, left=left, color=colour, height=0.8)
        if seconds > 0.08 * total:
            axis.text(left + seconds / 2, 0, f"{name} {seconds:.0f} s", ha="center", va="center", color="white")
        left += seconds
    axis.set_xlim(0, left)
    axis.axis("off")
    return _svg(figure)


def speeds(series: Mapping[str, Sequence[Sequence[float]]], event: str, name: str = "fastest_joint_radps") -> str:
    """A metric over time (s), a line a name, about an event at time zero; a dot where a line ends."""
    title, unit, factor = metric(name)
    figure, [[axis]] = _figure(1, 1, 4.7, 2.5)
    axis.axvline(0.0, color=RED, linewidth=1.6, linestyle="--", label=event)
    for (label, line), colour in zip(series.items(), (BLUE, ORANGE, GREEN), strict=False):
        times, values = np.array(line).T
        axis.plot(times, values * factor, color=colour, linewidth=1.8, label=label)
        axis.plot(times[-1], values[-1] * factor, "o", color=colour, markersize=4)
    axis.set_xlabel("time (s)")
    axis.set_ylabel(f"{title} ({unit})")
    axis.set_ylim(bottom=0.0)
    axis.legend(frameon=False, fontsize=9, labelcolor=INK)
    return _svg(figure)


def paths(places: Mapping[str, np.ndarray]) -> str:
    """Lines of places (n, 2) m, seen from above; the first is where the others should be."""
    figure, [[axis]] = _figure(1, 1, 4.7, 2.9)
    for k, ((label, line), colour) in enumerate(zip(places.items(), (INK, BLUE, ORANGE), strict=False)):
        looks = {"linewidth": 1.2, "linestyle": "--", "alpha": 0.6} if not k else {"linewidth": 1.8}
        axis.plot(line[:, 0], line[:, 1], color=colour, label=label, **looks)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("x (m)")
    axis.set_ylabel("y (m)")
    axis.margins(y=0.25)  # room for the legend
    axis.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2)
    return _svg(figure)


def _figure(rows: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Any, Any]:
    optional.load("matplotlib", "report").use("Agg")
    pyplot = optional.load("matplotlib.pyplot", "report")
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    style: dict[str, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.alpha": 0.13,
    }
    style |= dict.fromkeys(inked, INK)
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False, **shared)
    for axis in axes.flat:
        axis.grid(True, linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import pyplot, rc_context

    file = io.StringIO()
    figure.tight_layout(pad=0.6)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": f"figure{next(NUMBERS)}"}):  # ids differ in one page
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    head, body = text[: text.index(">")], text[text.index(">") :]
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return head + re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", body)
