"""What a proposal's targets go through when they come: the workspace first, then the joints' limits at the policy's
own rate, by the function that holds the policy's actions in training to them. So what is counted here is what training
counted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from real.safety.checks import SPARE_M, TOUCH_M
from real.safety.clearance import Body
from real.safety.clips import Clip
from robolearn.limits import JointLimits, TargetState, limit_target

Floats = NDArray[np.float64]
POSTURES = 32
"""Looked at on the way through a proposal's targets, at least one a target."""
FINEST = 8


class Path(NamedTuple):
    """A reference to be: times (H,), places (H, J) rad."""

    times: Floats
    places: Floats


def stay_in_the_workspace(path: Path, start: Floats, body: Body) -> tuple[Path, list[Clip]]:
    """The path up to where the straight lines from start (J,) leave the box, come down to the floor or bring two links
    together (or come nearer where they are too near already); from there on, that place."""
    samples = max(1, min(FINEST, POSTURES // len(path.places)))
    corners = np.concatenate((start[None], path.places))
    share = np.arange(1, samples + 1)[None, :, None] / samples
    way = (corners[:-1, None] + share * (corners[1:] - corners[:-1])[:, None]).reshape(-1, len(start))
    metres = body.room(np.concatenate((start[None], way))).metres
    spare = metres[1:] - np.minimum(metres[0], SPARE_M)
    bad = np.flatnonzero((spare < -TOUCH_M).any(1))
    if not len(bad):
        return path, []
    first = int(bad[0])
    worst = int(spare[first].argmin())
    ends = samples * np.arange(1, len(path.places) + 1) - 1
    places = np.where((ends < first)[:, None], path.places, way[first - 1] if first else start)
    return Path(path.times, places), [Clip(*body.name(worst), float(metres[1 + first, worst]), SPARE_M)]


def keep_joint_limits(path: Path, start_s: float, start: TargetState, limits: JointLimits, joints: tuple[str, ...],
                      ) -> tuple[Path, list[Clip]]:  # fmt: skip
    """The path with every target within position, velocity, acceleration and jerk of the one before, and the worst
    joint of each that was exceeded."""
    places, clips = np.empty_like(path.places), []
    state, before_s = start, start_s
    for k, (time_s, place) in enumerate(zip(path.times.tolist(), path.places, strict=True)):
        dt = time_s - before_s
        after, clipped = limit_target(place[None], state, limits, dt)
        if clipped.any():
            clips += _broken(place[None], state, clipped, limits, dt, joints)
        state, before_s, places[k] = after, time_s, after.position[0]
    return Path(path.times, places), clips


def _broken(place: Floats, last: TargetState, clipped: Floats, limits: JointLimits, dt: float,
            joints: tuple[str, ...]) -> list[Clip]:  # fmt: skip
    wanted = last.moved((place - last.position) / dt, dt)
    jerk = (wanted.acceleration - last.acceleration) / dt
    bound = np.where(place > limits.upper, limits.upper, limits.lower)
    outside = np.maximum(place - limits.upper, limits.lower - place)
    rows = [("joint_position", place, bound, outside)] + [
        (kind, abs(value), limit, abs(value) - limit)
        for kind, value, limit in (
            ("joint_velocity", wanted.velocity, limits.velocity),
            ("joint_acceleration", wanted.acceleration, limits.acceleration),
            ("joint_jerk", jerk, limits.jerk),
        )
    ]
    found = []
    for kind, value, limit, excess in rows:
        j = int(np.where(clipped, excess, -np.inf).argmax())
        if excess[0, j] > 1e-6 * abs(value[0, j]):
            found.append(Clip(kind, joints[j], float(value[0, j]), float(np.broadcast_to(limit, value.shape)[0, j])))
    if found:
        return found
    j = int(clipped.argmax())  # no limit is broken yet, but it must slow down now to stop before one
    near = limits.upper if wanted.velocity[0, j] > 0.0 else limits.lower
    return [Clip("joint_position", joints[j], float(place[0, j]), float(near[j]))]
