"""`robolearn calibrate` from a folder of rendered pictures to the files that the nodes read."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
from real.perception import hand_eye, lens
from real.perception.sources import write_image
from real.perception.transforms import apart, matrix
from robolearn.cli import calibrate
from robolearn.errors import ConfigError

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def truth():
    sys.path.insert(0, ROOT)
    try:
        return importlib.import_module("benchmarks.camera_truth")
    finally:
        sys.path.remove(ROOT)


def test_from_pictures_to_a_mounted_camera(tmp_path, truth, capsys):
    rng, eye = np.random.default_rng(1), truth.default_eye(1)
    (tmp_path / "lens").mkdir(), (tmp_path / "hand").mkdir()
    for k, picture in enumerate(truth.board_pictures(eye, 12, rng)):
        write_image(tmp_path / f"lens/{k}.png", np.repeat(picture[..., None], 3, axis=2))
    camera, mount = tmp_path / "wrist.yaml", tmp_path / "mount.yaml"
    assert calibrate.main(["intrinsics", f"images={tmp_path}/lens", f"out={camera}", "name=wrist"]) == 0
    assert abs(lens.load(camera).fx - truth.LENS.fx) < 4.0
    poses = []
    for k in range(10):
        seen = truth.view_of_board(rng)
        picture = eye.picture([truth.board_pattern(seen)])
        board = hand_eye.exponential(np.array([0.5, 0.1, 0.0, 3.0, 0.2, 0.1]))
        tool = board @ hand_eye.inverse(seen) @ hand_eye.inverse(truth.IN_HAND)
        write_image(tmp_path / f"hand/{k}.png", np.repeat(picture[..., None], 3, axis=2))
        poses.append((f"{k}.png", hand_eye.transforms.pose(tool)))
    calibrate.write_poses(tmp_path / "hand" / calibrate.POSES, poses)
    words = [f"images={tmp_path}/hand", f"calibration={camera}", "robot=franka", "mounting=hand", f"out={mount}"]
    assert calibrate.main(["hand_eye", *words]) == 0
    found = hand_eye.load(mount)
    assert (found.parent_frame, found.camera_name) == ("panda_grasptarget", "wrist")
    metres, radians = apart(matrix(found.camera), truth.IN_HAND)
    assert metres < 0.003 and np.degrees(radians) < 0.3
    assert "reprojection error" in capsys.readouterr().out


def test_a_board_is_drawn(tmp_path, capsys):
    assert calibrate.main(["board", f"out={tmp_path}/board.pdf"]) == 0
    assert (tmp_path / "board.pdf").read_bytes().startswith(b"%PDF") and "240 x 180 mm" in capsys.readouterr().out


def test_pictures_without_a_board_and_of_two_sizes_are_refused(tmp_path):
    write_image(tmp_path / "0.png", np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(ConfigError, match="0 different views"):
        calibrate.main(["intrinsics", f"images={tmp_path}", "out=x.yaml"])
    write_image(tmp_path / "1.png", np.zeros((24, 64, 3), np.uint8))
    with pytest.raises(ConfigError, match="calibration is of one size"):
        calibrate.main(["intrinsics", f"images={tmp_path}", "out=x.yaml"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n", "first line must be image,x"),
        (",".join(calibrate.COLUMNS) + "\n0.png,0,0,zero,0,0,0,1\n", "line 2: seven numbers"),
        (",".join(calibrate.COLUMNS) + "\n0.png,0,0,0,0,0,1\n", "line 2: seven numbers"),
        (",".join(calibrate.COLUMNS) + "\n0.png,0,0,0,0,0,0,2\n", "unit quaternion"),
        (",".join(calibrate.COLUMNS) + 2 * "\n0.png,0,0,0,0,0,0,1", "line 3: 0.png has a pose already"),
    ],
)
def test_poses_that_are_none_are_refused_with_the_line(tmp_path, text, says):
    (tmp_path / "poses.csv").write_text(text)
    with pytest.raises(ConfigError, match=says):
        calibrate.read_poses(tmp_path / "poses.csv")


def test_poses_are_read_as_spreadsheets_and_people_write_them(tmp_path):
    """A mark in front, a space after each comma, an empty line."""
    text = ", ".join(calibrate.COLUMNS) + "\n0.png, 1, 2, 3, 0, 0, 0, 1\n\n"
    (tmp_path / "poses.csv").write_text(text, encoding="utf-8-sig")
    assert calibrate.read_poses(tmp_path / "poses.csv")["0.png"].tolist() == [1, 2, 3, 0, 0, 0, 1]


def test_what_it_does_not_know_is_named():
    with pytest.raises(ConfigError, match="board, collect, intrinsics"):
        calibrate.main([])
    with pytest.raises(ConfigError, match="hand_eye"):
        calibrate.main(["handeye"])
    with pytest.raises(ConfigError, match="profile"):
        calibrate.profile_of("crazyflie")
    assert "square_m=" in calibrate.help_text()
