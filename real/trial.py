"""A policy put to the test through ROS 2: an episode on a twin as in simulation, and what becomes of an arm that moves
when something fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from real.listener import TrialError, latencies
from real.watcher import Floats, Heard, Motion, Watcher

LATE_S = 0.02
"""A measurement this long after the end of an episode still counts as of its end."""
MOVING_RADPS = 0.3
"""Of the fastest commanded joint, at least, when something is to happen to a moving arm."""
STEADY_S = 0.05
"""For which it has not become slower."""
BEFORE_S, AFTER_S = 0.25, 1.0
"""What is kept of a fault."""


# --- an episode ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Episode:
    joints: Floats
    """(n,) of the arm, measured when the episode's length was over."""
    late_s: float
    """How long after that."""
    states: list[str]
    """The guard's, after it first followed the policy: none, where all went well."""
    latency_s: list[float]
    """From a state's stamp to the first command that follows what was proposed from it."""
    track: list[Motion]
    """The measured states, from the first proposal on."""


def run_episode(watcher: Watcher, start: Floats, goals: Mapping[str, Sequence[float]], seconds: float) -> Episode:
    """Its length counts from the stamp of the state that the first proposal was computed from. Raises TrialError where
    it could not be run, or no state was heard when it was over: on a busy machine another try may do."""
    watcher.begin(start, goals)
    end_ns = watcher.heard.proposals[0].stamp_ns + round(1e9 * seconds)
    joints = watcher.heard.joints
    watcher.wait(lambda: joints and joints[-1].stamp_ns >= end_ns, "the end of the episode", seconds + 10.0)
    last = next(j for j in joints if j.stamp_ns >= end_ns)
    late_s = 1e-9 * (last.stamp_ns - end_ns)
    if late_s > LATE_S:
        raise TrialError(f"no joint state within {late_s:.3g} s of the end of an episode")
    said = [state for _, state in watcher.heard.states]
    after = said[said.index("active") + 1 :] if "active" in said else said
    return Episode(last.position, late_s, after, latencies(watcher.heard), list(joints))


# --- a fault -------------------------------------------------------------------------------------------------

Series = list[tuple[float, float]]
"""Seconds after the fault, by the stamps, and the speed of the fastest joint, rad/s."""


@dataclass(frozen=True)
class Stop:
    commanded: Series
    measured: Series


def record_fault(watcher: Watcher, start: Floats, goals: Sequence[Mapping[str, Sequence[float]]],
                 strike: Callable[[], None]) -> Stop:  # fmt: skip
    """What becomes of an arm that moves when `strike` is called: at the first of the goals on whose way it is fast.
    Raises TrialError if it never is."""
    for goal in goals:
        watcher.begin(start, goal)
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            watcher.spin()
            if watcher.state == "active" and on_its_way(watcher.heard.targets):
                fault_s = time.time()
                strike()
                watcher.stay(AFTER_S + 0.1)
                return stop_of(watcher.heard, fault_s)
    raise TrialError(f"the arm never moved at {MOVING_RADPS:g} rad/s")


def on_its_way(targets: Sequence[Motion]) -> bool:
    """Whether the arm has been moving for so long that it can be shown, fast, and is not slowing down by itself."""
    if not targets or targets[-1].at_s - targets[0].at_s < BEFORE_S:
        return False
    now_s, speed = targets[-1].at_s, abs(targets[-1].velocity).max()
    recent = takewhile(lambda t: now_s - t.at_s < STEADY_S, reversed(targets))
    return bool(speed > MOVING_RADPS and speed > 0.99 * max(abs(t.velocity).max() for t in recent))


def stop_of(heard: Heard, fault_s: float) -> Stop:
    """`fault_s` on the clock of the stamps."""

    def series(motions: Sequence[Motion]) -> Series:
        pairs = ((1e-9 * m.stamp_ns - fault_s, float(abs(m.velocity).max())) for m in motions)
        return [(t, speed) for t, speed in pairs if -BEFORE_S <= t <= AFTER_S]

    return Stop(series(heard.targets), series(heard.joints))
