"""Specifications survive JSON and say in what they differ."""

import dataclasses
import json

import pytest

from robolearn.robots.cartpole import CARTPOLE
from robolearn.robots.franka import FRANKA
from robolearn.spec import (
    ActionSpec,
    Field,
    ObservationSpec,
    PolicySpec,
    RobotSpec,
    TermSpec,
    differences,
    from_dict,
    to_dict,
)

SPEC = PolicySpec(
    robot="franka",
    rate_hz=20.0,
    observation=ObservationSpec(
        {
            "policy": (
                TermSpec(
                    Field("q", (7,), "rad", "joint", low=(-3.0,), high=(3.0,)),
                    "joint_vel",
                    {"joints": [0, 1]},
                ),
                TermSpec(Field("wrist", (84, 84, 3), kind="image", dtype="uint8"), "image"),
                TermSpec(Field("scan", (360,), "m", "laser", kind="scan"), "scan"),
            )
        },
        {"policy": 4},
    ),
    action=ActionSpec("joint_position", ("j1", "j2"), "rad", scale=(1.0, 2.0), horizon=16, execute=8),
    recurrent_state={"h": (1, 64)},
)


@pytest.mark.parametrize("value", [SPEC, FRANKA, CARTPOLE])
def test_json_round_trip(value):
    text = json.dumps(to_dict(value))
    assert from_dict(type(value), json.loads(text)) == value


def test_images_keep_their_own_key_and_vectors_are_stacked():
    assert SPEC.observation.shapes() == {"policy": (28,), "policy/wrist": (84, 84, 3), "policy/scan": (360,)}


def test_differences_name_every_leaf():
    action = dataclasses.replace(SPEC.action, scale=(1.0, 3.0))
    other = dataclasses.replace(SPEC, rate_hz=25.0, action=action)
    assert differences(SPEC, other) == ["rate_hz: 20.0 != 25.0", "action.scale.1: 2.0 != 3.0"]
    assert differences(SPEC, SPEC) == []


def test_tuples_of_unequal_length_differ_in_their_names():
    fewer = ObservationSpec({"policy": SPEC.observation.groups["policy"][:1]})
    assert differences(SPEC.observation, fewer) == [
        "groups.policy: 3 (q, wrist, scan) != 1 (q)",
        "history.policy: 4 != None",
    ]
    action = dataclasses.replace(SPEC.action, names=("j1",), scale=(1.0,))
    assert differences(SPEC.action, action) == ["names: 2 (j1, j2) != 1 (j1)", "scale: 2 values != 1 values"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"robot": "franka"}, "missing"),
        (to_dict(SPEC) | {"colour": 1}, "colour"),
        (to_dict(SPEC) | {"rate_hz": "fast"}, "rate_hz"),
        ([1, 2], "expected an object"),
    ],
)
def test_foreign_data_is_refused_by_name(data, message):
    with pytest.raises(ValueError, match=message):
        from_dict(PolicySpec, data)


def test_a_robot_with_missing_limits_or_unknown_joints_is_refused():
    with pytest.raises(ValueError, match="franka has 9 joints, kp has 1 values"):
        dataclasses.replace(FRANKA, kp=(1.0,))
    with pytest.raises(ValueError, match="elbow"):
        dataclasses.replace(FRANKA, arm_joints=("elbow",))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("velocity_limit", NAN, "velocity_limit must be finite and above 0, got nan for panda_joint1"),
        ("jerk_limit", 0.0, "jerk_limit must be finite and above 0, got 0.0 for panda_joint1"),
        ("effort_limit", INF, "effort_limit must be finite and at least 0, got inf for panda_joint1"),
        ("kp", -1.0, "kp must be finite and at least 0, got -1.0 for panda_joint1"),
        ("lower", NAN, "lower must be a number, got nan for panda_joint1"),
        ("lower", 3.0, "lower must be at most upper, got 3.0 for panda_joint1"),
        ("default_joint_pos", -INF, "default_joint_pos must be finite, got -inf for panda_joint1"),
    ],
)
def test_a_number_that_no_joint_can_have_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=f"^franka: {message}$"):
        dataclasses.replace(FRANKA, **{name: (value, *getattr(FRANKA, name)[1:])})


def test_a_joint_that_is_named_twice_is_refused():
    twice = ("panda_joint1", "panda_joint1", *FRANKA.joint_names[2:])
    with pytest.raises(ValueError, match="joint_names has panda_joint1 twice"):
        dataclasses.replace(FRANKA, joint_names=twice)
    with pytest.raises(ValueError, match="arm_joints has panda_joint3 twice"):
        dataclasses.replace(FRANKA, arm_joints=("panda_joint3",) * 2)


def test_values_by_joint_name():
    assert FRANKA.of("upper", ("panda_finger_joint1", "panda_joint4")) == (0.04, -0.0698)
    assert isinstance(FRANKA, RobotSpec) and FRANKA.arm_ids == tuple(range(7))
