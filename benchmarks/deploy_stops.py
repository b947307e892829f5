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
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deploy_stack import Floats, JointTrajectory, MeasurementError, Point, Stack, median
from real import ros
from robolearn.limits import JointLimits, TargetState, velocity_bounds

LATEST_S = 0.1
FAST_RADPS = 0.2
"""Of the fastest joint when the fault comes, at least."""
NOTHING_RADPS = 1e-5
STILL_RADPS = 0.01
"""Of a measured joint at rest."""
ENV_HZ = 50.0


@dataclass(frozen=True)
class Stop:
    """Seconds after the fault."""

    safe_s: float
    rest_s: float
    state_s: float
    """The guard says that it holds, or is stopped."""
    speed_radps: float
    """Of the fastest commanded joint when the fault came."""


Target = tuple[float, int, Floats, Floats]


def braking_since(targets: Sequence[Target], limits: JointLimits, dt: float) -> int | None:
    """Index of the first of the guard's targets from which on all of them brake; None if they do not come to rest.
    The first two are never it: what came before them is not known. Raises MeasurementError if a joint speeds up again.
    """
    since, speeds = len(targets), [abs(t[3]) for t in targets]
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
        raise MeasurementError(f"a joint speeds up again {rises[0] - since} commands after braking began")
    return since if since < len(targets) else None


def _braked(three: Sequence[Target], limits: JointLimits, dt: float) -> Floats:
    """Speed (n,) of the last of three targets had it been braked as hard as is allowed."""
    steps = [min(1e-9 * (b[1] - a[1]), 2.0 * dt) for a, b in itertools.pairwise(three)]
    before = TargetState(*(row[None] for row in (three[1][2], three[1][3], (three[1][3] - three[0][3]) / steps[0])))
    low, high = velocity_bounds(before, limits, steps[1])
    return np.asarray(abs(np.clip(0.0, low, high))[0])


def ticks(targets: Sequence[Target], dt: float) -> list[Target]:
    """Without those that repeat the one before: the guard was asked too early."""
    kept: list[Target] = []
    for target in targets:
        if not kept or target[1] - kept[-1][1] > 1e8 * dt:
            kept.append(target)
    return kept


# --- one fault -----------------------------------------------------------------------------------------------


def move(stack: Stack) -> None:
    """The policy moves the arm, from its rest posture; again where the machine was too busy for that."""
    for _ in range(5):
        stack.wait(lambda: stack.call("policy/stop").success and stack.speed() == 0.0, "the policy stops", 10.0)
        stack.place(stack.rest)
        stack.clear()
        stack.begin()
        stack.stay(0.3 + 0.1 * random.random())  # any phase of its period
        if stack.state == "active" and stack.speed() > FAST_RADPS:
            return
    raise MeasurementError(f"the arm does not move: {stack.state}")


def outcome(stack: Stack, fault_s: float, ends: str) -> Stop:
    """What the guard made of a fault, once its target is at rest and its state is `ends`."""
    at = [t for t in stack.heard.targets if t[0] < fault_s]
    speed = float(abs(at[-1][3]).max()) if at else 0.0
    if speed < FAST_RADPS:
        raise MeasurementError(f"the arm was hardly moving: {speed:.3g} rad/s")
    stack.wait(lambda: stack.speed() == 0.0 and stack.state == ends, f"{ends} and at rest", 10.0)
    dt = 1.0 / stack.profile.command_rate_hz
    targets = ticks(stack.heard.targets, dt)
    since = braking_since(targets, stack.profile.limits.joints(), dt)
    if since is None or targets[since][0] < fault_s:
        raise MeasurementError("no safe action after the fault")
    sent = {c[1].tobytes(): c[0] for c in reversed(stack.heard.commands)}
    rest = next(t for t in targets[since:] if not t[3].any())
    state = next(s[0] for s in stack.heard.states if s[0] >= fault_s)
    times = sent[targets[since][2].tobytes()], sent[rest[2].tobytes()], state
    return Stop(*(time_s - fault_s for time_s in times), speed)


def killed(stack: Stack) -> Stop:
    move(stack)
    found = outcome(stack, stack.kill("policy"), "stopped")
    stack.end("guard")  # which would take a second policy for another node that proposes as policy
    stack.again("guard", "policy")
    return found


def frozen(stack: Stack) -> Stop:
    move(stack)
    found = outcome(stack, stack.kill("policy", signal.SIGSTOP), "stopped")
    stack.kill("policy", signal.SIGCONT)
    stack.wait(lambda: stack.said("policy", "the guard gave authority to nobody"), "the policy goes on", 10.0)
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
    stack.place(stack.rest)
    stack.clear()
    stack.wait(lambda: stack.call("guard/take/env").success and stack.heard.joints, "authority for env")
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
            raise MeasurementError("proposals of NaN do not stop the arm")
    assert fault_s is not None
    return outcome(stack, fault_s, "stopped")


def _propose(stack: Stack, positions: Floats) -> None:
    point = Point(positions=positions, time_from_start=ros.Duration(seconds=1.0 / ENV_HZ).to_msg())
    message = JointTrajectory(joint_names=list(stack.profile.joint_names), points=[point])
    stamp = message.header.stamp
    stamp.sec, stamp.nanosec = divmod(stack.heard.joints[-1][1], 10**9)
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
        stack = Stack(folder, run)
        try:
            stack.set_goal((0.45, 0.0, 0.4, 1.0, 0.0, 0.0, 0.0))
            stack.again("twin", "guard", "policy")
            found = [_noted(fault, stack, k, name, note) for k in range(times)]
        finally:
            stack.close()
        safe, state, rest = ([getattr(s, f"{part}_s") for s in found] for part in ("safe", "state", "rest"))
        good = "yes" if max(safe) <= LATEST_S else f"no ({sum(s > LATEST_S for s in safe)} later)"
        least = min(s.speed_radps for s in found)
        lines.append(
            f"| {name} | {times} | {1e3 * median(safe):.0f} | {1e3 * max(safe):.0f} | {good} | "
            f"{1e3 * median(state):.0f} | {1e3 * max(state):.0f} | {1e3 * max(rest):.0f} | {least:.2f} |"
        )
    return "\n".join(lines)


def _noted(fault: Callable[[Stack], Any], stack: Stack, k: int, name: str, note: Callable[[str, int], None]) -> Any:
    found = fault(stack)
    note(name, k + 1)
    return found


def watchdog(folder: Path, run: str, times: int, note: Callable[[str, int], None]) -> str:
    """kill -9 of the guard, until the twin's driver says that it stopped the arm, and until the joints stand."""
    stack = Stack(folder, run, interface="joint_trajectory")
    limit_s = stack.profile.watchdogs_s["joint_trajectory"]
    assert limit_s is not None
    try:
        stack.set_goal((0.45, 0.0, 0.4, 1.0, 0.0, 0.0, 0.0))
        stack.again("twin", "guard", "policy")
        found = [_noted(unguarded, stack, k, "kill -9 of the guard", note) for k in range(times)]
    finally:
        stack.close()
    stopped, rest = zip(*found, strict=True)
    tick_s = 1.0 / 240.0
    return (
        f"| fault | n | the driver stops the arm, ms: median | max | within {1e3 * limit_s:.0f} ms and a tick | "
        f"joints at rest, ms: median | max |\n|---|---|---|---|---|---|---|\n"
        f"| kill -9 of the guard | {times} | {1e3 * median(stopped):.0f} | {1e3 * max(stopped):.0f} | "
        f"{'yes' if max(stopped) <= limit_s + tick_s else 'no'} | {1e3 * median(rest):.0f} | {1e3 * max(rest):.0f} |"
    )


def unguarded(stack: Stack) -> tuple[float, float]:
    """Seconds, on the clock of the twin's log and of its joint states' stamps, until it is stopped, and stands."""
    move(stack)
    clock_s, _ = time.time(), stack.kill("guard")
    stack.wait(lambda: stack.said("twin", "the driver's watchdog stopped the arm"), "the watchdog acts", 5.0)
    stack.stay(1.0)
    stopped_s = next(t for t, node, text in stack.heard.log if node == "twin" and "watchdog" in text)
    arm = len(stack.rest)
    moving = [1e-9 * ns for _, ns, _, velocity in stack.heard.joints if abs(velocity[:arm]).max() > STILL_RADPS]
    assert stack.call("twin/recover").success
    stack.again("guard")
    return stopped_s - clock_s, moving[-1] - clock_s
