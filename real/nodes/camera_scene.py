"""A camera in a simulated scene, in a process of its own: the twin's tick pays nothing for pictures. No ROS."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from real.nodes.twin_arm import ROBOT, scene_of
from real.perception.lens import Lens
from real.perception.sources import Depth
from real.perception.tags import Tag, cells_of
from robolearn import config
from robolearn.errors import ConfigError, unknown
from robolearn.rotations import quat_apply, quat_mul
from robolearn.spec import RobotSpec
from sim.cameras import optical_frame
from sim.scene import CameraCfg, Decal, SceneCfg

QUIET = 1
"""White cells around a tag."""
RAYS = 2
"""Per pixel, in each direction."""


def camera_of(task: str, name: str) -> CameraCfg:
    """Of a task's scene. Raises ConfigError."""
    config.discover(("sim.tasks",))
    made = config.entry("task", task).config
    cameras = config.build(made()).scene().cameras if made else {}
    if name not in cameras:
        raise ConfigError(unknown(f"camera in the scene of {task}", name, list(cameras)))
    camera: CameraCfg = cameras[name]
    return camera


def camera_at(eye: Sequence[float], target: Sequence[float], fov_deg: float, link: str) -> CameraCfg:
    """One of one's own. Raises ConfigError."""
    if len(eye) != 3 or len(target) != 3 or not 0.0 < fov_deg < 180.0:
        raise ConfigError("eye_m and target_m must be x y z in m, fov_deg between 0 and 180")
    return CameraCfg((eye[0], eye[1], eye[2]), (target[0], target[1], target[2]), fov_deg, link=link or None)


def lens_of(camera: CameraCfg, name: str) -> Lens:
    """What a simulated camera knows of itself."""
    return Lens(camera.width, camera.height, *camera.intrinsics, name=name)


def tagged(scene: SceneCfg, tags: Mapping[str, Sequence[Tag]], family: str) -> SceneCfg:
    """With the tags drawn on their objects. Raises ConfigError for tags on what is not there."""
    objects = dict(scene.objects)
    for name, table in tags.items():
        if name not in objects:
            raise ConfigError(unknown("object to put a tag on", name, list(objects)))
        decals = tuple(_decal(tag, family) for tag in table)
        objects[name] = dataclasses.replace(objects[name], decals=decals)
    return dataclasses.replace(scene, objects=objects)


def _decal(tag: Tag, family: str) -> Decal:
    cells = cells_of(family, tag.id)
    rows = tuple(tuple(bool(cell) for cell in row) for row in np.pad(cells, QUIET))
    return Decal(rows, tag.size_m / len(cells), tuple(tag.pose))  # type: ignore[arg-type]


class Studio:
    """One robot, the objects of a task's scene, and a camera that looks at them."""

    def __init__(self, robot: RobotSpec, task: str, camera: CameraCfg, tags: Mapping[str, Sequence[Tag]] | None = None,
                 family: str = "36h11"):  # fmt: skip
        """`camera.link`, if set, is a link of the robot."""
        config.discover(("sim.backends",))
        link = None if camera.link is None else f"{ROBOT}/{camera.link}"
        fine = dataclasses.replace(camera, width=RAYS * camera.width, height=RAYS * camera.height, link=link)
        scene = tagged(scene_of(robot, task), tags or {}, family)
        scene = dataclasses.replace(scene, cameras={"camera": fine})
        made = config.entry("backend", "mujoco").config
        assert made is not None
        self.backend = config.build(made(), scene=scene, num_envs=1, device=torch.device("cpu"), seed=0)
        self.camera = camera
        self.objects = tuple(n for n, o in scene.objects.items() if not o.fixed)
        self._everyone, self._still = torch.ones(1, dtype=torch.bool), torch.zeros(1, 6)

    def optical_frame(self) -> NDArray[np.float64]:
        """(7,) of the camera in its link, or in the robot's base: the hand-eye calibration that it has."""
        frame = optical_frame(self.camera)
        if self.camera.link is None:
            root = self.backend.pose(ROBOT)[0]
            back = root * torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0])
            place = quat_apply(back[3:], frame[:3] + back[:3])
            frame = torch.cat((place, quat_mul(back[3:], frame[3:])))
        return frame.double().numpy()

    def pose(self, joints: NDArray[np.float64], objects: Mapping[str, NDArray[np.float64]]) -> None:
        """Joints (J,), and poses (7,) of objects in the robot's base frame; what is not named stays."""
        at = torch.tensor(joints, dtype=torch.float32)[None]
        self.backend.write_joints(ROBOT, at, torch.zeros_like(at), self._everyone)
        root = self.backend.pose(ROBOT)
        for name, pose in objects.items():
            there = torch.tensor(pose, dtype=torch.float32)[None]
            place = root[:, :3] + quat_apply(root[:, 3:], there[:, :3])
            turned = torch.cat((place, quat_mul(root[:, 3:], there[:, 3:])), dim=1)
            self.backend.write_pose(name, turned, self._still, self._everyone)
        self.backend.forward()

    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB. The first call decides for ever in which thread pictures are drawn."""
        fine = self.backend.render("camera", [0])[0]
        height, width = self.camera.height, self.camera.width
        sums = fine.reshape(height, RAYS, width, RAYS, 3).astype(np.uint16).sum((1, 3))
        return ((sums + RAYS * RAYS // 2) // (RAYS * RAYS)).astype(np.uint8)

    def depth(self) -> Depth:
        """Of one ray a pixel, the first of those that the picture's are the mean of: its lens knows that it looks a
        quarter of a pixel up and to the left. In the same thread as `picture`."""
        lens = lens_of(self.camera, "depth")
        fine = self.backend.depth("camera", [0])[0]
        first = (RAYS - 1) / (2.0 * RAYS)
        return Depth(np.ascontiguousarray(fine[::RAYS, ::RAYS], dtype=np.float32),
                     dataclasses.replace(lens, cx=lens.cx + first, cy=lens.cy + first))  # fmt: skip

    def close(self) -> None:
        self.backend.close()
