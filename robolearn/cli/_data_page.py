"""`robolearn data info` and `view`: a set of episodes as a table, and as one page."""

from __future__ import annotations

import base64
import html
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robolearn.cli import _bag_series, _page, _plots, _video
from robolearn.cli._plots import BLUE, GREEN, INK, ORANGE, RED
from robolearn.cli._table import table
from robolearn.data import labels, stats
from robolearn.data.layout import Feature
from robolearn.data.read import Episodes
from robolearn.data.video import rate_of
from robolearn.errors import ConfigError

COLOURS = BLUE, ORANGE, GREEN, RED, "#8a63d2", "#2aa7b8", "#b0803c", "#d064a5"
MOST_EPISODES = 6
MOST_LINES = 8
"""Numbers of a vector that are drawn."""
POINTS = 400
MB = 1024**2


def _kind(feature: Feature) -> str:
    shape = "x".join(map(str, feature.shape))
    return f"{feature.codec or 'video'} {shape}" if feature.video else f"{feature.dtype} {shape}"


def _summary(episodes: Episodes) -> str:
    size = sum(p.stat().st_size for p in episodes.root.rglob("*") if p.is_file()) / MB
    out = f"{len(episodes)} episodes, {episodes.frames} steps at {episodes.fps:g} Hz, {size:.1f} MB"
    out += f", robot {episodes.info.robot}" if episodes.info.robot else ""
    return out + (f", {len(episodes.skipped)} left out" if episodes.skipped else "")


def describe(episodes: Episodes) -> str:
    lines = [f"{episodes.root}: {_summary(episodes)}"]
    if len(episodes):
        low, middle, high = np.percentile(episodes.lengths, (0, 50, 100))
        lines.append(f"steps an episode: {low:.0f} to {high:.0f}, median {middle:.0f}")
    features = episodes.info.features.items()
    rows = [(k, _kind(f), f.unit, " ".join(f.names or ())) for k, f in features]
    lines += ["", table(rows, ("feature", "kind", "unit", "names"))]
    found_tasks = Counter(episodes.task(e) for e in episodes.ids)
    counts = [(t, found_tasks[t]) for t in episodes.tasks]
    lines += ["", table([(str(n), task or "(none)") for task, n in counts], ("episodes", "instruction"))]
    found = labels.versions(episodes.root)
    if found:
        versions = [(name, " ".join(map(str, numbers))) for name, numbers in found.items()]
        lines += ["", table(versions, ("label", "versions"))]
    return "\n".join(lines)


def write(path: Path, episodes: Episodes, ids: Sequence[int] = ()) -> None:
    """One HTML file that loads nothing. Raises ConfigError if there is no episode to show."""
    if not len(episodes):
        raise ConfigError(f"{episodes.root} has no episode to show")
    shown = list(ids) or episodes.ids[:MOST_EPISODES]
    for episode in shown:
        episodes.length(episode)  # is it there?
    name = html.escape(episodes.root.absolute().name)
    parts = [
        f'<h1>{name}</h1><p class="soft">{html.escape(_summary(episodes))}</p>',
        _section("Statistics", _statistics(episodes)),
    ]
    parts += [_section(f"Episode {e}", _episode(episodes, e)) for e in shown]
    _page.write(path, f"{episodes.root.absolute().name}: episodes", "".join(parts))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _statistics(episodes: Episodes) -> str:
    rows = []
    for key in episodes.numbers:
        values = episodes.column(key).numpy()
        found = stats.of_numbers(values.reshape(len(values), -1))
        feature = episodes.info.features.get(key)
        names = (feature.names if feature else None) or tuple(map(str, range(len(found["min"]))))
        for i, name in enumerate(names[:MOST_LINES]):
            what = key if len(names) == 1 else f"{key} {name}"
            rows.append((what, *(f"{found[k][i]:.4g}" for k in ("min", "q01", "q50", "q99", "max", "mean", "std"))))
    seconds = {"": [length / episodes.fps for length in episodes.lengths.tolist()]}
    lengths = _plots.histogram("length_s", {"all": seconds[""]}) if len(episodes) > 1 else ""
    head = ("number", "least", "1 %", "median", "99 %", "greatest", "mean", "deviation")
    return (_page.table(head, rows) if rows else "") + f'<div class="pair"><figure>{lengths}</figure></div>'


def _episode(episodes: Episodes, episode: int) -> str:
    length = episodes.length(episode)
    text = f"{length} steps, {length / episodes.fps:.2f} s. {episodes.task(episode)}"
    films = "".join(f"<figure>{_film(episodes, k, episode)}<figcaption>{html.escape(k)}</figcaption></figure>"
                    for k in episodes.info.videos)  # fmt: skip
    curves = "".join(f"<figure><h3>{html.escape(key)}</h3>{_curve(episodes, key, values.numpy())}</figure>"
                     for key, values in episodes.episode(episode).items())  # fmt: skip
    return f'<p class="soft">{html.escape(text)}</p><div class="pair">{films}</div><div class="pair">{curves}</div>'


def _film(episodes: Episodes, key: str, episode: int) -> str:
    """H.264 that every browser plays, whatever the set has; of even size."""
    pictures = episodes.pictures(key, episode, range(episodes.length(episode))).numpy()
    height, width = (n // 2 * 2 for n in pictures.shape[1:3])
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        _video.write(film, iter(pictures[:, :height, :width]), rate_of(episodes.fps))
        data = base64.b64encode(film.read_bytes()).decode()
    return f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'


def _curve(episodes: Episodes, key: str, values: np.ndarray) -> str:
    flat, feature = values.reshape(len(values), -1).astype(float), episodes.info.features.get(key)
    names = (feature.names if feature else None) or tuple(map(str, range(flat.shape[1])))
    figure, [[axis]] = _plots._figure(1, 1, 4.7, 2.5)
    times = np.arange(len(flat)) / episodes.fps
    for column, (name, colour) in enumerate(zip(names[:MOST_LINES], COLOURS, strict=False)):
        axis.plot(*_bag_series.thinned(times, flat[:, column], POINTS), color=colour, linewidth=1.1, label=name)
    axis.set_xlabel("time (s)")
    if feature and feature.unit:
        axis.set_ylabel(feature.unit)
    if len(names) > 1:
        axis.legend(frameon=False, fontsize=8, labelcolor=INK)
    more = f'<p class="soft small">and {len(names) - MOST_LINES} more</p>' if len(names) > MOST_LINES else ""
    return _plots._svg(figure) + more
