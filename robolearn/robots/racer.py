"""A racing quadrotor under Betaflight, with the numbers published for UZH's Agilicious (Foehn et al. 2022).

Mass, inertia, rotor places, thrust and torque constants and the rotors' time constant are theirs; the full speed is
that of 8.5 N a rotor, and air drag is left out. Its firmware is Betaflight 4.6 with its default PIDs, here in the
cascade that all our quadrotors have: a level P of 5 /s, and P 45, I 80, D 30 (yaw 45, 80, 0), which are sums of 1,000
for a full motor, and twice as strong in a mixer of whole signs as in ours of halves. Betaflight's filters, feed-forward
and anti-gravity are not in it: `sim/autopilots` flies the real one.
"""

import math

from robolearn.config import register
from robolearn.spec import FirmwareSpec, QuadrotorSpec, RobotSpec

THRUST = 1.562522e-6
FULL_SPEED = math.sqrt(8.5 / THRUST)
ROTORS = ("rotor_1", "rotor_2", "rotor_3", "rotor_4")
"""Front right, rear right, rear left, front left."""
FULL_COUNTS = 65535.0
KP, KI, KD = (gain * FULL_COUNTS / 1000.0 for gain in (45 * 0.032029, 80 * 0.244381, 30 * 0.000529))
"""Counts per deg/s, its integral and its derivative; the factors are Betaflight's scales of the three gains."""
MOST_AREA_DEG = 400.0 / (80 * 0.244381)
"""Where the integral's part ends."""

RACER = RobotSpec(
    name="racer",
    urdf="package://sim/assets/racer/racer.urdf",
    base_link="base_link",
    ee_link="base_link",
    joint_names=ROTORS,
    lower=(-math.inf,) * 4,
    upper=(math.inf,) * 4,
    velocity_limit=(FULL_SPEED,) * 4,
    acceleration_limit=(1e6,) * 4,
    jerk_limit=(1e9,) * 4,
    effort_limit=(0.0,) * 4,
    kp=(0.0,) * 4,
    kd=(0.0,) * 4,
    default_joint_pos=(0.0,) * 4,
    arm_joints=ROTORS,
    min_rate_hz=10.0,
    max_rate_hz=500.0,
    quadrotor=QuadrotorSpec(
        mass_kg=0.752,
        inertia_kgm2=(2.5e-3, 2.1e-3, 4.3e-3),
        rotor_xy_m=((0.075, -0.1), (-0.075, -0.1), (-0.075, 0.1), (0.075, 0.1)),
        rotor_spin=(-1.0, 1.0, -1.0, 1.0),
        thrust_curve=(0.0, 0.0, THRUST),
        torque_per_thrust_m=0.022,
        max_speed_radps=FULL_SPEED,
        spin_up_s=0.033,
        spin_down_s=0.033,
        foot_m=0.03,
        firmware=FirmwareSpec(
            rate_hz=500.0,
            angle=(5.0, 0.0, 1.0),
            rate=(2.0 * KP, 2.0 * KI, 2.0 * KD, MOST_AREA_DEG),
            yaw_rate=(KP, KI, MOST_AREA_DEG),
            speed_offset_radps=0.0,
            speed_per_count_radps=FULL_SPEED / FULL_COUNTS,
            link_delay_s=0.004,
        ),
    ),
)
register("robot", "racer")(RACER)
