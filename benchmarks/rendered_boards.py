"""Pictures of flat patterns whose truth is known, by casting rays: what camera calibration and tags are judged by.

Nothing of OpenCV's projection is used. Each pixel is the mean of several rays; every ray is bent as the lens bends it
(its distortion is inverted by iteration), meets the nearest pattern's plane and reads the cell it meets there. Then
come the lens' blur, uneven light, the sensor's noise and rounding to 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from real.perception.lens import Lens

Floats = NDArray[np.float64]


class Pattern(NamedTuple):
    """Seen from its front only. Its frame: origin in the upper left corner, x right, y down, z away from who looks."""

    grey: NDArray[np.uint8]
    """(rows, columns) of equal cells."""
    width_m: float
    height_m: float
    place: Floats
    """(4, 4) its frame in the camera's."""


@dataclass(frozen=True)
class Sensor:
    noise: float = 2.0
    """Standard deviation, of 255 grey levels."""
    blur_px: float = 0.6
    contrast: float = 0.75
    """Share of the 255 levels between black and white."""


def marker(cells: NDArray[np.bool_], size_m: float, centre: Floats, quiet: int = 1) -> Pattern:
    """A tag (True is black) with a white border of so many cells; `centre` (4, 4) is the tag's own frame (x right, y
    up, z out of its face) in the camera's."""
    grey = np.where(np.pad(cells, quiet), 0, 255).astype(np.uint8)
    edge = size_m * len(grey) / len(cells)
    corner = np.diag([1.0, -1.0, -1.0, 1.0])
    corner[:2, 3] = -edge / 2, edge / 2
    return Pattern(grey, edge, edge, centre @ corner)


class Eye:
    """One lens with its rays."""

    def __init__(self, lens: Lens, sensor: Sensor, rays: int = 4, seed: int = 0):
        """`rays` squared a pixel."""
        self.lens, self.sensor, self._rays = lens, sensor, rays
        self._random = np.random.default_rng(seed)
        self._x, self._y = rays_of(lens, rays)

    def picture(self, patterns: Sequence[Pattern], background: float = 110.0) -> NDArray[np.uint8]:
        """(H, W) uint8."""
        light = np.full(self._x.shape, background)
        depth = np.full(self._x.shape, np.inf)
        for pattern in patterns:
            self._paint(pattern, light, depth)
        rays, lens = self._rays, self.lens
        clean = light.reshape(lens.height, rays, lens.width, rays).mean((1, 3))
        return self._sensed(clean)

    def _paint(self, pattern: Pattern, light: Floats, depth: Floats) -> None:
        coarse = _meet(pattern, self._x[:: self._rays, :: self._rays], self._y[:: self._rays, :: self._rays])[0]
        if not coarse.any():
            return
        rays = self._rays  # of all, those near the ones that met it: nothing else is worth the time
        part = tuple(slice(max(0, at.min() - 2) * rays, (at.max() + 3) * rays) for at in np.nonzero(coarse))
        met, distance, row, column = _meet(pattern, self._x[part], self._y[part])
        met &= distance < depth[part]
        black = 255.0 * (1.0 - self.sensor.contrast) / 2.0
        cell = pattern.grey[row[met].astype(int), column[met].astype(int)]
        light[part][met] = black + self.sensor.contrast * cell
        depth[part][met] = distance[met]

    def _sensed(self, clean: Floats) -> NDArray[np.uint8]:
        across = np.linspace(0.92, 1.08, self.lens.width)  # light from the right
        seen = _blurred(clean * across, self.sensor.blur_px)
        seen = seen + self.sensor.noise * self._random.standard_normal(seen.shape)
        return np.clip(np.round(seen), 0, 255).astype(np.uint8)


@cache
def rays_of(lens: Lens, rays: int) -> tuple[Floats, Floats]:
    """(H * rays, W * rays) each: x and y of all rays, at z = 1."""
    inner = (np.arange(rays) + 0.5) / rays - 0.5
    u = (np.arange(lens.width)[:, None] + inner).ravel()
    v = (np.arange(lens.height)[:, None] + inner).ravel()
    x, y = np.meshgrid((u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy)
    return undistorted(x, y, lens.distortion)


def _meet(pattern: Pattern, x: Floats, y: Floats) -> tuple[NDArray[np.bool_], Floats, Floats, Floats]:
    """Where rays (x, y, 1) meet the pattern's front: whether, how far along z, and in which row and column of cells."""
    turn, origin = pattern.place[:3, :3], pattern.place[:3, 3]
    facing = turn[0, 2] * x + turn[1, 2] * y + turn[2, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (turn[:, 2] @ origin) / facing
        places = [distance * (turn[0, k] * x + turn[1, k] * y + turn[2, k]) - turn[:, k] @ origin for k in (0, 1)]
        column = np.floor(places[0] / pattern.width_m * pattern.grey.shape[1])
        row = np.floor(places[1] / pattern.height_m * pattern.grey.shape[0])
    inside = (column >= 0) & (column < pattern.grey.shape[1]) & (row >= 0) & (row < pattern.grey.shape[0])
    return inside & (facing > 0.0) & (distance > 0.0), distance, row, column


def undistorted(x: Floats, y: Floats, distortion: Sequence[float]) -> tuple[Floats, Floats]:
    """The direction that a lens puts at (x, y) of its image plane at distance one, by fixed-point iteration. Raises
    ValueError where that does not settle."""
    k1, k2, p1, p2, k3 = distortion
    a, b = x.copy(), y.copy()
    for _ in range(60):
        r2 = a * a + b * b
        radial = 1.0 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        new_a = (x - 2.0 * p1 * a * b - p2 * (r2 + 2.0 * a * a)) / radial
        new_b = (y - p1 * (r2 + 2.0 * b * b) - 2.0 * p2 * a * b) / radial
        moved = max(abs(new_a - a).max(), abs(new_b - b).max())
        a, b = new_a, new_b
        if moved < 1e-9:
            return a, b
    raise ValueError(f"the distortion {tuple(distortion)} cannot be inverted over this picture")


def _blurred(grey: Floats, sigma: float) -> Floats:
    """Gaussian, edges repeated."""
    if not sigma:
        return grey
    reach = int(np.ceil(3.0 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(grey, [(reach, reach) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        grey = sum(w * np.take(padded, range(k, k + grey.shape[axis]), axis=axis) for k, w in enumerate(weights))
    return grey
