"""The page's section about a quadrotor's flight through ROS 2: what `_fly_trial` measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.cli import _page, _plots
from robolearn.cli._deploy_report import BUSY, LATENCY, NAME
from robolearn.cli._fly_trial import DELAY_S, FILE, RATE_HZ
from robolearn.loops.threads import usable_cores

STILL_MPS = 0.1
LINES = "White is the way that it should take, blue the one it took, red after the kill."


def read(folder: Path) -> dict[str, Any] | None:
    """What is in an experiment's folder; None where nothing was flown."""
    path = folder / FILE
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def rmse_m(found: dict[str, Any]) -> float:
    return float(np.sqrt(np.mean(np.square(found["errors_m"]))))


def section(found: dict[str, Any], simulated_m: float, film: str) -> str:
    """`simulated_m`: the RMS error in the engine of the training. `film`: HTML of it."""
    mine = 1e3 * rmse_m(found)
    figures = "".join(f"<figure>{f}</figure>" for f in (_track(found), _latency(found), _after(found)))
    return (
        "<section><h2>Through ROS 2, as on a Crazyflie</h2><p>Policy, guard and a simulated quadrotor behind "
        "Crazyswarm2's topics and services are processes of their own, which talk over DDS and were started from the "
        f"launch files; the pose comes at {RATE_HZ:.0f} Hz, {1e3 * DELAY_S:.0f} ms late. It took off, followed a "
        f"figure-eight with an RMS error of {mine:.0f} mm ({1e3 * simulated_m:.0f} mm in the engine that it learned "
        f"in), and then its policy was killed: {_ending(found)}.{_busy(found)}</p>{film}"
        f'<div class="pair">{figures}</div>{_counts(found["counts"])}</section>'
    )


def _ending(found: dict[str, Any]) -> str:
    times, poses = np.array(found["times_s"]), np.array(found["poses"])[:, :3]
    after = [(t, s) for t, s in found["states"] if t > found["killed_s"] and s != "flying"]
    asked = after[0][0] if after else times[-1]
    hovering = poses[(times >= found["killed_s"]) & (times < asked)]
    far = float(np.linalg.norm(hovering - hovering[0], axis=1).max()) if len(hovering) else 0.0
    told = ", then ".join(f"{s.replace('_', ' ')} after {t - found['killed_s']:.1f} s" for t, s in after)
    return f"the guard had it hover, at most {far:.2f} m from there, until it was asked to land ({told})"


def _busy(found: dict[str, Any]) -> str:
    if found["load"] <= BUSY * usable_cores():
        return ""
    return (f" Other programs kept this machine busy meanwhile (a load of {found['load']:.1f} on {usable_cores()} "
            "cores), and processes that wait for a core are late.")  # fmt: skip


def _track(found: dict[str, Any]) -> str:
    times, poses, goals = np.array(found["times_s"]), np.array(found["poses"]), np.array(found["goals"])
    before = times <= found["killed_s"]
    paths = {
        "where it should be": goals[:, 1:3],
        "where it was": poses[before, :2],
        "after the kill": poses[~before, :2],
    }
    return _plots.paths(paths) + "<figcaption>Seen from above; the true place of the simulated vehicle.</figcaption>"


def _latency(found: dict[str, Any]) -> str:
    middle, most = np.quantile(found["latency_ms"], (0.5, 0.99))
    return (
        _plots.histogram(LATENCY, {NAME: found["latency_ms"]}, of="proposals")
        + f"<figcaption>From a pose's stamp to the first set-point that follows from it: half within {middle:.1f} ms, "
        f"99 % within {most:.1f} ms. The radio's delay comes before it.</figcaption>"
    )


def _after(found: dict[str, Any]) -> str:
    times, speed = np.array(found["times_s"]) - found["killed_s"], np.array(found["speeds_mps"])
    shown = times > -1.0
    moving = times[(speed > STILL_MPS) & (times > 0.0)]
    rest = f"slower than {STILL_MPS:g} m/s from {moving[-1]:.1f} s on" if len(moving) else "at rest at once"
    line = {"speed": np.stack((times[shown], speed[shown]), axis=1).tolist()}
    return (
        _plots.speeds(line, "the policy is killed", "speed_mps")
        + f"<figcaption>kill -9 of the policy in flight: {rest}, by the vehicle's own commander.</figcaption>"
    )


def _counts(counts: dict[str, int]) -> str:
    rows = [(name.replace("_", " "), f"{n:,}") for name, n in counts.items() if n]
    return _page.table(("what the nodes counted", "times"), rows)
