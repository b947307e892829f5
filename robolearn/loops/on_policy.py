"""Collect with the current policy, learn, repeat."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn.algos.base import Algorithm
from robolearn.env import Env, Extras, Obs
from robolearn.loops import checkpoint
from robolearn.loops.log import Display, Writer
from robolearn.loops.threads import one_thread

log = logging.getLogger(__name__)


@dataclass
class Counters:
    iteration: int = 0
    env_steps: int = 0
    seconds: float = 0.0


class EpisodeMeans:
    """Means over the episodes that ended, gathered on the device and read once an iteration."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count: Tensor | None = None

    def add(self, extras: Extras, done: Tensor) -> None:
        weight = done.float()
        self.count = weight.sum() if self.count is None else self.count + weight.sum()
        for key, value in extras["episode"].items():
            total = (value * weight).sum()
            self.sums[key] = total if key not in self.sums else self.sums[key] + total

    def read(self) -> dict[str, float]:
        """Empty if no episode ended."""
        count = float(self.count) if self.count is not None else 0.0
        means = {f"episode/{k}": float(v) / count for k, v in self.sums.items()} if count else {}
        self.__init__()  # type: ignore[misc]
        return means


class Trainer:
    """Runs an on-policy algorithm on an environment up to `total_steps`, checkpointing as it goes."""

    def __init__(self, env: Env, algo: Algorithm, total_steps: int, folder: Path, generator: torch.Generator,
                 checkpoint_every_s: float = 30.0):  # fmt: skip
        self.env, self.algo, self.total_steps, self.folder = env, algo, total_steps, folder
        self.generator, self.checkpoint_every_s = generator, checkpoint_every_s
        self.counters = Counters()
        self.obs: Obs | None = None
        self._saved_at = time.monotonic()

    def run(self, on_iteration: Callable[[Counters, dict[str, float]], None] | None = None) -> None:
        """Train to the end; the last checkpoint is always written."""
        writer = Writer(self.folder)
        if self.obs is None:
            self.obs = self._start()
        try:
            with Display(self.total_steps, "train", self.counters.env_steps) as display:
                while self.counters.env_steps < self.total_steps:
                    figures = self._iterate()
                    writer.write(self.counters.env_steps, figures)
                    shown = {k: figures[f"episode/{k}"] for k in ("success", "return") if f"episode/{k}" in figures}
                    display.update(self.counters.env_steps, shown)
                    self._maybe_save()
                    if on_iteration is not None:
                        on_iteration(self.counters, figures)
        finally:
            writer.close()
        self.save()

    def _start(self) -> Obs:
        """Reset, and let the first episodes end at different times: batches then hold all phases of the task."""
        obs, _ = self.env.reset()
        phase = torch.rand(self.env.num_envs, generator=self.generator, device=self.env.device)
        if self.env.num_envs > 1:
            self.env.episode_length_buf = (phase * self.env.max_episode_length).long()
        return obs

    def _iterate(self) -> dict[str, float]:
        start, means = time.perf_counter(), EpisodeMeans()
        assert self.obs is not None
        with one_thread():
            for _ in range(self.algo.steps_per_iteration):
                obs, reward, terminated, truncated, extras = self.env.step(self.algo.act(self.obs))
                self.algo.observe(obs, reward, terminated, truncated, extras)
                means.add(extras, terminated | truncated)
                self.obs = obs
        collected = time.perf_counter()
        learned = self.algo.update(self.obs, min(1.0, self.counters.env_steps / self.total_steps))
        end, steps = time.perf_counter(), self.algo.steps_per_iteration * self.env.num_envs
        self.counters.iteration += 1
        self.counters.env_steps += steps
        self.counters.seconds += end - start
        figures = {f"learn/{k}": v for k, v in learned.items()} | means.read()
        figures |= {k: float(v) for k, v in extras["log"].items()}
        times = {"time/env_steps_per_s": steps / (end - start), "time/collect_s": collected - start}
        return figures | times | {"time/update_s": end - collected, "time/seconds": self.counters.seconds}

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _maybe_save(self) -> None:
        if time.monotonic() - self._saved_at <= self.checkpoint_every_s:
            return
        self._saved_at = time.monotonic()
        try:
            self.save()
        except OSError as error:  # a full disk may be emptied before the training ends
            log.error("%s", error)

    def save(self) -> None:
        checkpoint.write(self.folder / "checkpoints", self.counters.env_steps, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        env_state: dict[str, Any] = getattr(self.env, "state_dict", dict)()  # hardware has no state to put back
        return {
            "algo": self.algo.state_dict(), "env": env_state, "obs": dict(self.obs or {}),
            "generator": self.generator.get_state(), "counters": vars(self.counters),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.algo.load_state_dict(state["algo"])
        if state.get("env"):
            self.env.load_state_dict(state["env"])  # type: ignore[attr-defined]
            self.obs = state["obs"]
        self.generator.set_state(state["generator"].cpu())
        self.counters = Counters(**state["counters"])
