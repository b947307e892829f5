"""The corners of a black square to a few hundredths of a pixel, from its edges.

A corner by itself is rounded by the lens' blur, which pulls every estimate of it inwards: a tenth of a pixel at each
corner of a tag of 50 pixels is 0.4 % of its distance. An edge is blurred to both sides alike. So the four edges
are measured where they are straight, each as a line in the picture without distortion; the corners are where they meet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from real.perception.lens import Lens
from real.perception.transforms import Floats
from robolearn.optional import lazy

cv2 = lazy("cv2", extra="vision")

LEAST_CELL_PX, MOST_PX = 2.5, 3.5
REACH = 0.4
"""Of a cell, to either side of the edge: beyond there are other cells."""
ENDS = 0.12
"""Of an edge, at either end, where the corners' blur is felt."""
LEAST_STEP = 15.0
"""Grey levels between black and white."""
FARTHEST_PX = 2.0
"""A corner that moves by more was none of this square's."""
ROUNDS = 2


def refined(grey: NDArray[np.uint8], quad: Floats, cells: int, lens: Lens) -> Floats | None:
    """The corners (4, 2) of a square of `cells` cells, the outermost of which are black, in a picture (H, W), from
    rough ones. None where the edges cannot be measured: too small or slanted, at the picture's border, no contrast."""
    straight = _undistorted(quad, lens)
    cell_px = np.linalg.norm(straight - np.roll(straight, -1, axis=0), axis=1).min() / cells
    if cell_px < LEAST_CELL_PX:
        return None
    reach = min(MOST_PX, REACH * cell_px)
    for _ in range(ROUNDS):
        lines = [_line(grey, straight[k], straight[(k + 1) % 4], straight.mean(0), reach, lens) for k in range(4)]
        found = [line for line in lines if line is not None]
        if len(found) < 4:
            return None
        before, straight = straight, np.array([_crossing(found[k - 1], found[k]) for k in range(4)])
        if np.linalg.norm(straight - before, axis=1).max() > 2.0 * FARTHEST_PX:
            return None  # edges that are nearly parallel meet anywhere
    out = _distorted(straight, lens)
    return out if np.linalg.norm(out - quad, axis=1).max() < FARTHEST_PX else None


def _line(grey: NDArray[np.uint8], start: Floats, end: Floats, middle: Floats, reach: float,
          lens: Lens) -> Floats | None:  # fmt: skip
    """(3,) the line a x + b y = c through an edge, where it is dark towards `middle` and bright away from it."""
    along = (end - start) / np.linalg.norm(end - start)
    out = np.array([along[1], -along[0]])
    out *= np.sign(out @ (start - middle))
    count = max(8, int(np.linalg.norm(end - start)))
    shares = np.linspace(ENDS, 1.0 - ENDS, count)
    feet = start + shares[:, None] * (end - start)
    steps = np.linspace(-reach, reach, 2 * int(np.ceil(3.0 * reach)) + 1)
    profile = _sampled(grey, _distorted(feet[:, None] + steps[:, None] * out, lens))
    if profile is None:
        return None
    dark, bright = profile[:, :2].mean(), profile[:, -2:].mean()
    if bright - dark < LEAST_STEP:
        return None
    area = ((profile[:, 1:] + profile[:, :-1]) / 2.0 - dark).sum(1) * (steps[1] - steps[0])
    edge = reach - area / (bright - dark)  # of the step between these levels that has the profile's area
    points = feet + edge[:, None] * out
    centre = points.mean(0)
    normal = np.linalg.svd(points - centre)[2][1]
    return np.array([*normal, normal @ centre])


def _sampled(grey: NDArray[np.uint8], places: Floats) -> Floats | None:
    """Bilinear, at (..., 2); None if one lies outside."""
    low = np.floor(places).astype(int)
    if (low < 0).any() or (low[..., 0] + 1 >= grey.shape[1]).any() or (low[..., 1] + 1 >= grey.shape[0]).any():
        return None
    x, y = (places - low)[..., 0], (places - low)[..., 1]
    u, v = low[..., 0], low[..., 1]
    above = grey[v, u] * (1.0 - x) + grey[v, u + 1] * x
    below = grey[v + 1, u] * (1.0 - x) + grey[v + 1, u + 1] * x
    return np.asarray(above * (1.0 - y) + below * y)


def _crossing(first: Floats, second: Floats) -> Floats:
    """(2,) of two lines; far away if they are parallel."""
    matrix = np.array([first[:2], second[:2]])
    if abs(np.linalg.det(matrix)) < 1e-9:
        return np.full(2, 1e9)
    return np.linalg.solve(matrix, np.array([first[2], second[2]]))


def _undistorted(pixels: Floats, lens: Lens) -> Floats:
    """Where a lens without distortion would show the same."""
    return np.asarray(cv2.undistortPoints(pixels.reshape(-1, 1, 2), lens.matrix, lens.coefficients, P=lens.matrix)
                      ).reshape(pixels.shape)  # fmt: skip


def _distorted(pixels: Floats, lens: Lens) -> Floats:
    """The inverse."""
    x, y = (pixels[..., 0] - lens.cx) / lens.fx, (pixels[..., 1] - lens.cy) / lens.fy
    return lens.project(np.stack((x, y, np.ones_like(x)), axis=-1))
