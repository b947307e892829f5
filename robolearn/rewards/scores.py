"""How good a classifier's probabilities are: precision, recall, calibration, and the threshold that they give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BINS = 10


def precision_recall(probability: Tensor, done: Tensor, threshold: float) -> tuple[float | None, float | None]:
    """Of saying yes at `threshold` and above; None where nothing is said, or nothing is done."""
    said = probability >= threshold
    right = int((said & done).sum())
    return _share(right, int(said.sum())), _share(right, int(done.sum()))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def curve(probability: Tensor, done: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precision and recall at each probability that occurs, and these, ascending; (n,) each. Something must be done."""
    values, order = probability.double().sort(descending=True)
    right = done[order].double().cumsum(0)
    said = torch.arange(1, len(values) + 1, dtype=torch.float64)
    last = torch.cat((values[1:] != values[:-1], torch.ones(1, dtype=torch.bool)))  # of equals, all are said
    precision, recall = right / said, right / right[-1]
    return precision[last].flip(0), recall[last].flip(0), values[last].flip(0)


def choose_threshold(probability: Tensor, done: Tensor, precision: float, least: float) -> float | None:
    """The smallest one of at least `least` from which on yes is right with at least `precision`: in the middle between
    the last probability that is refused and the first that is taken. None if there is none."""
    found, _, values = curve(probability, done)
    good = ((found >= precision) & (values >= least)).nonzero().flatten()
    if not len(good):
        return None
    first = int(good[0])
    refused = float(values[first - 1]) if first else -1.0
    return least if refused < least else (refused + float(values[first])) / 2


def reliability(probability: Tensor, done: Tensor, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Mean probability, share that is done, and count, of each of `bins` equal parts of [0, 1] that holds any."""
    at = (probability.double() * bins).long().clamp_max(bins - 1)
    rows = []
    for b in at.unique().tolist():
        mine = at == b
        rows.append((float(probability[mine].double().mean()), float(done[mine].double().mean()), int(mine.sum())))
    return rows


def calibration_error(probability: Tensor, done: Tensor, bins: int = BINS) -> float:
    """Expected calibration error (Naeini et al. 2015): |mean probability - share that is done|, weighted by count."""
    rows = reliability(probability, done, bins)
    return sum(n * abs(said - true) for said, true, n in rows) / len(probability)


def summary(probability: Tensor, done: Tensor, threshold: float) -> dict[str, Any]:
    """Plain data; precision and recall may be None."""
    precision, recall = precision_recall(probability, done, threshold)
    return {"frames": len(done), "done": int(done.sum()), "threshold": threshold, "precision": precision,
            "recall": recall, "calibration_error": calibration_error(probability, done),
            "reliability": reliability(probability, done)}  # fmt: skip
