"""`success` of benchmarks.deploy: the same policy from the same postures to the same goals, straight in SimEnv and
through ROS 2 (twin, guard and policy as processes), both in MuJoCo.

What is the same: the run's task and engine with their configuration, start posture at rest, goal, length, and the
task's own criterion at the last moment. Through ROS 2 an episode begins with the stamp of the state that the first
proposal was computed from, and is judged on the joints measured when its length is over. The twin measures without
noise, so SimEnv is compared without noise; with the noise of training it has a row of its own. What differs, then, is
what is measured: delays, the guard's limits and its interpolation, and the two clocks.

Clipped is a period in which SimEnv's limits changed what the policy asked for; through ROS 2 one in which the guard
did not bring the arm's target to where the policy's own limits had left it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.deploy_stack import Stack
from real.domain import own_domain
from real.listener import TrialError
from real.trial import Episode, run_episode
from robolearn.loops.log import Display

SEED = 10_000
TRIES = 3
"""Of an episode whose end nobody heard in time: it is not known then how it went."""
Z = 1.959964
CHUNKS = ("policy: chunks planned", "policy: chunks late", "policy: periods without an action")
"""Of a policy that plans chunks of actions."""
Rows = dict[int, dict[str, Any]]


def success(folder: Path, run: str, episodes: int, domains: int, guard_hz: float = 0.0) -> str:
    from robolearn.cli._deploy_trial import judged

    env = environment(run, episodes, noise=False)
    starts, goals, direct = straight(env, run)
    with closing(environment(run, episodes, noise=True)) as shaken:
        noisy = straight(shaken, run)[2]
    file = folder / "episodes.npz"
    np.savez(file, starts=starts, seconds=env.max_episode_length_s, **{k: v.numpy() for k, v in goals.items()})
    rows, counts = through_ros(file, run, episodes, domains, guard_hz)
    through = judged(env, torch.tensor([rows[k]["joints"] for k in range(episodes)]), goals)
    env.close()
    changed = 100.0 * counts["policy: clipped by the guard"] / counts["policy: proposals"]
    table = [
        f"| {episodes} episodes | success, % | periods clipped, % | median errors |",
        "|---|---|---|---|",
        _row("SimEnv", 100.0 * float(direct["clip_rate"].mean()), direct),
        _row("through ROS 2", changed, through),
        _row("SimEnv, with the noise of training", 100.0 * float(noisy["clip_rate"].mean()), noisy),
    ]
    outcomes = direct["success"].bool(), through["success"].bool()
    lines = [*table, "", verdict(*outcomes), troubles(rows)]
    calm = torch.tensor([not rows[k]["states"] for k in range(episodes)])
    if calm.any() and not calm.all():
        lines.append("without these, " + verdict(*outcomes, calm))
    return "\n".join([*lines, told(counts)])


def verdict(direct: Tensor, through: Tensor, counted: Tensor | None = None) -> str:
    """All (B,) bool; without `counted` every episode is."""
    counted = torch.ones_like(direct) if counted is None else counted
    count = int(counted.sum())
    lost, won = int((counted & direct & ~through).sum()), int((counted & ~direct & through).sum())
    low, high = paired_interval(lost, won, count)
    apart = (counted & (direct != through)).nonzero().flatten().tolist()
    return (
        f"ROS 2 less SimEnv in {count} pairs: {100 * (won - lost) / count:+.2f} points, 95 % interval "
        f"{100 * low:+.2f} to {100 * high:+.2f}; {lost} lost, {won} won (episodes {apart[:20]})"
    )


def paired_interval(lost: int, won: int, count: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired proportions, `won` - `lost` of `count` pairs: Wald's with half a
    pair added to each of the four cells (Agresti and Min 2005), which has a width where all pairs agree too."""
    n, a, b = count + 2.0, won + 0.5, lost + 0.5
    middle = (a - b) / n
    half = Z * math.sqrt((a + b) - (a - b) ** 2 / n) / n
    return middle - half, middle + half


def troubles(rows: Rows) -> str:
    held = sorted(k for k, row in rows.items() if row["states"])
    repeated = sum(row["repeated"] for row in rows.values())
    return (
        f"the guard held or stopped in {len(held)} episodes {held[:20]}; {repeated} were repeated, unheard at the end"
    )


def told(counts: Counter[str]) -> str:
    guard = ", ".join(f"{k.removeprefix('guard: ')} {n}" for k, n in counts.items() if k.startswith("guard: ") and n)
    chunks = ", ".join(f"{k.removeprefix('policy: ')} {counts[k]}" for k in CHUNKS) if CHUNKS[0] in counts else ""
    return f"of {counts['policy: proposals']} proposals the guard counted: {guard or 'nothing'}" + (
        f"\nthe policy's planner counted: {chunks}" if chunks else ""
    )


def _row(name: str, clips: float, found: dict[str, Tensor]) -> str:
    errors = f"{float(found['position_error_m'].median()):.4f} m, {float(found['rotation_error_rad'].median()):.4f} rad"
    return f"| {name} | {100 * float(found['success'].mean()):.1f} | {clips:.1f} | {errors} |"


# --- in SimEnv -----------------------------------------------------------------------------------------------


def environment(run: str, episodes: int, noise: bool) -> Any:
    from robolearn.cli import _world

    _world.discover()
    _, cfg, _ = _world.load_run(run)
    task = cfg.task if noise else replace(cfg.task, randomize=replace(cfg.task.randomize, observation_noise={}))
    return _world.make_env(task, cfg.backend, episodes, "cpu", SEED)


def straight(env: Any, run: str) -> tuple[np.ndarray, dict[str, Tensor], dict[str, Tensor]]:
    """Start postures of the arm (B, n), goals by name, and the results of the one episode of each environment, (B,)
    each."""
    from robolearn import runs
    from robolearn.loops.threads import one_thread

    policy = runs.load_bundle(run)[1].policy
    obs, _ = env.reset(seed=SEED)
    arm = [env.robot.joint_names.index(n) for n in env.robot.arm_joints]
    starts = env.backend.joint_pos(env.task.asset)[:, arm].double().numpy().copy()
    goals = {k: v.clone() for k, v in env.task.scene_state(env.backend).commands.items()}
    with torch.inference_mode(), one_thread():
        for _ in range(env.max_episode_length):
            obs, _, terminated, truncated, extras = env.step(policy.act(obs))
            if terminated.any():
                raise TrialError(f"episodes of {env.cfg.name} end early: they cannot be compared at their ends")
    assert truncated.all()
    return starts, goals, extras["episode"]


# --- through ROS 2 -------------------------------------------------------------------------------------------


def through_ros(file: Path, run: str, episodes: int, domains: int, guard_hz: float) -> tuple[Rows, Counter[str]]:
    """A row an episode, and what policies and guards counted; each domain does every so-many-th episode, in a process
    of its own. The guard works at the profile's rate if `guard_hz` is 0."""
    rows, counts = Rows(), Counter[str]()
    command = [sys.executable, "-m", "benchmarks.deploy_success", str(file), str(run)]
    workers = [
        subprocess.Popen([*command, str(k), str(domains), str(guard_hz)], stdout=subprocess.PIPE, text=True)
        for k in range(domains)
    ]
    readers = [threading.Thread(target=_collect, args=(w.stdout, rows, counts), daemon=True) for w in workers]
    try:
        with Display(episodes, "episodes") as display:
            for reader in readers:
                reader.start()
            while any(reader.is_alive() for reader in readers):
                for reader in readers:
                    reader.join(0.5)
                if len(rows) > display.done:
                    display.update(len(rows), {})
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    if len(rows) != episodes:
        raise TrialError(f"{episodes - len(rows)} episodes are missing: a worker failed")
    return rows, counts


def _collect(pipe: Any, rows: Rows, counts: Counter[str]) -> None:
    for line in pipe:
        found = json.loads(line)
        if "counts" in found:
            counts.update(found["counts"])
        else:
            rows[found["episode"]] = found


def work(file: Path, run: str, first: int, step: int, guard_hz: float) -> None:
    """Every `step`-th episode from `first` on, a line of JSON each; then what was counted."""
    with np.load(file) as stored:
        given = dict(stored)
    starts, seconds = given.pop("starts"), float(given.pop("seconds"))
    words = ("-p", f"command_rate_hz:={guard_hz}") if guard_hz else ()
    with tempfile.TemporaryDirectory() as name, own_domain(), Stack(Path(name), run, words) as stack:
        stack.start("twin", "guard", "policy")
        for k in range(first, len(starts), step):
            goals = {goal: rows[k].tolist() for goal, rows in given.items()}
            found, repeated = _measured(stack, starts[k], goals, seconds)
            row = {"episode": k, "joints": found.joints.tolist(), "states": found.states, "repeated": repeated}
            print(json.dumps(row), flush=True)
        stack.stay(1.5)  # for the last report
        print(json.dumps({"counts": stack.counts}), flush=True)


def _measured(stack: Stack, start: np.ndarray, goals: dict[str, list[float]], seconds: float) -> tuple[Episode, int]:
    """An episode, and how often it was repeated."""
    for repeated in range(TRIES):
        try:
            return run_episode(stack, start, goals, seconds), repeated
        except TrialError as error:
            late = error
    raise late


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
