"""A pole hinged on a cart: the toy that finds broken plumbing in seconds."""

import math

from robolearn.config import register
from robolearn.spec import RobotSpec

CARTPOLE = RobotSpec(
    name="cartpole",
    urdf="package://sim/assets/cartpole/cartpole.urdf",
    base_link="rail",
    ee_link="pole",
    joint_names=("slider", "hinge"),
    lower=(-2.4, -math.inf),
    upper=(2.4, math.inf),
    velocity_limit=(20.0, 50.0),
    acceleration_limit=(100.0, 1000.0),
    jerk_limit=(1e4, 1e5),
    effort_limit=(20.0, 0.0),
    kp=(0.0, 0.0),
    kd=(0.0, 0.0),
    default_joint_pos=(0.0, 0.0),
    arm_joints=("slider",),
)
register("robot", "cartpole")(CARTPOLE)
