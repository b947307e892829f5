"""What a step goes through between the reference and the driver: a table of small functions, in order.

A step is a velocity for one period of the driver, and beside it the velocity that brakes as hard as is allowed. A
check returns both, tightened, and what it clipped. Where two checks cannot both be met the later one wins, which is
why some move the braking velocity too. What bounds the tool and the posture chooses between the two velocities, so
it never breaks a limit of the joints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from real.safety.clearance import Body, Room
from real.safety.clips import Clip
from robolearn.arrays import clip
from robolearn.limits import (
    JointLimits,
    TargetState,
    between,
    brake_path,
    follow_bounds,
    speed_share,
    tool_speed,
    velocity_bounds,
)

Floats = NDArray[np.float64]
BRAKING = np.array([0.0, 1 / 3, 2 / 3, 1.0])
"""Shares of the time to a standstill at which the way there is looked at."""
SHARES = np.array([0.5, 0.25])
"""Of the way from braking to what is wanted, where all of it is too much."""
NEARLY, HARDLY = 0.96, 0.999
"""Shares of the tool's limits: that is aimed at, and that braking keeps to. Joints that brake apart speed it up."""
SPARE_M, TOUCH_M = 0.002, 1e-9
"""Room that must be left on the foreseen way to a standstill, which is not quite the way that braking takes; and what
is rounding."""


class Step(NamedTuple):
    velocity: Floats  # (1, J)
    brake: Floats  # (1, J)

    def clipped(self, low: Floats, high: Floats) -> Step:
        brake = clip(self.brake, low, high)
        return Step(brake if self.velocity is self.brake else clip(self.velocity, low, high), brake)


class Situation:
    """What the checks may look at, for one period of `dt` seconds."""

    def __init__(self, dt: float, last: TargetState, limits: JointLimits, body: Body, measured: Floats | None,
                 error: Floats, joints: tuple[str, ...], room: Room | None):  # fmt: skip
        """`measured` (1, J) rad is None where it cannot be trusted: then nothing is held to it. `room` of the last
        target, where that is known."""
        self.dt, self.last, self.limits, self.body, self.joints = dt, last, limits, body, joints
        self.measured, self.error = measured, error
        self._room = room
        self._foreseen: tuple[Floats, Room | None] = (np.empty(0), None)
        self._speeds_of, self._speeds = np.empty(0), (np.empty(0), np.empty(0))

    @property
    def room(self) -> Room:
        """Of the last target."""
        if self._room is None:
            self._room = self.body.room(self.last.position)
        return self._room

    def foresee(self, velocity: Floats) -> Room:
        """Room on the way to a standstill after a period at candidates' velocities (S, J): S rows where that period
        leads, then S rows for each further moment of braking."""
        seen, room = self._foreseen
        if seen is not velocity or room is None:
            path = brake_path(self.last.moved(velocity, self.dt), self.limits, self.dt, BRAKING)
            room = self.body.room(path.reshape(-1, path.shape[-1]))
            self._foreseen = velocity, room
        return room

    def tool_speeds(self, velocity: Floats) -> tuple[Floats, Floats]:
        """m/s and rad/s, each (S,), of candidates (S, J)."""
        if self._speeds_of is not velocity:
            self._speeds_of = velocity
            self._speeds = tool_speed(self.room.tool, self.foresee(velocity).tool[: len(velocity)], self.dt)
        return self._speeds

    def room_after(self, velocity: Floats) -> Room | None:
        """Where this velocity (1, J) leads, if that was foreseen."""
        seen, room = self._foreseen
        return Room(room.tool[:1], room.metres[:1]) if room is not None and seen is velocity else None


Check = Callable[[Step, Situation], tuple[Step, list[Clip]]]


def joint_limits(step: Step, now: Situation) -> tuple[Step, list[Clip]]:
    """Position, velocity, acceleration and jerk: one box of velocities, in which position is the strongest. At the
    driver's rate they round the corners of the reference, which was held to them, and counted, at the policy's."""
    low, high = velocity_bounds(now.last, now.limits, now.dt)
    return step.clipped(low, high), []


def cartesian_speed(step: Step, now: Situation) -> tuple[Step, list[Clip]]:
    """Speed and rotation of the tool. Braking joints may speed it up; then they brake harder than their limits."""
    limits = now.body.limits.speed_mps, now.body.limits.rotation_radps
    if not step.velocity.any():
        return step, []
    wanted = now.tool_speeds(step.velocity)
    if all(speed[0] <= NEARLY * limit for speed, limit in zip(wanted, limits, strict=True)):
        return step, []
    braking = tool_speed(now.room.tool, now.body.tool(now.last.position + step.brake * now.dt), now.dt)
    excess = max(1.0, *(float(b[0]) / (HARDLY * limit) for b, limit in zip(braking, limits, strict=True)))
    brake = step.brake / excess if excess > 1.0 else step.brake
    shares = [speed_share(b / excess, w, NEARLY * limit) for b, w, limit in zip(braking, wanted, limits, strict=True)]
    own = step.velocity is step.brake
    clips = [
        Clip("cartesian_speed", what, float(speed[0]), limit)
        for what, speed, limit in zip(("tool m/s", "tool rad/s"), wanted, limits, strict=True)
        if speed[0] > (HARDLY if own else NEARLY) * limit
    ]
    return Step(brake if own else between(brake, step.velocity, np.minimum(*shares)), brake), clips


def reference_error(step: Step, now: Situation) -> tuple[Step, list[Clip]]:
    """The target stays near the measured position: an arm that is held does not wind up."""
    if now.measured is None:
        return step, []
    farthest = abs(now.last.position - now.measured) + now.limits.velocity * now.dt
    if (farthest <= now.error).all():
        return step, []
    low, high = follow_bounds(now.last, now.measured, now.error, now.limits, now.dt)
    tightened = step.clipped(low, high)
    change = abs(tightened.velocity - step.velocity)
    if not change.any():
        return Step(step.velocity, tightened.brake if step.velocity is not step.brake else step.velocity), []
    j = int(change[0].argmax())
    distance = abs(now.last.position + step.velocity * now.dt - now.measured)[0, j]
    return tightened, [Clip("reference_error", now.joints[j], float(distance), float(now.error[j]))]


def clearance(step: Step, now: Situation) -> tuple[Step, list[Clip]]:
    """Self-collision, floor, and the workspace box once more: from where the step leads, the arm must be able to stop
    with room left in every respect, or with no less than it has. Then so can it from there, by braking."""
    if step.velocity is step.brake:
        return step, []
    free, spare = _is_free(step.velocity, now)
    if free[0]:
        return step, []
    clips = [_why_not(spare[0], now.tool_speeds(step.velocity), now)]
    candidates = between(step.brake, step.velocity, SHARES)
    free, _ = _is_free(candidates, now)
    allowed = np.flatnonzero(free)
    return Step(candidates[allowed[:1]] if len(allowed) else step.brake, step.brake), clips


def _is_free(velocity: Floats, now: Situation) -> tuple[Floats, Floats]:
    """Which candidates (S, J) leave enough room and keep to the tool's speed (S,), and the room to spare (S, R)."""
    room = now.foresee(velocity)
    least = room.metres.reshape(len(BRAKING), len(velocity), -1).min(0)
    spare = least - np.minimum(now.room.metres, SPARE_M)
    speed, rotation = now.tool_speeds(velocity)
    limits = now.body.limits
    slow = (speed <= limits.speed_mps) & (rotation <= limits.rotation_radps)
    return (spare >= -TOUCH_M).all(1) & slow, spare


def _why_not(spare: Floats, speeds: tuple[Floats, Floats], now: Situation) -> Clip:
    """What is short of room most (R,), or else the tool's speed."""
    worst = int(spare.argmin())
    if spare[worst] < -TOUCH_M:
        enough = min(float(now.room.metres[0, worst]), SPARE_M)
        return Clip(*now.body.name(worst), float(spare[worst]) + enough, enough)
    return Clip("cartesian_speed", "tool m/s", float(speeds[0][0]), now.body.limits.speed_mps)


STEP_CHECKS: tuple[Check, ...] = (joint_limits, cartesian_speed, reference_error, clearance)
"""In this order, after those of a proposal (real.safety.admission). Between the last two belongs the measured wrench;
it is no matter of the step, too much of it is a fault (`Guard.observe_wrench`)."""
