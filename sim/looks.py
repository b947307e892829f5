"""How a world looks in its pictures, environment by environment: light, colours, patterns, and where its cameras are.

A look is set by name, as numbers (B, n) that every engine reads in the same way:

| name | numbers |
|---|---|
| `light` | rotation vector (3, rad, world axes) of the light about the world's origin; factors of red, green, blue |
| `tint.ASSET` | red, green, blue in [0, 1], and the share (0 to 1) that they have in the asset's own colour |
| `pattern.ASSET` | one, an index of `PATTERNS`: what is printed on it, in shades of its colour |
| `camera.NAME` | shift (3, m) and rotation vector (3, rad), axes x right, y down, z forward; degrees added to fov |

ASSET is a robot, an object, or `ground`; patterns are for objects and the ground. `NEUTRAL` is how the scene was built.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robolearn.errors import unknown
from sim.scene import SceneCfg

PATTERNS = ("plain", "checker", "gradient", "noise")
NEUTRAL: dict[str, tuple[float, ...]] = {
    "light": (0.0, 0.0, 0.0, 1.0, 1.0, 1.0),
    "tint": (0.0, 0.0, 0.0, 0.0),
    "pattern": (0.0,),
    "camera": (0.0,) * 7,
}
KINDS = frozenset(NEUTRAL)
GROUND = "ground"


def names(scene: SceneCfg) -> dict[str, list[str]]:
    """What of a scene has a look, by kind."""
    things = [*scene.objects, *((GROUND,) if scene.ground else ())]
    return {
        "light": ["light"],
        "tint": [f"tint.{n}" for n in (*scene.robots, *things)],
        "pattern": [f"pattern.{n}" for n in things],
        "camera": [f"camera.{n}" for n in scene.cameras],
    }


def neutral(name: str, num_envs: int) -> Tensor:
    """(B, n): the numbers of a look with which nothing differs from how the scene was built."""
    return torch.tensor(NEUTRAL[name.partition(".")[0]]).expand(num_envs, -1)


class LookTable:
    """What was set, `name` -> (B, n); what never was is not in it."""

    def __init__(self, scene: SceneCfg, num_envs: int, kinds: frozenset[str] = KINDS):
        self.values: dict[str, Tensor] = {}
        self.num_envs = num_envs
        self._known = [name for kind, those in names(scene).items() if kind in kinds for name in those]

    def put(self, name: str, values: Tensor, mask: Tensor) -> None:
        """ValueError for a name that the scene or the engine does not have, and for numbers of another shape."""
        if name not in self._known:
            raise ValueError(unknown("look", name, self._known))
        before = self.values.get(name, neutral(name, self.num_envs))
        if values.shape != before.shape:
            raise ValueError(f"look '{name}' is {tuple(before.shape)}, got {tuple(values.shape)}")
        self.values[name] = torch.where(mask[:, None], values.float(), before)

    def row(self, env: int) -> dict[str, list[float]]:
        """One environment's looks as plain numbers."""
        return {name: values[env].tolist() for name, values in self.values.items()}
