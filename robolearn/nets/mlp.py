"""Multi-layer perceptrons and a running normaliser."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError, unknown
from robolearn.nets.normalize import FineNormalizer

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def mlp(sizes: Sequence[int], activation: str, last_gain: float = 1.0) -> nn.Sequential:
    """Linear layers of these sizes, orthogonally initialised (gain sqrt 2; `last_gain` for the last one)."""
    if activation not in ACTIVATIONS:
        raise ConfigError(unknown("activation", activation, tuple(ACTIVATIONS)))
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, last_gain if last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class Normalizer(nn.Module):
    """Running mean and variance of a vector (Chan et al. 1979, merged batch by batch); the output is clamped to
    +-`clip` standard deviations."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, dim: int, clip: float = 5.0):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))
        self.register_buffer("count", torch.zeros(()))

    def update(self, batch: Tensor) -> None:
        """Merge batch (N, dim)."""
        n = len(batch)
        off = batch - batch[0]  # of the size of the deviation, so that the difference of squares is accurate
        middle = off.mean(0)
        delta = middle + batch[0] - self.mean
        var = (off.square_().mean(0) - middle**2).clamp_min(0.0)
        total = self.count + n
        self.var.copy_((self.var * self.count + var * n + delta**2 * (self.count * n / total)) / total)
        self.mean.add_(delta * (n / total))
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * torch.rsqrt(self.var + 1e-6)).clamp(-self.clip, self.clip)


NORMALIZERS: dict[str, type[Normalizer] | type[FineNormalizer]] = {"running": Normalizer, "fine": FineNormalizer}


def normalizer(name: str, dim: int) -> Normalizer | FineNormalizer:
    if name not in NORMALIZERS:
        raise ConfigError("algo.normalizer: " + unknown("normaliser", name, tuple(NORMALIZERS)))
    return NORMALIZERS[name](dim)
