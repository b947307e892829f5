"""Bitcraze Crazyflie 2, with the parameters of Learning to Fly in Seconds (Eschmann et al. 2023).

Published values disagree: masses from 0.027 to 0.034 kg, Jxx from 3.85e-6 to 1.657e-5 kg m2, rotor time constants from
0.025 s to 0.25 s; the flight tasks draw from their union. Rotor drag and the map from motor counts to rotor speed:
Foerster 2015 (system identification of the Crazyflie 2.0). Gains: the firmware's defaults for the Crazyflie 2. The
battery's sag and the link's delay are assumptions of the right size, not measurements. The paper's model has neither
drag nor sag nor firmware: `crazyflie_hover_rpm` switches them off.
"""

import math

from robolearn.config import register
from robolearn.spec import FirmwareSpec, QuadrotorSpec, RobotSpec

RPM = math.tau / 60.0
FULL_SPEED = 21702.0 * RPM
ROTORS = ("rotor_1", "rotor_2", "rotor_3", "rotor_4")
"""Front right, rear right, rear left, front left."""
ARM = 0.028

CRAZYFLIE = RobotSpec(
    name="crazyflie",
    urdf="package://sim/assets/crazyflie/crazyflie.urdf",
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
        mass_kg=0.027,
        inertia_kgm2=(3.85e-6, 3.85e-6, 5.9675e-6),
        rotor_xy_m=((ARM, -ARM), (-ARM, -ARM), (-ARM, ARM), (ARM, ARM)),
        rotor_spin=(-1.0, 1.0, -1.0, 1.0),
        thrust_curve=(0.0, 0.0, 3.16e-10 / RPM**2),
        torque_per_thrust_m=0.005964552,
        max_speed_radps=FULL_SPEED,
        spin_up_s=0.15,
        spin_down_s=0.15,
        drag_kg=(9.1785e-7, 10.311e-7),
        sag_per_s=0.0003,
        sag_at_full_thrust=0.08,
        foot_m=0.02,
        firmware=FirmwareSpec(
            rate_hz=500.0,
            angle=(6.0, 3.0, 20.0),
            rate=(250.0, 500.0, 2.5, 33.3),
            yaw_rate=(120.0, 16.7, 166.7),
            speed_offset_radps=4070.3 * RPM,
            speed_per_count_radps=0.2685 * RPM,
            link_delay_s=0.004,
        ),
    ),
)
register("robot", "crazyflie")(CRAZYFLIE)
