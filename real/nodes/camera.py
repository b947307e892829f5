"""A camera's pictures, with what is known of its lens: of a real camera, of a file, or of a simulated scene.

Topics below the robot's namespace: `camera/NAME/image_raw` (sensor_msgs/Image, rgb8) and, with `compressed`,
`camera/NAME/image_raw/compressed` (JPEG); `camera/NAME/camera_info` with each picture. Without a `calibration` (the
file that `robolearn calibrate intrinsics` writes) camera_info holds zeros, and who needs a lens refuses. A camera that
stops or changes the size of its pictures is told of once; nothing is published for it, and a device is opened again
every second. `/diagnostics` once a second.

Parameters: `name`; one of `device` (/dev/video0), `file` (a video, or a folder of images) and `simulated`; `width`,
`height`, `rate_hz`, `exposure`, `calibration`, `frame_id`, `raw`, `compressed`, `quality`, `latency_s`.

`simulated` draws the scene of the task `scene`, with the robot (the site's parameters) where the joint states say, and
objects where `objects/OBJECT` says: beside a twin, in a process of its own. It looks through the scene's camera `view`,
or from `eye_m` to `target_m` (with `link`, both in that link's frame) with the vertical angle `fov_deg`. The table
`tags` is that of the tags node; they are drawn on their objects. With `depth` it tells `camera/NAME/depth/image_raw`
(32FC1, m) and `camera/NAME/depth/camera_info` too, as a depth camera does.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from real import ros
from real.connection import NEWEST, SENSED, Header, JointReader, JointState, PoseStamped, stamp_of
from real.goals import pose_of
from real.nodes.report import ERROR, OK, Report
from real.nodes.run import run
from real.nodes.tags import read_tags
from real.perception import lens as lenses
from real.perception.lens import Lens
from real.perception.sources import FROZEN, CameraError, FileSource, Frame, Source, VideoDevice, Watched
from real.pictures import (
    CameraInfo,
    CompressedImage,
    Image,
    compressed_message,
    depth_message,
    image_message,
    info_message,
)
from real.site import parameter, read_site
from real.spread import Spread
from robolearn.errors import ConfigError, UserError

REPORT_S, AGAIN_S, SILENT_S = 1.0, 1.0, 2.0
OLD_S = 0.5
"""A robot that was not heard for so long is not drawn."""


class CameraNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("camera")
        self.name = parameter(self, "name", "camera")
        self.rate_hz = parameter(self, "rate_hz", 30.0)
        self.size = parameter(self, "width", 640), parameter(self, "height", 480)
        if not 0.0 < self.rate_hz <= 1000.0 or min(self.size) < 1:
            raise ConfigError(f"rate_hz, width and height must be above 0, got {self.rate_hz}, {self.size}")
        file = parameter(self, "calibration", "")
        self.lens: Lens | None = lenses.load(Path(file)) if file else None
        self.frame_id = parameter(self, "frame_id", "") or f"{self.name}_optical_frame"
        self.quality, self._latency_s = parameter(self, "quality", 90), parameter(self, "latency_s", 0.0)
        if not 1 <= self.quality <= 100 or not 0.0 <= self._latency_s <= 1.0:
            raise ConfigError(f"quality must be 1 to 100 and latency_s 0 to 1, got {self.quality}, {self._latency_s}")
        topic = f"camera/{self.name}/image_raw"
        raw, small = parameter(self, "raw", True), parameter(self, "compressed", False)
        self._raw = self.create_publisher(Image, topic, NEWEST) if raw else None
        self._small = self.create_publisher(CompressedImage, f"{topic}/compressed", NEWEST) if small else None
        self._info = self.create_publisher(CameraInfo, f"camera/{self.name}/camera_info", NEWEST)
        self._depth: dict[str, Any] = {}
        self.counts, self.periods, self.drawing = {"pictures": 0, "dropped": 0, "opened": 0}, Spread(), Spread()
        self.trouble, self._last_s = "", -math.inf
        self.stopping = threading.Event()
        self._open = self._chosen()
        self._source: Source | None = self._open()
        self._report = Report(self, self.name)
        if self.lens is None:
            self.get_logger().warning(f"{self.name} has no calibration: who needs its lens will refuse its pictures")
        self._reader = threading.Thread(target=self._read_on, daemon=True)
        self._reader.start()
        self._began_s = time.monotonic()
        self.create_timer(REPORT_S, self._say)
        self.get_logger().info(f"pictures on {topic}, frame {self.frame_id}")

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def _chosen(self) -> Callable[[], Source]:
        """What opens the source that the parameters name. Raises ConfigError."""
        device, file = parameter(self, "device", ""), parameter(self, "file", "")
        simulated, exposure = parameter(self, "simulated", False), parameter(self, "exposure", 0.0)
        if sum(map(bool, (device, file, simulated))) != 1:
            raise ConfigError("give one source: device:=/dev/video0, file:=FILE or simulated:=true")
        if device:
            return lambda: Watched(VideoDevice(device, self.size, self.rate_hz, exposure, self.now_s), FROZEN)
        if file:
            return lambda: Watched(FileSource(Path(file), self.rate_hz, self.now_s))
        simulation = Simulated(self)
        self.lens = self.lens or simulation.lens
        if simulation.depth:
            for topic, kind in (("camera_info", CameraInfo), ("image_raw", Image)):
                self._depth[topic] = self.create_publisher(kind, f"camera/{self.name}/depth/{topic}", NEWEST)
        return lambda: simulation

    # --- the thread that reads ------------------------------------------------------------------------------

    def _read_on(self) -> None:
        while not self.stopping.is_set():
            try:
                if self._source is None:
                    self._source = self._open()
                    self.counts["opened"] += 1
                frame = self._source.read()
                if not self.stopping.is_set():
                    self._publish(frame)
            except UserError as error:
                if self.stopping.is_set():
                    break
                self._complain(str(error))
                self._close_source()
                self.stopping.wait(AGAIN_S)
        self._close_source()

    def _publish(self, frame: Frame) -> None:
        height, width, _ = frame.image.shape
        if self.lens is not None and (width, height) != (self.lens.width, self.lens.height):
            raise CameraError(f"{self.name} sends {width} x {height}, its calibration is of {self.lens.width} x "
                              f"{self.lens.height}: set width and height, or calibrate again")  # fmt: skip
        began = time.monotonic()
        header = Header(stamp=stamp_of(frame.stamp_s - self._latency_s), frame_id=self.frame_id)
        self._info.publish(info_message(self.lens, (width, height), header))  # first: it tells how to read what follows
        if self._raw is not None:
            self._raw.publish(image_message(frame.image, header))
        if self._small is not None:
            self._small.publish(compressed_message(frame.image, header, self.quality))
        if frame.depth is not None:
            self._depth["camera_info"].publish(info_message(frame.depth.lens, (width, height), header))
            self._depth["image_raw"].publish(depth_message(frame.depth.image_m, header))
        self.counts["pictures"] += 1
        if self._last_s > -math.inf:
            self.periods.add(began - self._last_s)
            self.counts["dropped"] += max(0, round((began - self._last_s) * self.rate_hz) - 1)
        self._last_s, self.trouble = began, ""

    def _complain(self, trouble: str) -> None:
        """Once, until pictures come again."""
        if not self.trouble:
            self.get_logger().error(f"{trouble}; nothing is published until it sends again")
        self.trouble = trouble

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
        self._source = None

    # --- the node's own -------------------------------------------------------------------------------------

    def _say(self) -> None:
        silent_s = time.monotonic() - max(self._last_s, self._began_s)
        if silent_s > SILENT_S and not self.trouble:
            self._complain(f"{self.name} has sent no picture for {silent_s:.1f} s")
        figures: dict[str, object] = {"period, ms": str(self.periods), "age of the last, s": f"{silent_s:.2f}"}
        figures |= self.counts | {"calibrated": self.lens is not None}
        self._report(ERROR if self.trouble else OK, self.trouble or "sends", figures)
        self.periods.clear()

    def close(self) -> None:
        self.stopping.set()
        self._reader.join(timeout=2.0)  # a device that hangs is left to the end of the process


class Simulated:
    """A source that draws what the node hears of the robot and the objects around it."""

    def __init__(self, node: CameraNode):
        from real.nodes.camera_scene import Studio, camera_at, camera_of, lens_of

        self._node, self.name, site = node, node.name, read_site(node)
        task, view = parameter(node, "scene", ""), parameter(node, "view", "view")
        eye, target = (tuple(parameter(node, n, [0.0, 0.0, 0.0])) for n in ("eye_m", "target_m"))
        link, fov_deg = parameter(node, "link", ""), parameter(node, "fov_deg", 45.0)
        if eye != target:
            camera = camera_at(eye, target, fov_deg, link)
        else:
            camera = camera_of(task, view)
        camera = dataclasses.replace(camera, width=node.size[0], height=node.size[1])
        self.lens = lens_of(camera, node.name)
        self.depth = parameter(node, "depth", False)
        tags, family = read_tags(node)
        self._studio = Studio(site.robot, task, camera, tags, family)
        self._joints = JointReader(site.wire_names(), site.robot, site.profile.limits.future_s)
        self._objects: dict[str, np.ndarray] = {}
        self._due_s, self._drawn_s, self._ready = time.monotonic(), -math.inf, False
        node.create_subscription(JointState, site.profile.state_topic, self._on_joints, SENSED)
        gripper = site.profile.gripper
        if gripper and gripper.state_topic:
            node.create_subscription(JointState, gripper.state_topic, self._on_joints, SENSED)
        for name in self._studio.objects:
            node.create_subscription(PoseStamped, f"objects/{name}", partial(self._on_object, name), SENSED)

    def _on_joints(self, message: Any) -> None:
        self._joints(message, self._node.now_s())

    def _on_object(self, name: str, message: Any) -> None:
        pose = pose_of(message)
        if pose is not None:
            self._objects[name] = pose[0].double().numpy()

    def read(self) -> Frame:
        if not self._ready:  # the first picture takes a second, after which what was drawn is old
            self._studio.picture()
            self._ready = True
        period_s = 1.0 / self._node.rate_hz
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._due_s = max(self._due_s, time.monotonic() - period_s) + period_s
        reading = self._joints.latest
        while self._node.now_s() - reading.stamp_s > OLD_S or reading.stamp_s == self._drawn_s:
            if self._node.stopping.wait(0.002):
                raise CameraError("it ends")
            reading = self._joints.latest
        self._drawn_s = reading.stamp_s
        self._studio.pose(reading.position, dict(self._objects))
        depth = self._studio.depth() if self.depth else None
        return Frame(self._studio.picture(), reading.stamp_s, depth)

    def close(self) -> None:
        """At the end only: the scene takes long to build."""
        if self._node.stopping.is_set():
            self._studio.close()


def main(args: Sequence[str] | None = None) -> int:
    return run(CameraNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
