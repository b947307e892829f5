"""Pictures for a calibration, from a camera node: of a board that stands still, each from another place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.cli._table import table
from robolearn.errors import ConfigError, UserError

if TYPE_CHECKING:
    from robolearn.cli.calibrate import CollectCfg

STILL_PX, ELSEWHERE_PX = 0.5, 25.0
"""Median move of a corner from one picture to the next, and from every picture that was kept."""
STILL_RADPS = 0.005
FRESH_S = 0.1


def collect(options: CollectCfg) -> int:
    """Until there are enough, or Ctrl-C."""
    from real import ros

    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: pictures of two sessions do not belong together")
    words = ["--ros-args", "-r", f"__ns:=/{options.namespace.strip('/')}" if options.namespace else "__ns:=/"]
    words += ["-p", f"robot:={options.robot}"] if options.robot else []
    words += ["--params-file", options.site] if options.site else []
    ros.init(words)
    try:
        collector = Collector(ros.Node("calibrate"), options, folder)
        until = time.monotonic() + options.timeout_s
        while ros.ok() and len(collector.kept) < options.count:
            if time.monotonic() > until:
                raise UserError(f"{len(collector.kept)} pictures in {options.timeout_s:g} s: {collector.lacks()}")
            ros.spin_once(collector.node, timeout_sec=0.1)
    finally:
        ros.shutdown()
    print(table([(name, f"{n} corners") for name, n in collector.kept]))
    return 0 if len(collector.kept) >= options.count else 130


class Collector:
    """Keeps what is worth keeping, as it comes."""

    def __init__(self, node: Any, options: CollectCfg, folder: Path):
        from real.connection import SENSED, JointReader, JointState
        from real.pictures import Image
        from real.site import read_site
        from robolearn.kinematics import Chain

        self.node, self.options, self.folder, self.board = node, options, folder, options.board()
        self.kept: list[tuple[str, int]] = []
        self._poses: list[tuple[str, Any]] = []
        self._last: Any = None
        self._shown: list[Any] = []
        self._pictures, self._boards = 0, 0
        self._reader = None
        if options.robot or options.site:
            site = read_site(node)
            self._reader = JointReader(site.wire_names(), site.robot, site.profile.limits.future_s)
            self._chain = Chain(site.robot.urdf, site.robot.ee_link, site.robot.joint_names)
            self._arm = list(site.robot.arm_ids)
            node.create_subscription(JointState, site.profile.state_topic, self._on_joints, SENSED)
        node.create_subscription(Image, f"camera/{options.camera}/image_raw", self._on_picture, SENSED)

    def lacks(self) -> str:
        if not self._pictures:
            return f"no picture was heard of camera {self.options.camera}"
        if not self._boards:
            return "the board was in none: is it this board, sharp and lit?"
        return "hold the board still, and somewhere else each time"

    def _on_joints(self, message: Any) -> None:
        assert self._reader is not None
        self._reader(message, 1e-9 * self.node.get_clock().now().nanoseconds)

    def _on_picture(self, message: Any) -> None:
        from real.perception.intrinsics import moved_px
        from real.pictures import picture_of

        self._pictures += 1
        try:
            picture = picture_of(message)
        except ValueError as error:
            raise UserError(f"the pictures of camera {self.options.camera} cannot be used: {error}") from None
        last, self._last = self._last, self.board.find(picture)
        if self._last is None or last is None:
            return
        self._boards += 1
        still = moved_px(last, self._last) < STILL_PX and self._arm_is_still()
        if still and all(moved_px(shown, self._last) > ELSEWHERE_PX for shown in self._shown):
            self._keep(picture)

    def _arm_is_still(self) -> bool:
        if self._reader is None:
            return True
        latest, now_s = self._reader.latest, 1e-9 * self.node.get_clock().now().nanoseconds
        return now_s - latest.stamp_s < FRESH_S and bool((np.abs(latest.velocity[self._arm]) < STILL_RADPS).all())

    def _keep(self, picture: Any) -> None:
        import torch

        from real.perception.sources import write_image
        from robolearn.cli.calibrate import POSES, write_poses

        name = f"{len(self.kept):03d}.png"
        write_image(self.folder / name, picture)
        self._shown.append(self._last)
        self.kept.append((name, len(self._last.ids)))
        if self._reader is not None:
            joints = torch.tensor(self._reader.latest.position, dtype=torch.float32)[None]
            self._poses.append((name, self._chain.pose(joints)[0].tolist()))
            write_poses(self.folder / POSES, self._poses)
        print(f"{len(self.kept)} of {self.options.count}: {name}", flush=True)
