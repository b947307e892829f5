"""Universal Robots UR5e with its ROS 2 driver (ur_robot_driver): 500 Hz, ros2_control.

The robot's side of the driver stops after 0.04 s without the driver, which the driver itself keeps alive: when the
guard dies `forward_position` holds the last command. The tool's 1 m/s is the published typical speed, 50 N and 10 N m
are the range of its force sensor. The rest is ours, as for the Franka.
"""

import math

from real.robots.base import ArmProfile
from real.safety.limits import GuardLimits
from robolearn.config import register
from robolearn.robots.ur5e import UR5E

LIMITS = GuardLimits.of(
    UR5E,
    reference_error_rad=(0.35,) * 6,
    box_lower_m=(-1.0, -1.0, 0.0),
    box_upper_m=(1.0, 1.0, 1.2),
    tool_speed_mps=1.0,
    tool_rotation_radps=math.pi,
    force_n=50.0,
    torque_nm=10.0,
    floor_m=-0.02,
    clearance_m=0.01,
    state_timeout_s=0.08,
    proposal_timeout_s=0.08,
    future_s=0.005,
    hold_after_s=0.08,
    stop_after_s=0.5,
)

PROFILE = ArmProfile(
    robot="ur5e",
    state_topic="joint_states",
    state_rate_hz=500.0,
    command_rate_hz=500.0,
    base_frame="base_link",
    tool_frame="tool0",
    joint_names=UR5E.arm_joints,
    limits=LIMITS,
    watchdogs_s={"forward_position": None, "joint_trajectory": 0.1},
    wrench_topic="force_torque_sensor_broadcaster/wrench",
)
register("profile", "ur5e")(PROFILE)
