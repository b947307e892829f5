"""Worlds with cameras for the tests of pictures and looks: the cart-pole, photographed."""

import contextlib
import dataclasses

import pytest
import torch

from robolearn import config, registry
from robolearn.spec import Field, ObservationSpec, TermSpec
from sim.backends.mujoco import MujocoCfg
from sim.backends.pybullet import PybulletCfg
from sim.env import SimEnv
from sim.randomize import LooksCfg, RandomizeCfg
from sim.scene import Box, CameraCfg, ObjectCfg
from sim.tasks.toy.cartpole import Cartpole, CartpoleCfg

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
B, EDGE = 4, 0.08
CUBE = (0.35, 0.2, 1.1)
FRONT = CameraCfg((0.3, 2.0, 1.6), (0.1, 0.0, 1.0), fov_deg=50.0, width=64, height=48)
RIDING = CameraCfg((0.0, 0.6, 0.3), (0.3, 0.2, 0.1), fov_deg=60.0, width=40, height=40, link="robot/cart")
CAMERAS = {"front": FRONT, "riding": RIDING}
ENGINES = {"mujoco": MujocoCfg(threads=1), "pybullet": PybulletCfg(workers=1)}
FLOWERY = LooksCfg(0.4, (0.6, 1.2), 0.2, 0.6, 0.4, 0.4, 0.0, 0.03, 0.05, 2.0)


@dataclasses.dataclass
class PhotographedCfg(CartpoleCfg):
    name: str = "photographed"
    cameras: tuple[str, ...] = ("front", "riding")
    size: tuple[int, int] | None = None
    """Of the fields, where it is not the cameras' own."""
    also: tuple[str, ...] = ()
    """Cameras of the critic."""
    vector: bool = True


class Photographed(Cartpole):
    """The cart-pole with a red cube and two cameras, one of which rides on the cart."""

    cfg: PhotographedCfg

    def scene(self):
        cube = ObjectCfg(Box((EDGE,) * 3), fixed=True, pose=(*CUBE, 0.0, 0.0, 0.0, 1.0), rgba=(1.0, 0.0, 0.0, 1.0))
        return dataclasses.replace(super().scene(), objects={"cube": cube}, cameras=CAMERAS)

    def observation_spec(self):
        plain = super().observation_spec().groups["policy"] if self.cfg.vector else ()
        groups = {"policy": (*plain, *(self._seen(c) for c in self.cfg.cameras))}
        return ObservationSpec(groups | {"critic": tuple(self._seen(c) for c in self.cfg.also)})

    def _seen(self, camera):
        cfg = CAMERAS.get(camera, FRONT)
        shape = (*(self.cfg.size or (cfg.height, cfg.width)), 3)
        return TermSpec(Field(camera, shape, kind="image", dtype="uint8"), "image", {"camera": camera})


@contextlib.contextmanager
def worlds():
    """Gives build(engine, looks=..., **task settings) -> a SimEnv, which is closed at the end."""
    opened = []

    def build(engine="mujoco", num_envs=B, seed=0, looks=None, **changes):
        if engine == "pybullet":
            pytest.importorskip("pybullet", reason="PyBullet is not installed (extra bullet)")
        spread = changes.pop("randomize", RandomizeCfg(initial_joint_pos=0.1, initial_joint_vel=0.1))
        spread = dataclasses.replace(spread, looks=looks or LooksCfg())
        opened.append(SimEnv(PhotographedCfg(randomize=spread, **changes), ENGINES[engine], num_envs, seed=seed))
        return opened[-1]

    registry.register("task", "photographed", PhotographedCfg)(Photographed)
    try:
        yield build
    finally:
        del registry._REGISTRY["task"]["photographed"]
        for env in opened:
            env.close()


def push(env):
    return torch.linspace(-1.0, 1.0, env.num_envs)[:, None]


def pictures(obs):
    return {key.partition("/")[2]: value for key, value in obs.items() if "/" in key}
