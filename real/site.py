"""The facts of one robot where it stands: its profile with renamed topics and tightened limits, read from a node's
parameters (configs/site, or any ROS 2 parameter file)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from real.robots.base import ArmProfile
from robolearn import config
from robolearn.errors import ConfigError, unknown
from robolearn.registry import entry
from robolearn.spec import RobotSpec

SITE = ("limits.", "calibration.")
"""Parameters below these are the site's alone: one with another name is an error, not ignored."""


@dataclass(frozen=True)
class Site:
    profile: ArmProfile
    robot: RobotSpec
    base: Tensor
    """(7,) the robot's base in the frame of the goals."""


def parameter(node: Any, name: str, default: Any) -> Any:
    """Declared with its default, whose type it must have."""
    node.declare_parameter(name, list(default) if isinstance(default, tuple) else default)
    return node.get_parameter(name).value


def discover() -> None:
    config.discover(("robolearn.robots", "real.robots"))


def read_site(node: Any) -> Site:
    """Declares every limit of the profile as `limits.NAME`: what is set may only be tighter. Raises ConfigError."""
    discover()
    name = parameter(node, "robot", "")
    if not name:
        raise ConfigError("`robot` is not set: is the site's parameter file where it should be? (see configs/site)")
    profile = entry("profile", name).value
    if not isinstance(profile, ArmProfile):
        raise ConfigError(f"profile {name} is not of an arm")
    interface = parameter(node, "command_interface", profile.command_interface)
    if interface not in profile.watchdogs_s:
        raise ConfigError(unknown("command interface", interface, list(profile.watchdogs_s)))
    profile = dataclasses.replace(profile, command_interface=interface)
    profile = dataclasses.replace(
        profile,
        state_topic=parameter(node, "state_topic", profile.state_topic),
        command_topic=parameter(node, "command_topic", profile.command.topic),
        wrench_topic=parameter(node, "wrench_topic", profile.wrench_topic or "") or None,
        command_rate_hz=parameter(node, "command_rate_hz", profile.command_rate_hz),
        limits=_tightened(node, profile),
    )
    base = torch.tensor(parameter(node, "calibration.base", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]))
    if base.shape != (7,) or not base.isfinite().all() or abs(float(base[3:].norm()) - 1.0) > 1e-3:
        raise ConfigError(f"calibration.base must be x y z (m) and a unit quaternion x y z w, got {base.tolist()}")
    for wrong in node.undeclared_parameters():
        if wrong.startswith(SITE):
            known = [f"limits.{f.name}" for f in dataclasses.fields(profile.limits)] + ["calibration.base"]
            raise ConfigError(unknown("parameter", wrong, known))
    return Site(profile, entry("robot", profile.robot).value, base)


def _tightened(node: Any, profile: ArmProfile) -> Any:
    changes = {}
    for field in dataclasses.fields(profile.limits):
        own = getattr(profile.limits, field.name)
        value = parameter(node, f"limits.{field.name}", own)
        if (tuple(value) if isinstance(own, tuple) else value) != own:
            changes[field.name] = value
    return profile.limits.tightened(changes)
