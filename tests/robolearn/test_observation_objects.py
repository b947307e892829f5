"""Terms about objects, by hand: a hand that points down, and a cube turned about the vertical."""

import math
from dataclasses import replace

import torch

from robolearn.kinematics import Chain
from robolearn.observation import ObservationTerms
from robolearn.robots.franka import FRANKA
from robolearn.rotations import from_rpy, pose_difference, pose_mul, quat_apply
from robolearn.spec import Field, ObservationSpec, TermSpec
from robolearn.state import ObjectState, RobotState, SceneState

HALF = math.sqrt(0.5)
QUARTER_TURN = [0.0, 0.0, HALF, HALF]  # about z: x goes to y


def seen(function, size, turned_rad=0.0, **params):
    """`turned_rad`: of the hand's joint, where it is; its set-point is at rest."""
    rest = torch.tensor([FRANKA.default_joint_pos])  # points straight down; its x axis is the base's, y the other way
    zero = torch.zeros(1, 9)
    chain = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names)
    robot = RobotState(torch.zeros(1), rest, zero, zero, rest, torch.zeros(1, 7), torch.zeros(1, 6), chain)
    at = robot.ee_pose[0, :3] + torch.tensor([0.1, 0.2, -0.05])
    there = rest.clone()
    there[0, 6] += turned_rad
    robot = replace(robot, joint_pos=there)
    cube = ObjectState(
        torch.tensor([[*at, *QUARTER_TURN]]), torch.zeros(1, 6), torch.zeros(1), torch.ones(1, dtype=torch.bool)
    )
    scene = SceneState(objects={"cube": cube}, commands={"goal": torch.tensor([[0.5]])})
    terms = ObservationTerms(ObservationSpec({"policy": (TermSpec(Field("t", (size,)), function, params),)}), "cpu")
    frames = terms.frames(robot, scene, torch.zeros(1, 1))
    terms.check(frames)
    return frames["policy"][0], at


def close(a, b):
    torch.testing.assert_close(a, torch.as_tensor(b), atol=5e-4, rtol=0)


def test_position_in_the_base_and_in_the_hand():
    position, at = seen("object_position", 3, name="cube")
    close(position, at)
    close(seen("object_position_ee", 3, name="cube")[0], [0.1, -0.2, 0.05])


def test_rotation_in_the_base_and_in_the_hand():
    close(seen("object_rotation_6d", 6, name="cube")[0], [0.0, 1.0, 0.0, -1.0, 0.0, 0.0])
    close(seen("object_rotation_6d_ee", 6, name="cube")[0], [0.0, -1.0, 0.0, -1.0, 0.0, 0.0])


def test_from_where_the_set_points_would_have_the_hand_it_does_not_matter_where_it_is():
    """A hand that is turned by a quarter of a turn about its axis sees x as y; asked, it sees what it would at rest."""
    for asked, position, rotation in (
        (False, [-0.2, -0.1, 0.05], [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        (True, [0.1, -0.2, 0.05], [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]),
    ):
        given = {"turned_rad": math.pi / 2, "name": "cube", "asked": asked}
        close(seen("object_position_ee", 3, **given)[0], position)
        close(seen("object_rotation_6d_ee", 6, **given)[0], rotation)


def test_height_error_is_what_is_missing():
    error, at = seen("height_error", 1, name="cube", command="goal")
    close(error, [0.5 - at[2].item()])


def test_the_pose_since_the_reset_by_hand_and_the_velocity_along_the_hands_axes():
    q = torch.tensor([[0.3, -0.4, 0.2, -2.2, 0.5, 2.1, 0.9, 0.03, 0.03]])
    vel = torch.tensor([[0.1, -0.2, 0.3, 0.05, -0.1, 0.2, 0.4, 0.0, 0.0]])
    chain = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names)
    robot = RobotState(torch.zeros(1), q, vel, torch.zeros(1, 9), q, torch.zeros(1, 7), torch.zeros(1, 6), chain)
    reset = torch.cat((torch.tensor([[0.4, 0.1, 0.5]]), from_rpy(torch.tensor([[0.3, -0.7, 1.1]]))), dim=1)
    spec = ObservationSpec(
        {
            "policy": (
                TermSpec(Field("since", (9,)), "ee_pose_relative", {"command": "reset_pose"}),
                TermSpec(Field("speed", (6,)), "ee_velocity_ee"),
            )
        }
    )
    out = ObservationTerms(spec, "cpu").frames(robot, SceneState(commands={"reset_pose": reset}), torch.zeros(1, 7))
    since, speed = out["policy"][:, :9], out["policy"][:, 9:]
    x, y = since[:, 3:6], since[:, 6:9]
    for k, column in enumerate((x, y)):  # the hand's axes, turned on by the reset's rotation, are the hand's
        axis = torch.eye(3)[k][None]
        torch.testing.assert_close(quat_apply(reset[:, 3:], column), quat_apply(robot.ee_pose[:, 3:], axis))
    back = pose_mul(reset, torch.cat((since[:, :3], torch.tensor([[0.0, 0.0, 0.0, 1.0]])), dim=1))
    torch.testing.assert_close(pose_difference(back, robot.ee_pose)[:, :3], torch.zeros(1, 3), atol=1e-6, rtol=0)
    for half in (slice(0, 3), slice(3, 6)):
        torch.testing.assert_close(quat_apply(robot.ee_pose[:, 3:], speed[:, half]), robot.ee_vel[:, half])
