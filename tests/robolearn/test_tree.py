"""Frames of every link, against the chain to one of them."""

import numpy as np
import pytest
import torch

from robolearn import config
from robolearn.kinematics import Chain
from robolearn.paths import resolve
from robolearn.rotations import quat_to_matrix, random_quat
from robolearn.urdf import Tree, pose_of_frame, read_joints

config.discover(["robolearn.robots"])
FRANKA = config.entry("robot", "franka").value
REST = dict(zip(FRANKA.joint_names, FRANKA.default_joint_pos, strict=True))


def tree(joints=FRANKA.arm_joints, example=None):
    return Tree(FRANKA.urdf, joints, REST, np.zeros(1) if example is None else example)


def postures(n=20):
    low, high = torch.tensor(FRANKA.lower), torch.tensor(FRANKA.upper)
    q = low + (high - low) * torch.rand(n, FRANKA.dof, generator=torch.Generator().manual_seed(0))
    q[:, 7:] = torch.tensor(FRANKA.default_joint_pos[7:])
    return q


def test_every_link_is_where_its_chain_has_it():
    q, links = postures(), [j.child for j in read_joints(resolve(FRANKA.urdf))[1]]
    whole = tree(FRANKA.joint_names)
    for link in links:
        frame, offset = whole.place(link)
        pose = whole.frames(q.double().numpy())[frame] @ offset
        expected = Chain(FRANKA.urdf, link, FRANKA.joint_names).pose(q)
        assert np.abs(pose[:, :3, 3] - expected[:, :3].numpy()).max() < 2e-6
        assert np.abs(pose[:, :3, :3] - quat_to_matrix(expected[:, 3:]).numpy()).max() < 1e-5


def test_joints_that_are_not_named_stand_at_rest():
    q, whole, arm = postures().double().numpy(), tree(FRANKA.joint_names), tree()
    for link in ("panda_leftfinger", "panda_rightfinger", "panda_grasptarget"):
        (i, a), (j, b) = whole.place(link), arm.place(link)
        assert j == 7
        np.testing.assert_allclose(arm.frames(q[:, :7])[j] @ b, whole.frames(q)[i] @ a, atol=1e-12)


def test_the_order_of_the_joints_is_the_callers():
    q, names = postures().double().numpy(), FRANKA.arm_joints[::-1]
    frame, _ = tree(names).place("panda_hand")
    np.testing.assert_allclose(tree(names).frames(q[:, :7][:, ::-1])[frame], tree().frames(q[:, :7])[7], atol=1e-12)


def test_tensors_and_arrays_give_the_same():
    q = postures()[:, :7].double()
    tensors = tree(example=q).frames(q)
    np.testing.assert_allclose(tensors.numpy(), tree().frames(q.numpy()), atol=1e-12)


def test_a_frame_has_the_pose_that_the_rotations_give():
    g = torch.Generator().manual_seed(0)
    half_turns = torch.cat((torch.eye(4), torch.tensor([[0.6, 0.0, 0.8, 0.0], [0.0, 0.6, -0.8, 0.0]])))
    for q in torch.nn.functional.normalize(torch.cat((random_quat((100,), g, "cpu"), half_turns)).double()):
        frame = np.eye(4)
        frame[:3, :3], frame[:3, 3] = quat_to_matrix(q).numpy(), (1.0, 2.0, 3.0)
        pose = pose_of_frame(frame)
        assert pose[:3].tolist() == [1.0, 2.0, 3.0] and pose[6] >= 0.0
        assert abs(pose[3:] @ q.numpy()) == pytest.approx(1.0, abs=1e-12)  # q and -q are one rotation


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"no link 'nose'; the robot has panda_link0"):
        tree().place("nose")
    with pytest.raises(ValueError, match=r"has no joints \['panda_joint8'\]"):
        tree((*FRANKA.arm_joints, "panda_joint8"))
