"""What the environment costs on top of its engine: `python -m benchmarks.throughput [task] [backend=X] [num_envs ...]`.

Per number of environments, in one process and in turns, so that a noisy machine is unfair to nobody:

- raw: the stepping call that the environment makes, with the arrays as they are and the law of the joints included,
  and nothing else (MuJoCo's `rollout`; PyBullet's period in its workers);
- bare: the same scene without us. MuJoCo: a persistent MjData an environment, stepped by `mj_step` in Python threads,
  nothing read back. PyBullet: `stepSimulation` alone in the same workers, no law, nothing exchanged;
- full: `SimEnv.step` with random actions: limits, observations, noise, rewards, ends, resets (episodes out of phase).

Medians over the rounds; the ratio full / raw is taken round by round.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from robolearn import config
from robolearn.cli import _world
from robolearn.loops.threads import one_thread
from sim.env import SimEnv

ROUNDS, STEPS = 15, 20
SIZES = {"mujoco": [256, 1024], "pybullet": [16, 32]}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(STEPS):
        call()
    return (time.perf_counter() - start) / STEPS


def bare(backend: Any, substeps: int) -> Callable[[], object]:
    return (lambda: backend.roll_bare(substeps)) if hasattr(backend, "roll_bare") else threads(backend, substeps)


def threads(backend: Any, substeps: int) -> Callable[[], object]:
    import mujoco

    worlds = [mujoco.MjData(backend.model) for _ in range(backend.num_envs)]
    states, _, controls = backend._buffers(substeps)
    for row, world in enumerate(worlds):
        mujoco.mj_setState(backend.model, world, states[row, -1], mujoco.mjtState.mjSTATE_FULLPHYSICS)
        world.ctrl[:] = controls[row, -1, : backend.model.nu]
    parts = [worlds[i :: backend.threads] for i in range(backend.threads)]
    pool = ThreadPoolExecutor(backend.threads)

    def advance(part: list[Any]) -> None:
        for world in part:
            mujoco.mj_step(backend.model, world, substeps)

    return lambda: list(pool.map(advance, parts))


def measure(task: str, engine: str, num_envs: int) -> None:
    env = SimEnv(config.entry("task", task).config(), config.entry("backend", engine).config(), num_envs)
    env.reset()
    env.episode_length_buf = torch.randint(env.max_episode_length, (num_envs,))
    size, substeps = (num_envs, env.action_spec.dim), env.cfg.decimation
    for _ in range(env.max_episode_length // 2):
        env.step(torch.rand(size) * 2 - 1)
    backend: Any = env.backend
    calls = {
        "full": lambda: env.step(torch.rand(size) * 2 - 1),
        "raw": lambda: backend.roll(substeps),
        "bare": bare(backend, substeps),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    with one_thread():  # as the training loop does
        for call in calls.values():  # warm-up
            call()
        for _ in range(ROUNDS):
            for name, call in calls.items():
                times[name].append(seconds(call))
    ratios = [r / f for r, f in zip(times["raw"], times["full"], strict=True)]
    rate = {k: num_envs / statistics.median(v) for k, v in times.items()}
    print(
        f"| {task} | {engine} | {num_envs} | {substeps} | {rate['bare']:,.0f} | {rate['raw']:,.0f} "
        f"| {rate['full']:,.0f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )
    env.close()


def main() -> None:
    words = sys.argv[1:]
    _world.discover()
    chosen = [w.removeprefix("backend=") for w in words if w.startswith("backend=")] or ["mujoco"]
    tasks = [w for w in words if not w.isdigit() and "=" not in w] or ["franka_reach"]
    sizes = [int(w) for w in words if w.isdigit()]
    unknown = [engine for engine in chosen if engine not in SIZES]
    if unknown:
        raise SystemExit(f"no sizes for {unknown}, there are {list(SIZES)}; quadrotors: python -m benchmarks.flight")
    print("| task | engine | envs | sub-steps | bare, env steps/s | raw | full | full / raw, median (range) |")
    print("|---|---|---|---|---|---|---|---|")
    for task in tasks:
        for engine in chosen:
            for size in sizes or SIZES[engine]:
                measure(task, engine, size)


if __name__ == "__main__":
    main()
