"""The page of `robolearn parity`: the verdict, and what the engines did, drawn over each other."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.cli import _plots
from robolearn.cli._page import STYLE
from robolearn.spec import RobotSpec

if TYPE_CHECKING:
    from sim.parity import Check, Recording

COLOURS = (_plots.BLUE, _plots.ORANGE, _plots.GREEN, _plots.RED)
LINES = ("-", "--", ":", "-.")
MARK = "<style>td.no {{ color: {red}; font-weight: 650 }} td.yes {{ color: var(--good) }}</style>"
Series = dict[str, np.ndarray]


def write(path: Path, robot: str, spec: RobotSpec, recordings: dict[str, Recording], checks: list[Check]) -> None:
    """One HTML file that loads nothing."""
    engines = " and ".join(recordings)
    parts = [_opening(engines, robot, checks), _free(spec, recordings), _weights(recordings), _ways(recordings)]
    title = f"{engines}: {'they agree' if all(c.passed for c in checks) else 'they differ'}"
    part = path.with_suffix(".part")
    part.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style>{MARK.format(red=_plots.RED)}<main>{''.join(parts)}</main></html>"
    )
    part.replace(path)


def _opening(engines: str, robot: str, checks: list[Check]) -> str:
    failed = sum(not c.passed for c in checks)
    said = f"agree about {robot}" if not failed else f"differ in {failed} of {len(checks)} checks"
    rows = "".join(_row(c) for c in checks)
    return (
        f"<h1>{html.escape(engines)} {said}.</h1><p class='soft'>The same targets through the same law in each engine, "
        "and simple mechanics that has an answer on paper.</p>"
        '<section><h2>Checks</h2><div class="wide"><table><tr><th></th><th>experiment</th><th>engine</th><th>value'
        f"</th><th>at most</th><th>what</th></tr>{rows}</table></div></section>"
    )


def _row(check: Check) -> str:
    verdict = '<td class="yes">passed</td>' if check.passed else '<td class="no">failed</td>'
    cells = (check.experiment, check.engine, f"{check.value:.2g}", f"{check.limit:g} {check.unit}", check.what)
    return f"<tr>{verdict}{''.join(f'<td>{html.escape(c)}</td>' for c in cells)}</tr>"


def _free(spec: RobotSpec, recordings: dict[str, Recording]) -> str:
    """Positions, their difference and efforts of every joint, one of the motions."""
    first, *others = recordings
    position = {e: r["joint_pos"][:, 0].numpy() for e, r in recordings.items()}
    effort = {e: r["joint_effort"][:, 0].numpy() for e, r in recordings.items()}
    reached = recordings[first]["joint_pos"]
    apart = {e: (recordings[e]["joint_pos"] - reached).abs().amax(1).numpy() for e in others}
    return (
        "<section><h2>Free motion</h2><p>Random smooth targets through the PD law of the robot, positions reached "
        f"linearly over the sub-steps.</p><h3>Position (rad or m)</h3>{_grid(position, spec.joint_names)}"
        f"<h3>Effort (N m or N)</h3>{_grid(effort, spec.joint_names)}"
        f"<h3>Largest difference of position to {html.escape(first)}, over the motions</h3>{_apart(apart)}"
        "</section>"
    )


def _grid(series: Series, names: Sequence[str]) -> str:
    """A small plot a joint, the engines over each other; each (T, J)."""
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = _plots._figure(rows, columns, 9.6, 1.9 * rows, sharex=True)
    for joint, axis in enumerate(axes.flat):
        if joint >= len(names):
            axis.axis("off")
            continue
        axis.set_title(names[joint], fontsize=9)
        _lines(axis, {engine: values[:, joint] for engine, values in series.items()})
    _legend(axes.flat[0])
    for axis in axes[-1]:
        axis.set_xlabel("s")
    return _plots._svg(figure)


def _apart(series: Series) -> str:
    """Largest over the joints, (T, J) each, on a logarithmic scale: equal is 1e-9."""
    figure, [[axis]] = _plots._figure(1, 1, 9.6, 2.3)
    _lines(axis, {engine: np.maximum(values.max(axis=1), 1e-9) for engine, values in series.items()})
    axis.set_yscale("log")
    axis.set_ylabel("rad or m")
    axis.set_xlabel("s")
    _legend(axis)
    return _plots._svg(figure)


def _weights(recordings: dict[str, Recording]) -> str:
    from sim.parity import CUBES_KG, G_MPS2

    figure, axes = _plots._figure(1, len(CUBES_KG), 9.6, 2.5, sharex=True)
    for cube, (axis, mass) in enumerate(zip(axes[0], CUBES_KG, strict=True)):
        axis.set_title(f"{mass:g} kg", fontsize=9)
        _lines(axis, {e: r["contact_force"][:, cube, 2].numpy() for e, r in recordings.items()})
        axis.axhline(mass * G_MPS2, color=_plots.INK, linewidth=1, label="m g")
        axis.set_ylim(0.0, 2.0 * mass * G_MPS2)
        axis.set_xlabel("s")
    axes[0][0].set_ylabel("contact force, up (N)")
    _legend(axes[0][0])
    return f"<section><h2>Weight</h2><p>Cubes at rest on the ground.</p>{_plots._svg(figure)}</section>"


def _ways(recordings: dict[str, Recording]) -> str:
    from sim.parity import SLIDES, way_m

    figure, axes = _plots._figure(1, len(SLIDES), 9.6, 2.5, sharex=True)
    for box, (axis, (speed, friction)) in enumerate(zip(axes[0], SLIDES, strict=True)):
        axis.set_title(f"{speed:g} m/s, friction {friction:g}", fontsize=9)
        _lines(axis, {e: 1e3 * r["way"][:, box].numpy() for e, r in recordings.items()})
        axis.axhline(1e3 * way_m(speed, friction), color=_plots.INK, linewidth=1, label="on paper")
        axis.set_xlabel("s")
    axes[0][0].set_ylabel("way (mm)")
    _legend(axes[0][0])
    return (
        "<section><h2>Sliding</h2><p>Flat boxes launched on the ground. Semi-implicit time steps end a little short of "
        f"v₀² / (2 μ g), by μ g dt / v₀ of it.</p>{_plots._svg(figure)}</section>"
    )


def _lines(axis: Any, series: Series) -> None:
    from sim.parity import RATE_HZ

    for (engine, values), colour, line in zip(series.items(), COLOURS, LINES, strict=False):
        axis.plot((np.arange(len(values)) + 1) / RATE_HZ, values, line, color=colour, linewidth=1.6, label=engine)


def _legend(axis: Any) -> None:
    axis.legend(frameon=False, fontsize=8, labelcolor=_plots.INK)
