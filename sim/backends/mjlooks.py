"""The looks of `sim.looks` in a MuJoCo model: rows of the fields that they change, put into a model before a picture
is drawn. No environment has a model of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.optional import lazy
from robolearn.rotations import from_rotation_vector, quat_apply, quat_mul
from sim.backends import looks
from sim.looks import GROUND, LookTable
from sim.scene import SceneCfg

mujoco = lazy("mujoco", extra="mujoco")
FIELDS = (
    "geom_rgba", "geom_matid", "light_pos", "light_dir", "light_diffuse", "light_specular", "cam_pos", "cam_quat",
    "cam_fovy",
)  # fmt: skip
HEADLIGHT = ("ambient", "diffuse", "specular")
OPTICAL = torch.tensor([1.0, -1.0, -1.0]).double()
"""From x right, y down, z forward to MuJoCo's camera axes, and back."""


class MjLooks:
    """`model` is the scene as it was built, with the materials of `looks.add_patterns`; copies of it can be dressed."""

    def __init__(self, model: Any, scene: SceneCfg, num_envs: int):
        self.table = LookTable(scene, num_envs)
        self.model, self.scene, self.num_envs = model, scene, num_envs
        self._own = {name: np.array(getattr(model, name)) for name in FIELDS}
        self._own["headlight"] = np.stack([np.array(getattr(model.vis.headlight, name)) for name in HEADLIGHT])
        self._rows: dict[str, np.ndarray] = {}
        """Field -> (B, ...), only of fields that a look has changed."""

    def put(self, name: str, values: Tensor, mask: Tensor) -> None:
        self.table.put(name, values, mask)
        kind, _, of = name.partition(".")
        getattr(self, f"_{kind}")(of, self.table.values[name].double())  # then neutral numbers change no bit

    def dress(self, model: Any, env: int) -> None:
        """Give a model one environment's looks."""
        for name, rows in self._rows.items():
            if name != "headlight":
                getattr(model, name)[:] = rows[env]
                continue
            for field, value in zip(HEADLIGHT, rows[env], strict=True):
                getattr(model.vis.headlight, field)[:] = value

    def _row(self, field: str) -> np.ndarray:
        if field not in self._rows:
            own = self._own[field]
            self._rows[field] = np.broadcast_to(own, (self.num_envs, *own.shape)).copy()
        return self._rows[field]

    def _light(self, _: str, values: Tensor) -> None:
        turn, factor = from_rotation_vector(values[:, :3])[:, None], values[:, None, 3:].numpy()
        for field in ("light_pos", "light_dir"):
            own = torch.from_numpy(self._own[field]).double()
            self._row(field)[:] = quat_apply(turn.expand(-1, len(own), 4), own.expand(len(turn), -1, 3)).numpy()
        for field in ("light_diffuse", "light_specular", "headlight"):
            self._row(field)[:] = self._own[field] * factor

    def _tint(self, asset: str, values: Tensor) -> None:
        ids = self._geoms(asset)
        own, colour, share = self._own["geom_rgba"][ids, :3], values[:, None, :3].numpy(), values[:, None, 3:].numpy()
        self._row("geom_rgba")[:, ids, :3] = own * (1.0 - share) + colour * share

    def _geoms(self, asset: str) -> list[int]:
        """What is painted of it: an object's tags and the ground's grid stay as they are."""
        if asset in self.scene.robots:
            bodies = [b for b in range(self.model.nbody) if self.model.body(b).name.startswith(f"{asset}/")]
            return [g for g in range(self.model.ngeom) if self.model.geom_bodyid[g] in bodies]
        names = [self.model.geom(g).name for g in range(self.model.ngeom)]
        return [g for g, name in enumerate(names) if name == asset or name.startswith(f"{asset}/")]

    def _pattern(self, asset: str, values: Tensor) -> None:
        ids = self._geoms(asset)
        kinds = [self._own["geom_matid"][ids[0]]]
        kinds += [self.model.material(looks.pattern_name(p, asset == GROUND)).id for p in looks.PRINTED]
        self._row("geom_matid")[:, ids] = np.array(kinds)[values[:, :1].long().numpy()]

    def _camera(self, camera: str, values: Tensor) -> None:
        i = self.model.camera(camera).id
        pos, quat = (torch.from_numpy(self._own[f])[i] for f in ("cam_pos", "cam_quat"))
        turned = quat[[1, 2, 3, 0]].expand(len(values), 4)
        shift, turn = values[:, :3] * OPTICAL, from_rotation_vector(values[:, 3:6] * OPTICAL)
        self._row("cam_pos")[:, i] = (pos + quat_apply(turned, shift)).numpy()
        self._row("cam_quat")[:, i] = quat_mul(turned, turn)[:, [3, 0, 1, 2]].numpy()
        self._row("cam_fovy")[:, i] = self._own["cam_fovy"][i] + values[:, 6].numpy()
