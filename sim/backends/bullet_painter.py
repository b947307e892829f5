"""Pictures of PyBullet worlds by Bullet's software renderer, in a client that has what pictures need and that
never steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.backends.bullet_world import World, pybullet

NEAR_M, FAR_M = 0.02, 50.0
AXES = ((0.85, 0.2, 0.2, 1.0), (0.2, 0.7, 0.3, 1.0), (0.2, 0.4, 0.9, 1.0))
AWAY = (0.0, 0.0, -1000.0)
LIGHT = (1.0, -1.5, 3.0)
AMBIENT = 0.6
"""Bullet's own; it has no colour there, so that a coloured light dims it by the mean of its factors."""
Look = dict[str, list[float]]
"""One environment's numbers of `sim.looks`, by name."""


class Painter:
    def __init__(self, world: World):
        self.world, self.client = world, world.client
        self._tints: dict[str, list[float]] = {}
        self._colours: dict[str, Any] = {}
        """By asset: body, link, shape and its own colour, of all its shapes."""
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
                width: int, height: int, film: bool, markers: dict[str, list[float]], look: Look,
                camera: str) -> bytes:  # fmt: skip
        """(height, width, 3) uint8 of a row's state; `eye` and `target` are in the link's frame if there is one."""
        self.world.put(row)
        for name, numbers in look.items():
            if name.startswith("tint."):
                self._tint(name.partition(".")[2], numbers)
        for name, bodies in self.triads.items():
            self._mark(name, bodies, markers.get(name) if film else None)
        place = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
        if link is not None:
            place = self._link_pose(link)
        moved = look.get(f"camera.{camera}", [0.0] * 7)
        corners = _seen_from(eye, target, moved[:3], moved[3:6])
        eye_at, target_at, tip = (_shifted(place, p) for p in corners)
        up = np.subtract(tip, eye_at).tolist()
        view = pybullet.computeViewMatrix(eye_at, target_at, up, physicsClientId=self.client)
        lens = pybullet.computeProjectionMatrixFOV(fov_deg + moved[6], width / height, NEAR_M, FAR_M)
        turn, factor = np.split(np.array(look.get("light", [0.0] * 3 + [1.0] * 3)), 2)
        _, _, rgba, _, _ = pybullet.getCameraImage(
            width, height, view, lens, shadow=int(film), renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK, lightDirection=_turned(turn, LIGHT), lightColor=factor.tolist(),
            lightAmbientCoeff=AMBIENT * float(factor.mean()), physicsClientId=self.client,
        )  # fmt: skip
        return np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3].tobytes()

    def _tint(self, asset: str, tint: list[float]) -> None:
        if self._tints.get(asset, [0.0] * 4) == tint:
            return
        if asset not in self._colours:
            body = self.world.ground if asset == "ground" else self.world.parts[asset].body
            shapes = pybullet.getVisualShapeData(body, physicsClientId=self.client)
            order = [sum(s[1] == shapes[i][1] for s in shapes[:i]) for i in range(len(shapes))]  # within its link
            self._colours[asset] = [(body, s[1], k, np.array(s[7])) for s, k in zip(shapes, order, strict=True)]
        for body, link, shape, own in self._colours[asset]:
            mixed = [*(own[:3] * (1.0 - tint[3]) + np.array(tint[:3]) * tint[3]), own[3]]
            pybullet.changeVisualShape(body, link, shapeIndex=shape, rgbaColor=mixed, physicsClientId=self.client)
        self._tints[asset] = tint

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


def _up(eye: Any, target: Any) -> list[float]:
    """z; for a camera that looks along z the one that keeps x on its right, as in every engine."""
    x, y, z = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    return [0.0, -float(np.sign(z)), 0.0] if np.hypot(x, y) < 1e-6 else [0.0, 0.0, 1.0]


def _turned(turn: Any, point: Any) -> list[float]:
    """A point, turned by a rotation vector about the origin."""
    angle = float(np.linalg.norm(turn))
    if angle == 0.0:
        return list(point)
    quat = [*(np.array(turn) / angle * np.sin(angle / 2)), np.cos(angle / 2)]
    return list(pybullet.multiplyTransforms((0.0, 0.0, 0.0), quat, list(point), (0.0, 0.0, 0.0, 1.0))[0])


def _seen_from(eye: Any, target: Any, shift: list[float], turn: list[float]) -> list[Any]:
    """Eye, target, and a point above the eye, of a camera that is moved in its own frame (x right, y down, z ahead)."""
    up = _up(eye, target)
    if not any(shift) and not any(turn):
        return [eye, target, np.add(eye, up)]
    ahead = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(ahead, up) / np.linalg.norm(np.cross(ahead, up))
    axes = np.stack((right, np.cross(ahead, right), ahead), axis=1)
    at = np.add(eye, axes @ shift)
    return [at, *(at + axes @ _turned(turn, axis) for axis in ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0)))]


def _shifted(pose: Any, point: Any) -> list[float]:
    """A point of a frame, in the world."""
    return list(pybullet.multiplyTransforms(*pose, list(point), (0.0, 0.0, 0.0, 1.0))[0])
