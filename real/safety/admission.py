"""What a proposal's targets go through when they come: those whose tool is outside the box or whose links are under the
floor are brought to the wall, so that the arm slides along it; the path ends where it would leave the workspace all the
same; and each target is put within the joints' positions.

Whether they keep to the joints' velocity, acceleration and jerk is counted here, at the policy's own rate and by the
function that held the policy to them in training. It is enforced at the driver's rate (real.safety.checks): going
straight at a target that is out of reach, one period after the other, would run past it and back without end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from real.safety.checks import SPARE_M, TOUCH_M
from real.safety.clearance import Body
from real.safety.clips import Clip
from robolearn.arrays import clip
from robolearn.limits import JointLimits, TargetState, limit_target

Floats = NDArray[np.float64]
SLIDE_M = SPARE_M + 0.003
"""Room at the wall that targets are brought to: straight lines of the joints between two of them bend towards it."""
SLIDES, ROUNDS = 32, 4
"""Targets, the first of a chunk, that are brought to a wall; and steps of the way there."""
TURN_M, DAMPING = 0.3, 0.01
"""A radian of the tool counts as so many metres; of the least squares, in metres."""
POSTURES = 32
"""Looked at on the way through a proposal's targets, at least one a target."""
FINEST = 8


class Path(NamedTuple):
    """A reference to be: times (H,), places (H, J) rad."""

    times: Floats
    places: Floats


def slide_along_the_walls(path: Path, start: Floats, body: Body) -> tuple[Path, list[Clip]]:
    """Targets that are out of the box or under the floor, moved by damped least squares to where the tool is at the
    wall (or as far out as it is at `start`, (J,)), with the orientation that was asked for."""
    places, count = path.places.copy(), body.walls
    allowed = np.minimum(body.room(start[None]).metres[0, :count], SLIDE_M)
    clips: list[Clip] = []
    for _ in range(ROUNDS):
        metres = body.room(places[:SLIDES]).metres[:, :count]
        lacks = np.maximum(allowed - metres, 0.0)
        outside = np.flatnonzero((lacks > TOUCH_M).any(1))
        if not len(outside):
            break
        if not clips:
            first, worst = divmod(int(lacks.argmax()), count)
            clips = [Clip(*body.name(worst), float(metres[first, worst]), SPARE_M)]
        for row in outside.tolist():
            places[row] += _shift(places[row], body.way_in(lacks[row]), body)
    return Path(path.times, places), clips


def _shift(place: Floats, metres: Floats, body: Body) -> Floats:
    """The change of joints (J,) that moves the tool by (3,) and does not turn it, nearly."""
    jacobian = body.jacobian(place)
    jacobian[3:] *= TURN_M
    wanted = np.concatenate((metres, np.zeros(3)))
    change: Floats = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + DAMPING**2 * np.eye(6), wanted)
    return change


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
    """The path with every target within the joints' positions, and the worst joint of each limit that it breaks."""
    places = clip(path.places, limits.lower, limits.upper)
    clips: list[Clip] = []
    state, before_s = start, start_s
    for time_s, wanted, place in zip(path.times.tolist(), path.places, places, strict=True):
        dt = time_s - before_s
        _, clipped = limit_target(wanted[None], state, limits, dt)
        if clipped.any():
            clips += _broken(wanted[None], state, clipped, limits, dt, joints)
        state, before_s = state.moved((place - state.position) / dt, dt), time_s
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
