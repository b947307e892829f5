"""Episodes on disk as transitions for off-policy learners."""

from __future__ import annotations

import torch
from torch import Tensor

from robolearn.data.contract import GROUP, column_of
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.data.replay import Replay
from robolearn.nets.encoder import observed
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.residual import correction_spec, extended
from robolearn.spec import PolicySpec, stepwise

NEEDED = ("action", "next.reward", "next.terminated")


def replay_of(episodes: Episodes, replay: Replay, spec: PolicySpec, base: ChunkedPolicy | None = None,
              scale: float = 1.0, seed: int = 0) -> Replay:  # fmt: skip
    """`replay`, of one lane, filled with the set's transitions in a world of `spec`. For corrections of a `base` policy
    that acts along each episode (all at once, each with a queue of its own), the actions are what had to be added to
    its own. DataError for a set without rewards."""
    lacking = [k for k in NEEDED if k not in episodes.info.features]
    if lacking:
        raise DataError(f"{episodes.root} has no {', '.join(lacking)}: record it with robolearn collect")
    columns = {k: column_of(k) for k in observed(spec.observation)}
    found = [_episode(episodes, e, columns) for e in episodes.ids]
    proposed = _proposed(base, found, list(columns), seed) if base is not None else []
    for k, (obs, said) in enumerate(found):
        action = said["action.applied"] if "action.applied" in said else said["action"]
        if base is not None:
            obs = extended(obs, proposed[k], correction_spec(stepwise(spec), scale))
            action = (action - proposed[k]) / scale
        replay.add_episode(obs, action, said["next.reward"].flatten(), said["next.terminated"].flatten())
    return replay


def _episode(episodes: Episodes, episode: int, columns: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Observations by key, and the numbers by column, (T, ...) each."""
    said = episodes.episode(episode)
    steps = list(range(episodes.length(episode)))
    obs = {k: said[c] if k == GROUP else episodes.pictures(c, episode, steps) for k, c in columns.items()}
    return obs, said


@torch.no_grad()
def _proposed(base: ChunkedPolicy, found: list[tuple[dict[str, Tensor], dict[str, Tensor]]], keys: list[str],
              seed: int) -> list[Tensor]:  # fmt: skip
    """What the base says at each step of each episode, (T, A) each."""
    device = next(base.parameters()).device
    lengths = [len(said["action"]) for _, said in found]
    before, base.generator = base.generator, torch.Generator(device).manual_seed(seed)
    base.reset(torch.ones(len(found), dtype=torch.bool, device=device))
    said = []
    for t in range(max(lengths)):
        now = {
            k: torch.stack([obs[k][min(t, n - 1)] for (obs, _), n in zip(found, lengths, strict=True)]) for k in keys
        }
        said.append(base.act({k: v.to(device) for k, v in now.items()}))
    base.generator = before
    whole = torch.stack(said, dim=1).cpu()
    return [whole[k, :n] for k, n in enumerate(lengths)]
