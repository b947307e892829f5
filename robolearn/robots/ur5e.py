"""Universal Robots UR5e, without a gripper.

Position, velocity and torque limits: Universal Robots' published values (joints +-360 degrees, 180 degrees/s, 150 and
28 N m); the elbow is bounded at +-180 degrees as in their ROS driver, beyond which it meets itself. They publish no
acceleration nor jerk: 10 rad/s2 and 5000 rad/s3 are ours. The gains are critically damped against the inertias at the
default posture and stable at 240 Hz without armature, kd dt < M_jj, in every posture (the least M_jj of 5,000).
"""

import math

from robolearn.config import register
from robolearn.spec import RobotSpec

ARM = (
    "shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint",
)  # fmt: skip
_TURN, _QUARTER = math.tau, 0.25 * math.tau
_REACH = (_TURN, _TURN, math.pi, _TURN, _TURN, _TURN)

NEVER_TOUCH = (
    ("base_link", "upper_arm_link"), ("base_link", "wrist_1_link"), ("shoulder_link", "wrist_1_link"),
    ("shoulder_link", "wrist_2_link"), ("forearm_link", "wrist_2_link"), ("wrist_1_link", "wrist_3_link"),
)  # fmt: skip
"""Pairs without contact in 20,000 random postures within the joint limits."""

UR5E = RobotSpec(
    name="ur5e",
    urdf="package://sim/assets/ur5e/ur5e.urdf",
    base_link="base_link",
    ee_link="tool0",
    joint_names=ARM,
    lower=tuple(-v for v in _REACH),
    upper=_REACH,
    velocity_limit=(math.pi,) * 6,
    acceleration_limit=(10.0,) * 6,
    jerk_limit=(5000.0,) * 6,
    effort_limit=(150.0,) * 3 + (28.0,) * 3,
    kp=(500.0, 800.0, 600.0, 150.0, 120.0, 80.0),
    kd=(46.0, 88.0, 46.0, 7.0, 4.6, 2.5),
    default_joint_pos=(0.0, -_QUARTER, _QUARTER, -_QUARTER, -_QUARTER, 0.0),
    arm_joints=ARM,
    gravity_compensation=True,
    max_rate_hz=500.0,
    contact_exclude=NEVER_TOUCH,
)
register("robot", "ur5e")(UR5E)
