"""The picture of docs/tasks.md: `python -m benchmarks.task_pictures [FILE.png]`.

A row a task: three moments of its clean expert as people see them, then what the cameras `front` and `wrist` see at the
middle one, each pixel doubled.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from robolearn import config, optional
from robolearn.cli import _world
from sim.env import SimEnv

MOMENTS = {"franka_peg_insert": (0, 21, 50), "franka_stack": (0, 70, 86), "franka_two_part": (0, 66, 120)}
"""Periods of 50 ms."""
SHOWN, HEIGHT, WIDTH, SEED = ("front", "wrist"), 168, 224, 3


def row(task: str, moments: tuple[int, int, int]) -> np.ndarray:
    """(HEIGHT, W, 3) uint8."""
    cfg = config.entry("task", task).config(cameras=SHOWN)
    env = SimEnv(cfg, config.entry("backend", "mujoco").config(), 1)
    expert = env.task.expert(1, env.device, 0.0, torch.Generator().manual_seed(SEED))
    obs, _ = env.reset(seed=SEED)
    seen, cells = [], []
    with torch.inference_mode():
        for step in range(moments[-1] + 1):
            if step in moments:
                cells.append(env.backend.render(env.task.camera, [0], film=(HEIGHT, WIDTH))[0])
            if step == moments[1]:
                seen = [obs[f"policy/{name}"][0].numpy().repeat(2, 0).repeat(2, 1) for name in SHOWN]
            obs, *_ = env.step(expert.act(*env.states()))
    env.close()
    return np.hstack([*cells, *seen])


def main() -> None:
    _world.discover()
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/tasks.png")
    optional.load("matplotlib.image", "report").imsave(path, np.vstack([row(*task) for task in MOMENTS.items()]))


if __name__ == "__main__":
    main()
