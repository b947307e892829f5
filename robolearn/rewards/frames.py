"""Labelled observations out of sets of episodes, and their division by episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robolearn import memory
from robolearn.data import labels
from robolearn.data.contract import GROUP, IMAGES, STATE, column_of
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.errors import unknown

LABEL = "success"
"""The label that says of the observation in its own row whether the task is done."""
PARTS = "train", "choose", "held_out"


@dataclass(frozen=True)
class Frames:
    """F observations of E episodes."""

    observed: dict[str, Tensor]
    """(F, ...) by key: `policy` float32, pictures `policy/NAME` (F, H, W, 3) uint8."""
    done: Tensor
    """(F,) bool."""
    episode: Tensor
    """(F,) long, the place in `names`."""
    step: Tensor
    """(F,) in its episode."""
    names: list[tuple[Path, int]]
    """Set and number of each episode."""
    versions: dict[str, int]
    """Of the label that was read, by set."""

    def of(self, episodes: Sequence[int]) -> Tensor:
        """Indices (n,) of the frames of these episodes."""
        return torch.isin(self.episode, torch.tensor(episodes, dtype=torch.long)).nonzero().flatten()


def keys_of(episodes: Episodes) -> list[str]:
    """Observation keys of all pictures of a set."""
    return [f"{GROUP}/{k.removeprefix(IMAGES)}" for k in episodes.info.videos if k.startswith(IMAGES)]


def shapes_of(episodes: Episodes, keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """DataError, naming what there is, for a key that is not recorded."""
    there = episodes.info.features
    for key in keys:
        if column_of(key) not in there:
            known = [*([GROUP] if STATE in there else []), *keys_of(episodes)]
            raise DataError(f"{episodes.root}: {unknown('observation', key, known)}")
    return {k: there[column_of(k)].shape for k in keys}


def load(sets: Sequence[Episodes], keys: Sequence[str]) -> Frames:
    """All of them, in memory. DataError for a set without the label or with other observations, ConfigError for more
    than there is memory for."""
    shapes = shapes_of(sets[0], keys)
    for other in sets[1:]:
        if (found := shapes_of(other, keys)) != shapes:
            raise DataError(f"{other.root} has {found}, {sets[0].root} has {shapes}: they cannot be learned together")
    size = sum(s.frames for s in sets) * sum(math.prod(shapes[k]) * (1 if "/" in k else 4) for k in keys)
    memory.refuse_beyond(2 * size, "the observations of data=")  # what is read, and the whole of it
    parts, done, episode, step, names = [], [], [], [], list[tuple[Path, int]]()
    for episodes in sets:
        said = label_of(episodes)
        for number in episodes.ids:
            length = episodes.length(number)
            parts.append(observations(episodes, number, keys))
            done.append(said[number])
            episode.append(torch.full((length,), len(names)))
            step.append(torch.arange(length))
            names.append((episodes.root, number))
    observed = {k: torch.cat([p[k] for p in parts]) for k in keys}
    versions = {str(s.root): labels.versions(s.root)[LABEL][-1] for s in sets}
    return Frames(observed, torch.cat(done), torch.cat(episode), torch.cat(step), names, versions)


def label_of(episodes: Episodes) -> dict[int, Tensor]:
    """(T,) bool by episode, of the newest version. DataError, with the remedy, where there is none."""
    if LABEL not in episodes.labels:
        raise DataError(f"{episodes.root} has no label '{LABEL}': record with `robolearn reward record`, or say it "
                        f"with `robolearn reward correct`")  # fmt: skip
    column = episodes.column(LABEL)[:, 0].bool()
    return dict(zip(episodes.ids, column.split(episodes.lengths.tolist()), strict=True))


def observations(episodes: Episodes, episode: int, keys: Sequence[str]) -> dict[str, Tensor]:
    """(T, ...) of one episode."""
    start = int(episodes.starts[episodes.ids.index(episode)])
    length = episodes.length(episode)
    numbers = {k: episodes.column(column_of(k))[start : start + length] for k in keys if "/" not in k}
    return numbers | {k: episodes.pictures(column_of(k), episode, range(length)) for k in keys if "/" in k}


def divide(frames: Frames, shares: Sequence[float], seed: int) -> dict[str, list[int]]:
    """Episodes to train with, to choose the threshold with, and to judge with; `shares` are the latter two's. Whole
    episodes, so that no part has seen another's, and those with success in proportion. DataError if a part would be
    without."""
    generator = torch.Generator().manual_seed(seed)
    won = sorted(set(frames.episode[frames.done].tolist()))
    if len(won) < len(PARTS):
        raise DataError(f"{len(won)} of {len(frames.names)} episodes show success; at least {len(PARTS)} are needed, "
                        f"to train, to choose a threshold, and to judge: record more")  # fmt: skip
    lost = [e for e in range(len(frames.names)) if e not in won]
    out: dict[str, list[int]] = {part: [] for part in PARTS}
    for group, least in ((won, 1), (lost, 0)):
        order = [group[i] for i in torch.randperm(len(group), generator=generator).tolist()]
        counts = [max(least, round(share * len(order))) for share in shares]
        out["choose"] += order[: counts[0]]
        out["held_out"] += order[counts[0] : sum(counts)]
        out["train"] += order[sum(counts) :]
    return {part: sorted(episodes) for part, episodes in out.items()}
