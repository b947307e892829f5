"""A robot's collision shapes, from its URDF: spheres that cover them, and the outlines of their convex hulls."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from robolearn.errors import ConfigError
from robolearn.paths import resolve
from robolearn.urdf import rpy_matrix

Floats = NDArray[np.float64]
SPACING_M = 0.01
"""Between the points that stand for a primitive's surface; the spheres are larger by the most that they can miss."""
LONGEST_EDGE_M = 0.02
"""Of a mesh's triangles, which are cut until then: a sphere holds a triangle if it holds its corners."""
MOST = 6
"""Spheres a shape."""
DIRECTIONS = 1000


class Shape(NamedTuple):
    """A collision shape, in its link's frame."""

    link: str
    spheres: Floats
    """(n, 4): centres (m) and radii; together they cover it."""
    outline: Floats
    """(m, 3): points of its convex hull, which lies within `margin_m` of theirs."""
    margin_m: float


@cache
def shapes(urdf: str) -> tuple[Shape, ...]:
    """All of a URDF's. Raises ConfigError for those that it cannot read."""
    path = resolve(urdf)
    found = []
    for link in ElementTree.parse(path).getroot().findall("link"):
        for collision in link.findall("collision"):
            surface = _surface(collision, path)
            extra = 0.0 if surface.shape[1] > 1 else SPACING_M / math.sqrt(3.0)
            outline, missed = _outline(np.unique(surface.reshape(-1, 3).round(6), axis=0))
            found.append(
                Shape(
                    link.get("name", ""),
                    _cover(_cut(surface) if extra == 0.0 else surface, extra),
                    outline,
                    extra + missed,
                )
            )
    return tuple(found)


def _outline(points: Floats) -> tuple[Floats, float]:
    """The points that are farthest in some of many directions, and how much farther others are in directions between
    those, at most: as far as half the angle between neighbours carries."""
    k = np.arange(DIRECTIONS) + 0.5  # Fibonacci's sphere
    height, turn = 1.0 - 2.0 * k / DIRECTIONS, math.pi * (1.0 + math.sqrt(5.0)) * k
    ring = np.sqrt(1.0 - height**2)
    directions = np.stack((ring * np.cos(turn), ring * np.sin(turn), height), -1)
    chosen = points[np.unique((points @ directions.T).argmax(0))]
    size = float(np.linalg.norm(np.ptp(points, axis=0)))
    return chosen, size * (1.0 - math.cos(2.0 / math.sqrt(DIRECTIONS)))


def _cover(patches: Floats, extra: float) -> Floats:
    """Spheres (n, 4) around patches (N, corners, 3): slices across the longest extent, half as thick as wide."""
    middles = patches.mean(1)
    along = middles @ np.linalg.eigh(np.cov(middles.T))[1]
    extents = np.ptp(along, axis=0)
    along = along[:, np.argmax(extents)]
    count = math.ceil(2.0 * extents.max() / max(np.sort(extents)[1], 2.0 * SPACING_M))
    edges = np.linspace(along.min(), along.max(), min(MOST, count) + 1)
    slices = np.digitize(along, edges[1:-1])
    return np.stack([_sphere(patches[slices == i], extra) for i in np.unique(slices)])


def _sphere(patches: Floats, extra: float) -> Floats:
    """A sphere (4,) around patches, nearly the smallest: its centre goes to the farthest of them, by less and less
    (Badoiu and Clarkson 2003)."""
    points = patches.reshape(-1, 3)
    middle = 0.5 * (points.min(0) + points.max(0))
    squares = np.einsum("ij,ij->i", points, points)
    for step in range(2, 22):
        middle = middle + (points[np.argmax(squares - points @ (2.0 * middle))] - middle) / step
    return np.append(middle, np.linalg.norm(points - middle, axis=1).max() + extra)


def _surface(collision: ElementTree.Element, path: Path) -> Floats:
    """A shape's surface in the link's frame: points (N, 1, 3), or triangles (N, 3, 3)."""
    shape = next(iter(collision.find("geometry") or ()), None)
    where = f"{path}: a collision shape"
    if shape is None:
        raise ConfigError(f"{where} has no geometry")
    if shape.tag not in _SURFACES:
        raise ConfigError(f"{where} is a {shape.tag}; the guard reads {', '.join(_SURFACES)}")
    surface = _SURFACES[shape.tag](shape, path)
    origin = collision.find("origin")
    attributes = {} if origin is None else origin.attrib
    turn = rpy_matrix(*_numbers(attributes.get("rpy", "0 0 0")))
    return surface @ turn.T + np.array(_numbers(attributes.get("xyz", "0 0 0")))


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


def _box(shape: ElementTree.Element, path: Path) -> Floats:
    size = np.array(_numbers(shape.get("size", "")))
    sides = [np.linspace(-0.5, 0.5, math.ceil(s / SPACING_M) + 1) for s in size]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3)
    return (grid[(np.abs(grid) > 0.499).any(1)] * size)[:, None]


def _cylinder(shape: ElementTree.Element, path: Path) -> Floats:
    radius, length = float(shape.get("radius", "")), float(shape.get("length", ""))
    return _rings(radius, np.linspace(-0.5, 0.5, math.ceil(length / SPACING_M) + 1) * length)


def _rings(radius: float, heights: Floats) -> Floats:
    angles = np.linspace(0.0, math.tau, max(3, math.ceil(math.tau * radius / SPACING_M)), endpoint=False)
    ring = radius * np.stack((np.cos(angles), np.sin(angles)), -1)
    return np.concatenate([np.column_stack((ring, np.full(len(ring), h))) for h in heights])[:, None]


def _ball(shape: ElementTree.Element, path: Path) -> Floats:
    radius = float(shape.get("radius", ""))
    angles = np.linspace(-math.pi / 2, math.pi / 2, math.ceil(math.pi * radius / SPACING_M) + 1)
    return np.concatenate([_rings(radius * math.cos(a), np.array([radius * math.sin(a)])) for a in angles])


def _mesh(shape: ElementTree.Element, path: Path) -> Floats:
    """The triangles of a Wavefront file."""
    name = shape.get("filename", "")
    file = resolve(name) if "://" in name else path.parent / name
    if file.suffix != ".obj":
        raise ConfigError(f"{path}: the guard reads collision meshes from .obj files, not {file.name}")
    vertices, faces = _wavefront(file)
    return np.asarray(vertices[faces] * np.array(_numbers(shape.get("scale", "1 1 1"))))


def _cut(triangles: Floats) -> Floats:
    """In parts of which no edge is longer than LONGEST_EDGE_M."""
    done = []
    while len(triangles):
        long = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max(1) > LONGEST_EDGE_M
        done.append(triangles[~long])
        triangles = _quartered(triangles[long])
    return np.concatenate(done)


def _quartered(triangles: Floats) -> Floats:
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    ab, bc, ca = 0.5 * (a + b), 0.5 * (b + c), 0.5 * (c + a)
    corners = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    return np.concatenate([np.stack(corner, axis=1) for corner in corners])


def _wavefront(file: Path) -> tuple[Floats, NDArray[np.int64]]:
    """Vertices (V, 3) and triangles (F, 3) of indices; polygons become fans."""
    lines = [line.split() for line in file.read_text().splitlines()]
    vertices = np.array([[float(v) for v in words[1:4]] for words in lines if words[:1] == ["v"]])
    polygons = [[int(w.split("/")[0]) for w in words[1:]] for words in lines if words[:1] == ["f"]]
    fans = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    faces = np.array(fans, dtype=np.int64)
    return vertices, np.where(faces > 0, faces - 1, faces + len(vertices))


_SURFACES = {"box": _box, "cylinder": _cylinder, "sphere": _ball, "mesh": _mesh}
