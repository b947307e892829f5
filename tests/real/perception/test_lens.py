"""The lens' own arithmetic, and its file."""

import numpy as np
import pytest
import yaml

from real.perception import lens as lenses
from real.perception.lens import Lens
from robolearn.errors import ConfigError

PLAIN = Lens(640, 480, 500.0, 400.0, 320.0, 240.0)


def test_a_point_is_seen_where_its_ray_meets_the_picture():
    assert PLAIN.project(np.array([0.1, -0.2, 2.0])).tolist() == pytest.approx([345.0, 200.0])


def test_distortion_by_hand():
    """x = 0.5, y = 0: r2 = 0.25; radial 1 - 0.05 = 0.95; tangential p2 (r2 + 2 x2) = 0.0075, p1 r2 = 0.005."""
    bent = Lens(640, 480, 100.0, 100.0, 0.0, 0.0, (-0.2, 0.0, 0.02, 0.01, 0.0))
    assert bent.project(np.array([0.5, 0.0, 1.0])).tolist() == pytest.approx([48.25, 0.5])


def test_it_is_what_opencv_means_by_these_numbers(lens, rng):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
    points = rng.uniform([-0.4, -0.3, 0.8], [0.4, 0.3, 1.5], (50, 3))
    theirs, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), lens.matrix, lens.coefficients)
    assert abs(lens.project(points) - theirs[:, 0]).max() < 1e-9


def test_the_renderers_inverse_is_the_inverse(rendered, lens, rng):
    x, y = rng.uniform(-0.5, 0.5, 100), rng.uniform(-0.38, 0.38, 100)
    a, b = rendered.undistorted(x, y, lens.distortion)
    pixels = lens.project(np.stack((a, b, np.ones_like(a)), axis=-1))
    assert abs((pixels - [lens.cx, lens.cy]) / [lens.fx, lens.fy] - np.stack((x, y), axis=-1)).max() < 1e-9


def test_a_file_gives_back_what_was_saved(tmp_path, lens):
    path = tmp_path / "wrist.yaml"
    lenses.save(lens, path, ("error 0.1 px",))
    assert lenses.load(path) == lens and path.read_text().startswith("# error 0.1 px\n")


def test_the_file_is_laid_out_as_ros_reads_it(tmp_path, lens):
    """Keys and shapes of camera_calibration_parsers."""
    lenses.save(lens, tmp_path / "c.yaml")
    content = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert (content["image_width"], content["image_height"], content["camera_name"]) == (640, 480, "wrist")
    assert content["distortion_model"] == "plumb_bob"
    shapes = {"camera_matrix": (3, 3), "distortion_coefficients": (1, 5), "rectification_matrix": (3, 3),
              "projection_matrix": (3, 4)}  # fmt: skip
    for name, (rows, columns) in shapes.items():
        block = content[name]
        assert (block["rows"], block["cols"], len(block["data"])) == (rows, columns, rows * columns)
    assert content["camera_matrix"]["data"] == [612.0, 0, 322.4, 0, 609.0, 236.3, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "no YAML mapping"),
        ("a: {", "cannot be read"),
        ("image_width: 640", "no camera calibration"),
        ("{distortion_model: equidistant, camera_matrix: {data: [1,0,1,0,1,1,0,0,1]}}", "equidistant"),
        ("{distortion_model: plumb_bob, camera_matrix: {data: [1]}, distortion_coefficients: {data: []}}", "no camera"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_by_name(tmp_path, text, says):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as refusal:
        lenses.load(path)
    assert "wrong.yaml" in str(refusal.value)


@pytest.mark.parametrize("wrong", [{"fx": 0.0}, {"fy": float("nan")}, {"width": 0}, {"distortion": (0.0,) * 8}])
def test_a_lens_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        Lens(**{"width": 64, "height": 48, "fx": 50.0, "fy": 50.0, "cx": 32.0, "cy": 24.0} | wrong)
