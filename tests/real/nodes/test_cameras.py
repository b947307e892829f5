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
from real import ros
from real.connection import LATCHED, NEWEST, Header, JointState, Numbers, PoseStamped, Trigger, seconds, stamp_of
from real.nodes import camera as camera_node
from real.perception.sources import write_image
from real.perception.tags import Tag
from real.perception.transforms import apart, exponential, inverse, matrix, pose
from real.pictures import (
    CameraInfo,
    CompressedImage,
    Image,
    compressed_message,
    image_message,
    info_message,
    lens_of,
    picture_of,
)
from robolearn.cli import calibrate
from robolearn.cli._calibrate_collect import Collector
from robolearn.errors import ConfigError, UserError
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


FACING = exponential(np.array([0.02, 0.01, 0.4, math.pi - 0.5, 0.0, 0.0]))
"""A tag that a camera sees in front of it, tilted."""
IN_CUBE = matrix((0.0, 0.0, 0.025, 0.0, 0.0, 0.0, 1.0))
"""Tag 5 in the cube of the table."""


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


def tagged(truth):
    """(H, W, 3) of tag 5 at FACING."""
    grey = truth.tag_picture(truth.default_eye(1), Tag(5, 0.04), "36h11", FACING)
    return np.repeat(grey[..., None], 3, axis=2)


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
    truth = load_truth()
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
    watched.lens = truth.LENS
    watched.tagged = tagged(truth)
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


def test_the_tags_node_tells_whether_it_sees_now(tags):
    """Not whether it ever has."""
    tags.show(tags.tagged, tags.lens, lambda: "/tags" in tags.said and tags.said["/tags"].message == "sees objects")
    black = np.zeros_like(tags.tagged)
    tags.show(black, tags.lens, lambda: tags.said["/tags"].message == "sees no object")
    tags.wait(lambda: tags.said["/tags"].message == "no pictures come")


# --- a camera in a moving hand, compressed ------------------------------------------------------------------


class Swing:
    """Joint states and compressed pictures of a camera in a hand that swings about the first joint."""

    speed_radps = 0.6

    def __init__(self, node, picture, lens):
        self.node, self.picture, self.lens, self._began_s, self._ticks = node, picture, lens, time.time(), 0
        self._last_s = 0.0
        self._joints = node.create_publisher(JointState, "joint_states", NEWEST)
        self._info = node.create_publisher(CameraInfo, "camera/view/camera_info", NEWEST)
        self._small = node.create_publisher(CompressedImage, "camera/view/image_raw/compressed", NEWEST)
        self._chain = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names)

    def at(self, stamp_s):
        """(9,) joints: a triangle of 2 s between -0.6 and 0.6 rad."""
        out, phase = np.array(FRANKA.default_joint_pos), (stamp_s - self._began_s) % 4.0
        out[0] = self.speed_radps * (phase if phase < 1.0 else 2.0 - phase if phase < 3.0 else phase - 4.0)
        return out

    def tool(self, stamp_s):
        return matrix(self._chain.pose(torch.tensor(self.at(stamp_s)).float()[None])[0].double().numpy())

    def tick(self):
        """At most 100 Hz, however often it is called; each tenth is a picture."""
        now_s = time.time()
        if now_s - self._last_s < 0.01:
            return
        self._last_s, self._ticks = now_s, self._ticks + 1
        names = list(FRANKA.joint_names[:7])
        self._joints.publish(
            JointState(header=Header(stamp=stamp_of(now_s)), name=names, position=self.at(now_s)[:7].tolist())
        )
        if self._ticks % 10 == 0:
            header = Header(stamp=stamp_of(now_s - 0.015), frame_id="eye")
            self._info.publish(info_message(self.lens, (self.lens.width, self.lens.height), header))
            self._small.publish(compressed_message(self.picture, header, 95))


def test_a_camera_in_a_moving_hand_tells_where_the_object_was_when_it_took_its_compressed_picture(watched, tmp_path):
    truth = load_truth()
    (tmp_path / "tags.yaml").write_text(TABLE)
    camera = pose(truth.IN_HAND).tolist()
    (tmp_path / "mount.yaml").write_text(f"{{mounting: hand, parent_frame: panda_grasptarget, camera: {camera}}}")
    watched.start("tags", words=["-p", "camera:=view", "-p", "compressed:=true", "-p",
                                 f"hand_eye:={tmp_path / 'mount.yaml'}", "--params-file",
                                 str(tmp_path / "tags.yaml")])  # fmt: skip
    swing = Swing(watched.node, tagged(truth), truth.LENS)

    def step():
        swing.tick()
        watched.spin(0.01)

    watched.until(lambda: len(watched.seen) > 20, step, 60.0)
    off = []
    for message in watched.seen:
        seen = matrix(np.concatenate(pose_of(message)))
        there = swing.tool(seconds(message.header.stamp)) @ truth.IN_HAND @ FACING @ inverse(IN_CUBE)
        off.append(apart(seen, there)[0])
    assert max(off) < 0.0015  # 15 ms of this swing are 3.3 mm
    watched.wait(lambda: "/tags" in watched.said)
    figures = {v.key: v.value for v in watched.said["/tags"].values}
    assert int(figures["objects"]) > 0.7 * int(figures["pictures"]), figures


# --- a camera that stops ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lifter(tmp_path_factory):
    """A bundle whose policy needs to see the cube, and keeps moving."""
    from robolearn import bundle, config
    from robolearn.cli import _world
    from robolearn.policies.gaussian import GaussianPolicy
    from sim.env import SimEnv

    _world.discover()
    env = SimEnv(config.entry("task", "franka_lift").config(), config.entry("backend", "mujoco").config(), 1)
    torch.manual_seed(0)
    net = {"hidden": [16], "activation": "elu", "initial_std": 0.5, "min_std": 0.1}
    policy = GaussianPolicy(env.policy_spec(), net)
    torch.nn.init.constant_(policy.mean[-1].bias, 0.2)
    env.close()
    return bundle.save(tmp_path_factory.mktemp("bundle") / "lift.zip", bundle.Bundle(policy, env.robot))


def test_a_camera_that_stops_brings_an_arm_to_rest_whose_policy_needs_to_see(tags, lifter):
    """And when its pictures come again, nothing starts by itself."""
    tags.run = lifter
    tags.start("twin", "guard")
    tags.start("policy")
    tags.node.create_publisher(Numbers, "height", LATCHED).publish(Numbers(data=[0.2]))
    client, asked_s = tags.node.create_client(Trigger, "policy/start"), [0.0]

    def moving():
        """Asked again while it is not: a busy machine has let its authority be taken away."""
        if client.service_is_ready() and time.monotonic() - asked_s[0] > 1.0 and tags.state() != "active":
            asked_s[0] = time.monotonic()
            client.call_async(Trigger.Request())
        return tags.state() == "active" and len(tags.commands) > 10 and not tags.still()

    tags.show(tags.tagged, tags.lens, moving)
    tags.wait(lambda: tags.state() == "stopped" and tags.still())
    assert "no proposal of policy" in tags.log("guard")
    tags.wait(lambda: any(v.key == "stale object" for v in tags.said["/policy"].values))
    before = len(tags.seen)
    tags.show(tags.tagged, tags.lens, lambda: len(tags.seen) > before + 10)
    assert tags.state() == "stopped" and tags.still()


class Plug:
    """cv2.VideoCapture of a camera that is pulled out after three pictures, and plugged in again."""

    opened, released = 0, 0

    def __init__(self, path, api):
        Plug.opened += 1
        self._there, self._left = Plug.opened != 2, 3 if Plug.opened == 1 else 10**6

    def isOpened(self):
        return self._there

    def set(self, what, value):
        return True

    def read(self):
        time.sleep(0.01)
        self._left -= 1
        return self._left >= 0, np.random.default_rng(self._left % 100).integers(0, 255, (24, 32, 3)).astype(np.uint8)

    def release(self):
        Plug.released += 1


def test_a_camera_that_was_unplugged_is_opened_again_and_goes_on(domain, until, monkeypatch, caplog):
    monkeypatch.setattr("cv2.VideoCapture", Plug)
    monkeypatch.setattr(camera_node, "AGAIN_S", 0.05)
    ros.init(["--ros-args", "-p", "device:=/dev/video9", "-p", "width:=32", "-p", "height:=24"])
    try:
        node = camera_node.CameraNode()
        until(lambda: node.counts["pictures"] > 6, lambda: ros.spin_once(node, timeout_sec=0.01))
        assert (Plug.opened, Plug.released, node.counts["opened"]) == (3, 1, 1) and node.trouble == ""
        node.close()
        assert not node._reader.is_alive() and Plug.released == 2
    finally:
        ros.shutdown()
    told = [r.getMessage() for r in caplog.records if "nothing is published until" in r.getMessage()]
    assert len(told) == 1 and "/dev/video9 sends no more pictures" in told[0]


@pytest.mark.parametrize("word", ["quality:=0", "latency_s:=-0.1", "latency_s:=20.0", "rate_hz:=0.0", "width:=0"])
def test_what_a_camera_cannot_be_asked_is_refused(domain, word):
    ros.init(["--ros-args", "-p", "file:=nowhere", "-p", word])
    try:
        with pytest.raises(ConfigError, match=word.partition(":")[0]):
            camera_node.CameraNode()
    finally:
        ros.shutdown()


def test_pictures_in_an_encoding_that_is_not_read_end_a_collection_with_its_name(domain, tmp_path):
    ros.init(["--ros-args"])
    try:
        collector = Collector(ros.Node("calibrate"), calibrate.CollectCfg(out=str(tmp_path), camera="wrist"), tmp_path)
        with pytest.raises(UserError, match=r"camera wrist cannot be used: encoding 'yuv422'.*rgb8"):
            collector._on_picture(Image(height=1, width=2, encoding="yuv422", step=4, data=b"1234"))
    finally:
        ros.shutdown()
