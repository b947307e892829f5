"""Pictures of a MuJoCo scene: colours, light, and what is drawn besides the bodies.

Pictures come from a model of their own, compiled with the robots' visual meshes, so that stepping pays
nothing for them. Policy cameras are fast (no shadows, no soft edges, no markers: no real camera sees a goal);
films are nice.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from robolearn.errors import UserError
from robolearn.optional import lazy
from sim.looks import PATTERNS
from sim.scene import Decal, SceneCfg

mujoco = lazy("mujoco", extra="mujoco")
PRINTED = PATTERNS[1:]
AXES = np.array([[0.87, 0.22, 0.2, 1.0], [0.25, 0.66, 0.3, 1.0], [0.16, 0.42, 0.88, 1.0]], np.float32)
HIDDEN, SHOWN = 3, 1
PLATE_M = 1.5e-5
"""Height of a decal's white above its object, and of the black above the white."""
NEAR_M, FAR_M = 0.02, 100.0
"""What is nearer to a camera or further away is not drawn."""
Frame = tuple[np.ndarray, np.ndarray, float]
"""Position (3,), rotation (3, 3), length in metres."""


class RenderError(UserError):
    """No picture can be made on this machine; the message says what is missing."""


def choose_gl() -> None:
    """Off-screen OpenGL where there is no display; MuJoCo reads the choice when it is imported."""
    logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.WARNING)  # tells what it does without
    if has_display():
        return
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's threads cost a small picture a third of its speed
    if "MUJOCO_GL" in os.environ:
        return
    for platform, library in (
        ("egl", "libEGL.so.1"),
        ("osmesa", "libOSMesa.so.8"),
        ("osmesa", "libOSMesa.so.6"),
    ):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        os.environ["MUJOCO_GL"] = platform
        return


def has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# --- into the model -----------------------------------------------------------------------------------------


def add_looks(spec: Any, ground: bool) -> None:
    """Sky, floor with a grid of half metres, one light with shadows; the camera's own light fills in.

    The grid is geometry: without a GPU a textured floor costs half the time of a picture.
    """
    sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=256, height=1536)
    sky.builtin, sky.rgb1, sky.rgb2 = (
        mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        [0.45, 0.58, 0.72],
        [0.8, 0.83, 0.87],
    )
    spec.add_material(name="robot", specular=0.35, shininess=0.55)
    key = spec.worldbody.add_light(pos=[2.2, -2.4, 5.0], dir=[-0.42, 0.45, -1.0], cutoff=40.0, exponent=12.0)
    key.diffuse, key.specular, key.castshadow = [0.66, 0.64, 0.61], [0.35] * 3, True
    head = spec.visual.headlight
    head.ambient, head.diffuse, head.specular = [0.42] * 3, [0.26] * 3, [0.05] * 3
    spec.visual.rgba.haze = [0.8, 0.83, 0.87, 1.0]
    spec.visual.map.shadowscale = 1.0
    _add_patterns(spec)
    if ground:
        floor = spec.geom("ground")  # finite: an infinite one takes four times as long
        floor.size, floor.rgba = [30.0, 30.0, 1.0], [0.5, 0.54, 0.59, 1.0]
        _add_grid(spec.worldbody)


def pattern_name(pattern: str, ground: bool) -> str:
    """Of the material: the ground's lies flat, an object's is wrapped around it."""
    return f"{pattern}/{'ground' if ground else 'object'}"


def _add_patterns(spec: Any) -> None:
    """A material for each of `PRINTED`. Nothing wears one until a look says so: tints cost no time, textures do without
    a GPU. The colour stays the geom's."""
    kinds = mujoco.mjtBuiltin
    builtin = {"checker": kinds.mjBUILTIN_CHECKER, "gradient": kinds.mjBUILTIN_GRADIENT, "noise": kinds.mjBUILTIN_FLAT}
    for pattern in PRINTED:
        for ground in (False, True):
            name = pattern_name(pattern, ground)
            texture = spec.add_texture(name=name, width=64, height=64 if ground else 384)
            texture.type = mujoco.mjtTexture.mjTEXTURE_2D if ground else mujoco.mjtTexture.mjTEXTURE_CUBE
            texture.builtin, texture.rgb1, texture.rgb2 = builtin[pattern], [1.0] * 3, [0.55] * 3
            if pattern == "noise":
                texture.mark, texture.random, texture.markrgb = mujoco.mjtMark.mjMARK_RANDOM, 0.3, [0.5] * 3
            material = spec.add_material(name=name, specular=0.35, shininess=0.55, texrepeat=[1.0, 1.0])
            material.texuniform = ground  # one repetition a metre
            material.textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = name


def _add_grid(world: Any, half_m: float = 4.0, step_m: float = 0.5) -> None:
    for at in np.arange(-half_m, half_m + step_m / 2, step_m):
        for pos, size in (([at, 0, 0], [0.004, half_m, 0.0005]), ([0, at, 0], [half_m, 0.004, 0.0005])):
            line = world.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=size, rgba=[0.62, 0.66, 0.71, 1.0])
            line.contype = line.conaffinity = 0


def add_decal(body: Any, decal: Decal) -> None:
    """A white plate with the black cells of each row on it, neighbours in one piece, as geometry: edges are exact."""
    frame = body.add_frame(pos=list(decal.pose[:3]), quat=[decal.pose[6], *decal.pose[3:6]])
    rows, columns, edge = len(decal.cells), len(decal.cells[0]), decal.cell_m
    pieces = [(0.0, 0.0, columns, rows, PLATE_M, [0.95, 0.95, 0.95, 1.0])]
    for k, row in enumerate(decal.cells):
        for first, last in _runs(row):
            middle = (first + last) / 2.0 - columns / 2.0
            pieces.append((middle, rows / 2.0 - k - 0.5, last - first, 1, 2.0 * PLATE_M, [0.03, 0.03, 0.03, 1.0]))
    for x, y, wide, high, top, rgba in pieces:
        size = [wide * edge / 2.0, high * edge / 2.0, top / 2.0]
        piece = body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=[x * edge, y * edge, top / 2.0], size=size, rgba=rgba)
        piece.contype, piece.conaffinity, piece.mass = 0, 0, 0.0
        piece.set_frame(frame)


def _runs(row: tuple[bool, ...]) -> Iterator[tuple[int, int]]:
    """Begin and end of each run of True."""
    padded = np.diff(np.array([False, *row, False], np.int8))
    yield from zip(np.flatnonzero(padded == 1).tolist(), np.flatnonzero(padded == -1).tolist(), strict=True)


def paint(child: Any) -> None:
    """Show a robot's visual meshes; links that have none show their collision shapes, the last ones dark."""
    for mesh in child.meshes:
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL  # open meshes are fine: this model is never stepped
    dressed = {g.parent.name for g in child.geoms if _is_visual(g)}
    for geom in child.geoms:
        bare = geom.parent.name not in dressed
        geom.group = SHOWN if bare or _is_visual(geom) else HIDDEN
        if bare:
            dark = geom.parent.name.endswith(("hand", "finger", "pole"))
            geom.rgba = [0.23, 0.25, 0.28, 1.0] if dark else [0.93, 0.94, 0.95, 1.0]


def _is_visual(geom: Any) -> bool:
    return geom.contype == 0 and geom.conaffinity == 0


# --- out of it ----------------------------------------------------------------------------------------------


class Painter:
    """Draws states of one scene through its cameras."""

    def __init__(self, model: Any, scene: SceneCfg):
        self.model, self.scene = model, scene
        self.data = mujoco.MjData(model)
        model.vis.map.znear, model.vis.map.zfar = (at / model.stat.extent for at in (NEAR_M, FAR_M))
        for geom in range(model.ngeom):
            if model.geom_bodyid[geom] > 0:
                model.geom_matid[geom] = model.material("robot").id
        self._full = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._renderers: dict[Any, Any] = {}

    def put(self, state: np.ndarray) -> None:
        """Stand as in `state`, one environment's full physics state."""
        mujoco.mj_setState(self.model, self.data, state, self._full)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def picture(self, camera: str, state: np.ndarray, goals: dict[str, list[float]],
                film: tuple[int, int] | None = None) -> np.ndarray:  # fmt: skip
        """(H, W, 3) uint8 at the camera's own size, or at `film`'s (height, width) with shadows, soft edges,
        goals and the robots' end-effector frames."""
        cfg = self.scene.cameras[camera]
        height, width = (cfg.height, cfg.width) if film is None else (2 * film[0], 2 * film[1])
        renderer = self._renderer((height, width), nice=film is not None)
        self.put(state)
        renderer.update_scene(self.data, camera)
        if film is not None:
            draw_frames(renderer.scene, self.frames(goals))
        pixels = renderer.render()
        return pixels if film is None else _halved(pixels)

    def depth(self, camera: str, state: np.ndarray) -> np.ndarray:
        """(H, W) float32 metres along the optical axis, infinity where there is nothing."""
        cfg = self.scene.cameras[camera]
        renderer = self._renderer((cfg.height, cfg.width), nice=False)
        self.put(state)
        renderer.update_scene(self.data, camera)
        renderer.enable_depth_rendering()
        try:
            far = renderer.render()
        finally:
            renderer.disable_depth_rendering()
        return np.where(far < 0.99 * FAR_M, far, np.inf).astype(np.float32)

    def frames(self, goals: dict[str, list[float]]) -> Iterable[Frame]:
        for name, pose in goals.items():
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, np.array([pose[6], *pose[3:6]]))
            yield np.array(pose[:3]), rotation.reshape(3, 3), self.scene.markers[name].length_m
        for name, robot in self.scene.robots.items() if goals else ():
            body = self.data.body(f"{name}/{robot.spec.ee_link}")
            yield body.xpos, body.xmat.reshape(3, 3), 0.06 if robot.spec.quadrotor is None else 0.03

    def _renderer(self, size: tuple[int, int], nice: bool) -> Any:
        if (size, nice) not in self._renderers:
            self._renderers[size, nice] = self._new_renderer(*size, nice)
        return self._renderers[size, nice]

    def _new_renderer(self, height: int, width: int, nice: bool) -> Any:
        looks = self.model.vis
        looks.global_.offheight, looks.global_.offwidth = height, width
        looks.quality.shadowsize, looks.quality.offsamples = 2048 if nice else 0, 0
        try:
            renderer = mujoco.Renderer(self.model, height, width)
        except Exception as error:  # MuJoCo raises what the GL platform raised
            raise RenderError(
                f"MuJoCo cannot open an off-screen GL context ({error}); install libegl1 or libosmesa6 and "
                "set MUJOCO_GL=egl or MUJOCO_GL=osmesa before the program starts"
            ) from error
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = nice
        return renderer

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


def _halved(pixels: np.ndarray) -> np.ndarray:
    """Mean of each 2 x 2 block: on a CPU a cheaper and smoother edge than multisampling."""
    height, width, _ = pixels.shape
    blocks = pixels.reshape(height // 2, 2, width // 2, 2, 3).astype(np.uint16)
    return ((blocks.sum((1, 3)) + 2) // 4).astype(np.uint8)


def draw_frames(scene: Any, frames: Iterable[Frame]) -> None:
    """Red, green, blue triads added to an mjvScene."""
    for origin, rotation, length in frames:
        radius = 0.05 * length + 0.001
        _add(
            scene,
            mujoco.mjtGeom.mjGEOM_SPHERE,
            origin,
            origin,
            1.6 * radius,
            np.array([0.2, 0.2, 0.2, 1], np.float32),
        )
        for axis, colour in zip(rotation.T, AXES, strict=True):
            _add(scene, mujoco.mjtGeom.mjGEOM_CAPSULE, origin, origin + length * axis, radius, colour)


def _add(scene: Any, kind: Any, start: np.ndarray, end: np.ndarray, radius: float, rgba: np.ndarray) -> None:
    if scene.ngeom >= scene.maxgeom:
        return
    geom = scene.geoms[scene.ngeom]
    mujoco.mjv_initGeom(geom, kind, np.full(3, radius), start, np.eye(3).ravel(), rgba)
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        mujoco.mjv_connector(geom, kind, radius, start, end)
    geom.emission, geom.specular = 0.35, 0.2
    scene.ngeom += 1
