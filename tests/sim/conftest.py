"""What several test files of engines share."""

import pytest
from mujoco_worlds import AWAY, CARTPOLE, CPU, DT

from sim.backends.pybullet import Pybullet, PybulletCfg
from sim.scene import RobotCfg, SceneCfg


@pytest.fixture
def bullet():
    """bullet(robots, objects, ...) -> a small PyBullet world, closed with the test."""
    opened = []

    def build(robots=None, objects=None, num_envs=2, workers=1, **kinds):
        scene = SceneCfg(robots or {"robot": RobotCfg(CARTPOLE, AWAY)}, objects or {}, physics_dt_s=DT, **kinds)
        opened.append(Pybullet(PybulletCfg(workers=workers), scene, num_envs, CPU, 0))
        return opened[-1]

    yield build
    for backend in opened:
        backend.close()
