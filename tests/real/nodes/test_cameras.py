"""Cameras and tags as processes of their own over DDS: a simulated camera beside a twin sees what the twin knows."""

import importlib
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
from real.connection import NEWEST, Header, PoseStamped, stamp_of
from real.perception.sources import write_image
from real.pictures import CameraInfo, CompressedImage, Image, image_message, info_message, lens_of, picture_of
from robolearn.cli import calibrate
from robolearn.kinematics import Chain
from robolearn.robots.franka import FRANKA

TABLE = """/**:
  ros__parameters:
    tags:
      family: 36h11
      objects: [cube]
      cube: {ids: [5, 6], size_m: 0.04,
             poses: [0.0, 0.0, 0.025, 0.0, 0.0, 0.0, 1.0, 0.025, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5]}
"""


@pytest.fixture
def watched(stack):
    """Hears pictures, and the cube from the tags (`objects/cube`) and from the twin itself (`truth/cube`)."""
    stack.pictures, stack.infos, stack.seen, stack.truth = [], [], [], []
    for topic, kind, into in (
        ("camera/view/image_raw", Image, stack.pictures),
        ("camera/view/camera_info", CameraInfo, stack.infos),
        ("objects/cube", PoseStamped, stack.seen),
        ("truth/cube", PoseStamped, stack.truth),
    ):
        stack.node.create_subscription(kind, topic, into.append, NEWEST)
    return stack


def load_truth():
    """benchmarks.camera_truth, which is not installed."""
    root = str(Path(__file__).parents[3])
    sys.path.insert(0, root)
    try:
        return importlib.import_module("benchmarks.camera_truth")
    finally:
        sys.path.remove(root)


def pose_of(message):
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])


def angle_deg(first, second):
    return math.degrees(2.0 * math.acos(min(1.0, abs(float(first @ second)))))


def test_the_tags_node_sees_the_cube_where_the_twin_has_it(watched, tmp_path):
    table, words = tmp_path / "tags.yaml", ["-r", "objects/cube:=truth/cube"]
    table.write_text(TABLE)
    eye = ["eye_m:=[0.95,-0.35,0.55]", "target_m:=[0.5,0.0,0.0]", "fov_deg:=30.0"]
    calibrate.main(["simulated", "scene=franka_lift", f"out={tmp_path}", "name=view",
                    *(word.replace(":=", "=") for word in eye)])  # fmt: skip
    watched.start("twin", words=["-p", "scene:=franka_lift", *words])
    settings = ["simulated:=true", "scene:=franka_lift", "name:=view", "rate_hz:=5.0", *eye]
    own = [word for setting in settings for word in ("-p", setting)]
    watched.start("camera", words=[*own, "--params-file", str(table), *words])
    watched.start("tags", words=["-p", "camera:=view", "-p", f"hand_eye:={tmp_path / 'view_mount.yaml'}",
                                 "--params-file", str(table)])  # fmt: skip
    watched.wait(lambda: watched.truth and len(watched.seen) > 3)
    place = watched.node.create_publisher(PoseStamped, "twin/place/cube", NEWEST)
    watched.wait(lambda: watched.node.count_subscribers("twin/place/cube"))
    for x, y, yaw in ((0.5, 0.0, 0.0), (0.42, -0.15, 0.5), (0.58, 0.12, -0.4)):
        message = PoseStamped()
        at, turn = message.pose.position, message.pose.orientation
        at.x, at.y, at.z, turn.z, turn.w = x, y, 0.025, math.sin(yaw / 2), math.cos(yaw / 2)
        place.publish(message)
        watched.wait(lambda x=x, y=y: np.hypot(*(pose_of(watched.truth[-1])[0][:2] - [x, y])) < 0.005)
        watched.rest(1.0)
        watched.seen.clear()
        watched.wait(lambda: len(watched.seen) > 2)
        (there, turned), (seen, found) = pose_of(watched.truth[-1]), pose_of(watched.seen[-1])
        assert np.linalg.norm(seen - there) < 0.0015 and angle_deg(turned, found) < 1.0
    assert watched.seen[-1].header.frame_id == "panda_link0"
    stamps = {(p.header.stamp.sec, p.header.stamp.nanosec) for p in watched.pictures}
    assert all((s.header.stamp.sec, s.header.stamp.nanosec) in stamps for s in watched.seen[-1:])


def test_a_simulated_camera_knows_its_lens_and_says_nothing_without_the_robot(watched):
    watched.start("camera", words=["-p", "simulated:=true", "-p", "scene:=franka_lift", "-p", "name:=view", "-p",
                                   "width:=160", "-p", "height:=120"])  # fmt: skip
    watched.wait(lambda: "has sent no picture" in watched.log("camera"))
    assert not watched.pictures
    watched.start("twin", words=["-p", "scene:=franka_lift"])
    watched.wait(lambda: watched.pictures and watched.infos)
    assert picture_of(watched.pictures[-1]).shape == (120, 160, 3)
    known = lens_of(watched.infos[-1])
    assert (known.width, known.height, known.cx) == (160, 120, 79.5)
    watched.kill("twin")
    watched.rest(1.0)
    watched.pictures.clear()
    watched.rest(1.0)
    assert not watched.pictures  # what it knew of the robot is old


def test_a_file_is_shown_and_is_not_calibrated(watched, tmp_path):
    folder, small = tmp_path / "film", []
    folder.mkdir()
    for k in range(3):
        write_image(folder / f"{k}.png", np.full((24, 32, 3), 80 * k, np.uint8))
    watched.node.create_subscription(CompressedImage, "camera/view/image_raw/compressed", small.append, NEWEST)
    watched.start("camera", words=["-p", f"file:={folder}", "-p", "name:=view", "-p", "compressed:=true"])
    watched.wait(lambda: watched.pictures and watched.infos and small)
    assert lens_of(watched.infos[-1]) is None and picture_of(small[-1]).shape == (24, 32, 3)
    assert "has no calibration" in watched.log("camera")
    watched.wait(lambda: "/camera" in watched.said)
    write_image(folder / "0.png", np.zeros((48, 32, 3), np.uint8))  # another size
    watched.wait(lambda: "changed its pictures from 32 x 24 to 32 x 48" in watched.log("camera"))


def test_pictures_for_a_calibration_are_collected_with_the_tools_poses(watched, tmp_path):
    """A film of a rendered board that stands still in three places; each is kept once."""
    truth = load_truth()
    folder, kept, eye, rng = tmp_path / "film", tmp_path / "kept", truth.default_eye(0), np.random.default_rng(2)
    folder.mkdir()
    for k, picture in enumerate(truth.board_pictures(eye, 3, rng)):
        for repeat in range(4):
            write_image(folder / f"{4 * k + repeat:02d}.png", np.repeat(picture[..., None], 3, axis=2))
    watched.start("twin")
    watched.start("camera", words=["-p", f"file:={folder}", "-p", "rate_hz:=6.0", "-p", "name:=view"])
    words = ["calibrate", "collect", "camera=view", f"out={kept}", "count=3", "robot=franka", "timeout_s=60"]
    done = subprocess.run([sys.executable, "-m", "robolearn.cli.main", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    poses = calibrate.read_poses(kept / calibrate.POSES)
    assert sorted(poses) == sorted(p.name for p in kept.glob("*.png")) == ["000.png", "001.png", "002.png"]
    tool = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names).pose(torch.tensor([FRANKA.default_joint_pos]))[0]
    assert poses["001.png"] == pytest.approx(tool.numpy(), abs=1e-2)
    again = subprocess.run([sys.executable, "-m", "robolearn.cli.main", *words], capture_output=True, text=True)
    assert again.returncode == 2 and "is not empty" in again.stderr


@pytest.fixture
def tags(watched, tmp_path):
    """A tags node with a camera of the test's: show(picture, lens, age_s)."""
    (tmp_path / "tags.yaml").write_text(TABLE)
    (tmp_path / "mount.yaml").write_text("{mounting: base, parent_frame: panda_link0, camera: [0,0,0,0,0,0,1]}")
    image, info = (watched.node.create_publisher(kind, f"camera/view/{topic}", NEWEST) for kind, topic in
                   ((Image, "image_raw"), (CameraInfo, "camera_info")))  # fmt: skip
    watched.start("tags", words=["-p", "camera:=view", "-p", f"hand_eye:={tmp_path / 'mount.yaml'}",
                                 "--params-file", str(tmp_path / "tags.yaml")])  # fmt: skip
    watched.wait(lambda: watched.node.count_subscribers("camera/view/image_raw"))

    def show(picture, lens, until, age_s=0.0):
        def once():
            header = Header(stamp=stamp_of(time.time() - age_s), frame_id="eye")
            size = (lens.width, lens.height) if lens else (picture.shape[1], picture.shape[0])
            info.publish(info_message(lens, size, header))
            watched.spin(0.03)
            image.publish(image_message(picture, header))
            watched.spin(0.03)

        watched.until(until, once, 30.0)

    watched.show = show
    return watched


def test_pictures_of_an_uncalibrated_camera_and_of_another_size_are_refused_and_told_once(tags):
    from real.perception.lens import Lens

    black, lens = np.zeros((48, 64, 3), np.uint8), Lens(64, 48, 60.0, 60.0, 31.5, 23.5)
    tags.show(black, None, lambda: "not calibrated" in tags.log("tags"))
    tags.show(np.zeros((24, 32, 3), np.uint8), lens, lambda: "32 x 24, a calibration of 64 x 48" in tags.log("tags"))
    tags.show(black, lens, lambda: "not of now" in tags.log("tags"), age_s=5.0)
    tags.rest(1.5)
    assert tags.log("tags").count("is not calibrated") == 1 and not tags.seen
    figures = {v.key: v.value for v in tags.said["/tags"].values}
    assert figures["objects"] == "0" and int(figures["pictures"]) > 2
