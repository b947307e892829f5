"""How soon the arm stops: `stops` and `watchdog` of benchmarks.deploy.

Time starts before the signal is sent, or before the first NaN is published, on this process's steady clock; it ends
when this process has taken the message, so what its own turn on the processor takes counts too.

The safe action is looked for in the commands themselves: the first of them from which on every joint's speed is at most
what braking as hard as the limits allow leaves of it, one command after the other, down to rest. What braking leaves
is computed from the commands before by the limits' own function. Acceleration changes at the jerk limit, so a joint
that was speeding up does so for two more commands, and one that comes to rest creeps back by a few mrad/s; any other
rise after that is an error.
"""

from __future__ import annotations

import itertools
import logging
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deploy_stack import GOAL, Floats, Stack, median
from real.connection import JointTrajectory, JointTrajectoryPoint, duration_of
from real.listener import TrialError
from real.watcher import Motion
from robolearn.limits import JointLimits, TargetState, velocity_bounds

log = logging.getLogger(__name__)

LATEST_S = 0.1
TRIES = 3
FAST_RADPS = 0.2
"""Of the fastest joint when the fault comes, at least."""
NOTHING_RADPS = 1e-5
STILL_RADPS = 0.01
"""Of a measured joint at rest."""
ENV_HZ = 50.0
TWIN_HZ = 240.0
"""As long as nobody says otherwise."""


@dataclass(frozen=True)
class Stop:
    """Seconds after the fault."""

    safe_s: float
    rest_s: float
    state_s: float
    """The guard says that it holds, or is stopped."""
    speed_radps: float
    """Of the fastest commanded joint when the fault came."""


def braking_since(targets: Sequence[Motion], limits: JointLimits, dt: float) -> int | None:
    """Index of the first of the guard's targets from which on all of them brake; None if they do not come to rest.
    The first two are never it: what came before them is not known. Raises TrialError if a joint speeds up again.
    """
    since, speeds = len(targets), [abs(t.velocity) for t in targets]
    if len(targets) < 3 or speeds[-1].any():
        return None
    for k in range(len(targets) - 1, 1, -1):
        if (speeds[k] > _braked(targets[k - 2 : k + 1], limits, dt) + NOTHING_RADPS).any():
            break
        since = k
    turn_s, creep = float((limits.acceleration / limits.jerk).max()), limits.acceleration**2 / limits.jerk
    first = since + int(np.ceil(turn_s / dt)) + 1
    rises = [
        k for k in range(first, len(targets)) if (speeds[k] > np.maximum(speeds[k - 1] + NOTHING_RADPS, creep)).any()
    ]
    if rises:
        raise TrialError(f"a joint speeds up again {rises[0] - since} commands after braking began")
    return since if since < len(targets) else None


def _braked(three: Sequence[Motion], limits: JointLimits, dt: float) -> Floats:
    """Speed (n,) of the last of three targets had it been braked as hard as is allowed."""
    steps = [min(1e-9 * (b.stamp_ns - a.stamp_ns), 2.0 * dt) for a, b in itertools.pairwise(three)]
    acceleration = (three[1].velocity - three[0].velocity) / steps[0]
    before = TargetState(*(row[None] for row in (three[1].position, three[1].velocity, acceleration)))
    low, high = velocity_bounds(before, limits, steps[1])
    return np.asarray(abs(np.clip(0.0, low, high))[0])


def ticks(targets: Sequence[Motion], dt: float) -> list[Motion]:
    """Without those that repeat the one before: the guard was asked too early."""
    kept: list[Motion] = []
    for target in targets:
        if not kept or target.stamp_ns - kept[-1].stamp_ns > 1e8 * dt:
            kept.append(target)
    return kept


# --- one fault -----------------------------------------------------------------------------------------------


def move(stack: Stack) -> None:
    """The policy moves the arm, from its rest posture; again where the machine was too busy for that."""
    for _ in range(5):
        stack.begin(stack.rest, GOAL)
        stack.stay(0.3 + 0.1 * random.random())  # any phase of its period
        if stack.state == "active" and stack.speed() > FAST_RADPS:
            return
    raise TrialError(f"the arm does not move: {stack.state}")


def outcome(stack: Stack, fault_s: float, ends: str) -> Stop:
    """What the guard made of a fault, once its target is at rest and its state is `ends`."""
    at = [t for t in stack.heard.targets if t.at_s < fault_s]
    speed = float(abs(at[-1].velocity).max()) if at else 0.0
    if speed < FAST_RADPS:
        raise TrialError(f"the arm was hardly moving: {speed:.3g} rad/s")
    stack.wait(lambda: stack.speed() == 0.0 and stack.state == ends, f"{ends} and at rest", 10.0)
    dt = 1.0 / stack.profile.command_rate_hz
    targets = ticks(stack.heard.targets, dt)
    since = braking_since(targets, stack.profile.limits.joints(), dt)
    if since is None or targets[since].at_s < fault_s:
        raise TrialError("no safe action after the fault")
    sent = {position.tobytes(): at_s for at_s, position in reversed(stack.commands)}
    rest = next(t for t in targets[since:] if not t.velocity.any())
    state = next(at_s for at_s, _ in stack.heard.states if at_s >= fault_s)
    times = sent[targets[since].position.tobytes()], sent[rest.position.tobytes()], state
    return Stop(*(time_s - fault_s for time_s in times), speed)


def killed(stack: Stack) -> Stop:
    move(stack)
    found = outcome(stack, stack.kill("policy"), "stopped")
    stack.end("guard")  # which would take a second policy for another node that proposes as policy
    stack.start("guard", "policy")
    return found


def frozen(stack: Stack) -> Stop:
    move(stack)
    found = outcome(stack, stack.kill("policy", signal.SIGSTOP), "stopped")
    stack.kill("policy", signal.SIGCONT)
    stack.wait(lambda: stack.said("policy", "the guard "), "the policy goes on", 10.0)
    return found


def unheard(stack: Stack) -> Stop:
    move(stack)
    try:
        return outcome(stack, stack.kill("twin", signal.SIGSTOP), "stopped")
    finally:
        stack.kill("twin", signal.SIGCONT)
        stack.stay(0.2)


def no_numbers(stack: Stack) -> Stop:
    """A source that has authority swings the arm, then proposes NaN at the same rate."""
    stack.halt()
    stack.place(stack.rest)
    stack.clear()
    stack.demand("guard/take/env")
    stack.wait(lambda: stack.heard.joints and stack.state == "holding", "authority")
    began = time.monotonic()
    fault_s, until_s = None, began + 1.0 + 0.1 * random.random()
    while stack.state != "stopped":
        now = time.monotonic()
        if fault_s is None and now >= until_s:
            fault_s = now
        goal = stack.rest + 0.3 * (1.0 - np.cos(2.0 * (now - began + 1.0 / ENV_HZ)))
        _propose(stack, goal if fault_s is None else np.full_like(goal, np.nan))
        stack.stay(1.0 / ENV_HZ)
        if now - began > 10.0:
            raise TrialError("proposals of NaN do not stop the arm")
    if fault_s is None:
        raise TrialError("the guard stopped the arm before anything was wrong: the machine is too busy")
    return outcome(stack, fault_s, "stopped")


def _propose(stack: Stack, positions: Floats) -> None:
    point = JointTrajectoryPoint(positions=positions, time_from_start=duration_of(1.0 / ENV_HZ))
    message = JointTrajectory(joint_names=list(stack.profile.joint_names), points=[point])
    stamp = message.header.stamp
    stamp.sec, stamp.nanosec = divmod(stack.heard.joints[-1].stamp_ns, 10**9)
    stack.env.publish(message)


FAULTS: dict[str, Callable[[Stack], Stop]] = {
    "kill -9 of the policy": killed,
    "policy frozen (SIGSTOP)": frozen,
    "state topic stopped": unheard,
    "NaN proposals": no_numbers,
}


# --- tables --------------------------------------------------------------------------------------------------


def stops(folder: Path, run: str, times: int, note: Callable[[str, int], None]) -> str:
    lines = [
        "| fault | n | safe action, ms: median | max | all within 100 ms | guard/state, ms: median | max | "
        "at rest, ms: max | rad/s at the fault: least |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, fault in FAULTS.items():
        with Stack(folder, run) as stack:
            stack.start("twin", "guard", "policy")
            found = [_noted(fault, stack, k, name, note) for k in range(times)]
        safe, state, rest = ([getattr(s, f"{part}_s") for s in found] for part in ("safe", "state", "rest"))
        good = "yes" if max(safe) <= LATEST_S else f"no ({sum(s > LATEST_S for s in safe)} later)"
        least = min(s.speed_radps for s in found)
        lines.append(
            f"| {name} | {times} | {1e3 * median(safe):.0f} | {1e3 * max(safe):.0f} | {good} | "
            f"{1e3 * median(state):.0f} | {1e3 * max(state):.0f} | {1e3 * max(rest):.0f} | {least:.2f} |"
        )
    return "\n".join(lines)


def _noted(fault: Callable[[Stack], Any], stack: Stack, k: int, name: str, note: Callable[[str, int], None]) -> Any:
    """A fault, tried again where a busy machine stopped the arm, or slowed it down, before it."""
    for left in reversed(range(TRIES)):
        try:
            found = fault(stack)
            break
        except TrialError as error:
            if not left:
                raise
            log.info("%s: once more, %s", name, error)
    note(name, k + 1)
    return found


def watchdog(folder: Path, run: str, times: int, note: Callable[[str, int], None]) -> str:
    """kill -9 of the guard, until the twin's driver says that it stopped the arm, and until the joints stand. It looks
    once a tick; a millisecond is for the last command's way there and for what it logs."""
    with Stack(folder, run, interface="joint_trajectory") as stack:
        limit_s = stack.profile.watchdogs_s["joint_trajectory"]
        assert limit_s is not None
        stack.start("twin", "guard", "policy")
        found = [_noted(unguarded, stack, k, "kill -9 of the guard", note) for k in range(times)]
    stopped, rest = zip(*found, strict=True)
    good = "yes" if max(stopped) <= limit_s + 1.0 / TWIN_HZ + 1e-3 else "no"
    cells = [f"{1e3 * value:.0f}" for values in (stopped, rest) for value in (median(values), max(values))]
    return (
        f"| fault | n | the driver stops the arm, ms: median | max | within {1e3 * limit_s:.0f} ms, a tick and 1 ms | "
        "joints at rest, ms: median | max |\n|---|---|---|---|---|---|---|\n"
        f"| kill -9 of the guard | {times} | {cells[0]} | {cells[1]} | {good} | {cells[2]} | {cells[3]} |"
    )


def unguarded(stack: Stack) -> tuple[float, float]:
    """Seconds, on the clock of the twin's log and of its joint states' stamps, until it is stopped, and stands."""
    move(stack)
    clock_s, _ = time.time(), stack.kill("guard")
    stack.wait(lambda: stack.said("twin", "the driver's watchdog stopped the arm"), "the watchdog acts", 5.0)
    stack.stay(1.0)
    stopped_s = next(t for t, node, text in stack.log if node == "twin" and "watchdog" in text)
    moving = [1e-9 * j.stamp_ns for j in stack.heard.joints if abs(j.velocity).max() > STILL_RADPS]
    stack.demand("twin/recover")
    stack.start("guard")
    return stopped_s - clock_s, moving[-1] - clock_s
