"""The demo's flight through ROS 2: twin, guard and policy as processes of their own, started from the launch files. The
quadrotor takes off, follows a figure-eight, then its policy is killed, and it lands."""

from __future__ import annotations

import json
import logging
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn import registry
from robolearn.cli._deploy_trial import Launched
from robolearn.errors import UserError
from robolearn.loops.log import Display
from robolearn.paths import share_dir

if TYPE_CHECKING:
    from real.flight.watcher import FlightWatcher

log = logging.getLogger(__name__)

FILE = "flight.json"
NAMESPACE = "cf1"
DELAY_S, RATE_HZ = 0.01, 50.0
"""Of the twin's radio, each way, and of its pose."""
ROUNDS, AFTER_S = 1.5, 3.0
"""Rounds of the figure-eight before the kill; how long it hovers after it."""
TRIES = 2


def can_fly(packed: Any) -> bool:
    """Whether a policy is of a quadrotor with a site file of ours, and commands what a radio carries."""
    registry.discover(("real.robots",))
    site = share_dir() / f"configs/site/{packed.spec.robot}.yaml"
    return packed.spec.action.function == "attitude" and site.is_file()


def measure(path: Path, run: Path, period_s: float, size_m: float) -> None:
    """Write what was heard of a flight. Raises TrialError; what the processes said is beside the file."""
    for left in reversed(range(TRIES)):
        try:
            found = _fly(path, run.resolve(), period_s, size_m)
            break
        except UserError as error:
            if not left:
                raise
            log.warning("flight through ROS 2: %s; once more", error)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(path)


def _fly(path: Path, run: Path, period_s: float, size_m: float) -> dict[str, Any]:
    from real.domain import own_domain
    from real.flight.goals import RAMP_S
    from real.flight.watcher import FlightWatcher
    from real.listener import TrialError

    load, seconds = os.getloadavg()[0], RAMP_S + ROUNDS * period_s
    with ExitStack() as stack, Display(100, "flight through ROS 2") as display:
        stack.enter_context(own_domain())
        logs = {n: path.with_name(f"flight_{n}.log") for n in ("twin", "fly")}
        twin_words = (f"rate_hz:={RATE_HZ}", f"delay_s:={DELAY_S}")
        twin = stack.enter_context(Launched(logs["twin"], "flight_twin", *twin_words))
        words = (f"run:={run}", "trajectory:=figure_eight", f"period_s:={period_s}", f"size_m:={size_m}")
        fly = stack.enter_context(Launched(logs["fly"], "fly", *words))
        watcher = stack.enter_context(FlightWatcher(lambda: twin.trouble() or fly.trouble(), NAMESPACE))
        watcher.await_all()
        display.update(20, {})
        watcher.take_off()
        display.update(30, {})
        watcher.start()
        watcher.stay(seconds)
        if watcher.owner != "policy":
            raise TrialError(f"the policy lost authority on its way; {logs['fly']} says why")
        flown = {"errors_m": watcher.errors(RAMP_S).tolist(), "latency_ms": watcher.latencies_ms()}
        display.update(80, {})
        killed_s = watcher.heard.truth[-1].stamp_s
        os.kill(fly.pid_of("policy"), signal.SIGKILL)
        watcher.stay(AFTER_S)
        watcher.land()
        display.update(100, {})
        told = {"load": max(load, os.getloadavg()[0]), "killed_s": killed_s, "counts": dict(watcher.counts)}
        return flown | told | _track(watcher)


def _track(watcher: FlightWatcher) -> dict[str, Any]:
    """Times, true poses (n, 7), goals (time and place) and the guard's states."""
    heard = watcher.heard
    poses = [[*t.position.tolist(), *q.tolist()] for t, q in zip(heard.truth, heard.turns, strict=True)]
    return {
        "times_s": [t.stamp_s for t in heard.truth],
        "poses": np.round(poses, 5).tolist(),
        "speeds_mps": [round(float(np.linalg.norm(t.velocity)), 4) for t in heard.truth],
        "goals": [[g.stamp_s, *g.position.tolist()] for g in heard.goals],
        "states": [[t, s] for t, s in heard.states if t == t],
    }
