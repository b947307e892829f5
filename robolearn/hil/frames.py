"""Twists, actions and poses as the hand sees them: what a policy learns there holds wherever the task stands.

A twist is (..., 6): linear then angular. Batched; quaternions xyzw.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robolearn.rotations import pose_inverse, pose_mul, quat_apply, quat_conjugate, quat_to_matrix


def adjoint(pose: Tensor) -> Tensor:
    """(..., 6, 6) of a frame's pose (..., 7): takes a rigid body's twist from that frame to the outer one.

    The linear part is of the body's point at the respective frame's origin (Lynch and Park, Modern Robotics, 3.3.2;
    their angular part comes first). For a twist that is of the tool's origin in both frames see `to_base`.
    """
    turn = quat_to_matrix(pose[..., 3:])
    lever = _cross(pose[..., :3]) @ turn
    top, bottom = torch.cat((turn, lever), dim=-1), torch.cat((torch.zeros_like(turn), turn), dim=-1)
    return torch.cat((top, bottom), dim=-2)


def _cross(v: Tensor) -> Tensor:
    """The matrix (..., 3, 3) of the cross product with v (..., 3) from the left."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack((o, -z, y, z, o, -x, -y, x, o), dim=-1).unflatten(-1, (3, 3))


def to_base(twist: Tensor, tool_quat: Tensor) -> Tensor:
    """The twist of the tool's origin, or an `ee_delta` action, along the base's axes, from that along the tool's: the
    adjoint of the tool's rotation alone, for the point that moves stays the tool's origin."""
    return torch.cat((quat_apply(tool_quat, twist[..., :3]), quat_apply(tool_quat, twist[..., 3:])), dim=-1)


def to_tool(twist: Tensor, tool_quat: Tensor) -> Tensor:
    """Undo `to_base`."""
    return to_base(twist, quat_conjugate(tool_quat))


def relative_pose(pose: Tensor, reset_pose: Tensor) -> Tensor:
    """(..., 7): the pose as seen from where the tool was when the episode began; both in the base's frame."""
    return pose_mul(pose_inverse(reset_pose), pose)


def absolute_pose(relative: Tensor, reset_pose: Tensor) -> Tensor:
    """Undo `relative_pose`."""
    return pose_mul(reset_pose, relative)
