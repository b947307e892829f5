"""A QuadrotorSpec as the kernels take it."""

from __future__ import annotations

import math
from typing import Any

import warp as wp

from robolearn.spec import QuadrotorSpec
from sim.scene import SceneCfg
from sim.vehicles import dynamics

STIFF = 0.35
"""Natural frequency of a foot's contact, in units of 1 / dt: stable, and as hard as the step allows."""


def body(vehicle: QuadrotorSpec, scene: SceneCfg) -> Any:
    """What all copies share."""
    natural = min(STIFF / scene.physics_dt_s, 100.0)
    out = dynamics.Body()
    out.x, out.y = (wp.vec4(*axis) for axis in zip(*vehicle.rotor_xy_m, strict=True))
    out.spin, out.curve = wp.vec4(*vehicle.rotor_spin), wp.vec3(*vehicle.thrust_curve)
    out.max_speed, out.full_thrust = vehicle.max_speed_radps, vehicle.full_thrust_n
    out.sag_rate, out.sag_load = vehicle.sag_per_s, vehicle.sag_at_full_thrust
    out.gravity = scene.gravity_mps2
    out.feet = vehicle.foot_m if scene.ground else -1.0
    out.stiffness, out.damping = natural**2 / 4.0, natural / 4.0
    return out


def firmware(vehicle: QuadrotorSpec) -> Any:
    if vehicle.firmware is None:
        return None
    spec, out = vehicle.firmware, dynamics.Firmware()
    out.angle, out.rate, out.yaw = wp.vec3(*spec.angle), wp.vec4(*spec.rate), wp.vec3(*spec.yaw_rate)
    out.speed_offset, out.speed_slope = spec.speed_offset_radps, spec.speed_per_count_radps
    return out


def params(vehicle: QuadrotorSpec, dt: float) -> list[float]:
    """The nominal row of `params`."""
    delay = vehicle.firmware.link_delay_s / dt if vehicle.firmware else 0.0
    inertia = vehicle.inertia_kgm2
    out = [
        vehicle.mass_kg, *inertia, *(1.0 / j for j in inertia), 1.0, vehicle.torque_per_thrust_m,
        math.exp(-0.5 * dt / vehicle.spin_up_s), math.exp(-0.5 * dt / vehicle.spin_down_s),
        *vehicle.drag_kg, 1.0 if vehicle.sag_per_s or vehicle.sag_at_full_thrust else 0.0, delay,
    ]  # fmt: skip
    assert len(out) == dynamics.PARAMS
    return out
