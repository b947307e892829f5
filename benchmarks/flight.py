"""Speed of the quadrotor: `python -m benchmarks.flight [num_envs ...]`, one thread of one core.

Per number of environments, in one process and in turns, so that a noisy machine is unfair to nobody:

- kernel: the dynamics alone, one RK4 step of 10 ms with rotor speeds as command;
- full: `crazyflie_hover_rpm` with a history of four actions, sensor noise, disturbance and resets, random actions;
- torch: the same task through SimEnv with its torch terms (the same dynamics kernel).

Environment steps per second: medians over the rounds, and the best round.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from robolearn import config
from robolearn.cli import _world
from sim.env import SimEnv

ROUNDS, STEPS, HISTORY = 25, 40, 4


def seconds(call: Callable[[int], object], steps: int) -> float:
    start = time.perf_counter()
    for k in range(steps):
        call(k)
    return (time.perf_counter() - start) / steps


def calls(num_envs: int) -> dict[str, tuple[Callable[[int], Any], int]]:
    """Name -> what is timed, and how often a round."""
    task = config.entry("task", "crazyflie_hover_rpm").config(action_history=HISTORY)
    engine = config.entry("backend", "quadrotor").config()
    full = _world.make_env(task, engine, num_envs, "cpu", 0)
    torch_terms = SimEnv(task, engine, num_envs)
    alone = hovering(engine, num_envs)
    actions = [torch.rand(num_envs, 4) * 2 - 1 for _ in range(STEPS)]
    for env in (full, torch_terms):
        env.reset()
        env.episode_length_buf.copy_(torch.randint(env.max_episode_length, (num_envs,)))
    return {
        "kernel": (lambda k: alone.roll(1), STEPS),
        "full": (lambda k: full.step(actions[k]), STEPS),
        "torch": (lambda k: torch_terms.step(actions[k]), 3),
    }


def hovering(engine: Any, num_envs: int) -> Any:
    """The engine with all copies in the air, where they stay: as in the task, without drag and sag."""
    task = config.entry("task", "crazyflie_hover_rpm").config(level_start=1.0)
    task.randomize.disturbance_force_n = task.randomize.disturbance_torque_nm = 0.0
    env = SimEnv(task, engine, num_envs)
    env.reset()
    env.backend.write_targets("robot", velocity=env.backend.joint_vel("robot").clone())
    return env.backend


def measure(num_envs: int) -> None:
    timed = calls(num_envs)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for call, steps in timed.values():  # warm-up: kernels are compiled, episodes get out of step
        seconds(call, steps)
    for _ in range(ROUNDS):
        for name, (call, steps) in timed.items():
            times[name].append(seconds(call, steps))
    cells = [f"{num_envs / statistics.median(t) / 1e6:.2f} ({num_envs / min(t) / 1e6:.2f})" for t in times.values()]
    print(f"| {num_envs} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    _world.discover()
    print("| envs | dynamics kernel, million steps/s, median (best) | full environment | through torch terms |")
    print("|---|---|---|---|")
    for num_envs in [int(w) for w in sys.argv[1:]] or [1024, 4096, 16384]:
        measure(num_envs)


if __name__ == "__main__":
    main()
