"""The contract of every registered robot."""

import json
import math

import pytest
import torch

from robolearn import config
from robolearn.cli import _world
from robolearn.kinematics import MOVABLE, Chain, read_joints
from robolearn.limits import JointLimits
from robolearn.paths import resolve
from robolearn.spec import RobotSpec, from_dict, to_dict

_world.discover()
ROBOTS = [config.entry("robot", n).value for n in config.names("robot")]


@pytest.fixture(params=ROBOTS, ids=lambda r: r.name)
def robot(request) -> RobotSpec:
    return request.param


def test_its_urdf_has_its_joints_and_links(robot):
    root, joints = read_joints(resolve(robot.urdf))
    assert root == robot.base_link
    assert set(robot.joint_names) == {j.name for j in joints if j.kind in MOVABLE}
    links = {root} | {j.child for j in joints}
    assert robot.ee_link in links
    assert {link for pair in robot.contact_exclude for link in pair} <= links


def test_it_starts_inside_its_limits(robot):
    for low, start, high in zip(robot.lower, robot.default_joint_pos, robot.upper, strict=True):
        assert low < high and low <= start <= high


def test_no_limit_is_missing(robot):
    for name in ("velocity_limit", "acceleration_limit", "jerk_limit"):
        assert all(v > 0.0 for v in getattr(robot, name)), name
    assert all(v >= 0.0 and math.isfinite(v) for v in (*robot.effort_limit, *robot.kp, *robot.kd))
    limits = JointLimits.of(robot, robot.arm_joints)
    assert limits.velocity.shape == (len(robot.arm_joints),)


def test_its_end_effector_can_be_computed_without_a_simulator(robot):
    chain = Chain(robot.urdf, robot.ee_link, robot.joint_names)
    pose, jacobian = chain.pose_and_jacobian(torch.tensor([robot.default_joint_pos]))
    assert pose.shape == (1, 7) and jacobian.shape == (1, 6, robot.dof)
    assert pose[0, 3:].norm().item() == pytest.approx(1.0, abs=1e-5)
    assert (jacobian.abs().sum(1)[0, list(robot.arm_ids)] > 0).any()


def test_it_survives_json(robot):
    assert from_dict(RobotSpec, json.loads(json.dumps(to_dict(robot)))) == robot
