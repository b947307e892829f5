"""Mass properties of solids given by their surface, and of the convex hulls that engines collide with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np


@dataclass
class Solid:
    """A rigid body about its centre of mass."""

    mass_kg: float
    inertia: list[float]
    """Principal moments, kg m2."""
    centre: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Of mass, in the body's frame, m."""
    axes: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 1.0])
    """The principal axes in the body's frame, xyzw."""
    points: list[list[float]] = field(default_factory=list)
    """What the convex hull is of, m; nothing for a plain shape."""


def solid_of(path: Path, scale: float, mass: float) -> Solid:
    """The homogeneous solid inside a closed surface (.obj or .stl). ValueError if it encloses nothing."""
    read = {".obj": _obj, ".stl": _stl}.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path.suffix} is neither .obj nor .stl")
    triangles = read(path) * scale
    if not len(triangles):
        raise ValueError("it has no triangles")
    volume, centre, spread = _moments(triangles)
    if not volume > 1e-12:
        raise ValueError("its surface is not closed, or turned inside out")
    points = np.unique(triangles.reshape(-1, 3), axis=0)
    return replace(_homogeneous(mass, volume, centre, spread), points=points.tolist())


def solid_of_boxes(parts: Sequence[tuple[Sequence[float], Sequence[float]]], mass: float) -> Solid:
    """Homogeneous boxes, edges along the axes: (edge lengths, centre) of each."""
    sizes, centres = (np.array([part[k] for part in parts], dtype=float) for k in range(2))
    volumes = sizes.prod(1)
    centre = (volumes[:, None] * centres).sum(0) / volumes.sum()
    away = centres - centre
    own = np.stack([np.diag(size**2) / 12.0 for size in sizes])
    spread = (volumes[:, None, None] * (own + away[:, :, None] * away[:, None, :])).sum(0)
    return _homogeneous(mass, float(volumes.sum()), centre, spread)


def _homogeneous(mass: float, volume: float, centre: np.ndarray, spread: np.ndarray) -> Solid:
    """From the second moments (3, 3) of the volume about its centroid."""
    moments, turn = np.linalg.eigh(mass / volume * (np.trace(spread) * np.eye(3) - spread))
    if np.linalg.det(turn) < 0.0:
        turn[:, 0] = -turn[:, 0]
    return Solid(mass, moments.tolist(), centre.tolist(), _quat(turn))


def _moments(triangles: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Volume, centroid and second moments (3, 3) about it: the sum of signed tetrahedra with the origin."""
    a, b, c = triangles.transpose(1, 0, 2)
    volumes = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6.0
    total = float(volumes.sum())
    if not total > 1e-12:
        return total, np.zeros(3), np.zeros((3, 3))
    sums = a + b + c
    centre = (volumes[:, None] * sums).sum(0) / 4.0 / total
    # The integral of x x^T over a tetrahedron with a corner at 0 is V/20 (sum_i p_i p_i^T + (sum p)(sum p)^T).
    outer = sum(p[:, :, None] * p[:, None, :] for p in (a, b, c, sums))
    second = (volumes[:, None, None] * outer).sum(0) / 20.0
    return total, centre, second - total * np.outer(centre, centre)


def _quat(m: np.ndarray) -> list[float]:
    """xyzw of a rotation matrix: the eigenvector of its largest eigenvalue (Bar-Itzhack 2000)."""
    xx, yy, zz = np.diag(m)
    k = np.array([
        [xx - yy - zz, m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
        [m[1, 0] + m[0, 1], yy - xx - zz, m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
        [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], zz - xx - yy, m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], xx + yy + zz],
    ])  # fmt: skip
    return np.linalg.eigh(k)[1][:, -1].tolist()


def _obj(path: Path) -> np.ndarray:
    """(n, 3, 3) corners of the triangles; polygons are cut into fans."""
    points: list[list[float]] = []
    corners: list[list[int]] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            points.append([float(w) for w in words[1:4]])
        elif words[:1] == ["f"]:
            ids = [int(w.partition("/")[0]) for w in words[1:]]
            ids = [i - 1 if i > 0 else len(points) + i for i in ids]
            corners += [[ids[0], ids[k], ids[k + 1]] for k in range(1, len(ids) - 1)]
    faces = np.array(corners, dtype=int).reshape(-1, 3)
    if faces.size and not 0 <= faces.min() <= faces.max() < len(points):
        raise ValueError(f"a face names a vertex that is not among its {len(points)}")
    return np.array(points).reshape(-1, 3)[faces]


def _stl(path: Path) -> np.ndarray:
    data = path.read_bytes()
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else 0
    if len(data) == 84 + 50 * count:
        kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        return np.frombuffer(data, kind, count, 84)["corners"].astype(float)
    words = data.decode("ascii", "replace").split()
    numbers = [float(x) for i, w in enumerate(words) if w == "vertex" for x in words[i + 1 : i + 4]]
    return np.array(numbers).reshape(-1, 3, 3)
