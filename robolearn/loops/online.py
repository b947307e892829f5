"""Collect with the current policy, learn, repeat."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn.algos.base import Algorithm
from robolearn.env import Env, Extras, Obs
from robolearn.errors import UserError
from robolearn.loops import checkpoint
from robolearn.loops.interrupt import Interrupt
from robolearn.loops.log import Display, Writer
from robolearn.loops.threads import one_thread

log = logging.getLogger(__name__)
SAVING = 0.05
"""Share of the time that checkpoints may take: a replay of pictures is large."""
BEST, RECENT = "best", 5
"""Folder of the policy that succeeded most often in training, and iterations over which that is counted."""


@dataclass
class Counters:
    iteration: int = 0
    env_steps: int = 0
    seconds: float = 0.0
    """Of all processes that worked on the run, start-up included."""
    best: float = -1.0
    """Success of the policy in BEST, over the last RECENT iterations."""


class EpisodeMeans:
    """Means over the episodes that ended, and of the log over the periods, gathered on the device and read once an
    iteration."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count: Tensor | None = None
        self.logs: dict[str, list[Tensor]] = {}

    def add(self, extras: Extras, done: Tensor) -> None:
        weight = done.float()
        self.count = weight.sum() if self.count is None else self.count + weight.sum()
        for key, value in extras["episode"].items():
            total = (value * weight).sum()
            self.sums[key] = total if key not in self.sums else self.sums[key] + total
        for key, value in extras["log"].items():
            self.logs.setdefault(key, []).append(value)

    def read(self) -> dict[str, float]:
        """`episode/...`, absent if none ended, and `env/...`."""
        count = float(self.count) if self.count is not None else 0.0
        means = {f"episode/{k}": float(v) / count for k, v in self.sums.items()} if count else {}
        return means | {f"env/{k}": float(torch.stack(v).mean()) for k, v in self.logs.items()}


class LearningDiverged(UserError):
    """The algorithm's figures are no longer finite; the checkpoint before stands."""


class Trainer:
    """Runs an algorithm in an environment up to `total_steps`, checkpointing as it goes."""

    def __init__(self, env: Env, algo: Algorithm, total_steps: int, folder: Path, generator: torch.Generator,
                 checkpoint_every_s: float, started: float, time_limit_s: float = math.inf):  # fmt: skip
        """`started` is the time.monotonic() from which the seconds of this process count."""
        self.time_limit_s = time_limit_s
        self.env, self.algo, self.total_steps, self.folder = env, algo, total_steps, folder
        self.generator, self.checkpoint_every_s = generator, checkpoint_every_s
        self.counters = Counters()
        self.obs: Obs | None = None
        self._saved_at, self._started, self._earlier_s = time.monotonic(), started, 0.0
        self._save_s = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._interrupt = Interrupt("this iteration")

    def run(self) -> None:
        """Train to the end; the last checkpoint is always written. The first Ctrl-C or SIGTERM ends the training
        after the iteration under way, checkpoint included, by KeyboardInterrupt; the second at once."""
        if self.obs is None:
            self.obs = self._start()
        writer = Writer(self.folder, self.counters.env_steps)
        try:
            with self._interrupt.watch(), Display(self.total_steps, "train", self.counters.env_steps) as display:
                while (self.progress < 1.0 or not self.counters.iteration) and not self._interrupt.wanted:
                    figures = self._iterate()
                    writer.write(self.counters.env_steps, figures)
                    shown = {k: figures[f"episode/{k}"] for k in ("success", "return") if f"episode/{k}" in figures}
                    display.update(self.counters.env_steps, shown, round(self.counters.env_steps / self.progress))
                    self._maybe_save()
                self.save()
        finally:
            writer.close()
        if self._interrupt.wanted:
            raise KeyboardInterrupt

    @property
    def progress(self) -> float:
        """From 0 to 1: of the steps or of the time, whichever is further, as they were last counted: what was written
        of an iteration is what decides whether there is another."""
        return min(1.0, max(self.counters.env_steps / self.total_steps, self.counters.seconds / self.time_limit_s))

    def _seconds(self) -> float:
        return self._earlier_s + time.monotonic() - self._started

    def _start(self) -> Obs:
        """Reset, and let the first episodes end at different times: batches then hold all phases of the task."""
        obs, _ = self.env.reset()
        phase = torch.rand(self.env.num_envs, generator=self.generator, device=self.env.device)
        if self.env.num_envs > 1:
            self.env.episode_length_buf.copy_(
                phase * getattr(self.env, "episode_limit_buf", self.env.max_episode_length)
            )
        return obs

    def _iterate(self) -> dict[str, float]:
        start, means, learned_s = time.perf_counter(), EpisodeMeans(), 0.0
        assert self.obs is not None
        for _ in range(self.algo.steps_per_iteration):
            with one_thread():
                obs, reward, terminated, truncated, extras = self.env.step(self.algo.act(self.obs))
            acted = time.perf_counter()
            self.algo.observe(obs, reward, terminated, truncated, extras)
            learned_s += time.perf_counter() - acted  # off-policy it learns here
            means.add(extras, terminated | truncated)
            self.obs = obs
        collected = time.perf_counter()
        self.counters.seconds = self._seconds()
        learned = self.algo.update(self.obs, self.progress)
        end, steps = time.perf_counter(), self.algo.steps_per_iteration * self.env.num_envs
        self._refuse_divergence(learned)
        self.counters.iteration += 1
        self.counters.env_steps += steps
        self.counters.seconds = self._seconds()
        figures = {f"learn/{k}": v for k, v in learned.items()} | means.read()
        if "episode/success" in figures:
            self._recent.append(figures["episode/success"])
        times = {"time/env_steps_per_s": steps / (end - start), "time/collect_s": collected - start - learned_s}
        return figures | times | {"time/update_s": end - collected + learned_s, "time/seconds": self.counters.seconds}

    def _refuse_divergence(self, learned: dict[str, float]) -> None:
        bad = {k: v for k, v in learned.items() if not math.isfinite(v)}
        if bad:
            raise LearningDiverged(
                f"learning diverged at step {self.counters.env_steps} ({bad}); nothing of it is saved, the checkpoint "
                f"before stands. A smaller learning rate is the usual remedy"
            )

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _maybe_save(self) -> None:
        start = time.monotonic()
        if self.checkpoint_every_s and start - self._saved_at <= max(self.checkpoint_every_s, self._save_s / SAVING):
            return
        try:
            self.save()
            self._keep_best()
        except OSError as error:  # a full disk may be emptied before the training ends
            log.error("%s", error)
        self._saved_at = time.monotonic()
        self._save_s = self._saved_at - start

    def save(self) -> None:
        checkpoint.write(self.folder / "checkpoints", self.counters.env_steps, self.state_dict())

    def _keep_best(self) -> None:
        """A policy that learns may fall again; the weights of the best one stay."""
        success = sum(self._recent) / RECENT if len(self._recent) == RECENT else 0.0
        if success > max(0.0, self.counters.best):
            policy = {"policy": self.algo.policy.state_dict()}
            checkpoint.write(self.folder / BEST, self.counters.env_steps, policy, keep=1)
            self.counters.best = success

    def restore_best(self) -> int:
        """Put the best policy's weights into the algorithm's; the step that they are of, or 0 if there are none."""
        found = sorted((self.folder / BEST).glob("*.safetensors"))
        if found:
            self.algo.policy.load_state_dict(checkpoint.read(found[-1])["policy"])
        return int(found[-1].stem) if found else 0

    def state_dict(self) -> dict[str, Any]:
        env_state: dict[str, Any] = getattr(self.env, "state_dict", dict)()  # hardware has no state to put back
        return {
            "algo": self.algo.state_dict(), "env": env_state, "obs": dict(self.obs or {}),
            "generator": self.generator.get_state(), "counters": vars(self.counters), "recent": list(self._recent),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.algo.load_state_dict(state["algo"])
        if state.get("env"):
            self.env.load_state_dict(_moved(state["env"], self.env.device))  # type: ignore[attr-defined]
        if getattr(self.env, "continues", bool(state.get("env"))):
            self.obs = _moved(state["obs"], self.env.device) or None
        else:
            self.algo.restart()
        self._recent.extend(state.get("recent", []))
        self.generator.set_state(state["generator"].cpu())
        self.counters = Counters(**state["counters"])
        self._earlier_s = self.counters.seconds


def _moved(tree: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A checkpoint is read into the CPU's memory."""
    return {
        k: _moved(v, device) if isinstance(v, dict) else v.to(device) if isinstance(v, Tensor) else v
        for k, v in tree.items()
    }
