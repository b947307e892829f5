"""A geometric tracking controller for quadrotors (Lee, Leok and McClamroch 2010): what a learned policy is measured by.

It reads the flight terms of the `policy` observation and knows the vehicle's nominal numbers, which are its
configuration. Position and velocity errors give a desired specific force; its direction is where the thrust axis should
point, its projection on the present axis the thrust. Commanded by attitude, that is all, and the firmware does the
rest. Commanded by rotor speeds, the error of the axis and the rates give moments and the mixer thrusts. The rotors are
slow (0.15 s), therefore it keeps a model of their speeds and commands `rotor_lead` times the step that it wants.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robolearn.policies.base import Policy
from robolearn.spec import PolicySpec, QuadrotorSpec, from_dict, to_dict

G = 9.81
GAINS: dict[str, dict[str, float]] = {
    "rotor_speed": {
        "position": 20.8, "position_z": 8.2, "velocity": 2.84, "velocity_z": 3.0, "integral": 4.9, "integral_z": 6.2,
        "tilt": 206.0, "tilt_rate": 56.0, "yaw": 5.7, "yaw_rate": 5.7, "rotor_lead": 1.82, "area": 0.18,
        "steepest": 1.39, "thrust_ahead_s": 0.05, "least_thrust": 0.45,
    },
    "attitude": {
        "position": 11.7, "position_z": 12.6, "velocity": 4.6, "velocity_z": 6.2, "integral": 4.0, "integral_z": 8.6,
        "tilt": 1.03, "tilt_rate": 0.005, "yaw": 0.92, "yaw_rate": 0.006, "ahead_s": 0.16, "lift": 1.2,
        "steepest": 1.09, "thrust_ahead_s": 0.1, "least_thrust": 0.29,
    },
}  # fmt: skip
"""By action. position (1/s2), velocity (1/s), integral (1/s3): of the desired acceleration. `tilt` and `tilt_rate` are
1/s2 and 1/s for rotor speeds; for attitudes, by how much the command goes beyond the present attitude, and its damping
(s). `area` (m s) bounds the integral that the controller keeps where the observation has none; `ahead_s` is how far
ahead the trajectory's acceleration is looked up; thrusts are multiplied by `lift`, heavier vehicles than the nominal
one being more common."""


SINGLE = ("rotor_lead", "area", "ahead_s", "lift", "steepest", "thrust_ahead_s", "least_thrust")


def config_of(vehicle: QuadrotorSpec, gains: dict[str, float] | None = None,
              preview_step_s: float = 0.1) -> dict[str, Any]:  # fmt: skip
    """The controller's configuration; `preview_step_s` is the time between the positions of the term `ahead`."""
    return {"vehicle": to_dict(vehicle), "gains": gains or {}, "preview_step_s": preview_step_s}


class Seen(NamedTuple):
    """One observation: errors of position and velocity, rotation (B, 3, 3), body rates, integral, and the trajectory's
    acceleration; (B, 3) each."""

    position: Tensor
    rotation: Tensor
    velocity: Tensor
    rates: Tensor
    area: Tensor | None
    acceleration: Tensor


class GeometricPolicy(Policy):
    """config: that of `config_of`; gains that are not named are those of GAINS."""

    kind = "geometric"
    k_position: Tensor
    k_velocity: Tensor
    k_integral: Tensor
    k_tilt: Tensor
    k_tilt_rate: Tensor
    k_rotor_lead: Tensor
    k_area: Tensor
    k_ahead_s: Tensor
    k_lift: Tensor
    k_steepest: Tensor
    k_thrust_ahead_s: Tensor
    k_least_thrust: Tensor
    mixer: Tensor
    inertia: Tensor
    scale: Tensor

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__(spec, config)
        if spec.action.function not in GAINS:
            raise ValueError(f"a geometric controller commands {', '.join(GAINS)}, not {spec.action.function}")
        self.vehicle = from_dict(QuadrotorSpec, config["vehicle"])
        self.at = _columns(spec)
        self.dt, self.step_s = 1.0 / spec.rate_hz, float(config["preview_step_s"])
        gains = GAINS[spec.action.function]
        unknown = set(config["gains"]) - set(gains)
        if unknown:
            raise ValueError(f"no gains {sorted(unknown)}; there are {', '.join(gains)}")
        self.set_gains({k: torch.tensor([v]) for k, v in (gains | config["gains"]).items()})
        self._model_rotors()
        self._speeds, self._area = torch.empty(0, 4), torch.empty(0, 3)

    def set_gains(self, gains: dict[str, Tensor]) -> None:
        """(1,) each, or (B, 1): another set for each row."""
        for name in ("position", "velocity", "integral"):
            across, up = gains[name], gains[f"{name}_z"]
            self.register_buffer(f"k_{name}", torch.cat((across, across, up), dim=-1), persistent=False)
        for name in ("tilt", "tilt_rate"):
            across, about = gains[name], gains[name.replace("tilt", "yaw")]
            self.register_buffer(f"k_{name}", torch.cat((across, across, about), dim=-1), persistent=False)
        for name in SINGLE:
            if name in gains:
                self.register_buffer(f"k_{name}", gains[name], persistent=False)

    def _model_rotors(self) -> None:
        v = self.vehicle
        x, y = torch.tensor(v.rotor_xy_m).T
        rows = torch.stack((torch.ones(4), y, -x, v.torque_per_thrust_m * torch.tensor(v.rotor_spin)))
        scale = torch.tensor(self.spec.action.scale)
        constants = {"mixer": torch.linalg.inv(rows).T, "inertia": torch.tensor(v.inertia_kgm2), "scale": scale}
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def reset(self, mask: Tensor) -> None:
        """The rotors of these environments hover, and their errors have no past."""
        hover = torch.full((len(mask), 4), self.vehicle.hover_speed_radps, device=mask.device)
        none = torch.zeros(len(mask), 3, device=mask.device)
        if len(mask) == len(self._speeds):
            hover = torch.where(mask[:, None], hover, self._speeds)
            none = torch.where(mask[:, None], none, self._area)
        self._speeds, self._area = hover, none

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        seen = self._read(obs["policy"])
        if self.spec.action.function == "attitude":
            return self._attitude(seen)
        if len(self._speeds) != len(seen.rates):
            self.reset(torch.ones(len(seen.rates), dtype=torch.bool, device=seen.rates.device))
        return self._rotors(seen)

    def _read(self, x: Tensor) -> Seen:
        def of(name: str) -> Tensor:
            return x[:, self.at[name]]

        area = of("position_integral") if "position_integral" in self.at else None
        accel = of("acceleration") if "acceleration" in self.at else torch.zeros_like(x[:, :3])
        if "ahead" in self.at and "ahead_s" in GAINS[self.spec.action.function]:
            accel = self._later(accel, of("ahead").unflatten(1, (-1, 3)))
        rotation = of("rotation").unflatten(1, (3, 3))
        return Seen(of("position_error"), rotation, of("velocity"), of("rates"), area, accel)

    def _later(self, now: Tensor, ahead: Tensor) -> Tensor:
        """The trajectory's acceleration `ahead_s` from now: between the one it has now, and the second differences of
        its positions ahead (B, n, 3), of which the first is that two steps from now."""
        if ahead.shape[1] < 3:
            return now
        later = (ahead[:, 2:] - 2.0 * ahead[:, 1:-1] + ahead[:, :-2]) / self.step_s**2
        share = (self.k_ahead_s / (2.0 * self.step_s)).clamp(0.0, 1.0)
        return now + share * (later[:, 0] - now)

    def _force(self, seen: Seen, area: Tensor) -> Tensor:
        """Desired specific force, m/s2, world frame; never down, never too steep."""
        wanted = seen.acceleration - self.k_position * seen.position - self.k_velocity * seen.velocity
        wanted = wanted - self.k_integral * area
        up = (wanted[:, 2:] + G).clamp(0.3 * G, 2.5 * G)
        across = wanted[:, :2]
        steep = across.norm(dim=1, keepdim=True) / (self.k_steepest * up)
        return torch.cat((across / steep.clamp_min(1.0), up), dim=1)

    def _along(self, seen: Seen, force: Tensor) -> Tensor:
        """The force's part (B, 1) along the thrust axis where that will be when the rotors have come up; at least a
        share of the force, so that they still turn after a recovery."""
        z = seen.rotation[:, :, 2]
        soon = z + self.k_thrust_ahead_s * torch.linalg.cross(_turned(seen.rotation, seen.rates), z)
        along = (force * soon).sum(1, keepdim=True) / soon.norm(dim=1, keepdim=True).clamp_min(1e-6)
        return torch.maximum(along, self.k_least_thrust * force.norm(dim=1, keepdim=True))

    # --- commanded by attitude ------------------------------------------------------------------------------

    def _attitude(self, seen: Seen) -> Tensor:
        area = seen.area if seen.area is not None else torch.zeros_like(seen.position)
        force, r = self._force(seen, area), seen.rotation
        yaw = torch.atan2(r[:, 1, 0], r[:, 0, 0])
        forward = torch.cos(yaw) * force[:, 0] + torch.sin(yaw) * force[:, 1]
        left = torch.cos(yaw) * force[:, 1] - torch.sin(yaw) * force[:, 0]
        pitch = torch.atan2(forward, force[:, 2])
        roll = torch.atan2(-left, torch.hypot(forward, force[:, 2]))
        now = torch.stack((torch.atan2(r[:, 2, 1], r[:, 2, 2]), torch.asin(-r[:, 2, 0].clamp(-1.0, 1.0))), dim=1)
        tilt = now + self.k_tilt[..., :2] * (torch.stack((roll, pitch), dim=1) - now)
        tilt = tilt - self.k_tilt_rate[..., :2] * seen.rates[:, :2]
        turn = -self.k_tilt[..., 2:] * yaw[:, None]
        thrust = self.vehicle.mass_kg * (self.k_lift * self._along(seen, force) - G)
        return (torch.cat((tilt, turn, thrust), dim=1) / self.scale).clamp(-1.0, 1.0)

    # --- commanded by rotor speeds --------------------------------------------------------------------------

    def _rotors(self, seen: Seen) -> Tensor:
        if seen.area is None:
            grown = self._area + self.dt * seen.position
            self._area = torch.maximum(torch.minimum(grown, self.k_area), -self.k_area)
        force = self._force(seen, self._area if seen.area is None else seen.area)
        wanted = self._speed_of(self._thrusts(seen, force))
        speeds, v = self._speeds, self.vehicle
        command = (speeds + self.k_rotor_lead * (wanted - speeds)).clamp(0.0, v.max_speed_radps)
        up, down = (math.exp(-self.dt / s) for s in (v.spin_up_s, v.spin_down_s))
        self._speeds = command + (speeds - command) * torch.where(command > speeds, up, down)
        return (2.0 * command / v.max_speed_radps - 1.0).clamp(-1.0, 1.0)

    def _thrusts(self, seen: Seen, force: Tensor) -> Tensor:
        """Of each rotor (B, 4), N: moments before thrust where both cannot be had."""
        back = seen.rotation.transpose(1, 2)
        z = seen.rotation[:, :, 2]
        aim = _turned(back, force / force.norm(dim=1, keepdim=True))
        axis = torch.stack((-aim[:, 1], aim[:, 0], torch.zeros_like(aim[:, 0])), dim=1)  # z x aim
        sine = axis.norm(dim=1, keepdim=True)
        error = axis * torch.atan2(sine, aim[:, 2:]) / sine.clamp_min(1e-6)
        yaw = torch.atan2(seen.rotation[:, 1, 0], seen.rotation[:, 0, 0])
        error = error - torch.stack((torch.zeros_like(yaw), torch.zeros_like(yaw), yaw), dim=1)
        rates = seen.rates - _turned(back, self._aim_rate(seen, force, z))
        spin = self.k_tilt * error - self.k_tilt_rate * rates
        moment = self.inertia * spin + torch.linalg.cross(seen.rates, self.inertia * seen.rates)
        thrust = self.vehicle.mass_kg * self._along(seen, force)
        part = moment @ self.mixer[1:]
        most = self.vehicle.thrust_n(self.vehicle.max_speed_radps)
        low, high = -part.amin(1, keepdim=True), most - part.amax(1, keepdim=True)
        return torch.minimum(torch.maximum(0.25 * thrust, low), high) + part

    def _aim_rate(self, seen: Seen, force: Tensor, z: Tensor) -> Tensor:
        """Angular velocity of the desired axis, world frame, with the acceleration that the rotors give now."""
        a, b, c = self.vehicle.thrust_curve
        lift = (a + b * self._speeds + c * self._speeds**2).sum(1, keepdim=True) / self.vehicle.mass_kg
        down = torch.tensor([0.0, 0.0, G], device=z.device)
        rate = -self.k_position * seen.velocity - self.k_velocity * (lift * z - down - seen.acceleration)
        square = (force * force).sum(1, keepdim=True)
        return torch.linalg.cross(force, rate) / square

    def _speed_of(self, thrust: Tensor) -> Tensor:
        a, b, c = self.vehicle.thrust_curve
        return (torch.sqrt(b * b + 4.0 * c * (thrust - a).clamp_min(0.0)) - b) / (2.0 * c)


def _turned(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None]).squeeze(-1)


def _columns(spec: PolicySpec) -> dict[str, slice]:
    """Where each term lies in the policy's vector. ValueError if one that is needed is not there."""
    at, start = {}, 0
    for term in spec.observation.terms("policy"):
        at[term.field.name] = slice(start, start + term.size)
        start += term.size
    missing = [name for name in ("position_error", "rotation", "velocity", "rates") if name not in at]
    if missing or spec.observation.history.get("policy", 1) > 1:
        lacks = f"has no {', '.join(missing)}" if missing else "has a history of whole frames"
        raise ValueError(f"a geometric controller cannot fly on this observation: it {lacks}")
    return at
