"""`robolearn bag plot`: one page of a bag's curves."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.cli import _bag_series, _page, _plots
from robolearn.cli._bag_series import MOST, Found, Series, thinned
from robolearn.cli._plots import BLUE, GREEN, INK, ORANGE, RED
from robolearn.errors import ConfigError

if TYPE_CHECKING:
    from real.recording.read import Recording

COLOURS = BLUE, ORANGE, GREEN, RED, "#8a63d2", "#2aa7b8", "#b0803c", "#d064a5"
POINTS = 700
"""Stretches of a curve."""
UNITS = {"position": "rad or m", "velocity": "rad/s or m/s"}
BANDS = 200
"""Changes of a text that are drawn."""


def write(path: Path, recording: Recording, fields: Sequence[str], update: Callable[[int], object]) -> None:
    """One HTML file that loads nothing. Raises ConfigError if nothing in the bag can be drawn."""
    found = _bag_series.collect(recording, fields, update)
    if not found.series and not found.texts:
        why = "; ".join(f"{topic}: {text}" for topic, text in found.undecoded.items())
        raise ConfigError(
            f"{recording.path} holds nothing to draw{': ' + why if why else ''} (name fields=/topic.field)"
        )
    parts = [_head(recording, found)]
    for quantity in ("position", "velocity"):
        group = [s for s in found.series.values() if s.joints and s.panel == quantity]
        if group:
            parts.append(_section(f"Joints: {quantity} ({UNITS[quantity]})", _joints(group)))
    if found.texts:
        parts.append(_section("States", _bands(found)))
    others = [s for s in found.series.values() if not s.joints]
    if others:
        figures = "".join(f"<figure><h3>{html.escape(s.topic)} {html.escape(s.panel)}</h3>{_lines(s)}</figure>"
                          for s in others)  # fmt: skip
        parts.append(_section("Other numbers", f'<div class="pair">{figures}</div>'))
    if found.ages:
        parts.append(_section("Age on arrival", _ages(found)))
    if found.undecoded:
        rows = sorted(found.undecoded.items())
        parts.append(_section("Not decoded", _page.table(("topic", "why"), rows)))
    _page.write(path, f"{recording.path.name}: bag", "".join(parts))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _head(recording: Recording, found: Found) -> str:
    state = "" if recording.complete else " Its recorder did not end it: what was whole is shown."
    text = f"{found.end_s:.1f} s, {recording.size / 1e6:.1f} MB, {len(recording.topics)} topics.{state}"
    lost = sum(recording.lost.values())
    if lost:
        text += f" {lost} messages were lost in recording."
    return f'<h1>{html.escape(recording.path.name)}</h1><p class="soft">{html.escape(text)}</p>'


def _joints(group: list[Series]) -> str:
    """A panel a joint, a line a topic: commands lie on what was measured."""
    group = sorted(group, key=lambda s: -len(s.names))  # the arm before its gripper
    names = list(dict.fromkeys(name for s in group for name in s.names))[:MOST]
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(group))]
    rows = -(-len(names) // 2)
    figure, axes = _plots._figure(rows, 2, 9.6, 0.5 + 1.6 * rows, sharex=True)
    for axis, name in zip(axes.flat, names, strict=False):
        for s, colour in zip(group, colours, strict=True):
            if name in s.names:
                _draw(axis, s, s.names.index(name), colour, s.topic)
        axis.set_title(name, fontsize=9)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    legend = " &nbsp; ".join(f'<span style="color:{colour}">&#9632;</span> {html.escape(s.topic)}'
                             for s, colour in zip(group, colours, strict=True))  # fmt: skip
    return f'<p class="small">{legend}</p>{_plots._svg(figure)}'


def _draw(axis: Any, s: Series, column: int, colour: str, label: str) -> None:
    times, values = thinned(np.array(s.times), np.array([row[column] for row in s.rows]), POINTS)
    axis.plot(times, values, color=colour, linewidth=1.1, label=label)


def _lines(s: Series) -> str:
    figure, [[axis]] = _plots._figure(1, 1, 4.7, 2.5)
    for column, (name, colour) in enumerate(zip(s.names, COLOURS * 2, strict=False)):
        _draw(axis, s, column, colour, name)
    axis.set_xlabel("time (s)")
    if len(s.names) > 1:
        axis.legend(frameon=False, fontsize=8, labelcolor=INK)
    return _plots._svg(figure)


def _bands(found: Found) -> str:
    """A row a topic; each text has its colour from when it came until the next."""
    figure, [[axis]] = _plots._figure(1, 1, 9.6, 0.9 + 0.42 * len(found.texts))
    words = list(dict.fromkeys(text for said in found.texts.values() for _, text in said))
    colour = dict(zip(words, COLOURS * len(words), strict=False))
    for row, said in enumerate(found.texts.values()):
        changes = [said[0], *(now for before, now in pairwise(said) if before[1] != now[1])]
        changes = changes[:BANDS]
        ends = [at for at, _ in changes[1:]] + [found.end_s]
        for (at, text), end in zip(changes, ends, strict=True):
            axis.barh(row, end - at, left=at, color=colour[text], height=0.7, alpha=0.8)
            if end - at > 0.012 * len(text) * max(found.end_s, 1e-9) and len(text) < 40:
                axis.text((at + end) / 2, row, text, ha="center", va="center", color="white", fontsize=8)
    axis.set_yticks(range(len(found.texts)), list(found.texts))
    axis.set_xlim(0.0, max(found.end_s, 1e-9))
    axis.set_xlabel("time (s)")
    return _plots._svg(figure)


def _ages(found: Found) -> str:
    rows, figures = [], ""
    for topic, ages in sorted(found.ages.items()):
        p50, p99, most = np.percentile(ages, (50, 99, 100))
        rows.append((topic, len(ages), f"{p50:.2f}", f"{p99:.2f}", f"{most:.2f}"))
        if len(ages) > 1 and most > min(ages):
            figures += _plots.histogram("age on arrival_ms", {topic: ages}, of="messages")
    head = ("topic", "messages", "median (ms)", "99 % below (ms)", "at most (ms)")
    note = '<p class="soft small">From the stamp in a message to its reception, by the clocks of both machines.</p>'
    return f'{_page.table(head, rows)}{note}<div class="pair">{figures}</div>'
