"""What a robot's driver says and hears, as data: a profile is registered under its name and read by the nodes.

Topics are relative to the robot's namespace. A site tightens the limits and renames topics (configs/site).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from real.flight.state import SETPOINTS
from real.safety.flight_limits import FlightLimits
from real.safety.limits import GuardLimits
from robolearn.errors import ConfigError, unknown

CommandInterface = Literal["forward_position", "joint_trajectory", "cartesian_pose"]


@dataclass(frozen=True)
class Interface:
    topic: str
    type: str


COMMANDS: dict[CommandInterface, Interface] = {
    "forward_position": Interface("forward_position_controller/commands", "std_msgs/msg/Float64MultiArray"),
    "joint_trajectory": Interface(
        "joint_trajectory_controller/joint_trajectory", "trajectory_msgs/msg/JointTrajectory"
    ),
    "cartesian_pose": Interface("cartesian_impedance_controller/equilibrium_pose", "geometry_msgs/msg/PoseStamped"),
}
"""Of ros2_control's controllers, and of Cartesian impedance controllers that take an equilibrium pose of the tool."""


GRIPPER_ACTIONS = ("control_msgs/action/GripperCommand", "control_msgs/action/ParallelGripperCommand")


@dataclass(frozen=True)
class Gripper:
    """Moved by an action, at its own pace. Its goals are positions (rad, m) of the first of its joints, which the
    others mirror."""

    action: str
    type: str
    """One of GRIPPER_ACTIONS."""
    joint_names: tuple[str, ...]
    """On the wire; as many as the specification's `gripper_joints`, in that order."""
    max_effort_n: float
    state_topic: str = ""
    """sensor_msgs/JointState, where it is not among the arm's."""
    state_rate_hz: float = 30.0
    state_timeout_s: float = 0.5
    """Age of its state from which on nothing is proposed from it: some drivers publish at 30 Hz."""

    def __post_init__(self) -> None:
        if self.type not in GRIPPER_ACTIONS:
            raise ConfigError(unknown("gripper action type", self.type, GRIPPER_ACTIONS))
        for name in ("max_effort_n", "state_rate_hz", "state_timeout_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"gripper: {name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class RobotProfile:
    """What every robot has; arms, quadrotors and bases add to it."""

    robot: str
    """Name of its RobotSpec."""
    state_topic: str
    state_rate_hz: float
    """At which the driver publishes its state."""
    command_rate_hz: float
    """At which the guard commands it."""
    base_frame: str
    """TF frame that the specification's base link is called here."""

    def __post_init__(self) -> None:
        for name in ("state_rate_hz", "command_rate_hz"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"profile of {self.robot}: {name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class ArmProfile(RobotProfile):
    """An arm under ros2_control. Its state is a sensor_msgs/JointState."""

    tool_frame: str
    """TF frame of the specification's `ee_link`."""
    joint_names: tuple[str, ...]
    """The arm's joints on the wire, in the driver's order: entry i is the i-th of the specification's `arm_joints`."""
    limits: GuardLimits
    watchdogs_s: Mapping[CommandInterface, float | None]
    """Interfaces that its driver has, each with the time after which the driver stops by itself when commands stop.
    None: it never does, it holds the last command."""
    command_interface: CommandInterface = "forward_position"
    gripper: Gripper | None = None
    wrench_topic: str | None = None
    """geometry_msgs/WrenchStamped at the tool. None: nothing measures it, and the guard's force limit cannot act."""
    command_topic: str = ""
    """In place of the interface's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.command_interface not in self.watchdogs_s:
            raise ConfigError(unknown("command interface", self.command_interface, list(self.watchdogs_s)))
        if len(set(self.joint_names)) != len(self.limits.joint_upper_rad):
            raise ConfigError(f"profile of {self.robot}: {self.joint_names} are not "
                              f"{len(self.limits.joint_upper_rad)} different joints")  # fmt: skip

    @property
    def command(self) -> Interface:
        own = COMMANDS[self.command_interface]
        return Interface(self.command_topic, own.type) if self.command_topic else own

    @property
    def watchdog_s(self) -> float | None:
        """Of the interface in use."""
        return self.watchdogs_s[self.command_interface]


@dataclass(frozen=True)
class QuadrotorProfile(RobotProfile):
    """A quadrotor behind Crazyswarm2's topics and services. Its state is a geometry_msgs/PoseStamped in the frame
    `base_frame`."""

    limits: FlightLimits
    level_after_s: float
    """Without a set-point for so long its firmware levels it by itself,"""
    cut_after_s: float
    """and for so long it cuts the motors."""
    state_delay_s: float
    """Of the radio, from the estimate to the stamp."""
    command_delay_s: float
    """Of the radio, from what is sent to what the firmware does, beyond what the policy trained with."""
    odom_topic: str = "odom"
    """nav_msgs/Odometry, for the velocity; empty: from the poses."""
    gyro_topic: str = ""
    """crazyflie_interfaces/LogDataGeneric of gyro.x, gyro.y, gyro.z; empty: from the poses."""
    status_topic: str = "status"
    command_interface: str = "attitude"
    """One of `real.flight.state.SETPOINTS`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.command_interface not in SETPOINTS:
            raise ConfigError(unknown("command interface", self.command_interface, list(SETPOINTS)))
        for name in ("state_delay_s", "command_delay_s"):
            if not 0.0 <= getattr(self, name) < 0.5:
                raise ConfigError(f"profile of {self.robot}: {name} must be in [0, 0.5), got {getattr(self, name)}")
