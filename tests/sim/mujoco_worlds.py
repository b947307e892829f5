"""Small MuJoCo worlds that several test files build."""

import torch

from robolearn import config
from sim.backends.mujoco import Mujoco, MujocoCfg
from sim.scene import Box, ObjectCfg, RobotCfg, SceneCfg

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
CPU, DT, G = torch.device("cpu"), 1.0 / 240.0, 9.81
AWAY = (0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 1.0)
UPRIGHT = (0.0, 0.0, 0.0, 1.0)
FRANKA = config.entry("robot", "franka").value
CARTPOLE = config.entry("robot", "cartpole").value


def world(robots=None, objects=None, num_envs=2, threads=1, **kinds):
    scene = SceneCfg(robots or {"robot": RobotCfg(CARTPOLE, AWAY)}, objects or {}, physics_dt_s=DT, **kinds)
    return Mujoco(MujocoCfg(threads=threads), scene, num_envs, CPU, 0)


def cube(z=0.05, mass=0.5, **kinds):
    return ObjectCfg(Box((0.1, 0.1, 0.1)), mass_kg=mass, pose=(0.0, 0.0, z, *UPRIGHT), **kinds)


def everyone(backend):
    return torch.ones(backend.num_envs, dtype=torch.bool)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_joints(spec, num_envs, generator, margin=0.1):
    low, high = torch.tensor(spec.lower).clamp_min(-3.0), torch.tensor(spec.upper).clamp_max(3.0)
    part = margin + (1.0 - 2.0 * margin) * torch.rand(num_envs, spec.dof, generator=generator)
    return low + part * (high - low)
