"""Where a camera was when it took its picture."""

import numpy as np
import pytest
import torch

from real.perception.hand_eye import Mount
from real.perception.mounted import Mounted
from real.perception.transforms import apart, exponential, matrix, pose
from robolearn.errors import ConfigError
from robolearn.kinematics import Chain
from robolearn.robots.franka import FRANKA

CAMERA = exponential(np.array([0.05, 0.0, 0.02, 0.1, -0.2, 0.3]))
REST = np.array(FRANKA.default_joint_pos)


def held():
    return Mounted(Mount("hand", "tool", pose(CAMERA)), FRANKA, "base", "tool")


def there(joints):
    tool = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names).pose(torch.tensor(joints).float()[None])[0]
    return matrix(tool.double().numpy()) @ CAMERA


def test_a_camera_in_the_hand_is_where_the_joints_were_at_that_moment():
    camera, moved = held(), REST + 0.2
    camera.add(10.0, REST)
    camera.add(10.05, moved)
    for stamp, joints in ((10.0, REST), (10.05, moved), (10.02, REST + 0.08)):
        metres, radians = apart(camera.at(stamp), there(joints))
        assert metres < 1e-5 and radians < 1e-5


@pytest.mark.parametrize(("stamp", "known"), [(9.99, False), (10.065, True), (10.08, False), (30.0, False)])
def test_what_was_before_or_long_after_the_joint_states_is_not_known(stamp, known):
    camera = held()
    camera.add(10.0, REST)
    camera.add(10.05, REST)
    assert (camera.at(stamp) is not None) == known


def test_between_joint_states_that_are_far_apart_nothing_is_known():
    camera = held()
    assert camera.at(10.0) is None
    camera.add(10.0, REST)
    camera.add(10.3, REST)
    assert camera.at(10.15) is None and camera.at(10.3) is not None


def test_what_is_old_is_forgotten_and_a_clock_that_goes_back_begins_anew():
    camera = held()
    for k in range(100):
        camera.add(0.05 * k, REST)
    assert camera.at(3.0) is None and camera.at(4.5) is not None
    camera.add(1.0, REST)
    assert camera.at(4.5) is None and camera.at(1.0) is not None


def test_a_camera_beside_the_robot_stands_still():
    camera = Mounted(Mount("base", "base", pose(CAMERA)), FRANKA, "base", "tool")
    assert apart(camera.at(123.0), CAMERA)[0] < 1e-9 and not camera.moves


def test_a_camera_in_the_world_is_turned_into_the_base():
    base = exponential(np.array([1.0, 2.0, 0.0, 0.0, 0.0, 1.5]))
    camera = Mounted(Mount("base", "world", pose(base @ CAMERA)), FRANKA, "base", "tool", "world", pose(base))
    assert apart(camera.at(0.0), CAMERA)[0] < 1e-9


@pytest.mark.parametrize("mount", [Mount("hand", "base", pose(CAMERA)), Mount("base", "tool", pose(CAMERA))])
def test_a_mount_in_another_frame_is_refused(mount):
    with pytest.raises(ConfigError, match=f"in the frame {mount.parent_frame}"):
        Mounted(mount, FRANKA, "base", "tool")
