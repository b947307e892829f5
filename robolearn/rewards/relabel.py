"""Episodes on disk, judged by any source: new versions of side columns, and nothing that is there is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn import config
from robolearn.data.contract import SUCCESS, column_of
from robolearn.data.labels import Label
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.rewards import frames
from robolearn.rewards.base import Needs, RewardSource, Transitions
from robolearn.rewards.drafts import Draft


def relabel(episodes: Episodes, source: RewardSource, name: str = "",
            progress: Callable[[int], Any] = lambda done: None,
            stop: Callable[[], bool] = lambda: False) -> list[Label]:  # fmt: skip
    """The labels `name` (the source's own if not given; float32) and, of a source that tells it, `name`_success (bool),
    of all episodes: row t holds what step t led to, like `next.reward`. What `stop` or a kill left undone is gone on
    with by the next call for the same source and name; no label is written before."""
    name = name or source.cfg.name
    require(episodes, source)
    draft = Draft(episodes.root, {"reward": source.digest, "name": name})
    there = draft.there()
    for number, episode in enumerate(episodes.ids):
        if stop():
            return []
        if episode not in there:
            draft.put(episode, _judged(source, steps_of(episodes, episode, source.needs), name))
        progress(number + 1)
    about = {"reward": source.cfg.name, "digest": source.digest, "config": config.to_plain(source.cfg),
             "of": "what the step of its row led to"}  # fmt: skip
    return draft.publish(about)


def require(episodes: Episodes, source: RewardSource) -> None:
    """DataError where a set lacks what the source reads, or has it in another shape."""
    found = frames.shapes_of(episodes, source.needs.observed)
    if found != source.shapes and source.needs.observed:
        raise DataError(f"{episodes.root} does not fit the reward {source.cfg.name} (data != reward): {found} != "
                        f"{source.shapes}")  # fmt: skip


def _judged(source: RewardSource, steps: Transitions, name: str) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        found = source.episode(_on(steps, source.device))
    out = {name: found.reward.float().cpu().numpy()}
    return out if found.success is None else out | {f"{name}_success": found.success.cpu().numpy()}


def _on(steps: Transitions, device: torch.device) -> Transitions:
    obs, after = ({k: v.to(device) for k, v in o.items()} for o in (steps.obs, steps.next_obs))
    action, success = (None if t is None else t.to(device) for t in (steps.action, steps.success))
    return replace(steps, obs=obs, next_obs=after, action=action, success=success,
                   terminated=steps.terminated.to(device))  # fmt: skip


def steps_of(episodes: Episodes, episode: int, needs: Needs) -> Transitions:
    """All steps of an episode. The layout has no observation after the last action: there, unless `next.observation.*`
    is recorded, the last step is taken to lead to where it began. DataError where something needed is not recorded."""
    columns = episodes.info.features
    obs = frames.observations(episodes, episode, needs.observed)
    after = {k: _after(episodes, episode, k, v) for k, v in obs.items()}
    action = next((c for c in ("action.applied", "action") if c in columns), None)
    if needs.action and action is None:
        raise DataError(f"{episodes.root} has no actions, which this reward reads")
    return Transitions(
        next_obs=after,
        terminated=_flag(episodes, episode, "next.terminated"),
        obs=obs,
        action=_column(episodes, episode, action) if needs.action and action else None,
        success=told(episodes, episode) if needs.success else None,
        instruction=episodes.task(episode),
    )


def _after(episodes: Episodes, episode: int, key: str, values: Tensor) -> Tensor:
    column = f"next.{column_of(key)}"
    if column in episodes.info.features and "/" not in key:
        return _column(episodes, episode, column)
    return torch.cat((values[1:], values[-1:]))


def _column(episodes: Episodes, episode: int, key: str) -> Tensor:
    """(T, ...)"""
    start = int(episodes.starts[episodes.ids.index(episode)])
    return episodes.column(key)[start : start + episodes.length(episode)]


def _flag(episodes: Episodes, episode: int, key: str) -> Tensor:
    """(T,) bool; False where there is no such column."""
    if key not in episodes.keys:
        return torch.zeros(episodes.length(episode), dtype=torch.bool)
    return _column(episodes, episode, key)[:, 0].bool()


def told(episodes: Episodes, episode: int) -> Tensor:
    """(T,) bool: whether each step led to success, by the label of its pictures if there is one, and by what was
    recorded. DataError if there is neither."""
    if SUCCESS not in episodes.info.features and frames.LABEL not in episodes.labels:
        raise DataError(f"{episodes.root} has neither {SUCCESS} nor the label '{frames.LABEL}': nobody said what "
                        "success is; robolearn reward correct")  # fmt: skip
    end = _flag(episodes, episode, SUCCESS)
    if frames.LABEL not in episodes.labels:
        return end
    seen = _flag(episodes, episode, frames.LABEL)
    return torch.cat((seen[1:], seen[-1:] | end[-1:]))
