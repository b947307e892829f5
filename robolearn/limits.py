"""Batched kinematic limits: the functions that the simulated action terms and the guard on hardware both use.

Each limit bounds the velocity with which the target may move in this period; the bounds are intersected in the order
jerk, acceleration, velocity, position, the later one winning where they conflict. The result is a clamp, so it can
only tighten, and filtering a filtered target changes nothing.

What bounds the tool or the posture is not a box in the joints' velocities. There the choice is how far to go from the
velocity that brakes to the one that is wanted (`limit_share`): both are within the joints' bounds, and so is
everything between them. A step is let through if from where it leads the arm can still stop inside every limit
(`brake_path`): by induction, braking is then always allowed.

Arrays are tensors or NumPy arrays (robolearn.arrays).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from robolearn.arrays import Array, clip, like, namespace, stack
from robolearn.spec import RobotSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TIGHT = 1e-4  # share of the velocity limit below which a difference is rounding, not a clip
_CHASE = 0.8  # share of the acceleration limit that a chase counts on: the jerk limit takes its time too


@dataclass(frozen=True)
class JointLimits:
    """Arrays (J,): rad or m and their time derivatives."""

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array
    jerk: Array

    @classmethod
    def of(cls, spec: RobotSpec, joints: tuple[str, ...], device: torch.device | str = "cpu") -> JointLimits:
        """As tensors."""
        import torch

        names = ("lower", "upper", "velocity_limit", "acceleration_limit", "jerk_limit")
        return cls(*(torch.tensor(spec.of(n, joints), device=device) for n in names))

    def tightened(self, velocity: float = 1.0, acceleration: float = 1.0) -> JointLimits:
        """Limits scaled by factors in (0, 1]."""
        if not (0.0 < velocity <= 1.0 and 0.0 < acceleration <= 1.0):
            raise ValueError(f"limits can only be tightened: factors must be in (0, 1], got {velocity}, {acceleration}")
        return replace(self, velocity=self.velocity * velocity, acceleration=self.acceleration * acceleration)


@dataclass
class TargetState:
    """The last target that was let through, with its velocity and acceleration, each (B, J)."""

    position: Array
    velocity: Array
    acceleration: Array

    @classmethod
    def at(cls, position: Array) -> TargetState:
        """At rest at `position`."""
        zeros = namespace(position).zeros_like
        return cls(position + zeros(position), zeros(position), zeros(position))

    def moved(self, velocity: Array, dt: float) -> TargetState:
        """One period later, at this velocity."""
        return TargetState(self.position + velocity * dt, velocity, (velocity - self.velocity) / dt)

    def reset(self, mask: Tensor, position: Tensor) -> None:
        """Put the environments in mask (B,) to rest at position (B, J)."""
        keep = ~mask[:, None]
        self.position = namespace(position).where(keep, self.position, position)
        self.velocity, self.acceleration = self.velocity * keep, self.acceleration * keep


# --- joints --------------------------------------------------------------------------------------------------


def limit_target(target: Array, last: TargetState, limits: JointLimits, dt: float) -> tuple[TargetState, Array]:
    """The nearest allowed target and which entries (B, J) were clipped. NaN targets hold the last position."""
    xp = namespace(target)
    finite = xp.isfinite(target)
    wanted = xp.where(finite, (target - last.position) / dt, xp.zeros_like(target))
    low, high = velocity_bounds(last, limits, dt)
    velocity = clip(wanted, low, high)
    return last.moved(velocity, dt), is_clipped(wanted, velocity, limits) | ~finite


def is_clipped(wanted: Array, velocity: Array, limits: JointLimits) -> Array:
    """Where two velocities (B, J) differ by more than rounding."""
    return abs(velocity - wanted) > _TIGHT * limits.velocity


def velocity_bounds(last: TargetState, limits: JointLimits, dt: float) -> tuple[Array, Array]:
    """Least and largest velocity (B, J) of this period. Zero, clipped to them, brakes as hard as is allowed."""
    most, jerk = limits.acceleration, limits.jerk * dt
    both = clip(stack((last.acceleration - jerk, last.acceleration + jerk)), -most, most)
    both *= dt
    both += last.velocity
    room = stack((limits.upper - last.position, last.position - limits.lower))
    upper, towards_lower = _approach_velocity(room, limits, dt)
    low, high = clip(both, -towards_lower, upper)
    return low, high


def _approach_velocity(distance: Array, limits: JointLimits, dt: float) -> Array:
    """Largest velocity towards a position limit from which braking stops before it. Beyond the limit (d < 0) it is
    the velocity back inside."""
    inside = _stopping_velocity(abs(distance), limits.acceleration, dt)
    fastest = limits.velocity
    return clip(namespace(distance).where(distance < 0.0, distance / dt, inside), -fastest, fastest)


def _stopping_velocity(distance: Array, deceleration: Array, dt: float) -> Array:
    """From which braking, a period at a time, stops within a distance >= 0: v dt + v^2 / (2 a) = d."""
    return deceleration * (namespace(distance).sqrt(dt**2 + distance * (2.0 / deceleration)) - dt)


def chase(target: Array, rate: Array, last: TargetState, limits: JointLimits, dt: float) -> Array:
    """Velocity (B, J) of the fastest way onto a target (B, J) that moves at `rate` (B, J), without overshoot.

    Going straight at a target as fast as the limits allow runs past it, and back, without end.
    """
    gap = target - rate * dt - last.position
    closing = _stopping_velocity(abs(gap), _CHASE * limits.acceleration, dt)
    return clip(rate + namespace(gap).copysign(closing, gap), -limits.velocity, limits.velocity)


def follow_bounds(last: TargetState, measured: Array, error: Array, limits: JointLimits, dt: float,
                  ) -> tuple[Array, Array]:  # fmt: skip
    """Least and largest velocity (B, J) that keep the target within `error` (J,) of the measured position (B, J). From
    further away it comes back at the velocity limit, whatever acceleration that takes: the arm is blocked or pushed.
    """
    nearest = clip(stack((measured - error, measured + error)), limits.lower, limits.upper)
    low, high = clip((nearest - last.position) / dt, -limits.velocity, limits.velocity)
    return low, high


# --- tool and posture ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToolLimits:
    """Of the tool, in the base frame."""

    lower: Array
    """(3,) m: the workspace is a box."""
    upper: Array
    speed_mps: float
    rotation_radps: float


def box_room(position: Array, limits: ToolLimits) -> Array:
    """(B, 6) m from the box's lower and upper faces to positions (B, 3); negative outside."""
    both = (position - limits.lower, limits.upper - position)
    return namespace(position).concatenate(both, -1)


def tool_speed(before: Array, after: Array, dt: float) -> tuple[Array, Array]:
    """Speed (m/s) and rotation (rad/s), each (B,), from frame to frame (B, 3 or 4, 4)."""
    xp = namespace(after)
    change = after[:, :3] - before[:, :3]
    square = change * change
    chord = xp.sqrt(square[:, :, :3].sum((1, 2)) / 8.0)  # |R - R'| = sqrt(8) sin(angle / 2)
    return xp.sqrt(square[:, :, 3].sum(1)) / dt, 2.0 * xp.arcsin(chord.clip(0.0, 1.0)) / dt


def speed_share(braking: Array, wanted: Array, limit: float) -> Array:
    """How far (B,) one may go from a braking to a wanted velocity, with these speeds (B,), within a limit. The speed
    between them is at most the line between the two: it is a norm of what moves along a line."""
    xp = namespace(wanted)
    excess = wanted - limit
    share = ((limit - braking) / (wanted - braking + ((excess <= 0.0) | (wanted == braking)))).clip(0.0, 1.0)
    return xp.where(excess > 0.0, share, like(1.0, wanted))


def between(braking: Array, wanted: Array, share: Array) -> Array:
    """Velocities (B, J) at shares (B,) of the way from braking to wanted; or several shares (S,) of one, (S, J)."""
    return braking + share[..., None] * (wanted - braking)


def brake_path(last: TargetState, limits: JointLimits, dt: float, shares: Array) -> Array:
    """Positions (S, B, J) at shares (S,) of the time to a standstill if the braking starts now. Each joint brakes on
    its own, after the time that the jerk limit takes to turn its acceleration around."""
    xp = namespace(last.position)
    most = limits.acceleration
    delay = dt + 2.0 * most / limits.jerk
    speed = abs(last.velocity) + (0.25 * delay + dt) * abs(last.acceleration)
    braking = speed / most
    time = shares[:, None, None] * xp.amax(delay + braking, -1)[:, None]
    late = xp.minimum(time, delay)
    slow = xp.minimum(time - late, braking)
    travel = speed * (late + slow) - 0.5 * most * slow * slow
    return last.position + xp.sign(last.velocity) * travel
