"""Fixed normalisers: made once from data, stored with the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError, unknown

LEAST_SPREAD = 5e-5  # the jitter of a thing at rest must not become a signal of +-1; half of Diffusion Policy's 1e-4
MODES = ("range", "deviation")


class FixedNormalizer(nn.Module):
    """(x - centre) / spread, element by element over the last axis.

    Mode `range` maps [min, max] to [-1, 1]; `deviation` maps to mean 0 and standard deviation 1. An element that is
    constant in the data (a spread below LEAST_SPREAD of its size) is shifted, not scaled. `inverse` gives back what
    went in, but for the roundings of float32.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, dim: int, mode: str = "range"):
        super().__init__()
        if mode not in MODES:
            raise ConfigError(unknown("normaliser", mode, MODES))
        self.mode = mode
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))

    def fit(self, statistics: Mapping[str, Tensor], name: str) -> None:
        """From `min` and `max`, or `mean` and `std`, each (dim,). ValueError, naming the elements of `name`, if one
        is not finite or the length is another."""
        low, high = ("min", "max") if self.mode == "range" else ("mean", "std")
        a, b = (torch.as_tensor(statistics[k]).double().flatten().cpu() for k in (low, high))
        if len(a) != len(self.centre):
            raise ValueError(f"{name} has {len(a)} numbers in the data, the policy reads {len(self.centre)}")
        bad = (~(a.isfinite() & b.isfinite())).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"the {low} or {high} of {name} is not finite in elements {bad}: look for NaN in the data")
        centre, spread = ((a + b) / 2, (b - a) / 2) if self.mode == "range" else (a, b)
        moves = spread > LEAST_SPREAD * centre.abs().clamp_min(1.0)
        self.centre.copy_(centre)
        self.spread.copy_(torch.where(moves, spread, torch.ones_like(spread)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre) / self.spread

    def inverse(self, x: Tensor) -> Tensor:
        return x * self.spread + self.centre


class FineNormalizer(nn.Module):
    """Fine where the data are crowded: asinh((x - median) / spread), brought to mean 0 and deviation 1.

    A standard deviation hides what matters in contact: a peg is within 4 cm of its hole for most of an episode, and
    millimetres decide. `spread` is half the distance of the 30th and the 70th percentile; far away the scale is
    logarithmic. An element that is constant in the data is shifted, not scaled. The statistics are means over the first
    `BATCHES` calls of `update`; after them nothing changes.
    """

    BATCHES = 20
    centre: Tensor
    spread: Tensor
    mean: Tensor
    std: Tensor
    count: Tensor

    def __init__(self, dim: int, clip: float = 5.0):
        super().__init__()
        self.clip = clip
        for name, value in (("centre", 0.0), ("spread", 1.0), ("mean", 0.0), ("std", 1.0)):
            self.register_buffer(name, torch.full((dim,), value))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Merge batch (N, dim), as long as there were fewer than BATCHES."""
        if self.count >= self.BATCHES:
            return
        self.count += 1
        low, middle, high = torch.quantile(thinned(batch), torch.tensor([0.3, 0.5, 0.7], device=batch.device), dim=0)
        self.centre.lerp_(middle, 1.0 / self.count)
        spread = torch.maximum((high - low) / 2, 1e-3 * batch.std(0, correction=0))
        moves = spread > LEAST_SPREAD * middle.abs().clamp_min(1.0)
        spread = torch.where(moves, spread, torch.ones_like(spread))
        self.spread.lerp_(spread, 1.0 / self.count)
        fine = torch.asinh((batch - self.centre) / self.spread)
        std = fine.std(0, correction=0)
        self.mean.lerp_(fine.mean(0), 1.0 / self.count)
        self.std.lerp_(torch.where(std > 1e-3, std, torch.ones_like(std)), 1.0 / self.count)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.asinh((x - self.centre) / self.spread)
        return ((fine - self.mean) / self.std).clamp(-self.clip, self.clip)


def thinned(batch: Tensor, most: int = 20_000) -> Tensor:
    """At most so many rows, evenly chosen: torch's quantile takes no more than 16 million numbers."""
    return batch[:: -(-len(batch) // most)]


def statistics_of(data: Tensor) -> dict[str, Tensor]:
    """`min`, `max`, `mean`, `std` over all axes but the last, (n,) each, double precision."""
    flat = data.flatten(0, -2).double()
    return {"min": flat.amin(0), "max": flat.amax(0), "mean": flat.mean(0), "std": flat.std(0, correction=0)}
