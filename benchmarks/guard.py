"""What the guard costs: `python -m benchmarks.guard [franka] [ur5e] [seconds=N]`.

A moving arm, on one core: proposals at 100 Hz that follow a smooth path, measurements and commands at the profile's
rate. Percentiles of each call in microseconds: processor time of the thread (what an idle core would take, but for
what shares its caches), and time on the clock. The simulated time is the profile's, not the machine's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from real.robots.base import ArmProfile
from real.safety.guard import Guard
from real.safety.proposals import Proposal
from robolearn import config

POLICY_HZ = 100.0
CALLS = ("observe", "propose", "command")


def main() -> None:
    config.discover(["robolearn.robots", "real.robots"])
    words = sys.argv[1:]
    seconds = next((float(w.removeprefix("seconds=")) for w in words if w.startswith("seconds=")), 5.0)
    names = [w for w in words if "=" not in w] or config.names("profile")
    print("| profile | call | calls | cpu p50 | cpu p99 | p50 | p99 | states and clips |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        spent, states = run(config.entry("profile", name).value, seconds)
        for call in CALLS:
            both = np.percentile(np.array(spent[call]) * 1e6, (50, 99), axis=0).T.ravel()
            print(f"| {name} | {call} | {len(spent[call])} | {' | '.join(f'{t:.0f}' for t in both)} | {states} |")


def run(profile: ArmProfile, seconds: float) -> tuple[dict[str, list[tuple[float, float]]], str]:
    spec = config.entry("robot", profile.robot).value
    dt = 1.0 / profile.command_rate_hz
    guard = Guard(profile.limits, spec, ("policy",), dt)
    rest = np.array(spec.of("default_joint_pos", spec.arm_joints))
    spent: dict[str, list[tuple[float, float]]] = {call: [] for call in CALLS}
    measured, states = rest, set()
    for k in range(int(seconds / dt)):
        now = k * dt
        _timed(spent["observe"], guard.observe, now, measured, np.zeros_like(rest), now)
        if k == 0:
            assert guard.take("policy").ok
        if k % round(1.0 / (POLICY_HZ * dt)) == 0:
            phase = np.arange(len(rest))
            goal = rest + 0.15 * (np.sin(1.5 * (now + 1.0 / POLICY_HZ) + phase) - np.sin(phase))
            proposal = Proposal(spec.arm_joints, goal[None], now, 1.0 / POLICY_HZ)
            _timed(spent["propose"], guard.propose, "policy", now, proposal)
        decision = _timed(spent["command"], guard.command, now)
        measured = decision.target
        states.add(decision.state)
    clips = [f"{kind} {n.count}" for kind, n in guard.clips.items() if n.count]
    return spent, ", ".join([*sorted(states), *clips])


def _timed(spent: list[tuple[float, float]], call: Callable[..., Any], *args: Any) -> Any:
    busy, start = time.thread_time(), time.perf_counter()
    result = call(*args)
    spent.append((time.thread_time() - busy, time.perf_counter() - start))
    return result


if __name__ == "__main__":
    main()
