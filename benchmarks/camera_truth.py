"""Rendered calibrations with their truth: what benchmarks.cameras measures, and the tests check one of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.rendered_boards import Eye, Pattern, Sensor, marker
from real.perception import hand_eye
from real.perception.board import Board, Corners
from real.perception.lens import Lens
from real.perception.tags import Tag, cells_of
from real.perception.transforms import Floats, exponential, inverse, matrix, pose

LENS = Lens(640, 480, 612.0, 609.0, 322.4, 236.3, (-0.22, 0.07, 0.0008, -0.0006, 0.0), "wrist")
BOARD = Board()
CELLS_PER_M = 4000.0
"""Of the drawn board: a quarter of a millimetre."""
IN_HAND = exponential(np.array([0.045, -0.03, -0.06, 0.08, -0.12, 1.5]))
"""The camera in the tool's frame."""
BESIDE = np.array([[0.0, 0.34, -0.94, 1.1], [1.0, 0.0, 0.0, 0.1], [0.0, -0.94, -0.34, 0.5], [0.0, 0.0, 0.0, 1.0]])
BESIDE[:3, :3] = np.linalg.svd(BESIDE[:3, :3])[0] @ np.linalg.svd(BESIDE[:3, :3])[2]
"""The camera in the base frame, which looks at the arm."""


def board_pattern(camera_from_board: Floats) -> Pattern:
    return Pattern(BOARD.picture(CELLS_PER_M), *BOARD.size_m, camera_from_board)


def view_of_board(rng: np.random.Generator, far_m: tuple[float, float] = (0.3, 0.5), tilt_deg: float = 40.0) -> Floats:
    """(4, 4) the board in the camera's frame: anywhere in the picture, tilted and turned."""
    turn = np.radians(rng.uniform([-tilt_deg, -tilt_deg, -25.0], [tilt_deg, tilt_deg, 25.0]))
    away = rng.uniform(*far_m)
    aim = np.array([*(rng.uniform([-0.22, -0.16], [0.22, 0.16]) * away / 0.5), away])
    centre = exponential(np.array([0.0, 0.0, 0.0, *turn]))
    middle = np.array([BOARD.size_m[0] / 2, BOARD.size_m[1] / 2, 0.0])
    centre[:3, 3] = aim - centre[:3, :3] @ middle
    return centre


def board_pictures(eye: Eye, count: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    return [eye.picture([board_pattern(view_of_board(rng))]) for _ in range(count)]


def corners_in(pictures: list[NDArray[np.uint8]]) -> list[Corners]:
    found = [BOARD.find(picture) for picture in pictures]
    return [corners for corners in found if corners is not None]


def hand_eye_views(eye: Eye, mounting: str, count: int, rng: np.random.Generator,
                   arm_m: float = 0.0) -> list[hand_eye.View]:  # fmt: skip
    """Pictures and tool poses. `arm_m`: standard deviation of the arm's own error, along each axis."""
    views = []
    while len(views) < count:
        seen = view_of_board(rng)
        if mounting == "hand":  # the board lies in front of the robot
            board = exponential(np.array([0.5, 0.1, 0.0, 3.0, 0.2, 0.1]))
            tool = board @ inverse(seen) @ inverse(IN_HAND)
        else:
            held = exponential(np.array([0.02, -0.05, 0.08, 0.1, 0.2, -0.4]))
            tool = BESIDE @ seen @ inverse(held)
        corners = BOARD.find(eye.picture([board_pattern(seen)]))
        if corners is not None:
            tool[:3, 3] += arm_m * rng.standard_normal(3)
            views.append(hand_eye.View(pose(tool), corners))
    return views


def camera_of(mounting: str) -> Floats:
    return IN_HAND if mounting == "hand" else BESIDE


def tag_in_view(rng: np.random.Generator, away_m: float, tilt_deg: float) -> Floats:
    """(4, 4) a tag in the camera's frame, its face towards the camera but for the tilt."""
    about = rng.uniform(0.0, 2.0 * np.pi)
    tilt = np.radians(tilt_deg) * np.array([np.cos(about), np.sin(about), 0.0])
    spin = np.array([0.0, 0.0, rng.uniform(-np.pi, np.pi)])
    facing = np.diag([1.0, -1.0, -1.0, 1.0])
    turned = exponential(np.array([0.0, 0.0, 0.0, *tilt])) @ facing @ exponential(np.array([0.0, 0.0, 0.0, *spin]))
    aim = np.array([*rng.uniform([-0.3, -0.2], [0.3, 0.2]), 1.0])
    turned[:3, 3] = away_m * aim / np.linalg.norm(aim)
    return turned


def tag_picture(eye: Eye, tag: Tag, family: str, place: Floats) -> NDArray[np.uint8]:
    return eye.picture([marker(cells_of(family, tag.id), tag.size_m, place @ matrix(tag.pose))])


def default_eye(seed: int, rays: int = 3) -> Eye:
    return Eye(LENS, Sensor(), rays, seed)
