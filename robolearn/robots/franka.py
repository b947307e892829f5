"""Franka Emika Panda with its hand.

Velocity, acceleration and jerk limits: Franka's published joint limits (libfranka documentation, Panda: velocity
2.175 / 2.61 rad/s; acceleration and jerk tightened to the common 10 rad/s2 and 5000 rad/s3). Position limits and
efforts: the URDF. The gains are critically damped against the URDF's inertias at the default posture and stable at
240 Hz without armature: kd dt < M_jj for every joint.
"""

from robolearn.config import register
from robolearn.spec import RobotSpec

ARM = tuple(f"panda_joint{i}" for i in range(1, 8))
_FINGER_LINKS = ("panda_leftfinger", "panda_rightfinger")
FINGERS = ("panda_finger_joint1", "panda_finger_joint2")

_APART = {
    "panda_link0": ("panda_link1", "panda_link2", "panda_link3", "panda_link4"),
    "panda_link1": ("panda_link2", "panda_link3", "panda_link4"),
    "panda_link2": ("panda_link3", "panda_link4"),
    "panda_link3": ("panda_link4", "panda_link5", "panda_link6", "panda_link7", "panda_hand", *_FINGER_LINKS),
    "panda_link4": ("panda_link5", "panda_link6", "panda_link7", "panda_hand", *_FINGER_LINKS),
    "panda_link5": ("panda_link6", "panda_link7"),
    "panda_link6": ("panda_link7", "panda_hand", *_FINGER_LINKS),
    "panda_link7": ("panda_hand", *_FINGER_LINKS),
    "panda_hand": _FINGER_LINKS,
    "panda_leftfinger": ("panda_rightfinger",),
}
NEVER_TOUCH = tuple((a, b) for a, others in _APART.items() for b in others)
"""Pairs without contact in 60,000 random postures within the joint limits, and links 5 and 7, whose convex hulls
(not the links) overlap in 6 % of them."""

FRANKA = RobotSpec(
    name="franka",
    urdf="package://sim/assets/franka/panda.urdf",
    base_link="panda_link0",
    ee_link="panda_grasptarget",
    joint_names=ARM + FINGERS,
    lower=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973, 0.0, 0.0),
    upper=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973, 0.04, 0.04),
    velocity_limit=(2.175,) * 4 + (2.61,) * 3 + (0.2, 0.2),
    acceleration_limit=(10.0,) * 7 + (4.0, 4.0),
    jerk_limit=(5000.0,) * 7 + (1000.0, 1000.0),
    effort_limit=(87.0,) * 4 + (12.0,) * 3 + (20.0, 20.0),
    kp=(400.0, 400.0, 400.0, 400.0, 200.0, 200.0, 150.0, 400.0, 400.0),
    kd=(60.0, 60.0, 55.0, 50.0, 25.0, 24.0, 19.0, 12.0, 12.0),
    default_joint_pos=(0.0, -0.569, 0.0, -2.810, 0.0, 2.241, 0.785, 0.035, 0.035),
    arm_joints=ARM,
    gripper_joints=FINGERS,
    gravity_compensation=True,
    max_rate_hz=1000.0,
    contact_exclude=NEVER_TOUCH,
)
register("robot", "franka")(FRANKA)
