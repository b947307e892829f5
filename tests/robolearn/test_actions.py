"""A gripper beside an arm's action: what -1 and +1 mean, through the limits, and back."""

import dataclasses

import pytest
import torch

from robolearn import config
from robolearn.actions import Commander
from robolearn.spec import ActionSpec

config.discover(["robolearn.robots"])
FRANKA = config.entry("robot", "franka").value
ARM, FINGERS = FRANKA.arm_joints, FRANKA.gripper_joints
GRIPPER = {"joints": list(FINGERS), "closed": [0.0, 0.0], "open": [0.04, 0.04]}
TERMS = {"joint_position_delta": ARM, "joint_position": ARM, "ee_delta": ("x", "y", "z", "rx", "ry", "rz")}
DT = 0.05
B = 3


def spec(function="joint_position_delta", gripper=GRIPPER):
    names = TERMS[function]
    both = ActionSpec(function, (*names, "gripper"), "", scale=(0.01,) * len(names), params={"gripper": gripper})
    return both if gripper else dataclasses.replace(both, names=names, params={})


def commander(function="joint_position_delta", gripper=GRIPPER):
    return Commander(spec(function, gripper), FRANKA, B, DT, "cpu")


def action_of(function, grip, arm=0.0):
    out = torch.full((B, len(TERMS[function]) + 1), arm)
    out[:, -1] = grip
    return out


@pytest.mark.parametrize("function", TERMS)
@pytest.mark.parametrize(("grip", "metres"), [(-1.0, 0.0), (1.0, 0.04), (0.0, 0.02), (0.5, 0.03), (9.0, 0.04)])
def test_minus_one_closes_and_plus_one_opens_both_fingers(function, grip, metres):
    c = commander(function)
    for _ in range(20):
        target = c(action_of(function, grip)).target
    assert c.joints == ARM + FINGERS
    torch.testing.assert_close(target[:, 7:], torch.full((B, 2), metres), atol=1e-6, rtol=0)


@pytest.mark.parametrize("function", TERMS)
def test_the_arm_does_not_notice_the_gripper(function):
    alone, both = commander(function, gripper=None), commander(function)
    for grip in (-1.0, 1.0, 0.3):
        act = action_of(function, grip, arm=0.7)
        a, b = alone(act[:, :-1]), both(act)
        assert torch.equal(b.target[:, :7], a.target)
        assert torch.equal(b.applied_action[:, :-1], a.applied_action)
        assert torch.equal(b.clipped, a.clipped)
    assert alone.joints == ARM


def test_fingers_close_no_faster_than_their_limits_and_the_applied_action_says_how_far():
    c = commander()
    last, speed = 0.035, 0.0
    for _ in range(3):
        command = c(action_of("joint_position_delta", -1.0))
        speed = min(speed + 4.0 * DT, 0.2)  # 4 m/s2, 0.2 m/s; far from the end stop
        last -= speed * DT
        torch.testing.assert_close(command.target[:, 7:], torch.full((B, 2), last), atol=1e-6, rtol=0)
        expected = torch.full((B,), last / 0.02 - 1.0)
        torch.testing.assert_close(command.applied_action[:, -1], expected, atol=1e-4, rtol=0)
        assert not command.clipped.any()


def test_reset_puts_the_fingers_where_the_mask_says():
    c = commander()
    c(action_of("joint_position_delta", -1.0))
    before = c.last.position.clone()
    rest = torch.full((B, 9), 0.01)
    c.reset(torch.tensor([False, True, False]), rest)
    assert torch.equal(c.last.position[[0, 2]], before[[0, 2]])
    assert torch.equal(c.last.position[1], rest[1])


def test_a_gripper_that_closes_upwards_has_its_signs_the_other_way_round():
    c = commander(gripper={"joints": [FINGERS[1]], "closed": [0.03], "open": [0.01]})
    for _ in range(20):
        command = c(action_of("joint_position_delta", -1.0))
    assert c.joints == (*ARM, FINGERS[1])
    torch.testing.assert_close(command.target[:, 7], torch.full((B,), 0.03), atol=1e-6, rtol=0)
    torch.testing.assert_close(command.applied_action[:, -1], torch.full((B,), -1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints": ["panda_joint1", FINGERS[0]]}, "not .'panda_joint1'."),
        ({"joints": []}, "gripper has the joints"),
        ({"open": [0.04, 0.05]}, "panda_finger_joint2: closed and open must .* got 0.0, 0.05"),
        ({"closed": [0.04, 0.0]}, "panda_finger_joint1: closed and open must differ"),
    ],
)
def test_impossible_grippers_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        commander(gripper=GRIPPER | changes)


def test_a_gripper_needs_its_name_and_a_position_action():
    wrong = dataclasses.replace(spec(), names=(*ARM, "hand"))
    with pytest.raises(ValueError, match="last name must be 'gripper'"):
        Commander(wrong, FRANKA, B, DT, "cpu")
    effort = dataclasses.replace(spec(), function="joint_effort")
    with pytest.raises(ValueError, match="'joint_effort' commands efforts"):
        Commander(effort, FRANKA, B, DT, "cpu")
