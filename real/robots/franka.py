"""Franka Emika Panda under ros2_control (franka_ros2 or the same topics of a simulated one).

The tool's 3 m/s and 2.5 rad/s are Franka's published limits; the joints' are the RobotSpec's. The rest is ours:
the box is the arm's reach above its table, the force is a payload of 3 kg and a third of it more. Its controllers
hold the last command; `joint_trajectory_controller` stops by itself if its `cmd_timeout` is set, which a site must do
to use that interface. The hand is that of the node franka_gripper: its action takes half of the width between the
fingers, and it runs one goal at a time.
"""

from real.robots.base import ArmProfile, Gripper
from real.safety.limits import GuardLimits
from robolearn.config import register
from robolearn.robots.franka import FINGERS, FRANKA

LIMITS = GuardLimits.of(
    FRANKA,
    reference_error_rad=(0.35,) * 7,
    box_lower_m=(-0.95, -0.95, 0.0),
    box_upper_m=(0.95, 0.95, 1.3),
    tool_speed_mps=3.0,
    tool_rotation_radps=2.5,
    force_n=40.0,
    torque_nm=12.0,
    floor_m=-0.02,
    clearance_m=0.01,
    state_timeout_s=0.08,
    proposal_timeout_s=0.08,
    future_s=0.005,
    hold_after_s=0.08,
    stop_after_s=0.5,
)

PROFILE = ArmProfile(
    robot="franka",
    state_topic="joint_states",
    state_rate_hz=1000.0,
    command_rate_hz=1000.0,
    base_frame="panda_link0",
    tool_frame="panda_grasptarget",
    joint_names=FRANKA.arm_joints,
    limits=LIMITS,
    watchdogs_s={"forward_position": None, "joint_trajectory": 0.1, "cartesian_pose": None},
    gripper=Gripper(
        action="panda_gripper/gripper_action",
        type="control_msgs/action/GripperCommand",
        joint_names=FINGERS,
        max_effort_n=20.0,
        state_topic="panda_gripper/joint_states",
    ),
    wrench_topic=None,
)
register("profile", "franka")(PROFILE)
