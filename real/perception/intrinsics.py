"""A camera's intrinsics from pictures of a ChArUco board (Zhang 2000, by OpenCV), and whether to believe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from real.perception.board import Corners
from real.perception.lens import Lens
from real.perception.transforms import Floats
from robolearn.errors import ConfigError
from robolearn.optional import lazy

cv2 = lazy("cv2", extra="vision")

LEAST_VIEWS = 8
LEAST_TILT_DEG = 15.0
"""Two views at least must differ so much in the board's direction: from parallel ones no focal length follows."""
LEAST_COVER = 0.4
"""Share of the picture that the corners of all views together span, in each direction."""
ALIKE_PX = 3.0
"""Views whose common corners lie this near to each other are one."""
WORST = 4.0
"""Times the median error of a view: one beyond is left out, as moved or misread."""


@dataclass(frozen=True)
class Calibration:
    lens: Lens
    error_px: float
    """Root mean square distance of a corner from where the calibration puts it."""
    worst_view_px: float
    deviations: tuple[float, float, float, float]
    """Standard deviations of fx, fy, cx, cy that OpenCV estimates, px."""
    cover: tuple[float, float]
    used: tuple[int, ...]
    """Which of the views it rests on."""

    def remarks(self) -> tuple[str, ...]:
        fx, fy, cx, cy = self.deviations
        across, down = (round(100 * share) for share in self.cover)
        return (
            f"{len(self.used)} views, corners over {across} % of the width and {down} % of the height",
            f"reprojection error {self.error_px:.3f} px, worst view {self.worst_view_px:.3f} px",
            f"standard deviations: fx {fx:.2f}, fy {fy:.2f}, cx {cx:.2f}, cy {cy:.2f} px",
        )


def calibrate(views: Sequence[Corners], size: tuple[int, int], name: str = "camera") -> Calibration:
    """`size`: width and height of all pictures. Raises ConfigError, with what to do, for views that do not determine a
    camera: too few, too much alike, all from one direction, in one part of the picture only."""
    different = distinct(views)
    if len(different) < LEAST_VIEWS:
        raise ConfigError(f"{len(different)} different views of the board ({len(views)} with those alike); "
                          f"take at least {LEAST_VIEWS}, better 20, each from another place")  # fmt: skip
    cover = covered([views[k] for k in different], size)
    if min(cover) < LEAST_COVER:
        across, down = (round(100 * share) for share in cover)
        raise ConfigError(f"the board was seen in {across} % of the width and {down} % of the height only; bring it to "
                          "all corners of the picture")  # fmt: skip
    result = _solve([views[k] for k in different], size)
    kept = [k for k, error in zip(different, result.errors, strict=True) if error <= WORST * np.median(result.errors)]
    if len(kept) < len(different):
        result = _solve([views[k] for k in kept], size)
    tilt = spread_deg(result.turns)
    if tilt < LEAST_TILT_DEG:
        raise ConfigError(f"all views show the board from one direction (within {tilt:.0f} degrees); tilt it by 20 to "
                          "45 degrees, to the left, right, up and down")  # fmt: skip
    fx, fy, cx, cy = (float(result.matrix[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    lens = Lens(*size, fx, fy, cx, cy, tuple(float(c) for c in result.distortion), name)
    error, worst = float(np.sqrt(np.mean(result.errors**2))), float(result.errors.max())
    return Calibration(lens, error, worst, result.deviations, cover, tuple(kept))


def distinct(views: Sequence[Corners]) -> list[int]:
    """Indices of the views that differ from every one before."""
    chosen: list[int] = []
    for k, view in enumerate(views):
        if all(moved_px(views[j], view) > ALIKE_PX for j in chosen):
            chosen.append(k)
    return chosen


def moved_px(first: Corners, second: Corners) -> float:
    """Median distance of the corners that both show; infinity if there is none."""
    _, a, b = np.intersect1d(first.ids, second.ids, return_indices=True)
    if len(a) == 0:
        return float("inf")
    return float(np.median(np.linalg.norm(first.pixels[a] - second.pixels[b], axis=1)))


def covered(views: Sequence[Corners], size: tuple[int, int]) -> tuple[float, float]:
    """Shares of width and height between the outermost corners of all views."""
    pixels = np.concatenate([view.pixels for view in views])
    across, down = np.ptp(pixels, axis=0) / np.array(size)
    return float(across), float(down)


def spread_deg(turns: Sequence[Floats]) -> float:
    """Largest angle between the board's normals of two views."""
    normals = np.array([turn[:, 2] for turn in turns])
    return float(np.degrees(np.arccos(np.clip((normals @ normals.T).min(), -1.0, 1.0))))


@dataclass(frozen=True)
class _Solution:
    matrix: Floats
    distortion: Floats
    turns: list[Floats]
    errors: Floats
    """Of each view, root mean square, px."""
    deviations: tuple[float, float, float, float]


def _solve(views: Sequence[Corners], size: tuple[int, int]) -> _Solution:
    points = [view.points.astype(np.float32)[:, None] for view in views]
    pixels = [view.pixels.astype(np.float32)[:, None] for view in views]
    try:
        _, matrix, distortion, turns, _, deviations, _, errors = cv2.calibrateCameraExtended(
            points, pixels, size, None, None
        )
    except cv2.error as error:
        raise ConfigError(f"these views give no calibration ({error.err}); take others") from None
    return _Solution(
        np.asarray(matrix), np.ravel(distortion)[:5], [cv2.Rodrigues(turn)[0] for turn in turns], np.ravel(errors),
        tuple(float(v) for v in np.ravel(deviations)[:4]),  # type: ignore[arg-type]
    )  # fmt: skip
