"""Depth images as point clouds, over DDS beside a twin, and what of them is refused."""

import time

import numpy as np
import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
from real import ros
from real.connection import NEWEST, Header, PoseStamped, stamp_of
from real.nodes import cloud as module
from real.perception.lens import Lens
from real.pictures import Image, PointCloud2, depth_message, info_message
from robolearn.cli import calibrate
from robolearn.errors import ConfigError

LENS = Lens(4, 2, 2.0, 2.0, 1.5, 0.5)


def points_of(message):
    return np.frombuffer(bytes(message.data), "<f4").reshape(-1, 3)


def test_the_cloud_of_the_twins_depth_camera_lies_on_the_cube_in_the_base_frame(stack, tmp_path):
    clouds, cubes, depths = [], [], []
    for topic, kind, into in (("camera/view/points", PointCloud2, clouds), ("objects/cube", PoseStamped, cubes),
                              ("camera/view/depth/image_raw", Image, depths)):  # fmt: skip
        stack.node.create_subscription(kind, topic, into.append, NEWEST)
    eye = ["eye_m:=[0.95,-0.35,0.55]", "target_m:=[0.5,0.0,0.0]", "fov_deg:=30.0"]
    calibrate.main(["simulated", "scene=franka_lift", f"out={tmp_path}", "name=view", "width=320", "height=240",
                    *(word.replace(":=", "=") for word in eye)])  # fmt: skip
    stack.start("twin", words=["-p", "scene:=franka_lift"])
    stack.wait(lambda: cubes)
    settings = ["simulated:=true", "depth:=true", "scene:=franka_lift", "name:=view", "rate_hz:=4.0", "width:=320",
                "height:=240", *eye]  # fmt: skip
    stack.start("camera", words=[word for setting in settings for word in ("-p", setting)])
    box = ["low_m:=[0.3,-0.3,0.01]", "high_m:=[0.7,0.3,0.09]", f"hand_eye:={tmp_path / 'view_mount.yaml'}"]
    stack.start("cloud", words=[word for setting in ["camera:=view", *box] for word in ("-p", setting)])
    stack.wait(lambda: len(clouds) > 2 and depths)
    at, points = cubes[-1].pose.position, points_of(clouds[-1])
    off = points[np.linalg.norm(points[:, :2] - [at.x, at.y], axis=1) < 0.06]
    top = off[off[:, 2] > 0.045]
    assert len(top) > 100 and np.median(top[:, 2]) == pytest.approx(at.z + 0.025, abs=1e-3)
    assert np.ptp(top[:, :2], axis=0) == pytest.approx([0.05, 0.05], abs=5e-3)
    assert (top[:, :2].max(0) + top[:, :2].min(0)) / 2 == pytest.approx([at.x, at.y], abs=2e-3)
    assert clouds[-1].header.frame_id == "panda_link0"
    stamps = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in depths}
    assert (clouds[-2].header.stamp.sec, clouds[-2].header.stamp.nanosec) in stamps
    stack.wait(lambda: "/cloud" in stack.said and stack.said["/cloud"].message == "sends clouds")
    stack.kill("camera")
    stack.wait(lambda: stack.said["/cloud"].message == "no depth images come")


@pytest.fixture
def node(domain):
    """make(word, ...) -> a cloud node in this process; its clouds are in `out`."""

    def make(*words):
        ros.init(["--ros-args", *(part for word in words for part in ("-p", word))])
        made = module.CloudNode()
        made.out = []
        made._out.publish = made.out.append
        return made

    yield make
    ros.shutdown()


def header(age_s=0.0):
    return Header(stamp=stamp_of(time.time() - age_s), frame_id="eye")


def test_a_cloud_in_the_cameras_frame_by_hand(node):
    """A pixel at (3, 1), f = 2, centre (1.5, 0.5): at 2 m it is 1.5 m right and 0.5 m down."""
    cloud = node("far_m:=3.0")
    cloud._on_info(info_message(LENS, (4, 2), header()))
    depth = np.full((2, 4), np.nan, np.float32)
    depth[1, 3], depth[0, 0] = 2.0, 3.5  # the second is beyond
    assert cloud._look(depth_message(depth, header())) == ""
    assert points_of(cloud.out[0]).tolist() == [[1.5, 0.5, 2.0]] and cloud.out[0].header.frame_id == "eye"
    time.sleep(0.001)
    assert cloud._look(depth_message(np.full_like(depth, np.nan), header())) == ""
    assert cloud.out[1].width == 0  # nothing is seen, and that is said


def test_strays_are_left_out_if_asked(node):
    cloud = node("neighbours:=8", "deviations:=2.0", "voxel_m:=0.0")
    lens = Lens(40, 30, 40.0, 40.0, 19.5, 14.5)
    cloud._on_info(info_message(lens, (40, 30), header()))
    depth = np.full((30, 40), 1.0, np.float32)
    depth[10, 10] = 0.3
    assert cloud._look(depth_message(depth, header())) == ""
    assert points_of(cloud.out[0])[:, 2].min() == pytest.approx(1.0) and cloud.out[0].width > 1100


def test_images_that_cannot_be_measured_in_are_refused_with_the_reason(node):
    cloud, good = node(), depth_message(np.ones((2, 4), np.float32), header())
    assert "no camera_info" in cloud._look(good)
    for lens, says in ((None, "not calibrated"), (Lens(4, 2, 2.0, 2.0, 1.5, 0.5, (0.1, 0, 0, 0, 0)), "rectified")):
        cloud._on_info(info_message(lens, (4, 2), header()))
        assert says in cloud._look(good)
    cloud._on_info(info_message(LENS, (4, 2), header()))
    assert "4 x 3, its camera_info is of 4 x 2" in cloud._look(depth_message(np.ones((3, 4), np.float32), header()))
    good.encoding = "mono8"
    good.header = header()
    assert "32FC1, 16UC1" in cloud._look(good)
    assert "not of now" in cloud._look(depth_message(np.ones((2, 4), np.float32), header(age_s=5.0)))
    assert not cloud.out


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("far_m:=0.05", "near_m and far_m"),
        ("low_m:=[0.0,0.0]", "x y z"),
        ("high_m:=[-200.0,0.0,0.0]", "box is empty"),
        ("points:=0", "points at least 1"),
        ("neighbours:=-1", "neighbours must"),
    ],
)
def test_a_cloud_that_cannot_be_is_refused(node, word, says):
    words = [word, "low_m:=[-100.0,-1.0,-1.0]"] if "high" in word else [word]
    with pytest.raises(ConfigError, match=says):
        node(*words)
