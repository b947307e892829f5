"""Episodes as they are recorded: what was seen, what was commanded, what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn.data.contract import GROUP, column_of
from robolearn.env import Env, Extras, Obs
from robolearn.loops.threads import one_thread


class Actor(Protocol):
    """Whoever is recorded."""

    strategy: Tensor | None
    """(B,) the way in which each environment is acted for in this episode; None without such."""

    def begin(self, seed: int) -> None:
        """Every environment begins an episode; what is random from now on comes from `seed`."""
        ...

    def act(self, obs: Obs) -> Tensor:
        """(B, A)"""
        ...


@dataclass
class Episode:
    """`columns`: (T, *shape) of each column that `robolearn.data.contract.features` names, but `origin`."""

    columns: dict[str, np.ndarray]
    success: bool
    strategy: int | None

    def __len__(self) -> int:
        return len(self.columns["action"])


def attempts(env: Env, actor: Actor, seed: int, stop: Callable[[], bool] = lambda: False) -> list[Episode]:
    """The first episode of each environment, in their order, from `seed` alone. Taking whatever ends first would favour
    short episodes. Empty if `stop()` became true before all had ended."""
    spec, device = env.action_spec, env.device
    rows: list[dict[str, Tensor]] = []
    length = torch.zeros(env.num_envs, dtype=torch.long, device=device)
    success = torch.zeros(env.num_envs, dtype=torch.bool, device=device)
    with torch.inference_mode(), one_thread():
        obs, _ = env.reset(seed=seed)
        actor.begin(seed)
        strategy = None if actor.strategy is None else actor.strategy.tolist()
        while bool((length == 0).any()):
            if stop():
                return []
            action = actor.act(obs).clamp(spec.low, spec.high)
            row = {column_of(k): v for k, v in obs.items() if k.partition("/")[0] == GROUP} | {"action": action}
            obs, reward, terminated, truncated, extras = env.step(action)
            rows.append(_kept(row | _outcome(reward, terminated, truncated, extras)))
            ends = (terminated | truncated) & (length == 0)
            success = torch.where(ends, extras["episode"]["success"] > 0.5, success)
            length = torch.where(ends, len(rows), length)
    return _episodes(rows, length.tolist(), success.tolist(), strategy)


def _outcome(reward: Tensor, terminated: Tensor, truncated: Tensor, extras: Extras) -> dict[str, Tensor]:
    after = {"next.reward": reward, "next.terminated": terminated, "next.truncated": truncated}
    return {"action.applied": extras["applied_action"], **{k: v[:, None] for k, v in after.items()}}


def _kept(row: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, and not what the environment writes into again."""
    return {k: v.cpu() if v.device.type != "cpu" else v.clone() for k, v in row.items()}


def _episodes(rows: list[dict[str, Tensor]], length: list[int], success: list[bool],
              strategy: list[int] | None) -> list[Episode]:  # fmt: skip
    out = []
    for i, (n, good) in enumerate(zip(length, success, strict=True)):
        columns = {k: np.stack([row[k][i].numpy() for row in rows[:n]]) for k in rows[0]}
        columns["next.success"] = np.zeros((n, 1), dtype=bool)
        columns["next.success"][-1] = good
        if strategy is not None:
            columns["strategy"] = np.full((n, 1), strategy[i], dtype=np.int64)
        out.append(Episode(columns, good, None if strategy is None else strategy[i]))
    return out
