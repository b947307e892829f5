"""Pictures as policies see them, in images a second: `python -m benchmarks.pictures [mujoco|pybullet] [num_envs ...]`.

The scene of franka_lift, 84x84, with a camera in front and one on the hand; arms and cubes stand differently in every
environment. `plain` is the scene as built; `looks` has the light, every colour and the cameras drawn anew for all of
them before each round; `patterns` prints on the ground and the cube besides. Rounds take turns, so that a noisy
machine is unfair to nobody: the median is given, the best, and the processor time of an image (this process's alone,
and PyBullet paints in another).
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from typing import Any

import torch

from robolearn import config
from robolearn.cli import _world
from sim import randomize
from sim.backends.base import Backend
from sim.scene import CameraCfg

CAMERAS = {
    "front": CameraCfg((1.25, -0.8, 0.6), (0.32, 0.0, 0.25), fov_deg=38.0),
    "wrist": CameraCfg((0.06, 0.0, 0.02), (0.03, 0.0, 0.2), fov_deg=70.0, link="robot/panda_hand"),
}
SIZES, ROUNDS, ROUND_S = (1, 16, 64), 5, 0.4
TINTED = randomize.LooksCfg(0.3, (0.6, 1.2), 0.2, 0.5, 0.5, 0.5, 0.0, 0.03, 0.05, 2.0)
LOOKS = {"plain": randomize.LooksCfg(), "looks": TINTED, "patterns": dataclasses.replace(TINTED, patterns=1.0)}


def world(engine: str, num_envs: int) -> Backend:
    """Environments with arms and cubes put at random."""
    task: Any = config.build(config.entry("task", "franka_lift").config())
    scene = dataclasses.replace(task.scene(), cameras=CAMERAS)
    cfg = config.entry("backend", engine).config()
    backend: Backend = config.build(cfg, scene=scene, num_envs=num_envs, device=torch.device("cpu"), seed=0)
    generator, everyone = torch.Generator().manual_seed(0), torch.ones(num_envs, dtype=torch.bool)
    rest = torch.tensor(task.robot.default_joint_pos)
    spread = 0.2 * (2.0 * torch.rand(num_envs, len(rest), generator=generator) - 1.0)
    backend.write_joints("robot", rest + spread, torch.zeros_like(spread), everyone)
    task.setup(backend, generator)
    task.reset(backend, everyone, generator)
    return backend


def rate(backend: Backend, cameras: list[str], cfg: randomize.LooksCfg) -> tuple[float, float]:
    """Images a second, and processor seconds an image, over one round."""
    generator, everyone = torch.Generator().manual_seed(1), torch.ones(backend.num_envs, dtype=torch.bool)
    envs, count = range(backend.num_envs), 0
    randomize.draw_looks(backend, cfg, cameras, everyone, generator)
    backend.images(cameras, envs)
    start, spent = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < ROUND_S:
        backend.images(cameras, envs)
        count += len(envs) * len(cameras)
    return count / (time.perf_counter() - start), (time.process_time() - spent) / count


def measure(engine: str, num_envs: int) -> None:
    rounds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    kinds = [k for k in LOOKS if set(LOOKS[k].kinds) <= config.entry("backend", engine).value.capabilities.looks]
    worlds = {kind: world(engine, num_envs) for kind in kinds}  # looks stay: each kind has a world of its own
    try:
        for _ in range(ROUNDS):
            for kind, backend in worlds.items():
                for cameras in (["front"], ["wrist"], ["front", "wrist"]):
                    rounds.setdefault((kind, "+".join(cameras)), []).append(rate(backend, cameras, LOOKS[kind]))
    finally:
        for backend in worlds.values():
            backend.close()
    for (kind, cameras), found in rounds.items():
        rates, spent = zip(*found, strict=True)
        print(
            f"{engine:9s} {num_envs:3d} envs  {cameras:12s} {kind:9s} {statistics.median(rates):6.0f} images/s"
            f"  best {max(rates):6.0f}  {1e6 * statistics.median(spent):5.0f} us of processor an image", flush=True,
        )  # fmt: skip


def main(arguments: list[str]) -> None:
    _world.discover()
    engines = [a for a in arguments if not a.isdigit()] or ["mujoco", "pybullet"]
    for engine in engines:
        for num_envs in [int(a) for a in arguments if a.isdigit()] or SIZES:
            measure(engine, num_envs)


if __name__ == "__main__":
    main(sys.argv[1:])
