"""Smooth trajectories for flying robots as tables, and what a quadrotor must be able to do to follow them.

A trajectory is a function of time t (n,) s that returns positions, velocities and accelerations (n, 9), m, m/s, m/s2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robolearn.errors import ConfigError
from robolearn.spec import QuadrotorSpec


@dataclass(frozen=True)
class Harmonics:
    """Each axis a sum of sines: amplitude (3, k) m, angular frequency (3, k) rad/s, phase (3, k) rad, about `centre`
    (3,)."""

    amplitude: Tensor
    frequency: Tensor
    phase: Tensor
    centre: Tensor

    def __call__(self, t: Tensor) -> Tensor:
        angle = self.frequency * t[:, None, None] + self.phase
        sine, cosine = self.amplitude * torch.sin(angle), self.amplitude * torch.cos(angle)
        position = self.centre + sine.sum(2)
        velocity = (self.frequency * cosine).sum(2)
        return torch.cat((position, velocity, -(self.frequency**2 * sine).sum(2)), dim=1)


def circle(centre: Tensor, radius_m: float, period_s: float, phase: float = 0.0) -> Harmonics:
    """In a horizontal plane; a negative period turns clockwise."""
    return _sines(centre, [(radius_m, 1.0, phase + math.pi / 2), (radius_m, 1.0, phase)], period_s)


def figure_eight(centre: Tensor, length_m: float, width_m: float, period_s: float, phase: float = 0.0) -> Harmonics:
    """Lying: along x once, along y twice a period."""
    return _sines(centre, [(length_m / 2, 1.0, phase), (width_m / 2, 2.0, 2.0 * phase)], period_s)


def _sines(centre: Tensor, axes: list[tuple[float, float, float]], period_s: float) -> Harmonics:
    rows = torch.tensor([*axes, (0.0, 0.0, 0.0)])
    return Harmonics(rows[:, :1], rows[:, 1:2] * (math.tau / period_s), rows[:, 2:], centre)


def random_smooth(centre: Tensor, box_m: tuple[float, float, float], speed_mps: float, generator: torch.Generator,
                  waves: int = 3) -> Harmonics:  # fmt: skip
    """Sums of sines inside the box (half edges) about `centre`, never faster than `speed_mps` in an axis."""
    share = torch.rand(3, waves, generator=generator)
    amplitude = torch.tensor(box_m)[:, None] * share / share.sum(1, keepdim=True)
    frequency = 0.3 + 2.7 * torch.rand(3, waves, generator=generator)
    fastest = (amplitude * frequency).sum(1, keepdim=True)
    frequency = frequency * (speed_mps / fastest).clamp_max(1.0)
    phase = math.tau * torch.rand(3, waves, generator=generator)
    return Harmonics(amplitude, frequency, phase, centre)


@dataclass(frozen=True)
class Eased:
    """A trajectory that starts at rest: its time runs slower at first, and as fast as ever after `ramp_s`."""

    path: Harmonics
    ramp_s: float

    def __call__(self, t: Tensor) -> Tensor:
        u = (t / self.ramp_s).clamp(0.0, 1.0)
        along = self.ramp_s * (u**3 - 0.5 * u**4) + (t - self.ramp_s).clamp_min(0.0)
        pace, gain = (3.0 * u**2 - 2.0 * u**3)[:, None], (6.0 * (u - u**2) / self.ramp_s)[:, None]
        position, velocity, acceleration = self.path(along).split(3, dim=1)
        return torch.cat((position, pace * velocity, pace**2 * acceleration + gain * velocity), dim=1)


def table(trajectory: Harmonics, steps: int, dt: float) -> Tensor:
    """(steps, 9): the trajectory every dt seconds from t = 0."""
    return trajectory(torch.arange(steps) * dt)


def require_feasible(rows: Tensor, vehicle: QuadrotorSpec, tilt_max_rad: float, name: str) -> None:
    """Raise ConfigError if the rows (n, 9) need more tilt, thrust (nine tenths of the full one) or height than there
    is."""
    pull = rows[:, 6:9] + torch.tensor([0.0, 0.0, 9.81])
    tilt = torch.atan2(pull[:, :2].norm(dim=1), pull[:, 2]).max().item()
    thrust, most = vehicle.mass_kg * pull.norm(dim=1).max().item(), 0.9 * vehicle.full_thrust_n
    lowest = rows[:, 2].min().item()
    for what, needs, has in (("a tilt (rad)", tilt, tilt_max_rad), ("a thrust (N)", thrust, most)):
        if needs > has:
            raise ConfigError(
                f"trajectory {name} needs {what} of {needs:.3g}, the vehicle has {has:.3g}; make it slower"
            )
    if lowest < vehicle.foot_m:
        raise ConfigError(f"trajectory {name} comes down to {lowest:.2f} m, into the ground; raise or flatten it")
