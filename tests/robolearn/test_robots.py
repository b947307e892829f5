"""The contract of every registered robot."""

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

from robolearn import config
from robolearn.cli import _world
from robolearn.kinematics import Chain
from robolearn.limits import JointLimits
from robolearn.paths import resolve
from robolearn.spec import RobotSpec, from_dict, to_dict
from robolearn.urdf import MOVABLE, read_joints

_world.discover()
ROBOTS = [config.entry("robot", n).value for n in config.names("robot")]


@pytest.fixture(params=ROBOTS, ids=lambda r: r.name)
def robot(request) -> RobotSpec:
    return request.param


def test_its_urdf_has_its_joints_and_links(robot):
    root, joints = read_joints(resolve(robot.urdf))
    assert root == robot.base_link
    kinds = ("fixed",) if robot.quadrotor else MOVABLE  # rotors turn in the vehicle's model, not in the URDF
    assert set(robot.joint_names) == {j.name for j in joints if j.kind in kinds}
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
    if robot.quadrotor:
        pytest.skip("it has no end effector")
    chain = Chain(robot.urdf, robot.ee_link, robot.joint_names)
    pose, jacobian = chain.pose_and_jacobian(torch.tensor([robot.default_joint_pos]))
    assert pose.shape == (1, 7) and jacobian.shape == (1, 6, robot.dof)
    assert pose[0, 3:].norm().item() == pytest.approx(1.0, abs=1e-5)
    assert (jacobian.abs().sum(1)[0, list(robot.arm_ids)] > 0).any()


def test_it_survives_json(robot):
    assert from_dict(RobotSpec, json.loads(json.dumps(to_dict(robot)))) == robot


def test_a_quadrotors_urdf_says_the_same_as_its_specification(robot):
    if robot.quadrotor is None:
        pytest.skip("it does not fly")
    tree, vehicle = ElementTree.parse(resolve(robot.urdf)), robot.quadrotor
    inertia = tree.find(".//inertia").attrib
    assert float(tree.find(".//mass").get("value")) == vehicle.mass_kg
    assert tuple(float(inertia[k]) for k in ("ixx", "iyy", "izz")) == vehicle.inertia_kgm2
    origins = {j.name: j.xyz[:2] for j in read_joints(resolve(robot.urdf))[1]}
    assert tuple(origins[n] for n in robot.joint_names) == vehicle.rotor_xy_m


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass_kg": 0.0}, "mass_kg must be finite and above 0, got 0.0"),
        ({"mass_kg": 0.08}, "N of thrust cannot lift 0.08 kg"),
        ({"thrust_curve": (math.nan, 0.0, 6e-8)}, "nan N of thrust cannot lift"),
        ({"drag_kg": (1e-6, -1e-6)}, r"drag_kg\[1\] must be finite and at least 0, got -1e-06"),
        ({"sag_at_full_thrust": math.nan}, "sag_at_full_thrust must be finite and at least 0, got nan"),
        ({"inertia_kgm2": (1e-6, 1e-6, 1e-5)}, "no rigid body has the inertia"),
        ({"inertia_kgm2": (1e-6, math.nan, 1e-6)}, r"inertia_kgm2\[1\] must be finite"),
        ({"spin_up_s": -0.1}, "spin_up_s must be finite and above 0"),
        ({"thrust_curve": (0.0, 0.0, 0.0)}, r"thrust_curve\[2\] must be"),
    ],
)
def test_a_quadrotor_outside_physics_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(config.entry("robot", "crazyflie").value.quadrotor, **change)


def test_hover_thrust_of_the_crazyflie():
    vehicle = config.entry("robot", "crazyflie").value.quadrotor
    assert vehicle.hover_speed_radps * 60 / math.tau == pytest.approx(14476, rel=1e-4)  # sqrt(m g / 4 / 3.16e-10) rpm
    assert 2 * vehicle.hover_speed_radps / vehicle.max_speed_radps - 1 == pytest.approx(0.334, abs=5e-4)
    assert vehicle.speed_radps(vehicle.thrust_n(1234.0)) == pytest.approx(1234.0)
