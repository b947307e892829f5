"""Coverage of `robolearn sysid`: `python -m benchmarks.sysid [arm|attitude|rotor ...] [trials=20] [noise=0.1]`, and
`first=0`, the seed of the first trial.

Each trial draws a robot's parameters, records a log of it in PyBullet and adds white noise of `noise` times each
signal's own standard deviation over the log; the fit replays it in the other engine (MuJoCo; the quadrotor's kernel).
Counted: trials in which every true value is inside its interval, which are joint; and which values were not, and how
wide the intervals are.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import torch

from robolearn import config
from robolearn.cli import _world
from robolearn.spec import RobotSpec
from sim.sysid import checks, fit, log, record
from sim.sysid.arm import ArmReplay
from sim.sysid.flight import FlightReplay

SECONDS, RATE_HZ = {"arm": 6.0, "attitude": 10.0, "rotor": 10.0}, {"arm": 60.0, "attitude": 100.0, "rotor": 100.0}


def draw(kind: str, spec: RobotSpec, g: np.random.Generator) -> dict[str, float]:
    """A robot."""
    if kind == "arm":
        drawn = {
            "delay_s": g.uniform(0.0, 0.03), "kp": g.uniform(0.8, 1.25), "kd": g.uniform(0.8, 1.25),
            "joint_damping": g.uniform(0.0, 2.0), "joint_friction": g.uniform(0.1, 1.5),
        }  # fmt: skip
        return drawn | {f"trim.{n}": 0.01 * g.standard_normal() for n in spec.arm_joints}
    drawn = {
        "delay_s": 0.002 * g.integers(0, 10), "mass": g.uniform(0.95, 1.2), "thrust": g.uniform(0.9, 1.1),
        "inertia": g.uniform(0.8, 2.5), "reaction_torque": g.uniform(0.7, 1.4), "spin_up": g.uniform(0.3, 1.2),
        "spin_down": g.uniform(0.3, 1.2), "drag": g.uniform(0.5, 2.0),
    }  # fmt: skip
    trims = {f"trim.{axis}": 0.02 * g.standard_normal() for axis in ("roll", "pitch")}
    return drawn | (trims if kind == "attitude" else {})


def trial(kind: str, seed: int, noise: float) -> tuple[dict[str, float], fit.Fit, float]:
    """True values, the fit, and how long it took."""
    spec: RobotSpec = config.entry("robot", "franka" if kind == "arm" else "crazyflie").value
    g = np.random.default_rng(seed)
    bullet = _world.backend_config("pybullet", None)
    command = "" if kind == "arm" else f"{kind}_command"
    while True:
        truth = draw(kind, spec, g)
        try:
            made = record.record(spec, bullet, SECONDS[kind], RATE_HZ[kind], truth, seed, command)
            break
        except record.NotFlying:  # the firmware's gains suit not every inertia and rotor: draw another vehicle
            continue
    seen = checks.checked(log.noisy(made, noise, g), spec)
    start, replay = time.perf_counter(), _replay(kind, seen, spec, truth)
    try:
        return truth, fit.Estimator(replay, seed)(), time.perf_counter() - start
    finally:
        replay.close()


def _replay(kind: str, seen: log.Log, spec: RobotSpec, truth: dict[str, float]) -> Any:
    if kind == "arm":
        return ArmReplay(seen, spec, _world.backend_config("mujoco", None))
    assert spec.quadrotor is not None
    weighed = truth["mass"] * spec.quadrotor.mass_kg
    return FlightReplay(seen, spec, _world.backend_config("quadrotor", None), weighed)


def main() -> None:
    torch.set_num_threads(1)
    _world.discover()
    words = dict(w.split("=") for w in sys.argv[1:] if "=" in w)
    kinds = [w for w in sys.argv[1:] if "=" not in w] or list(SECONDS)
    if not set(kinds) <= set(SECONDS) or not set(words) <= {"trials", "noise", "first"}:
        raise SystemExit(f"kinds are {', '.join(SECONDS)}, options trials=, noise= and first= (seed)")
    trials, noise = int(words.get("trials", 20)), float(words.get("noise", 0.1))
    for kind in kinds:
        held, missed, widths, times = 0, Counter[str](), dict[str, list[float]](), []
        for seed in range(int(words.get("first", 0)), int(words.get("first", 0)) + trials):
            truth, found, seconds = trial(kind, seed, noise)
            outside = [e.parameter.name for e in found.estimates if not e.low <= truth[e.parameter.name] <= e.high]
            vague = [e.parameter.name for e in found.estimates if not e.identifiable]
            held += not outside
            missed.update(outside)
            times.append(seconds)
            for e in found.estimates:
                widths.setdefault(e.parameter.name, []).append((e.high - e.low) / 2.0)
            unseen = f"; not identifiable: {', '.join(vague)}" if vague else ""
            verdict = f"outside: {', '.join(outside)}" if outside else "all inside"
            print(f"{kind} {seed}: {verdict}{unseen} ({seconds:.0f} s)", flush=True)
        print(
            f"\n{kind}: all true values inside in {held} of {trials}; fit in {statistics.median(times):.0f} s (median)"
        )
        print("| parameter | inside | half width of the interval, median |\n|---|---|---|")
        for name, width in widths.items():
            print(f"| {name} | {trials - missed[name]} of {trials} | {statistics.median(width):.3g} |")


if __name__ == "__main__":
    main()
