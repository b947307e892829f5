"""Scores of a policy with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robolearn.env import Env, Obs
from robolearn.loops.threads import one_thread


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a success probability (Wilson 1927); sensible at 0 and 1."""
    if trials == 0:
        return 0.0, 1.0
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


class EpisodeLog:
    """Collects `extras["episode"]` of the first `quota` finished episodes of each environment: counting whatever
    ends first would favour short episodes."""

    def __init__(self, num_envs: int, quota: int, device: torch.device):
        self.quota = quota
        self.counts = torch.zeros(num_envs, dtype=torch.long, device=device)
        self.rows: dict[str, list[Tensor]] = {}

    def add(self, episode: dict[str, Tensor], done: Tensor) -> None:
        wanted = done & (self.counts < self.quota)
        self.counts = self.counts + wanted
        for key, value in episode.items():
            self.rows.setdefault(key, []).append(value[wanted])

    @property
    def complete(self) -> bool:
        return bool((self.counts >= self.quota).all())

    def results(self) -> dict[str, Tensor]:
        return {k: torch.cat(v) for k, v in self.rows.items()}


def evaluate(env: Env, act: Callable[[Obs], Tensor], episodes: int,
             progress: Callable[[int], None] | None = None) -> dict[str, Any]:  # fmt: skip
    """Run at least `episodes` episodes (a multiple of num_envs) and summarise them."""
    return summarize(run_episodes(env, act, episodes, progress))


def run_episodes(env: Env, act: Callable[[Obs], Tensor], episodes: int,
                 progress: Callable[[int], None] | None = None,
                 reset: Callable[[Tensor], None] | None = None) -> dict[str, Tensor]:  # fmt: skip
    """The results of at least `episodes` episodes, (episodes,) each. `reset` is told the environments (B,) whose
    episode begins with the next observation: a recurrent policy's."""
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    quota = math.ceil(episodes / env.num_envs)
    log = EpisodeLog(env.num_envs, quota, env.device)
    obs, _ = env.reset()
    if reset is not None:
        reset(torch.ones(env.num_envs, dtype=torch.bool, device=env.device))
    with torch.inference_mode(), one_thread():
        while not log.complete:
            obs, _, terminated, truncated, extras = env.step(act(obs))
            log.add(extras["episode"], terminated | truncated)
            if reset is not None:
                reset(terminated | truncated)
            if progress is not None:
                progress(int(log.counts.sum()))
    return log.results()


def summarize(rows: dict[str, Tensor]) -> dict[str, Any]:
    """Success with its interval; mean, standard error, median and 95th percentile of the rest, and their root mean
    square over the successful episodes (None if there are none): errors are often reported as RMSE."""
    success, n = rows["success"], len(rows["success"])
    wins = int(success.sum())
    low, high = wilson(wins, n)
    out: dict[str, Any] = {"episodes": n, "success": wins / n, "success_low": low, "success_high": high}
    for key, value in rows.items():
        if key != "success":
            value = value.double()
            error = float(value.std() / math.sqrt(n)) if n > 1 else None
            median, p95 = torch.quantile(value, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
            out[key] = {"mean": float(value.mean()), "standard_error": error, "median": median, "p95": p95}
            out[key]["rms"] = float((value[success > 0] ** 2).mean().sqrt()) if wins else None
    return out


def table(scores: dict[str, Any]) -> str:
    """The scores as a person reads them."""
    interval = f"{100 * scores['success_low']:.1f} to {100 * scores['success_high']:.1f}"
    lines = [f"{'success':22} {100 * scores['success']:.1f} %   (95 % interval {interval} %, n = {scores['episodes']})"]
    for key, s in scores.items():
        if isinstance(s, dict) and "median" in s:
            line = f"{key:22} mean {s['mean']:.4g}   median {s['median']:.4g}   95th percentile {s['p95']:.4g}"
            shown = "error" in key and s.get("rms") is not None
            lines.append(line + (f"   RMS of the successful {s['rms']:.4g}" if shown else ""))
    return "\n".join(lines)
