"""The facts of one robot where it stands: its profile with renamed topics and tightened limits, read from a node's
parameters (configs/site, or any ROS 2 parameter file)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from real import ros
from real.flight.state import SETPOINTS
from real.robots.base import ArmProfile, Gripper, QuadrotorProfile
from real.ros.names import expand
from robolearn import config
from robolearn.errors import ConfigError, unknown
from robolearn.registry import entry
from robolearn.spec import RobotSpec

SITE = ("limits.", "calibration.", "gripper.")
"""Parameters below these are the site's alone: one with another name is an error, not ignored."""


@dataclass(frozen=True)
class Site:
    profile: ArmProfile
    robot: RobotSpec
    base: tuple[float, ...]
    """(7,) the robot's base in `frame`."""
    frame: str
    """In which goals and objects may be given, beside the base frame."""
    object_timeout_s: float
    """Age of an object's pose from which on nothing is proposed from it."""

    def wire_names(self) -> dict[str, str]:
        """The robot's joint names -> the driver's."""
        gripper = self.profile.gripper
        names = dict(zip(self.robot.arm_joints, self.profile.joint_names, strict=True))
        return names | (dict(zip(self.robot.gripper_joints, gripper.joint_names, strict=True)) if gripper else {})


@dataclass(frozen=True)
class FlightSite:
    profile: QuadrotorProfile
    robot: RobotSpec


def parameter(node: Any, name: str, default: Any) -> Any:
    """Declared with its default, whose type it must have. It is read once: to set it later is refused, lest a limit
    seem to be tighter than it is."""
    fixed = ros.interface("rcl_interfaces/msg/ParameterDescriptor")(read_only=True)
    node.declare_parameter(name, list(default) if isinstance(default, tuple) else default, fixed)
    return node.get_parameter(name).value


def _topic(node: Any, name: str, default: str) -> str:
    """A parameter that is the name of a topic, or empty. Raises ConfigError."""
    text = parameter(node, name, default)
    _demand_name(name, text)
    return text


def _demand_name(name: str, text: str) -> None:
    try:
        expand(text or "/none", "node", "/")
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def discover() -> None:
    config.discover(("robolearn.robots", "real.robots"))


def read_site(node: Any, robot: str = "") -> Site:
    """Of an arm. Declares every limit of the profile as `limits.NAME`: what is set may only be tighter. `robot` is the
    profile where no parameter names one. Raises ConfigError."""
    site = read_any_site(node, robot)
    if not isinstance(site, Site):
        raise ConfigError(f"profile {site.profile.robot} is not of an arm; robolearn launch fly flies quadrotors")
    return site


def read_flight_site(node: Any) -> FlightSite:
    """Of a quadrotor. Raises ConfigError."""
    site = read_any_site(node)
    if not isinstance(site, FlightSite):
        raise ConfigError(f"profile {site.profile.robot} is not of a quadrotor; robolearn launch deploy moves arms")
    return site


def read_any_site(node: Any, robot: str = "") -> Site | FlightSite:
    discover()
    name = parameter(node, "robot", robot)
    if not name:
        raise ConfigError("`robot` is not set: is the site's parameter file where it should be? (see configs/site)")
    profile = entry("profile", name).value
    if isinstance(profile, QuadrotorProfile):
        return _flight_site(node, profile)
    if not isinstance(profile, ArmProfile):
        raise ConfigError(f"profile {name} is neither of an arm nor of a quadrotor")
    return _arm_site(node, profile)


def _flight_site(node: Any, profile: QuadrotorProfile) -> FlightSite:
    interface = parameter(node, "command_interface", profile.command_interface)
    if interface not in SETPOINTS:
        raise ConfigError(unknown("command interface", interface, list(SETPOINTS)))
    topics: dict[str, Any] = {
        n: _topic(node, n, getattr(profile, n)) for n in ("odom_topic", "gyro_topic", "status_topic")
    }
    profile = dataclasses.replace(
        profile,
        command_interface=interface,
        state_topic=_topic(node, "state_topic", profile.state_topic) or profile.state_topic,
        base_frame=parameter(node, "frame", profile.base_frame),
        command_rate_hz=parameter(node, "command_rate_hz", profile.command_rate_hz),
        state_delay_s=parameter(node, "state_delay_s", profile.state_delay_s),
        command_delay_s=parameter(node, "command_delay_s", profile.command_delay_s),
        limits=_tightened(node, profile),
        **topics,
    )
    _refuse_unknown(node, _under("limits", profile.limits))
    return FlightSite(profile, entry("robot", profile.robot).value)


def _refuse_unknown(node: Any, known: list[str]) -> None:
    for wrong in node.undeclared_parameters():
        if wrong.startswith(SITE):
            raise ConfigError(unknown("parameter", wrong, known))


def _arm_site(node: Any, profile: ArmProfile) -> Site:
    interface = parameter(node, "command_interface", profile.command_interface)
    if interface not in profile.watchdogs_s:
        raise ConfigError(unknown("command interface", interface, list(profile.watchdogs_s)))
    profile = dataclasses.replace(profile, command_interface=interface)
    spec = entry("robot", profile.robot).value
    profile = dataclasses.replace(
        profile,
        state_topic=_topic(node, "state_topic", profile.state_topic) or profile.state_topic,
        command_topic=_topic(node, "command_topic", profile.command.topic),
        wrench_topic=_topic(node, "wrench_topic", profile.wrench_topic or "") or None,
        command_rate_hz=parameter(node, "command_rate_hz", profile.command_rate_hz),
        gripper=_gripper(node, profile),
        limits=_tightened(node, profile),
    )
    site = Site(profile, spec, *_calibration(node), parameter(node, "object_timeout_s", 0.5))
    if not site.object_timeout_s > 0.0:
        raise ConfigError(f"object_timeout_s must be above 0, got {site.object_timeout_s}")
    known = ["calibration.base", "calibration.frame", *_under("limits", profile.limits)]
    _refuse_unknown(node, known + _under("gripper", profile.gripper))
    return site


def _under(prefix: str, facts: Any) -> list[str]:
    return [f"{prefix}.{f.name}" for f in dataclasses.fields(facts)] if facts else []


def _calibration(node: Any) -> tuple[tuple[float, ...], str]:
    frame = parameter(node, "calibration.frame", "world")
    base = tuple(parameter(node, "calibration.base", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]))
    if len(base) != 7 or not all(map(math.isfinite, base)) or abs(math.hypot(*base[3:]) - 1.0) > 1e-3:
        raise ConfigError(f"calibration.base must be x y z (m) and a unit quaternion x y z w, got {list(base)}")
    return base, frame


def _gripper(node: Any, profile: ArmProfile) -> Gripper | None:
    if profile.gripper is None:
        return None
    names = [f.name for f in dataclasses.fields(Gripper) if f.name != "joint_names"]
    facts = {n: parameter(node, f"gripper.{n}", getattr(profile.gripper, n)) for n in names}
    for n in ("action", "state_topic"):
        _demand_name(f"gripper.{n}", facts[n])
    return dataclasses.replace(profile.gripper, **facts)


def _tightened(node: Any, profile: ArmProfile | QuadrotorProfile) -> Any:
    changes = {}
    for field in dataclasses.fields(profile.limits):
        own = getattr(profile.limits, field.name)
        value = parameter(node, f"limits.{field.name}", own)
        if (tuple(value) if isinstance(own, tuple) else value) != own:
            changes[field.name] = value
    return profile.limits.tightened(changes)
