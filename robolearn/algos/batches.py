"""What an off-policy update is made from: whose transitions, and what of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robolearn.data.replay import Batch
from robolearn.env import Obs
from robolearn.nets.vision import crop


def shares(count: int, share: float, shown: int, persons: int) -> tuple[int, int, int]:
    """Of a batch of `count`: one's own transitions, those of `shown` demonstrated ones, and those of `persons` made by
    a person since. The last two have `share` of it, as many of each as there are of them."""
    known = shown + persons
    theirs = round(share * count) if known else 0
    live = round(theirs * persons / known) if known else 0
    return count - theirs, theirs - live, live


def joined(parts: Sequence[Batch]) -> Batch:
    """(B, ...) each, one after the other."""
    return {k: torch.cat([f[k] for f in parts]) for k in parts[0]} if len(parts) > 1 else parts[0]


def cropped(batch: Batch, size: Sequence[int], generator: torch.Generator) -> Batch:
    """With its pictures (B, H, W, 3) cropped to `size`, if there is one, each at a random place: out here, for compiled
    code draws from a generator of its own."""
    if not size:
        return batch
    pictures = {k: v.movedim(-1, -3) for k, v in batch.items() if v.dtype == torch.uint8}
    return batch | {k: crop(v, (size[0], size[1]), generator).movedim(-3, -1) for k, v in pictures.items()}


def part(batch: Batch, prefix: str) -> Obs:
    return {k.removeprefix(prefix): v for k, v in batch.items() if k.startswith(prefix)}
