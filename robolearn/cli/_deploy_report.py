"""The page's section about an arm's trial through ROS 2: what `_deploy_trial` measured."""

from __future__ import annotations

import html
import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn.cli import _page, _plots
from robolearn.cli._deploy_trial import FILE

NAME = "through ROS 2"
LATENCY = "state_to_command_ms"
STILL_RADPS = 0.02
"""Of a measured joint that has come to rest."""
Series = Sequence[Sequence[float]]
"""Seconds after the kill, and the speed of the fastest joint, rad/s."""


class Deployed:
    """A trial's file."""

    def __init__(self, found: dict[str, Any]):
        self.rows: dict[str, Tensor] = {k: torch.tensor(v) for k, v in found["rows"].items()}
        self.latency_ms: list[float] = found["latency_ms"]
        self.stop: dict[str, Series] = found["stop"]
        self.held, self.repeated, self.launch_code = found["held"], found["repeated"], found["launch_code"]
        self.counts: dict[str, int] = found["counts"]

    @property
    def state_ms(self) -> float:
        """Between two states of the arm."""
        times = [t for t, _ in self.stop["measured"]]
        return 1e3 * statistics.median(b - a for a, b in itertools.pairwise(times))


def read(folder: Path) -> Deployed | None:
    """What is in an experiment's folder; None where nothing was tried."""
    path = folder / FILE
    return Deployed(json.loads(path.read_text())) if path.is_file() else None


def section(found: Deployed, score: dict[str, Any], period_ms: float) -> str:
    """`score`: the summary of its rows. `period_ms`: the policy's."""
    low, high = 100 * score["success_low"], 100 * score["success_high"]
    figures = (_latency(found, period_ms), _stop(found))
    return (
        "<section><h2>Through ROS 2, as on a robot</h2><p>The policy as a node behind the guard, on the topics of a "
        "real arm: policy, guard and a simulated arm are processes of their own, which talk over DDS and were started "
        f"from the launch files. It was given {score['episodes']} goals one after the other, drawn and judged as in an "
        f"evaluation, on the joints that the arm reported: {100 * score['success']:.1f} % success, 95 % interval "
        f"{low:.1f} to {high:.1f} %.{_events(found)}</p>"
        f'<div class="pair">{"".join(f"<figure>{f}</figure>" for f in figures)}</div>{_counts(found.counts)}</section>'
    )


def _events(found: Deployed) -> str:
    told = ""
    if found.held:
        failed = sum(not found.rows["success"][k] for k in found.held)
        told += f" The guard held or stopped the arm in {_times(len(found.held))}, of which {failed} failed."
    if found.repeated:
        told += f" Repeated, for this machine was too busy to measure the end in time: {_times(found.repeated)}."
    return told


def _times(count: int) -> str:
    return f"{count} episode{'s' * (count != 1)}"


def _latency(found: Deployed, period_ms: float) -> str:
    values = torch.tensor(found.latency_ms, dtype=torch.float64)
    middle, most = (float(values.quantile(q)) for q in (0.5, 0.99))
    return (
        _plots.histogram(LATENCY, {NAME: found.latency_ms}, of="proposals")
        + f"<figcaption>From the moment that the arm's state is of to the guard's first command that follows from it: "
        f"half within {middle:.1f} ms, 99 % within {most:.1f} ms, of the policy's period of {period_ms:.0f} ms. The "
        f"arm tells its state every {found.state_ms:.1f} ms, so up to that much of it is the state's age.</figcaption>"
    )


def _stop(found: Deployed) -> str:
    rests = [_rest(rest_s(found.stop["commanded"], 0.0)), _rest(rest_s(found.stop["measured"], STILL_RADPS))]
    return (
        _plots.speeds(found.stop, "the policy is killed")
        + "<figcaption>kill -9 of the policy while the arm moves: the launch comes down (exit code "
        f"{found.launch_code}), and the guard brakes the arm within its limits before it ends. What it commands is at "
        f"rest {rests[0]}, the arm {rests[1]} (below {STILL_RADPS:g} rad/s).</figcaption>"
    )


def rest_s(series: Series, still_radps: float) -> float | None:
    """When it had come to rest for good; None if it had not."""
    moving = [k for k, (_, speed) in enumerate(series) if speed > still_radps]
    first = moving[-1] + 1 if moving else 0
    return series[first][0] if first < len(series) else None


def _rest(seconds: float | None) -> str:
    return "not within what was recorded" if seconds is None else f"after {1e3 * max(0.0, seconds):.0f} ms"


def _counts(counts: dict[str, int]) -> str:
    rows = [(html.escape(name.replace("_", " ")), f"{n:,}") for name, n in counts.items() if n]
    return _page.table(("what the nodes counted", "times"), rows) if rows else ""
