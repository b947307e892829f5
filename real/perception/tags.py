"""Poses of objects from the tags on them: AprilTag 36h11 or ArUco, by one camera.

A tag's frame: origin at its centre, x right and y up as it is read, z out of its face. One tag in one picture has two
poses that explain it almost equally well, tilted to either side of the line of sight (Collins and Bartoli 2014). The
better one is taken if it is clearly better, or if both are nearly the same; else the object is not seen. Two tags of
one object decide it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from real.perception import edges, transforms
from real.perception.lens import Lens
from real.perception.transforms import Floats
from robolearn.errors import ConfigError, unknown
from robolearn.optional import lazy

cv2 = lazy("cv2", extra="vision")

FAMILIES = {"36h11": "DICT_APRILTAG_36h11", "4x4": "DICT_4X4_250", "5x5": "DICT_5X5_250", "6x6": "DICT_6X6_250"}
CLEARLY = 1.5
"""The second pose's error over the first's from which on the first one is right."""
NEARLY_SAME_DEG = 12.0
"""Two poses that differ by less are both good enough."""
WORST_PX = 1.5
"""Root mean square error of a pose beyond which what was seen is no such tag: a wrong size, a wrong camera."""
NO_POSE, UNDECIDED, MISFIT = "no pose", "two poses, and no telling which", "no such tag fits"
TWICE = "a tag is seen twice"
VAGUE = "too small, too slanted, or at the border"


@dataclass(frozen=True)
class Tag:
    id: int
    size_m: float
    """Edge of the black square."""
    pose: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    """(7,) in its object's frame."""

    def __post_init__(self) -> None:
        if not 0.0 < self.size_m < math.inf:
            raise ConfigError(f"tag {self.id}: size_m must be above 0, got {self.size_m}")
        transforms.checked_pose(self.pose, f"the pose of tag {self.id}")

    def corners(self) -> Floats:
        """(4, 3) in the object's frame: upper left, upper right, lower right, lower left."""
        half = self.size_m / 2.0
        flat = np.array([[-half, half, 0.0], [half, half, 0.0], [half, -half, 0.0], [-half, -half, 0.0]])
        place = transforms.matrix(self.pose)
        return flat @ place[:3, :3].T + place[:3, 3]


class Sighting(NamedTuple):
    pose: Floats
    """(7,) of the object in the camera's optical frame."""
    error_px: float
    tags: int


def family_of(name: str) -> Any:
    """OpenCV's dictionary. Raises ConfigError."""
    if name not in FAMILIES:
        raise ConfigError(unknown("tag family", name, list(FAMILIES)))
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, FAMILIES[name]))


def cells_of(family: str, number: int) -> NDArray[np.bool_]:
    """(n, n) of a tag with its black border, True for black, as it is read. Raises ConfigError."""
    dictionary = family_of(family)
    if not 0 <= number < len(dictionary.bytesList):
        raise ConfigError(f"family {family} has tags 0 to {len(dictionary.bytesList) - 1}, not {number}")
    side = int(dictionary.markerSize) + 2
    return np.asarray(cv2.aruco.generateImageMarker(dictionary, number, side)) < 128


class TagFinder:
    """Finds objects in pictures. `refused` counts, by reason, what was seen and not believed."""

    def __init__(self, objects: Mapping[str, Sequence[Tag]], family: str = "36h11"):
        """Raises ConfigError for a tag that two objects have, or that the family lacks."""
        self._dictionary = family_of(family)
        self.objects = {name: {tag.id: tag for tag in tags} for name, tags in objects.items()}
        ids = [tag.id for tags in objects.values() for tag in tags]
        twice = sorted({n for n in ids if ids.count(n) > 1})
        if twice:
            raise ConfigError(f"tag {twice[0]} is given twice")
        for number in ids:
            cells_of(family, number)
        settings = cv2.aruco.DetectorParameters()
        settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        self._cells = int(self._dictionary.markerSize) + 2
        self._detector = cv2.aruco.ArucoDetector(self._dictionary, settings)
        self.refused: dict[str, int] = {}

    def find(self, picture: NDArray[np.uint8], lens: Lens) -> dict[str, Sighting]:
        """Objects in a picture (H, W, 3) RGB or (H, W), of the lens' size. Raises ValueError for another size."""
        if picture.shape[:2] != (lens.height, lens.width):
            raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]}, "
                             f"a calibration of {lens.width} x {lens.height}")  # fmt: skip
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        corners, ids, _ = self._detector.detectMarkers(np.ascontiguousarray(grey))
        numbers = [] if ids is None else [int(n) for n in np.ravel(ids)]
        rough = {n: np.asarray(q, dtype=np.float64).reshape(4, 2) for n, q in zip(numbers, corners, strict=True)}
        out = {}
        for name, tags in self.objects.items():
            if any(numbers.count(n) > 1 for n in tags):
                self._refuse(f"{name}: {TWICE}")
            seen = {n: rough[n] for n in tags if numbers.count(n) == 1}
            sighting = self._sight(name, tags, seen, grey, lens) if seen else None
            if sighting is not None:
                out[name] = sighting
        return out

    def _sight(self, name: str, tags: Mapping[int, Tag], seen: Mapping[int, Floats], grey: NDArray[np.uint8],
               lens: Lens) -> Sighting | None:  # fmt: skip
        fine = {n: edges.refined(grey, quad, self._cells, lens) for n, quad in seen.items()}
        quads = {n: quad for n, quad in fine.items() if quad is not None}
        result = pose_of([tags[n] for n in quads], list(quads.values()), lens) if quads else VAGUE
        if isinstance(result, str):
            self._refuse(f"{name}: {result}")
            return None
        return result

    def _refuse(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1


def pose_of(tags: Sequence[Tag], quads: Sequence[Floats], lens: Lens) -> Sighting | str:
    """Of an object from its tags' corners in the picture (4, 2) each, or why there is none."""
    points, pixels = np.concatenate([tag.corners() for tag in tags]), np.concatenate(list(quads))
    starts = [start for tag, quad in zip(tags, quads, strict=True) for start in _of_square(tag, quad, lens)]
    found = sorted((_refined(points, pixels, start, lens) for start in starts), key=lambda f: f[1])
    found = [f for f in found if np.isfinite(f[0]).all() and f[0][2, 3] > 0.0]
    if not found:
        return NO_POSE
    best, error = found[0]
    if error > WORST_PX:
        return MISFIT
    for other, its_error in found[1:]:
        differ = math.degrees(transforms.apart(best, other)[1]) > NEARLY_SAME_DEG
        if differ and its_error < CLEARLY * max(error, 1e-3):
            return UNDECIDED
    return Sighting(transforms.pose(best), error, len(tags))


def _of_square(tag: Tag, quad: Floats, lens: Lens) -> list[Floats]:
    """Both poses of the object that one tag allows, as matrices."""
    plain = Tag(tag.id, tag.size_m).corners()
    _, turns, shifts, _ = cv2.solvePnPGeneric(plain, quad, lens.matrix, lens.coefficients,
                                              flags=cv2.SOLVEPNP_IPPE_SQUARE)  # fmt: skip
    out = []
    for turn, shift in zip(turns, shifts, strict=True):
        seen = np.eye(4)
        seen[:3, :3], seen[:3, 3] = cv2.Rodrigues(turn)[0], np.ravel(shift)
        out.append(seen @ transforms.inverse(transforms.matrix(tag.pose)))
    return out


def _refined(points: Floats, pixels: Floats, start: Floats, lens: Lens) -> tuple[Floats, float]:
    """The pose near `start` with the least reprojection error, and that error (root mean square, px)."""
    turn, shift = cv2.Rodrigues(start[:3, :3])[0], start[:3, 3:].copy()
    turn, shift = cv2.solvePnPRefineLM(points, pixels, lens.matrix, lens.coefficients, turn, shift)
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = cv2.Rodrigues(turn)[0], np.ravel(shift)
    off = lens.project(points @ out[:3, :3].T + out[:3, 3]) - pixels
    return out, float(np.sqrt((off**2).sum(1).mean()))
