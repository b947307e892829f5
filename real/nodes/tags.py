"""Objects by the tags on them: pictures of a calibrated camera in, poses in the robot's base frame out.

Topics below the robot's namespace: `camera/NAME/image_raw` (or, with `compressed`, `.../compressed` below it) and
`camera/NAME/camera_info` in; `objects/OBJECT` (geometry_msgs/PoseStamped) out, with the stamp of the picture. Of an
object that is not seen nothing is said: who reads it knows from the stamp. A camera in the hand is placed by the joint
states at the picture's stamp.

Parameters: those of the site; `camera`, NAME; `hand_eye`, the file that `robolearn calibrate hand_eye` wrote; `tags`:

  tags: {family: 36h11, objects: [cube], cube: {ids: [3], size_m: 0.04, poses: [0.0, 0.0, 0.025, 0.0, 0.0, 0.0, 1.0]}}

`poses` are those of the tags in the object's frame, seven numbers each. `/diagnostics` once a second, about it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from real import ros
from real.connection import NEWEST, SENSED, Header, JointReader, JointState, PoseStamped, seconds
from real.nodes.report import OK, WARN, Report
from real.nodes.run import run
from real.perception import hand_eye, transforms
from real.perception.lens import Lens
from real.perception.mounted import Mounted
from real.perception.tags import Tag, TagFinder
from real.pictures import CameraInfo, CompressedImage, Image, lens_of, picture_of
from real.site import Site, parameter, read_site
from real.spread import Spread
from robolearn.errors import ConfigError

REPORT_S = 1.0
OLD_S, AHEAD_S = 0.5, 0.1
"""A picture's stamp may be so old, and so far ahead."""
PLAIN = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def read_tags(node: Any) -> tuple[dict[str, list[Tag]], str]:
    """The table of the parameters, and the family. Raises ConfigError."""
    family = parameter(node, "tags.family", "36h11")
    table = {}
    for name in parameter(node, "tags.objects", [""]):
        if not name:
            continue
        ids, size_m = parameter(node, f"tags.{name}.ids", [-1]), parameter(node, f"tags.{name}.size_m", 0.0)
        poses = list(parameter(node, f"tags.{name}.poses", PLAIN * len(ids)))
        if len(poses) != 7 * len(ids):
            raise ConfigError(f"tags.{name}.poses has {len(poses)} numbers for {len(ids)} tags, of 7 each")
        table[name] = [Tag(int(n), size_m, tuple(poses[7 * k : 7 * k + 7])) for k, n in enumerate(ids)]
    return table, family


def mounted_by(node: Any, site: Site, file: str) -> Mounted:
    """The camera of a hand-eye file; one in the hand is carried by the joint states that the node hears. Raises
    ConfigError."""
    profile = site.profile
    camera = Mounted(hand_eye.load(Path(file)), site.robot, profile.base_frame, profile.tool_frame, site.frame,
                     np.array(site.base))  # fmt: skip
    reader = JointReader(site.wire_names(), site.robot, profile.limits.future_s)

    def hear(message: Any) -> None:
        if reader(message, node.now_s()):
            camera.add(reader.latest.stamp_s, reader.latest.position)

    if camera.moves:
        node.create_subscription(JointState, profile.state_topic, hear, SENSED)
    return camera


class TagsNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("tags")
        self.site = read_site(self)
        table, family = read_tags(self)
        if not table:
            raise ConfigError("`tags.objects` names no object; --help of real.nodes.tags shows a table of tags")
        self.finder = TagFinder(table, family)
        camera, mount = parameter(self, "camera", "camera"), parameter(self, "hand_eye", "")
        if not mount:
            raise ConfigError("the tags node needs `hand_eye`, the file that robolearn calibrate hand_eye writes")
        profile = self.site.profile
        self.mounted = mounted_by(self, self.site, mount)
        self.lens: Lens | None = None
        self._why = "no camera_info was heard"
        self._last_s, self._said = -np.inf, set[str]()
        self.counts, self.refused, self.took = {"pictures": 0, "objects": 0}, dict[str, int](), Spread()
        self._told = dict(self.counts)
        self._report = Report(self, profile.robot)
        self._out = {name: self.create_publisher(PoseStamped, f"objects/{name}", NEWEST) for name in table}
        topic = f"camera/{camera}/image_raw"
        self.create_subscription(CameraInfo, f"camera/{camera}/camera_info", self._on_info, SENSED)
        if parameter(self, "compressed", False):
            self.create_subscription(CompressedImage, f"{topic}/compressed", self._on_picture, SENSED)
        else:
            self.create_subscription(Image, topic, self._on_picture, SENSED)
        self.create_timer(REPORT_S, self._say)
        self.get_logger().info(f"looks for {', '.join(sorted(table))} in {topic}")

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def _on_info(self, message: Any) -> None:
        try:
            self.lens, self._why = lens_of(message), "the camera is not calibrated (robolearn calibrate intrinsics)"
        except (ValueError, ConfigError) as error:
            self.lens, self._why = None, f"its camera_info cannot be used: {error}"

    def _on_picture(self, message: Any) -> None:
        began = time.monotonic()
        self.counts["pictures"] += 1
        if why := self._look(message):
            if why not in self._said:
                self._said.add(why)
                self.get_logger().warning(f"{why}; further ones are only counted")
            self.refused[why] = self.refused.get(why, 0) + 1
        self.took.add(time.monotonic() - began)

    def _look(self, message: Any) -> str:
        """Publish what a picture shows, or say why it is of no use."""
        stamp_s, now_s = seconds(message.header.stamp), self.now_s()
        if self.lens is None:
            return self._why
        if not now_s - OLD_S <= stamp_s <= now_s + AHEAD_S:
            return "a picture's stamp is not of now: do the clocks agree?"
        if stamp_s <= self._last_s <= now_s + AHEAD_S:
            return "a picture's stamp is not newer than the last"
        self._last_s = stamp_s
        camera = self.mounted.at(stamp_s)
        if camera is None:
            return "no joint states of the picture's time"
        try:
            seen = self.finder.find(picture_of(message), self.lens)
        except ValueError as error:
            return f"a picture cannot be used: {error}"
        for name, sighting in seen.items():
            self._publish(name, transforms.pose(camera @ transforms.matrix(sighting.pose)), message.header.stamp)
        self.counts["objects"] += len(seen)
        return ""

    def _publish(self, name: str, pose: Any, stamp: Any) -> None:
        message = PoseStamped(header=Header(stamp=stamp, frame_id=self.site.profile.base_frame))
        place, turn = message.pose.position, message.pose.orientation
        place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w = (float(v) for v in pose)
        self._out[name].publish(message)

    def _say(self) -> None:
        pictures, seen = (self.counts[name] - self._told[name] for name in ("pictures", "objects"))
        what = "sees objects" if seen else "sees no object" if pictures else "no pictures come"
        figures = {**self.counts, "processing, ms": str(self.took), **self.refused, **self.finder.refused}
        self._report(OK if seen else WARN, what, figures)
        self._told = dict(self.counts)
        self.took.clear()


def main(args: Sequence[str] | None = None) -> int:
    return run(TagsNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
