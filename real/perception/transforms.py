"""Rigid transforms as 4 x 4 matrices of float64, for what is measured once and then relied upon.

`b_from_a` takes points of frame a into frame b. Poses are position (m) and quaternion xyzw, (7,).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from robolearn.errors import ConfigError
from robolearn.rotations import from_rotation_vector, matrix_to_quat, quat_to_matrix, rotation_vector

Floats = NDArray[np.float64]


def matrix(pose: Sequence[float] | Floats) -> Floats:
    out = np.eye(4)
    values = torch.as_tensor(np.asarray(pose, dtype=np.float64))
    out[:3, :3], out[:3, 3] = quat_to_matrix(values[3:] / values[3:].norm()).numpy(), values[:3]
    return out


def pose(transform: Floats) -> Floats:
    quat = matrix_to_quat(torch.from_numpy(np.ascontiguousarray(transform[:3, :3]))[None])[0]
    return np.concatenate((transform[:3, 3], quat.numpy()))


def inverse(transform: Floats) -> Floats:
    out, turn = np.eye(4), transform[:3, :3].T
    out[:3, :3], out[:3, 3] = turn, -turn @ transform[:3, 3]
    return out


def exponential(twist: Floats) -> Floats:
    """Of (6,) metres, then a rotation vector: the two by themselves, not a screw."""
    quat = from_rotation_vector(torch.from_numpy(np.asarray(twist[3:], dtype=np.float64))[None])[0].numpy()
    return matrix(np.concatenate((twist[:3], quat)))


def rotation_of(transform: Floats) -> Floats:
    """Rotation vector (3,), rad, at most pi long."""
    quat = matrix_to_quat(torch.from_numpy(np.ascontiguousarray(transform[:3, :3]))[None])
    return rotation_vector(quat)[0].numpy()


def apart(first: Floats, second: Floats) -> tuple[float, float]:
    """Metres and radians between two transforms."""
    difference = inverse(first) @ second
    return float(np.linalg.norm(difference[:3, 3])), float(np.linalg.norm(rotation_of(difference)))


def checked_pose(values: Sequence[float], what: str) -> Floats:
    """(7,) with a unit quaternion. Raises ConfigError that names `what`."""
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (7,) or not np.isfinite(found).all() or abs(np.linalg.norm(found[3:]) - 1.0) > 1e-3:
        raise ConfigError(f"{what} must be x y z (m) and a unit quaternion x y z w, got {list(values)}")
    found[3:] /= np.linalg.norm(found[3:])
    return found
