"""Batched kinematic limits: the functions that the simulated action terms and the guard on hardware both use.

Each limit bounds the velocity with which the target may move in this period; the bounds are intersected in the order
jerk, acceleration, velocity, position, the later one winning where they conflict. The result is a clamp, so it can
only tighten, and filtering a filtered target changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robolearn.spec import RobotSpec


@dataclass(frozen=True)
class JointLimits:
    """Tensors (J,): rad or m and their time derivatives."""

    lower: Tensor
    upper: Tensor
    velocity: Tensor
    acceleration: Tensor
    jerk: Tensor

    @classmethod
    def of(cls, spec: RobotSpec, joints: tuple[str, ...], device: torch.device | str = "cpu") -> JointLimits:
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

    position: Tensor
    velocity: Tensor
    acceleration: Tensor

    @classmethod
    def at(cls, position: Tensor) -> TargetState:
        """At rest at `position`."""
        return cls(position.clone(), torch.zeros_like(position), torch.zeros_like(position))

    def reset(self, mask: Tensor, position: Tensor) -> None:
        """Put the environments in mask (B,) to rest at position (B, J)."""
        keep = ~mask[:, None]
        self.position = torch.where(keep, self.position, position)
        self.velocity, self.acceleration = self.velocity * keep, self.acceleration * keep


def limit_target(target: Tensor, last: TargetState, limits: JointLimits, dt: float) -> tuple[TargetState, Tensor]:
    """The nearest allowed target and which entries (B, J) were clipped. NaN targets hold the last position."""
    finite = torch.isfinite(target)
    wanted = torch.where(finite, (target - last.position) / dt, torch.zeros_like(target))
    low, high = _velocity_bounds(last, limits, dt)
    velocity = wanted.clamp(low, high)
    clipped = ((velocity - wanted).abs() > 1e-4 * limits.velocity) | ~finite
    state = TargetState(last.position + velocity * dt, velocity, (velocity - last.velocity) / dt)
    return state, clipped


def _velocity_bounds(last: TargetState, limits: JointLimits, dt: float) -> tuple[Tensor, Tensor]:
    most, jerk = limits.acceleration, limits.jerk * dt
    accel_low = (last.acceleration - jerk).clamp(-most, most)
    accel_high = (last.acceleration + jerk).clamp(-most, most)
    room = torch.stack((limits.upper - last.position, last.position - limits.lower))
    upper, towards_lower = _approach_velocity(room, limits, dt)
    lower = -towards_lower
    low = torch.add(last.velocity, accel_low, alpha=dt).clamp(lower, upper)
    high = torch.add(last.velocity, accel_high, alpha=dt).clamp(lower, upper)
    return low, high


def _approach_velocity(distance: Tensor, limits: JointLimits, dt: float) -> Tensor:
    """Largest velocity towards a position limit from which braking, a period at a time, stops before it:
    v dt + v^2 / (2 a) = d. Beyond the limit (d < 0) it is the velocity back inside."""
    accel, fastest = limits.acceleration, limits.velocity
    inside = accel * (torch.sqrt(dt**2 + distance.clamp_min(0.0) * (2.0 / accel)) - dt)
    return torch.where(distance < 0.0, distance / dt, inside).clamp(-fastest, fastest)
