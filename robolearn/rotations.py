"""Batched rotations. Quaternions are xyzw, unit length, Hamilton product; (..., 4) float tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def quat_conjugate(q: Tensor) -> Tensor:
    return torch.cat((-q[..., :3], q[..., 3:]), dim=-1)


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Rotation b followed by a."""
    return _bilinear(_PRODUCT, a, b)


def _bilinear(form: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The (16, 4) form applied to all products a_i b_j: one matrix product instead of a dozen small operations."""
    return (a[..., :, None] * b[..., None, :]).flatten(-2) @ form.to(a)


def quat_apply(q: Tensor, v: Tensor) -> Tensor:
    """Rotate the vectors v (..., 3)."""
    t = 2.0 * torch.linalg.cross(q[..., :3], v)
    return v + q[..., 3:] * t + torch.linalg.cross(q[..., :3], t)


def quat_to_matrix(q: Tensor) -> Tensor:
    """(..., 3, 3); the columns are the rotated axes."""
    x, y, z, w = q.unbind(-1)
    m = torch.stack(
        (
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ), dim=-1,
    )  # fmt: skip
    return m.unflatten(-1, (3, 3))


def matrix_to_quat(m: Tensor) -> Tensor:
    """(..., 4) with w >= 0, from (..., 3, 3); stable for every angle.

    The 16 products 4 q_i q_j are linear in the matrix; the row with the largest 4 q_i^2 is q up to its length.
    """
    flat = m.reshape(-1, 9).T
    products = torch.addmm(_PRODUCT_BIAS.to(m), _PRODUCT_WEIGHTS.to(m), flat).unflatten(0, (4, 4))
    x, y, z, w = products.unbind(0)
    xx, yy, zz, ww = x[0], y[1], z[2], w[3]
    xy, zw = torch.where(xx > yy, x, y), torch.where(zz > ww, z, w)
    q = torch.where(torch.maximum(xx, yy) > torch.maximum(zz, ww), xy, zw)
    q = q * (torch.rsqrt((q * q).sum(0)) * (1.0 - 2.0 * (q[3] < 0)))
    return q.T.reshape(*m.shape[:-2], 4)


def _hamilton() -> Tensor:
    """(4, 4, 4): coefficient of a_i b_j in component k of the quaternion product ab, xyzw."""
    form = torch.zeros(4, 4, 4)
    form[3, 3, 3] = 1.0
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        form[i, 3, i] = form[3, i, i] = form[i, j, k] = 1.0
        form[j, i, k] = form[i, i, 3] = -1.0
    return form


_PRODUCT = _hamilton().flatten(0, 1)
_DIFFERENCE = (_hamilton() * torch.tensor([-1.0, -1.0, -1.0, 1.0])[:, None]).flatten(0, 1)
"""a times the conjugate of b."""


def _products() -> tuple[Tensor, Tensor]:
    """Weights (16, 9) and bias (16, 1) of 4 q_i q_j (i, j over xyzw) in terms of the row-major matrix."""
    weights, bias = torch.zeros(3, 3, 4, 4), torch.eye(4)
    for i in range(3):
        for j in range(3):
            weights[j, j, i, i] = 1.0 if i == j else -1.0  # 4 x^2 = 1 + m00 - m11 - m22
            if i != j:
                weights[i, j, i, j] = weights[j, i, i, j] = 1.0  # 4 x y = m01 + m10
        weights[i, i, 3, 3] = 1.0  # 4 w^2 = 1 + trace
        j, k = (i + 1) % 3, (i + 2) % 3
        weights[k, j, i, 3] = weights[k, j, 3, i] = 1.0  # 4 x w = m21 - m12
        weights[j, k, i, 3] = weights[j, k, 3, i] = -1.0
    return weights.reshape(9, 16).T.contiguous(), bias.reshape(16, 1)


_PRODUCT_WEIGHTS, _PRODUCT_BIAS = _products()


def rotation_vector(q: Tensor) -> Tensor:
    """Logarithm: axis times angle in [0, pi], rad, (..., 3)."""
    vector, w = q[..., :3], q[..., 3:]
    sine = torch.linalg.vector_norm(vector, dim=-1, keepdim=True).clamp_min(1e-12)
    return vector * torch.copysign(2.0 * torch.atan2(sine, w.abs()) / sine, w)


def from_rotation_vector(r: Tensor) -> Tensor:
    """Exponential: the quaternion that turns by |r| rad about r."""
    angle = torch.linalg.norm(r, dim=-1, keepdim=True)
    scale = torch.where(angle > 1e-6, torch.sin(0.5 * angle) / angle.clamp_min(1e-9), torch.full_like(angle, 0.5))
    return torch.cat((r * scale, torch.cos(0.5 * angle)), dim=-1)


def from_rpy(rpy: Tensor) -> Tensor:
    """Fixed-axis roll, pitch, yaw (URDF's convention: Rz Ry Rx), rad."""
    (sr, sp, sy), (cr, cp, cy) = torch.sin(0.5 * rpy).unbind(-1), torch.cos(0.5 * rpy).unbind(-1)
    return torch.stack(
        (sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy,
         cr * cp * sy - sr * sp * cy, cr * cp * cy + sr * sp * sy), dim=-1,
    )  # fmt: skip


def rotation_difference(q_from: Tensor, q_to: Tensor) -> Tensor:
    """Rotation vector, in the outer frame, that takes q_from to q_to."""
    return rotation_vector(_bilinear(_DIFFERENCE, q_to, q_from))


def pose_difference(pose_from: Tensor, pose_to: Tensor) -> Tensor:
    """(..., 6): metres, then a rotation vector in rad, both in the outer frame, that take one pose to the other."""
    turn = rotation_difference(pose_from[..., 3:], pose_to[..., 3:])
    return torch.cat((pose_to[..., :3] - pose_from[..., :3], turn), dim=-1)


def pose_mul(a: Tensor, b: Tensor) -> Tensor:
    """The pose b (..., 7), given in the frame a (..., 7), in the frame that a is given in."""
    return torch.cat((a[..., :3] + quat_apply(a[..., 3:], b[..., :3]), quat_mul(a[..., 3:], b[..., 3:])), dim=-1)


def pose_inverse(pose: Tensor) -> Tensor:
    """Of the outer frame in the frame of the pose (..., 7)."""
    back = quat_conjugate(pose[..., 3:])
    return torch.cat((-quat_apply(back, pose[..., :3]), back), dim=-1)


def random_quat(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
    """Uniform over SO(3)."""
    q = torch.randn(*shape, 4, generator=generator, device=device)
    return q / torch.linalg.norm(q, dim=-1, keepdim=True)
