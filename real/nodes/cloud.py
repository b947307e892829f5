"""A depth camera's images as point clouds: cropped, thinned, freed of outliers, in the robot's base frame.

Topics below the robot's namespace: `camera/NAME/depth/image_raw` (sensor_msgs/Image: 32FC1 in m, or 16UC1 in mm with 0
for none, along the optical axis, rectified, as drivers say it) and `camera/NAME/depth/camera_info` in;
`camera/NAME/points` (sensor_msgs/PointCloud2: x, y, z in m, float32) out, with the stamp of the image; one without
points where nothing is left. The points are those of `robolearn.pointcloud.cloud`, as in simulation, each once.

Parameters: `camera`, NAME; `hand_eye`, the file that `robolearn calibrate hand_eye` wrote, with those of the site:
without it, points are in the camera's optical frame; `near_m`, `far_m`; `low_m` and `high_m`, the box that is kept, in
the frame of the points; `voxel_m`, edge of the cubes whose points become one (0: all); `points`, how many at most;
`neighbours` and `deviations`: a point whose mean distance to so many neighbours (0: all stay) is so many standard
deviations above the mean is left out. `/diagnostics` once a second, about it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from real import ros
from real.connection import NEWEST, SENSED, Header, seconds
from real.nodes.report import OK, WARN, Report
from real.nodes.run import run
from real.nodes.tags import AHEAD_S, OLD_S, REPORT_S, mounted_by
from real.perception import transforms
from real.perception.clouds import cleaned
from real.perception.lens import Lens
from real.pictures import CameraInfo, Image, PointCloud2, cloud_message, depth_of, lens_of
from real.site import parameter, read_site
from real.spread import Spread
from robolearn.errors import ConfigError
from robolearn.pointcloud import CloudCfg, cloud


def read_cloud(node: Any) -> CloudCfg:
    """Of the parameters. Raises ConfigError."""
    usual = CloudCfg(points=20_000)
    names = ("near_m", "far_m", "low_m", "high_m", "voxel_m", "points")
    given = {name: parameter(node, name, getattr(usual, name)) for name in names}
    if len(given["low_m"]) != 3 or len(given["high_m"]) != 3:
        raise ConfigError("low_m and high_m must be x y z in m")
    try:
        return CloudCfg(**given | {name: tuple(given[name]) for name in ("low_m", "high_m")})
    except ValueError as error:
        raise ConfigError(str(error)) from None


class CloudNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("cloud")
        camera, file, self.cfg = parameter(self, "camera", "camera"), parameter(self, "hand_eye", ""), read_cloud(self)
        self._neighbours, self._deviations = parameter(self, "neighbours", 0), parameter(self, "deviations", 2.0)
        if self._neighbours < 0 or not self._deviations > 0.0:
            raise ConfigError("neighbours must be at least 0 and deviations above 0, "
                              f"got {self._neighbours}, {self._deviations}")  # fmt: skip
        site = read_site(self) if file else None
        self.mounted = mounted_by(self, site, file) if site else None
        self._frame = site.profile.base_frame if site else ""
        self.lens: Lens | None = None
        self._why = "no camera_info was heard"
        self._last_s, self._said = -np.inf, set[str]()
        self.counts, self.refused, self.took = {"images": 0, "clouds": 0}, dict[str, int](), Spread()
        self._told = dict(self.counts)
        self._report = Report(self, site.profile.robot if site else camera)
        self._out = self.create_publisher(PointCloud2, f"camera/{camera}/points", NEWEST)
        topic = f"camera/{camera}/depth"
        self.create_subscription(CameraInfo, f"{topic}/camera_info", self._on_info, SENSED)
        self.create_subscription(Image, f"{topic}/image_raw", self._on_depth, SENSED)
        self.create_timer(REPORT_S, self._say)
        self.get_logger().info(f"clouds of {topic}/image_raw in {self._frame or 'its own frame'}")

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def _on_info(self, message: Any) -> None:
        self.lens = None
        try:
            lens = lens_of(message)
        except (ValueError, ConfigError) as error:
            self._why = f"its camera_info cannot be used: {error}"
            return
        if lens is None:
            self._why = "the camera is not calibrated: its camera_info holds zeros"
        elif any(lens.distortion):
            self._why = "the depth images are distorted: subscribe to the driver's rectified ones"
        else:
            self.lens = lens

    def _on_depth(self, message: Any) -> None:
        began = time.monotonic()
        self.counts["images"] += 1
        if why := self._look(message):
            if why not in self._said:
                self._said.add(why)
                self.get_logger().warning(f"{why}; further ones are only counted")
            self.refused[why] = self.refused.get(why, 0) + 1
        self.took.add(time.monotonic() - began)

    def _look(self, message: Any) -> str:
        """Publish what an image shows, or say why it is of no use."""
        stamp_s, now_s, lens = seconds(message.header.stamp), self.now_s(), self.lens
        if lens is None:
            return self._why
        if not now_s - OLD_S <= stamp_s <= now_s + AHEAD_S:
            return "an image's stamp is not of now: do the clocks agree?"
        if stamp_s <= self._last_s <= now_s + AHEAD_S:
            return "an image's stamp is not newer than the last"
        self._last_s = stamp_s
        camera = self.mounted.at(stamp_s) if self.mounted else np.eye(4)
        if camera is None:
            return "no joint states of the image's time"
        try:
            points = self._points(depth_of(message), lens, camera)
        except ValueError as error:
            return f"a depth image cannot be used: {error}"
        header = Header(stamp=message.header.stamp, frame_id=self._frame or message.header.frame_id)
        self._out.publish(cloud_message(points, header))
        self.counts["clouds"] += 1
        return ""

    def _points(self, depth_m: Any, lens: Lens, camera: transforms.Floats) -> Any:
        """(N, 3) m. Raises ValueError."""
        if depth_m.shape != (lens.height, lens.width):
            raise ValueError(f"it is {depth_m.shape[1]} x {depth_m.shape[0]}, its camera_info is of {lens.width} x "
                             f"{lens.height}")  # fmt: skip
        intrinsics = torch.tensor([lens.fx, lens.fy, lens.cx, lens.cy])
        place = torch.from_numpy(transforms.pose(camera)).float()[None]
        points, found = cloud(torch.from_numpy(depth_m)[None], intrinsics, place, self.cfg)
        left = points[0, : int(found[0])]  # fewer than asked for are repeated behind these
        return cleaned(left, 0.0, self._neighbours, self._deviations).numpy() if self._neighbours else left.numpy()

    def _say(self) -> None:
        images, clouds = (self.counts[name] - self._told[name] for name in ("images", "clouds"))
        what = "sends clouds" if clouds else "no image can be used" if images else "no depth images come"
        self._report(OK if clouds else WARN, what,
                     {**self.counts, "processing, ms": str(self.took), **self.refused})  # fmt: skip
        self._told = dict(self.counts)
        self.took.clear()


def main(args: Sequence[str] | None = None) -> int:
    return run(CloudNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
