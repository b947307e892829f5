"""Values as histograms: a regression learned as a classification (HL-Gauss, Farebrother et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError

SMOOTHING = 0.75
"""Deviation of the Gaussian around a target, in bins: the paper's."""
PAD, LEAST_BINS = 3, 8


class Histogram(nn.Module):
    """`bins` about low to high, PAD of them beyond each: a Gaussian about an end would lose its half, and its mean
    would lie inside. Logits are (..., bins)."""

    edges: Tensor

    def __init__(self, low: float, high: float, bins: int):
        super().__init__()
        if bins < LEAST_BINS:
            raise ConfigError(f"a histogram has at least {LEAST_BINS} bins, got {bins}")
        width = (high - low) / (bins - 2 * PAD)
        self.bins, self.deviation = bins, SMOOTHING * width
        self.register_buffer("edges", torch.linspace(low - PAD * width, high + PAD * width, bins + 1))

    def value(self, logits: Tensor) -> Tensor:
        """The mean, (...,)."""
        return logits.softmax(-1) @ ((self.edges[1:] + self.edges[:-1]) / 2)

    def target(self, value: Tensor) -> Tensor:
        """Shares of the bins of a Gaussian about `value`, cut to the range."""
        below = torch.special.ndtr((self.edges - value[..., None]) / self.deviation)
        return below.diff(dim=-1) / (below[..., -1:] - below[..., :1]).clamp_min(1e-6)

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross entropy (...,) of logits (..., bins) to the target of `value`, whose shape may be broadcast."""
        return -(self.target(value) * logits.log_softmax(-1)).sum(-1)
