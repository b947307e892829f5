"""Batched rotations. Quaternions are xyzw, unit length, Hamilton product; (..., 4) float tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def quat_conjugate(q: Tensor) -> Tensor:
    return torch.cat((-q[..., :3], q[..., 3:]), dim=-1)


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Rotation b followed by a."""
    av, aw, bv, bw = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vec = aw * bv + bw * av + torch.linalg.cross(av, bv)
    return torch.cat((vec, aw * bw - (av * bv).sum(-1, keepdim=True)), dim=-1)


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
    """(..., 4) with w >= 0, from (..., 3, 3); stable for every angle (the largest of four candidates is used)."""
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    diag = torch.stack((m00 - m11 - m22, m11 - m00 - m22, m22 - m00 - m11, m00 + m11 + m22), -1)
    size = (1.0 + diag).clamp_min(0.0)  # 4 x^2, 4 y^2, 4 z^2, 4 w^2
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    xw, yw, zw = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    sx, sy, sz, sw = size.unbind(-1)
    rows = torch.stack((sx, xy, xz, xw, xy, sy, yz, yw, xz, yz, sz, zw, xw, yw, zw, sw), -1).unflatten(-1, (4, 4))
    best = size.argmax(-1)[..., None, None].expand(*size.shape[:-1], 1, 4)
    q = rows.gather(-2, best).squeeze(-2)
    q = q / torch.linalg.norm(q, dim=-1, keepdim=True)
    return torch.where(q[..., 3:] < 0, -q, q)


def rotation_vector(q: Tensor) -> Tensor:
    """Logarithm: axis times angle in [0, pi], rad, (..., 3)."""
    q = torch.where(q[..., 3:] < 0, -q, q)
    sin_half = torch.linalg.norm(q[..., :3], dim=-1, keepdim=True)
    angle = 2.0 * torch.atan2(sin_half, q[..., 3:])
    return q[..., :3] * torch.where(sin_half > 1e-6, angle / sin_half.clamp_min(1e-9), torch.full_like(angle, 2.0))


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
    return rotation_vector(quat_mul(q_to, quat_conjugate(q_from)))


def random_quat(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
    """Uniform over SO(3)."""
    q = torch.randn(*shape, 4, generator=generator, device=device)
    return q / torch.linalg.norm(q, dim=-1, keepdim=True)
