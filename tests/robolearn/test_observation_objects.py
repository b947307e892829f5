"""Terms about objects, by hand: a hand that points down, and a cube turned about the vertical."""

import math

import torch

from robolearn.kinematics import Chain
from robolearn.observation import ObservationTerms
from robolearn.robots.franka import FRANKA
from robolearn.spec import Field, ObservationSpec, TermSpec
from robolearn.state import ObjectState, RobotState, SceneState

HALF = math.sqrt(0.5)
QUARTER_TURN = [0.0, 0.0, HALF, HALF]  # about z: x goes to y


def seen(function, size, **params):
    rest = torch.tensor([FRANKA.default_joint_pos])  # points straight down; its x axis is the base's, y the other way
    zero = torch.zeros(1, 9)
    chain = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names)
    robot = RobotState(torch.zeros(1), rest, zero, zero, rest, torch.zeros(1, 7), torch.zeros(1, 6), chain)
    at = robot.ee_pose[0, :3] + torch.tensor([0.1, 0.2, -0.05])
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


def test_height_error_is_what_is_missing():
    error, at = seen("height_error", 1, name="cube", command="goal")
    close(error, [0.5 - at[2].item()])
