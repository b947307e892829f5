"""The limits of a quadrotor's guard."""

from __future__ import annotations

import math
from dataclasses import dataclass

from real.safety.limits import Limits
from robolearn.errors import ConfigError


@dataclass(frozen=True)
class FlightLimits(Limits):
    """Places are in the reference frame of the vehicle's pose."""

    UPWARDS = ("fence_lower_m", "thrust_lower_n", "battery_takeoff_v", "battery_land_v")
    SIGNED = ("fence_lower_m", "fence_upper_m", "thrust_lower_n")
    RANGES = (("fence_lower_m", "fence_upper_m"), ("thrust_lower_n", "thrust_upper_n"))

    fence_lower_m: tuple[float, ...]
    fence_upper_m: tuple[float, ...]
    """The geofence: a source loses authority before the vehicle would have to leave it, and outside it lands."""
    brake_mps2: float
    """What the vehicle can slow down with, for that."""
    react_s: float
    """How long it flies on before it slows down, for that: delays of the pose, of the commands and of the attitude."""
    speed_mps: float
    """Of what is commanded; a source whose vehicle is twice as fast loses authority."""
    acceleration_mps2: float
    """Of what is commanded, as full states."""
    tilt_rad: float
    """Of what is commanded."""
    tilt_rate_radps: float
    """At which commanded roll and pitch change."""
    yaw_rate_radps: float
    """Of what is commanded."""
    thrust_lower_n: float
    thrust_upper_n: float
    """Collective, of what is commanded."""
    measured_tilt_rad: float
    measured_rates_radps: float
    """Beyond them a source loses authority."""
    tumbled_rad: float
    """Beyond this tilt nothing can be saved: the motors are cut."""
    battery_takeoff_v: float
    """Below, it does not take off."""
    battery_land_v: float
    battery_low_s: float
    """Below it for so long, it lands: under load the voltage sags for a moment."""
    takeoff_m: float
    """Height above its start that it takes off to."""
    climb_mps: float
    """Of take-off, landing, and the way back into the fence."""
    state_timeout_s: float
    """Age of the pose from which on it counts as lost."""
    frozen_s: float
    """A pose that is bit by bit the same for so long is not measured any more, whatever its stamps say."""
    proposal_timeout_s: float
    """Age of the pose behind a proposal at which it is refused."""
    future_s: float
    """How far a stamp may lie ahead of the clock."""
    hold_after_s: float
    """Without a proposal for so long its source loses authority. Until then the last one holds."""
    service_timeout_s: float
    """In which the vehicle's services have to answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tilt_rad < math.pi / 2 or not self.tilt_rad < self.measured_tilt_rad < self.tumbled_rad <= math.pi:
            raise ConfigError(
                "guard limits must be ordered: tilt_rad (below 90 degrees) < measured_tilt_rad < tumbled_rad <= pi, "
                f"got {self.tilt_rad}, {self.measured_tilt_rad}, {self.tumbled_rad}"
            )
        if self.battery_takeoff_v < self.battery_land_v:
            raise ConfigError(f"battery_takeoff_v = {self.battery_takeoff_v} must not be below battery_land_v")
        if not self.fence_upper_m[2] - self.fence_lower_m[2] > self.takeoff_m:
            raise ConfigError(f"takeoff_m = {self.takeoff_m} does not fit into the geofence")
