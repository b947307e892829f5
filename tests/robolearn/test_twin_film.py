"""What the films of twins have drawn into them."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from robolearn.cli import _twin_film, _video
from sim.scene import CameraCfg

VIEW = CameraCfg((-1.2, -1.7, 2.5), (0.0, 0.0, 1.0), fov_deg=40.0, width=320, height=240)
MIDDLE = np.array([239.5, 179.5])


def test_points_are_where_the_camera_sees_them() -> None:
    target, above, right = np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.2]), np.array([0.17, -0.12, 1.0])
    found = _twin_film.pixels_of(VIEW, np.stack((target, above, right)))
    assert found[0] == pytest.approx(MIDDLE, abs=0.6)  # of 480 x 360, but for the border's rounding
    assert found[1, 0] == pytest.approx(MIDDLE[0], abs=0.6) and found[1, 1] < MIDDLE[1] - 15.0
    assert found[2, 0] > MIDDLE[0] + 15.0 and abs(found[2, 1] - MIDDLE[1]) < 4.0


def test_the_edge_of_the_picture_is_half_the_angle_away() -> None:
    straight = CameraCfg((0.0, 0.0, 0.0), (0.0, 5.0, 0.0), fov_deg=90.0, width=320, height=240)
    top = _twin_film.pixels_of(straight, np.array([[0.0, 1.0, 1.0]]))[0]
    assert top == pytest.approx((MIDDLE[0], _video.BORDER_PX - 0.5), abs=1.1)


def test_a_line_is_two_pixels_wide_and_may_leave_the_picture() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    _twin_film.draw_line(picture, np.array([[-30.0, 20.0], [30.0, 20.0], [30.0, 500.0]]), (200, 100, 0), 1.0)
    assert picture[20, 0].tolist() == picture[20, 25].tolist() == picture[39, 30].tolist() == [200, 100, 0]
    assert 0 < picture[19, 10, 0] < 200 and not picture[17, :].any() and not picture[:, 33].any()
    assert not picture[20, 33:].any()


def test_a_line_of_one_point_is_none() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    _twin_film.draw_line(picture, np.array([[4.0, 4.0]]), (255, 255, 255), 1.0)
    assert not picture.any()


def test_the_picture_shows_a_moment_of_every_film(tmp_path: Path) -> None:
    for extra in ("av", "matplotlib"):
        pytest.importorskip(extra)
    import matplotlib.image as images

    films = [tmp_path / f"{k}.mp4" for k in range(2)]
    for film, level in zip(films, (60, 180), strict=True):
        _video.write(film, (np.full((48, 64, 3), level, np.uint8) for _ in range(10)), Fraction(10))
    _twin_film.picture(tmp_path / "all.png", films)
    found = 255.0 * images.imread(tmp_path / "all.png")[..., :3]
    assert found.shape == (48, 128, 3)
    assert found[:, :64].mean() == pytest.approx(60.0, abs=4.0) and found[:, 64:].mean() == pytest.approx(
        180.0, abs=4.0
    )
