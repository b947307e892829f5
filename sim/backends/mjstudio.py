"""Many small pictures of a MuJoCo scene, fast: what policies see.

Without a GPU nearly all of a picture's time goes into the corners of what is drawn, seen or not. So robots are drawn
with coarser meshes, boxes as six plain faces, and what is outside the camera's view is left out beforehand. Films and
depth are `looks.Painter`'s, with everything.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from robolearn.optional import lazy
from sim.backends.looks import Painter
from sim.backends.mjlooks import MjLooks
from sim.scene import SceneCfg

mujoco = lazy("mujoco", extra="mujoco")
DETAIL = 14.0
"""Cells along the diagonal of a mesh; one corner stays in each. A link of a quarter of a metre keeps 2 cm, which is
two pixels of 84 from 1.5 m away."""
THREAD = threading.local()
"""Holds the sketcher of a studio's thread, which so ends with the thread and in it, whoever drops the studio."""
State = Callable[[int], np.ndarray]
"""An environment's state, as `Painter.put` takes it."""


def coarsen(model: Any) -> None:
    """Merge the corners of each mesh that share a cell, and drop the faces that vanish. Corners stay where they were
    and keep their normals, so that what is left is as round as before. For drawing only: hulls and inertia stay."""
    for mesh in range(model.nmesh):
        first, corners = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
        kept = _kept_corner(model.mesh_vert[first : first + corners])[model.mesh_face[faces]]
        solid = (kept != np.roll(kept, 1, axis=1)).all(axis=1)
        _, once = np.unique(np.sort(kept, axis=1), axis=0, return_index=True)
        stays = np.intersect1d(np.flatnonzero(solid), once)
        part = slice(faces.start, faces.start + len(stays))
        model.mesh_face[part] = kept[stays]
        for name in ("mesh_facenormal", "mesh_facetexcoord"):
            getattr(model, name)[part] = getattr(model, name)[faces][stays]
        model.mesh_facenum[mesh] = len(stays)


def _kept_corner(points: np.ndarray) -> np.ndarray:
    """(V,) for each of the points (V, 3): the one of its cell that is nearest to their mean."""
    cell = np.linalg.norm(np.ptp(points, axis=0)) / DETAIL
    _, of = np.unique(np.round((points - points.mean(0)) / cell), axis=0, return_inverse=True)
    of = of.ravel()
    mean = np.stack([np.bincount(of, column) for column in points.T], axis=1) / np.bincount(of)[:, None]
    order = np.lexsort((np.linalg.norm(points - mean[of], axis=1), of))
    return order[np.searchsorted(of[order], np.arange(len(mean)))][of]


class Sketcher(Painter):
    """Draws for one thread, in which it must be made, used and closed: that is what a GL context asks for."""

    def __init__(self, model: Any, scene: SceneCfg):
        super().__init__(model, scene)
        model.vis.quality.numquads = 1
        self._alpha = np.array(model.geom_rgba[:, 3])

    def sketch(self, cameras: Sequence[str], state: np.ndarray, out: Sequence[np.ndarray]) -> None:
        """What these cameras see, into arrays (H, W, 3) uint8."""
        self.put(state)
        for name, picture in zip(cameras, out, strict=True):
            renderer = self._renderer(picture.shape[:2], nice=False)
            self.model.geom_rgba[:, 3] = np.where(self._seen(self.model.camera(name).id), self._alpha, 0.0)
            renderer.update_scene(self.data, name)
            renderer.render(out=picture)

    def _seen(self, camera: int) -> np.ndarray:
        """(geoms,) bool: False for what lies outside the camera's view for certain."""
        data, radius = self.data, self.model.geom_rbound
        x, y, back = ((data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)).T
        resolution = self.scene.cameras[self.model.camera(camera).name]
        half = np.radians(self.model.cam_fovy[camera]) / 2.0
        across = np.arctan(np.tan(half) * resolution.width / resolution.height)
        beside = np.maximum(
            np.abs(x) * np.cos(across) + back * np.sin(across), np.abs(y) * np.cos(half) + back * np.sin(half)
        )
        return (radius == 0.0) | (np.maximum(beside, back) <= radius)  # planes have no radius


class Studio:
    """Sketchers in threads, each with a GL context and a copy of the model of its own, made at their first picture."""

    def __init__(self, looks: MjLooks, scene: SceneCfg, threads: int):
        self.looks, self.scene, self.threads = looks, scene, threads
        self._pool = ThreadPoolExecutor(threads, "pictures")
        self._plain = copy.copy(looks.model)
        coarsen(self._plain)

    def pictures(self, cameras: Sequence[str], state: State, envs: Sequence[int]) -> dict[str, np.ndarray]:
        """Camera -> (n, H, W, 3) uint8 of these environments."""
        sizes = [(self.scene.cameras[c].height, self.scene.cameras[c].width) for c in cameras]
        out = [np.empty((len(envs), *size, 3), np.uint8) for size in sizes]

        def draw(rows: np.ndarray) -> None:
            sketcher = self._sketcher()
            for row in rows.tolist():
                self.looks.dress(sketcher.model, envs[row])
                sketcher.sketch(cameras, state(envs[row]), [pictures[row] for pictures in out])

        parts = np.array_split(np.arange(len(envs)), self.threads)
        jobs = [self._pool.submit(draw, rows) for rows in parts if len(rows)]
        wait(jobs)
        for job in jobs:
            job.result()
        return dict(zip(cameras, out, strict=True))

    def _sketcher(self) -> Sketcher:
        """This thread's."""
        if not hasattr(THREAD, "sketcher"):
            THREAD.sketcher = Sketcher(copy.copy(self._plain), self.scene)
        sketcher: Sketcher = THREAD.sketcher
        return sketcher

    def close(self) -> None:
        self._pool.shutdown()
