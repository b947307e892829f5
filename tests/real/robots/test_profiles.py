"""The contract of every registered profile."""

import dataclasses

import pytest

from real.robots.base import COMMANDS, ArmProfile
from real.safety.guard import Guard
from robolearn import config
from robolearn.errors import ConfigError
from robolearn.paths import resolve
from robolearn.urdf import read_joints

config.discover(["robolearn.robots", "real.robots"])
PROFILES = {name: config.entry("profile", name).value for name in config.names("profile")}
ARMS = {name: p for name, p in PROFILES.items() if isinstance(p, ArmProfile)}


def test_franka_and_ur_are_there():
    assert {"franka", "ur5e"} <= PROFILES.keys()


@pytest.mark.parametrize("name", ARMS)
def test_it_is_of_its_robot(name):
    profile, spec = ARMS[name], config.entry("robot", ARMS[name].robot).value
    assert len(profile.joint_names) == len(spec.arm_joints)
    links = {link for j in read_joints(resolve(spec.urdf))[1] for link in (j.parent, j.child)}
    assert spec.base_link in links and spec.ee_link in links
    assert spec.min_rate_hz <= profile.command_rate_hz <= spec.max_rate_hz
    if profile.gripper:
        assert len(profile.gripper.joint_names) == len(spec.gripper_joints)


@pytest.mark.parametrize("name", ARMS)
def test_a_guard_can_be_built_from_it_and_stops_from_any_state(name):
    profile, spec = ARMS[name], config.entry("robot", ARMS[name].robot).value
    guard = Guard(profile.limits, spec, ("policy",), 1.0 / profile.command_rate_hz)
    rest = spec.of("default_joint_pos", spec.arm_joints)
    assert guard.estop().ok and guard.command(0.0).state == "fault"
    assert guard.reset().ok and guard.observe(0.1, rest, [0.0] * len(rest), 0.1)
    assert guard.take("policy").ok and guard.command(0.101).target is not None
    assert guard.estop().ok and not guard.command(0.102).velocity.any()


@pytest.mark.parametrize("name", ARMS)
def test_its_interfaces_are_known_and_topics_relative(name):
    profile = ARMS[name]
    assert set(profile.watchdogs_s) <= set(COMMANDS) and profile.command_interface in profile.watchdogs_s
    assert profile.command.type.count("/") == 2
    for topic in (profile.state_topic, profile.command.topic, profile.wrench_topic or "t"):
        assert topic and not topic.startswith("/")
    assert dataclasses.replace(profile, command_topic="here").command.topic == "here"


def test_an_interface_that_the_driver_lacks_is_refused():
    with pytest.raises(ConfigError, match="cartesian_pose"):
        dataclasses.replace(ARMS["ur5e"], command_interface="cartesian_pose")
    with pytest.raises(ConfigError, match="are not 6 different joints"):
        dataclasses.replace(ARMS["ur5e"], joint_names=("a",) * 6)
