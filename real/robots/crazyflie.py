"""Bitcraze Crazyflie 2 under Crazyswarm2.

The firmware's watchdogs (0.5 s, then 2 s) and its range of thrust are published. The rest is ours: the fence is a
motion-capture cage, tilt and yaw rate are those of the flight tasks' actions, the voltages are those of its one cell.
Crazyswarm2's pose comes at 10 Hz unless its configuration says more: 50 Hz, `odom` and a log topic of the gyroscope are
wanted here.
"""

from real.robots.base import QuadrotorProfile
from real.safety.flight_limits import FlightLimits
from robolearn.config import register

LIMITS = FlightLimits(
    fence_lower_m=(-5.0, -5.0, 0.05),
    fence_upper_m=(5.0, 5.0, 3.0),
    brake_mps2=4.0,
    react_s=0.2,
    speed_mps=3.0,
    acceleration_mps2=8.0,
    tilt_rad=0.85,  # 0.6 about both axes
    tilt_rate_radps=60.0,
    yaw_rate_radps=2.0,
    thrust_lower_n=0.04,
    thrust_upper_n=0.5,
    measured_tilt_rad=1.2,
    measured_rates_radps=20.0,
    tumbled_rad=2.2,
    battery_takeoff_v=3.7,
    battery_land_v=3.2,
    battery_low_s=2.5,
    takeoff_m=1.0,
    climb_mps=0.5,
    state_timeout_s=0.25,
    frozen_s=0.5,
    proposal_timeout_s=0.25,
    future_s=0.005,
    hold_after_s=0.15,
    service_timeout_s=1.0,
)

PROFILE = QuadrotorProfile(
    robot="crazyflie",
    state_topic="pose",
    state_rate_hz=50.0,
    command_rate_hz=100.0,
    base_frame="world",
    limits=LIMITS,
    level_after_s=0.5,
    cut_after_s=2.0,
    gyro_topic="gyro",
    state_delay_s=0.01,
    command_delay_s=0.005,
)
register("profile", "crazyflie")(PROFILE)
