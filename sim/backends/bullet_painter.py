"""Pictures of PyBullet worlds by Bullet's software renderer, in a client that has what pictures need and that
never steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.backends.bullet_world import World, pybullet

NEAR_M, FAR_M = 0.02, 50.0
AXES = ((0.85, 0.2, 0.2, 1.0), (0.2, 0.7, 0.3, 1.0), (0.2, 0.4, 0.9, 1.0))
AWAY = (0.0, 0.0, -1000.0)


class Painter:
    def __init__(self, world: World):
        self.world, self.client = world, world.client
        self.triads = {name: self._triad(length) for name, length in world.plan.markers.items()}

    def _bar(self, half: list[float], rgba: tuple[float, ...]) -> int:
        """A box to look at, out of sight."""
        shape = pybullet.createVisualShape(
            pybullet.GEOM_BOX, halfExtents=half, rgbaColor=rgba, physicsClientId=self.client
        )
        body: int = pybullet.createMultiBody(0.0, -1, shape, AWAY, physicsClientId=self.client)
        return body

    def _triad(self, length: float) -> list[int]:
        thin = 0.04 * length
        return [
            self._bar([length / 2 if i == axis else thin for i in range(3)], rgba) for axis, rgba in enumerate(AXES)
        ]

    def picture(self, row: np.ndarray, eye: list[float], target: list[float], link: str | None, fov_deg: float,
                width: int, height: int, film: bool, markers: dict[str, list[float]]) -> bytes:  # fmt: skip
        """(height, width, 3) uint8 of a row's state; `eye` and `target` are in the link's frame if there is one."""
        self.world.put(row)
        for name, bodies in self.triads.items():
            self._mark(name, bodies, markers.get(name) if film else None)
        place = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
        if link is not None:
            place = self._link_pose(link)
        eye_at, target_at, tip = (_shifted(place, p) for p in (eye, target, np.add(eye, _up(eye, target))))
        up = np.subtract(tip, eye_at).tolist()
        view = pybullet.computeViewMatrix(eye_at, target_at, up, physicsClientId=self.client)
        lens = pybullet.computeProjectionMatrixFOV(fov_deg, width / height, NEAR_M, FAR_M)
        _, _, rgba, _, _ = pybullet.getCameraImage(
            width, height, view, lens, shadow=int(film), renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK, lightDirection=(1.0, -1.5, 3.0), physicsClientId=self.client,
        )  # fmt: skip
        return np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3].tobytes()

    def _link_pose(self, link: str) -> Any:
        asset, _, name = link.partition("/")
        poses = self.world.link_poses(asset)
        at = 7 * self.world.plan.robots[asset].links.index(name)
        return poses[at : at + 3], poses[at + 3 : at + 7]

    def _mark(self, name: str, bodies: list[int], pose: list[float] | None) -> None:
        for axis, body in enumerate(bodies):
            place, turn = AWAY, (0.0, 0.0, 0.0, 1.0)
            if pose is not None:
                shift = [0.0] * 3
                shift[axis] = self.world.plan.markers[name] / 2
                place, turn = pybullet.multiplyTransforms(pose[:3], pose[3:], shift, turn)
            pybullet.resetBasePositionAndOrientation(body, place, turn, physicsClientId=self.client)


def _up(eye: list[float], target: list[float]) -> list[float]:
    """z, or y for a camera that looks along z."""
    x, y, _ = np.subtract(target, eye)
    return [0.0, 1.0, 0.0] if np.hypot(x, y) < 1e-6 else [0.0, 0.0, 1.0]


def _shifted(pose: Any, point: Any) -> list[float]:
    """A point of a frame, in the world."""
    return list(pybullet.multiplyTransforms(*pose, list(point), (0.0, 0.0, 0.0, 1.0))[0])
