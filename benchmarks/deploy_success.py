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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.deploy_stack import DiagnosticArray, Floats, MeasurementError, Stack, domain
from robolearn.loops.log import Display
from robolearn.state import RobotState, SceneState

SEED = 10_000
LATE_S = 0.02
"""After the end of an episode; what is measured later than that is told."""
Z = 1.959964


def success(folder: Path, run: str, episodes: int, domains: int) -> str:
    env = environment(run, episodes, noise=False)
    starts, goals, direct = straight(env, run)
    noisy = straight(environment(run, episodes, noise=True), run)[2]
    np.savez(folder / "episodes.npz", starts=starts.numpy(), goals=goals.numpy(), seconds=env.max_episode_length_s)
    rows = through_ros(folder / "episodes.npz", run, episodes, domains)
    measured = torch.tensor([row["joints"] for row in rows])
    good = judged(env, measured, goals)
    env.close()
    found = {"SimEnv": direct, "through ROS 2": good, "SimEnv, with the noise of training": noisy}
    counts = counted(rows)
    changed = 100.0 * counts["policy: clipped by the guard"] / counts["policy: proposals"]
    clips = [100.0 * float(direct["clip_rate"].mean()), changed, 100.0 * float(noisy["clip_rate"].mean())]
    lines = [
        f"| {episodes} episodes | success, % | periods clipped, % | median errors |",
        "|---|---|---|---|",
        *(_row(name, share, result) for (name, result), share in zip(found.items(), clips, strict=True)),
        "",
    ]
    guard = ", ".join(f"{k.removeprefix('guard: ')} {n}" for k, n in counts.items() if k.startswith("guard: ") and n)
    told = f"of {counts['policy: proposals']} proposals the guard counted: {guard or 'nothing'}"
    return "\n".join([*lines, verdict(direct["success"].bool(), good["success"].bool(), rows), told])


def verdict(direct: torch.Tensor, through: torch.Tensor, rows: list[dict[str, Any]]) -> str:
    lost, won = int((direct & ~through).sum()), int((~direct & through).sum())
    low, high = paired_interval(lost, won, len(direct))
    apart = [k for k in range(len(direct)) if direct[k] != through[k]]
    held = [k for k, row in enumerate(rows) if row["states"]]
    late = [row["late_s"] for row in rows if row["late_s"] > LATE_S]
    return (
        f"ROS 2 less SimEnv: {100 * (won - lost) / len(direct):+.2f} points, 95 % interval {100 * low:+.2f} to "
        f"{100 * high:+.2f}; {lost} lost, {won} won (episodes {apart[:20]})\n"
        f"the guard held or stopped in {len(held)} episodes {held[:20]}; {len(late)} were judged more than "
        f"{1e3 * LATE_S:.0f} ms after their end (at most {1e3 * max(late, default=0.0):.0f} ms)"
    )


def paired_interval(lost: int, won: int, count: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired proportions, `won` - `lost` of `count` pairs: Wald's with half a
    pair added to each of the four cells (Agresti and Min 2005), which has a width where all pairs agree too."""
    n, a, b = count + 2.0, won + 0.5, lost + 0.5
    middle = (a - b) / n
    half = Z * math.sqrt((a + b) - (a - b) ** 2 / n) / n
    return middle - half, middle + half


def _row(name: str, clips: float, found: dict[str, torch.Tensor]) -> str:
    errors = f"{float(found['position_error_m'].median()):.4f} m, {float(found['rotation_error_rad'].median()):.4f} rad"
    return f"| {name} | {100 * float(found['success'].mean()):.1f} | {clips:.1f} | {errors} |"


def counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    return dict(sum((Counter(row["counts"]) for row in rows), Counter()))


# --- in SimEnv -----------------------------------------------------------------------------------------------


def environment(run: str, episodes: int, noise: bool) -> Any:
    from robolearn.cli import _world

    _world.discover()
    _, cfg, _ = _world.load_run(run)
    task = cfg.task if noise else replace(cfg.task, randomize=replace(cfg.task.randomize, observation_noise={}))
    return _world.make_env(task, cfg.backend, episodes, "cpu", SEED)


def straight(env: Any, run: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Start postures (B, J), goals (B, 7), and the results of the one episode of each environment, (B,) each."""
    from robolearn import runs
    from robolearn.loops.threads import one_thread

    policy = runs.load_bundle(run)[1].policy
    obs, _ = env.reset(seed=SEED)
    starts, goals = env.backend.joint_pos(env.task.asset).clone(), env.task.goal.clone()
    with torch.inference_mode(), one_thread():
        for _ in range(env.max_episode_length):
            obs, _, terminated, truncated, extras = env.step(policy.act(obs))
            if terminated.any():
                raise MeasurementError(f"episodes of {env.cfg.name} end early: they cannot be compared at their ends")
    assert truncated.all()
    return starts, goals, extras["episode"]


def judged(env: Any, joints: torch.Tensor, goals: torch.Tensor) -> dict[str, torch.Tensor]:
    """The task's criterion on measured joints (B, n) of the arm, fingers as at rest, at goals (B, 7)."""
    robot, count = env.robot, len(joints)
    every = torch.tensor(robot.default_joint_pos).expand(count, -1).clone()
    every[:, [robot.joint_names.index(n) for n in robot.arm_joints]] = joints
    still, pose = torch.zeros_like(every), torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).expand(count, 7)
    state = RobotState(torch.zeros(count), every, still, still, every, pose, torch.zeros(count, 6), env.chain)
    return {k: v.float() for k, v in env.task.metrics(state, SceneState(commands={"goal": goals})).items()}


# --- through ROS 2 -------------------------------------------------------------------------------------------


def through_ros(file: Path, run: str, episodes: int, domains: int) -> list[dict[str, Any]]:
    """A row an episode, in order; each domain does every so-many-th, in a process of its own."""
    rows: dict[int, dict[str, Any]] = {}
    command = [sys.executable, "-m", "benchmarks.deploy_success", str(file), str(run)]
    workers = [
        subprocess.Popen([*command, str(k), str(domains)], stdout=subprocess.PIPE, text=True) for k in range(domains)
    ]
    readers = [threading.Thread(target=_collect, args=(w.stdout, rows)) for w in workers]
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
        raise MeasurementError(f"{episodes - len(rows)} episodes are missing: a worker failed")
    return [rows[k] for k in range(episodes)]


def _collect(pipe: Any, rows: dict[int, dict[str, Any]]) -> None:
    for line in pipe:
        row = json.loads(line)
        rows[row["episode"]] = row


class Counts:
    """What policy and guard count in their diagnostics, since the last `take`."""

    def __init__(self, stack: Stack):
        self._latest, self._before = dict[str, int](), dict[str, int]()
        stack.node.create_subscription(DiagnosticArray, "/diagnostics", self._on, 10)

    def _on(self, message: Any) -> None:
        for status in message.status:
            for value in status.values:
                number = value.value.split(" ")[0]  # the guard tells the last value after it
                if number.isdecimal():
                    self._latest[f"{status.name.lstrip('/')}: {value.key}"] = int(number)

    def take(self) -> dict[str, int]:
        found = {k: n - self._before.get(k, 0) for k, n in self._latest.items()}
        self._before = dict(self._latest)
        return found


def work(file: Path, run: str, first: int, step: int) -> None:
    """Every `step`-th episode from `first` on; a line of JSON each."""
    given = np.load(file)
    with tempfile.TemporaryDirectory() as name, domain():
        stack = Stack(Path(name), run)
        counts = Counts(stack)
        try:
            stack.again("twin", "guard", "policy")
            for k in range(first, len(given["starts"]), step):
                arm = [stack.robot.joint_names.index(n) for n in stack.robot.arm_joints]
                start = given["starts"][k][arm].astype(np.float64)
                row = episode(stack, start, given["goals"][k], float(given["seconds"]))
                last = k + step >= len(given["starts"])
                stack.stay(1.2 if last else 0.0)  # for the last report of the policy's counts
                print(json.dumps(row | {"episode": k, "counts": counts.take()}), flush=True)
        finally:
            stack.close()


def episode(stack: Stack, start: Floats, goal: Floats, seconds: float) -> dict[str, Any]:
    """The arm's joints when the episode's length was over."""
    stack.wait(lambda: stack.call("policy/stop").success and stack.speed() == 0.0, "the policy stops", 10.0)
    stack.set_goal(goal)
    stack.place(start)
    stack.clear()
    stack.begin()
    stack.wait(lambda: stack.heard.proposals, "the first proposal")
    end = stack.heard.proposals[0][1] + round(1e9 * seconds)
    stack.wait(lambda: stack.heard.joints and stack.heard.joints[-1][1] >= end, "the end of the episode")
    _, stamp, joints, _ = next(j for j in stack.heard.joints if j[1] >= end)
    late_s = 1e-9 * (stamp - end)
    begun = [state for _, state in stack.heard.states].index("active")
    return {"joints": joints.tolist(), "late_s": late_s, "states": [s for _, s in stack.heard.states][begun + 1 :]}


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
