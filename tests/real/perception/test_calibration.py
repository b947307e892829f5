"""Boards, intrinsics and mountings on rendered pictures, against truth that OpenCV had no part in."""

import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
from real.perception import board as boards
from real.perception import hand_eye, intrinsics
from real.perception.board import Board, Corners
from real.perception.transforms import apart, exponential, matrix, pose
from robolearn.errors import ConfigError

SIZE = (640, 480)


@pytest.fixture(scope="session")
def views(truth):
    """Of 20 pictures."""
    rng, eye = np.random.default_rng(3), truth.default_eye(3)
    return truth.corners_in(truth.board_pictures(eye, 20, rng))


@pytest.fixture(scope="session", params=["hand", "base"])
def mounting(request):
    return request.param


@pytest.fixture(scope="session")
def pairs(truth, mounting):
    """Twelve pictures with tool poses."""
    rng = np.random.default_rng(5)
    return truth.hand_eye_views(truth.default_eye(5), mounting, 12, rng)


# --- the board ---------------------------------------------------------------------------------------------


def test_corners_are_found_where_they_are(truth, rng):
    eye = truth.default_eye(0)
    errors = []
    for _ in range(4):
        place = truth.view_of_board(rng)
        found = truth.BOARD.find(eye.picture([truth.board_pattern(place)]))
        there = truth.LENS.project(found.points @ place[:3, :3].T + place[:3, 3])
        errors.append(np.linalg.norm(found.pixels - there, axis=1))
    assert np.sqrt(np.mean(np.concatenate(errors) ** 2)) < 0.15


def test_a_black_picture_and_a_corner_of_the_board_show_no_board(truth):
    eye, board = truth.default_eye(0), truth.BOARD
    assert board.find(np.zeros((480, 640, 3), np.uint8)) is None
    away = exponential(np.array([0.35, 0.28, 0.6, 0.0, 0.0, 0.0]))
    assert board.find(eye.picture([truth.board_pattern(away)])) is None


def test_a_png_says_how_large_it_is_to_be_printed(tmp_path):
    board = Board(4, 3, 0.04, 0.03)
    boards.save(board, tmp_path / "board.png", dots_per_inch=300)
    data = (tmp_path / "board.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    at = data.index(b"pHYs")
    across, down, unit = struct.unpack(">IIB", data[at + 4 : at + 13])
    assert unit == 1 and across == down
    assert (width / across, height / down) == pytest.approx((0.16 + 0.02, 0.12 + 0.02), abs=2e-4)
    import cv2

    assert board.find(cv2.imread(str(tmp_path / "board.png"), cv2.IMREAD_GRAYSCALE)).ids.tolist() == list(range(6))


def test_a_pdf_has_a_page_of_the_boards_size_and_the_board_on_it(tmp_path):
    board = Board(4, 3, 0.04, 0.03)
    boards.save(board, tmp_path / "board.pdf", dots_per_inch=150)
    data = (tmp_path / "board.pdf").read_bytes()
    box = data[data.index(b"/MediaBox [") + 11 :].split(b"]")[0].split()
    assert [float(v) / 72 * 25.4 for v in box[2:]] == pytest.approx([180.0, 140.0], abs=0.4)
    image = data[data.index(b"/Subtype /Image") :]
    width, height = (int(image[image.index(key) + len(key) :].split()[0]) for key in (b"/Width", b"/Height"))
    grey = np.frombuffer(zlib.decompress(image[image.index(b"stream\n") + 7 :]), np.uint8).reshape(height, width)
    found = board.find(grey)
    pitch = np.linalg.norm(found.pixels[1] - found.pixels[0]) / width * float(box[2]) / 72 * 25.4
    assert pitch == pytest.approx(40.0, abs=0.02)


def test_a_board_is_no_jpeg(tmp_path):
    with pytest.raises(ConfigError, match=r"\.pdf or \.png"):
        boards.save(Board(), tmp_path / "board.jpg")


@pytest.mark.parametrize("wrong", [{"columns": 2}, {"marker_m": 0.03}, {"square_m": 0.0}])
def test_a_board_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        Board(**wrong)


# --- intrinsics --------------------------------------------------------------------------------------------


def test_a_camera_is_recovered_from_pictures_of_the_board(views, lens):
    found = intrinsics.calibrate(views, SIZE, "wrist")
    assert found.error_px < 0.3 and len(found.used) >= 18
    assert abs(found.lens.fx - lens.fx) < 3.0 and abs(found.lens.cx - lens.cx) < 3.0
    # What counts is where points are seen, all over the part of the picture that was covered.
    grid = np.array([[x, y, 1.0] for x in np.linspace(-0.4, 0.4, 9) for y in np.linspace(-0.3, 0.3, 7)])
    assert np.linalg.norm(found.lens.project(grid) - lens.project(grid), axis=1).max() < 1.5


def test_few_views_and_the_same_again_are_refused(views):
    with pytest.raises(ConfigError, match="7 different views"):
        intrinsics.calibrate(views[:7], SIZE)
    with pytest.raises(ConfigError, match=r"3 different views of the board \(30"):
        intrinsics.calibrate(views[:3] * 10, SIZE)


def test_views_in_one_part_of_the_picture_are_refused(views):
    shrunk = [Corners(v.ids, v.points, v.pixels * 0.3) for v in views]
    with pytest.raises(ConfigError, match="bring it to all corners"):
        intrinsics.calibrate(shrunk, SIZE)


def test_views_from_one_direction_are_refused(truth, rng):
    """Exact corners of boards that are all parallel to the picture."""
    points = np.array([[x, y, 0.0] for y in range(1, 6) for x in range(1, 8)]) * 0.03
    flat = []
    for _ in range(15):
        shift = rng.uniform([-0.3, -0.2, 0.35], [0.08, 0.05, 0.6])
        pixels = truth.LENS.project(points + shift) + 0.05 * rng.standard_normal((35, 2))
        flat.append(Corners(np.arange(35), points, pixels))
    with pytest.raises(ConfigError, match="tilt it"):
        intrinsics.calibrate(flat, SIZE)


def test_a_view_of_a_board_that_moved_is_left_out(views):
    bad = Corners(views[4].ids, views[4].points, views[4].pixels + np.random.default_rng(0).normal(0, 4, (1, 2))
                  + np.random.default_rng(1).normal(0, 3, views[4].pixels.shape))  # fmt: skip
    found = intrinsics.calibrate([*views[:4], bad, *views[5:]], SIZE)
    assert 4 not in found.used and found.error_px < 0.3


# --- hand-eye ----------------------------------------------------------------------------------------------


def test_the_camera_is_found_where_it_is_mounted(truth, pairs, mounting, lens):
    found = hand_eye.calibrate(pairs, lens, mounting, "somewhere")
    metres, radians = apart(matrix(found.camera), truth.camera_of(mounting))
    assert metres < 1e-4 and np.degrees(radians) < 0.02  # the linear start is 1.2e-4 and more away
    assert found.error_px < 0.3 and found.views == 12 and found.error_m < 0.005


def test_an_arm_that_misses_its_poses_costs_no_more_than_it_misses_them_by(truth, pairs, mounting, lens):
    """Half a millimetre along each axis: taken for exact, such poses put the camera 1.8 mm away."""
    noise = np.random.default_rng(1)
    off = [hand_eye.View(v.tool + np.r_[5e-4 * noise.standard_normal(3), np.zeros(4)], v.corners) for v in pairs]
    found = hand_eye.calibrate(off, lens, mounting, "somewhere")
    metres, radians = apart(matrix(found.camera), truth.camera_of(mounting))
    assert metres < 1e-3 and np.degrees(radians) < 0.1


def test_tool_poses_of_other_pictures_are_refused(pairs, mounting, lens):
    swapped = [hand_eye.View(b.tool, a.corners) for a, b in zip(pairs, [*pairs[1:], pairs[0]], strict=True)]
    with pytest.raises(ConfigError, match="do not fit together"):
        hand_eye.calibrate(swapped, lens, mounting, "somewhere")


def test_few_views_are_refused(pairs, mounting, lens):
    with pytest.raises(ConfigError, match="7 views"):
        hand_eye.calibrate(pairs[:7], lens, mounting, "somewhere")


def test_turns_about_one_axis_only_are_refused():
    tilted = exponential(np.array([0.3, 0.0, 0.4, 2.9, 0.3, 0.1]))
    turns = [tilted @ exponential(np.array([0.05 * k, 0.0, 0.0, 0.0, 0.0, 0.3 * k])) for k in range(6)]
    with pytest.raises(ConfigError, match="one axis only"):
        hand_eye.demand_turns(turns)
    hand_eye.demand_turns([*turns, tilted @ exponential(np.array([0.0, 0.0, 0.0, 0.5, 0.0, 0.0]))])


def test_a_tool_that_hardly_turned_is_refused():
    still = [exponential(np.array([0.1 * k, 0.0, 0.4, 0.02 * k, 0.0, 0.0])) for k in range(8)]
    with pytest.raises(ConfigError, match="turned by 8 degrees at most"):
        hand_eye.demand_turns(still)


def test_an_unknown_mounting_is_refused_with_those_there_are(pairs, lens):
    with pytest.raises(ConfigError, match=r"hand.*base"):
        hand_eye.calibrate(pairs, lens, "head", "somewhere")


def test_a_mount_file_gives_back_what_was_saved(tmp_path, truth):
    camera = pose(truth.IN_HAND)
    hand_eye.save_mount(hand_eye.Mount("hand", "panda_grasptarget", camera, "wrist"), tmp_path / "m.yaml", ("so",))
    again = hand_eye.load(tmp_path / "m.yaml")
    assert (again.mounting, again.parent_frame, again.camera_name) == ("hand", "panda_grasptarget", "wrist")
    assert again.camera == pytest.approx(camera, abs=1e-8)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mounting: hand", "lacks parent_frame, camera"),
        ("{mounting: wall, parent_frame: a, camera: [0,0,0,0,0,0,1]}", "wall"),
        ("{mounting: hand, parent_frame: a, camera: [0,0,0,0,0,0,2]}", "unit quaternion"),
        ("{mounting: hand, parent_frame: a, camera: here}", "camera must be"),
    ],
)
def test_a_file_that_is_no_mount_is_refused(tmp_path, text, says):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        hand_eye.load(tmp_path / "m.yaml")
