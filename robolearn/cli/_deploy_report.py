"""The page's section about an arm's trial through ROS 2: what `_deploy_trial` measured."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn.cli import _page, _plots
from robolearn.cli._deploy_trial import FILE
from robolearn.loops.threads import usable_cores

NAME = "through ROS 2"
LATENCY = "state_to_command_ms"
STILL_RADPS = 0.05
"""Of a measured joint that has come to rest: the arm follows its set-points softly, and so creeps at the end."""
BUSY = 2.0
"""Programs that want to run, for each core, from which on a reader should know."""
Series = Sequence[Sequence[float]]
"""Seconds after the kill, and the speed of the fastest joint, rad/s."""


class Deployed:
    """A trial's file."""

    def __init__(self, found: dict[str, Any]):
        self.rows: dict[str, Tensor] = {k: torch.tensor(v) for k, v in found["rows"].items()}
        self.latency_ms: list[float] = found["latency_ms"]
        self.stop: dict[str, Series] | None = found["stop"]
        """None where there was none, and `not_killed` says why."""
        self.not_killed: str = found["not_killed"]
        self.launch_code: int | None = found["launch_code"]
        self.held, self.repeated, self.state_ms = found["held"], found["repeated"], found["state_ms"]
        self.load: float = found["load"]
        self.counts: dict[str, int] = found["counts"]


def read(folder: Path) -> Deployed | None:
    """What is in an experiment's folder; None where nothing was tried."""
    path = folder / FILE
    return Deployed(json.loads(path.read_text())) if path.is_file() else None


def section(found: Deployed, score: dict[str, Any], period_ms: float, film: str = "") -> str:
    """`score`: the summary of its rows. `period_ms`: the policy's. `film`: HTML of it."""
    low, high = 100 * score["success_low"], 100 * score["success_high"]
    figures = [_latency(found, period_ms), *([_stop(found.stop, found.launch_code)] if found.stop else [])]
    return (
        "<section><h2>Through ROS 2, as on a robot</h2><p>The policy as a node behind the guard, on the topics of a "
        "real arm: policy, guard and a simulated arm are processes of their own, which talk over DDS and were started "
        f"from the launch files. It was given {score['episodes']} goals one after the other, drawn and judged as in an "
        f"evaluation, on the joints that the arm reported: {100 * score['success']:.1f} % success, 95 % interval "
        f"{low:.1f} to {high:.1f} %.{_events(found)}</p>{film}"
        f'<div class="pair">{"".join(f"<figure>{f}</figure>" for f in figures)}</div>{_counts(found.counts)}</section>'
    )


def _events(found: Deployed) -> str:
    told = ""
    if found.held:
        failed = sum(not found.rows["success"][k] for k in found.held)
        told += f" The guard held or stopped the arm in {_times(len(found.held))}, of which {failed} failed."
    if found.repeated:
        told += f" Repeated, for this machine was too busy to run or measure them in time: {_times(found.repeated)}."
    if found.load > BUSY * usable_cores():
        told += (
            f" Other programs kept this machine busy meanwhile (a load of {found.load:.1f} on {usable_cores()} cores), "
            "and processes that wait for a core are late."
        )
    if found.stop is None:
        told += f" There is no stop after a kill to be seen: {html.escape(found.not_killed)}."
    return told


def _times(count: int) -> str:
    return f"{count} episode{'s' * (count != 1)}"


def _latency(found: Deployed, period_ms: float) -> str:
    values = torch.tensor(found.latency_ms, dtype=torch.float64)
    middle, most = (float(values.quantile(q)) for q in (0.5, 0.99))
    return (
        _plots.histogram(LATENCY, {NAME: found.latency_ms}, of="proposals")
        + f"<figcaption>From the stamp of the arm's state to the guard's first command that follows from it: half "
        f"within {middle:.1f} ms, 99 % within {most:.1f} ms, of the policy's period of {period_ms:.0f} ms. The arm "
        f"tells its state every {found.state_ms:.1f} ms, so up to that much of it is the state's age.</figcaption>"
    )


def _stop(stop: dict[str, Series], launch_code: int | None) -> str:
    _, unit, factor = _plots.metric("speed_radps")
    speed = STILL_RADPS * factor
    rests = [_rest(rest_s(stop["commanded"], 0.0)), _rest(rest_s(stop["measured"], STILL_RADPS))]
    return (
        _plots.speeds(stop, "the policy is killed")
        + "<figcaption>kill -9 of the policy while the arm moves: the launch comes down (exit code "
        f"{launch_code}), and the guard brakes the arm within its limits before it ends. What it commands is at "
        f"rest {rests[0]}, the arm, which follows softly, {rests[1]} (below {speed:.0f} {unit}).</figcaption>"
    )


def rest_s(series: Series, still_radps: float) -> float | None:
    """When it had come to rest for good; None if it had not."""
    moving = [k for k, (_, speed) in enumerate(series) if speed > still_radps]
    first = moving[-1] + 1 if moving else 0
    return series[first][0] if first < len(series) else None


def _rest(seconds: float | None) -> str:
    return "not within what was recorded" if seconds is None else f"after {1e3 * max(0.0, seconds):.0f} ms"


def _counts(counts: dict[str, int]) -> str:
    rows = [(name.replace("_", " "), f"{n:,}") for name, n in counts.items() if n]
    return _page.table(("what the nodes counted", "times"), rows) + (
        '<p class="soft small">Between episodes the simulated arm is put where the next one starts: it jumps.</p>'
    )
