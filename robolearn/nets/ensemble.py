"""Many small networks of one shape as one: a batched matrix product a layer for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.errors import ConfigError, unknown
from robolearn.nets.mlp import ACTIVATIONS


class Ensemble(nn.Module):
    """`members` multi-layer perceptrons of these sizes, with LayerNorm before each activation if asked (Ball et al.
    2023): (B, sizes[0]), the same for all, or (E, B, sizes[0]) -> (E, B, sizes[-1]). With `picked` (k,), only these
    members: (k, B, sizes[-1])."""

    def __init__(self, members: int, sizes: Sequence[int], activation: str, layer_norm: bool = True):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(unknown("activation", activation, tuple(ACTIVATIONS)))
        self.members, self.activation = members, ACTIVATIONS[activation]()
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList([_orthogonal(members, *pair) for pair in pairs])
        self.biases = nn.ParameterList([torch.zeros(members, 1, n) for _, n in pairs])
        inner = [n for _, n in pairs[:-1]] if layer_norm else []
        self.gains = nn.ParameterList([torch.ones(members, 1, n) for n in inner])
        self.shifts = nn.ParameterList([torch.zeros(members, 1, n) for n in inner])

    def forward(self, x: Tensor, picked: Tensor | None = None) -> Tensor:
        def of(parameter: Tensor) -> Tensor:
            return parameter if picked is None else parameter[picked]

        x = x.expand(self.members if picked is None else len(picked), *x.shape[-2:])
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(of(bias), x, of(weight))
            if i < last:
                if len(self.gains):
                    x = functional.layer_norm(x, x.shape[-1:]) * of(self.gains[i]) + of(self.shifts[i])
                x = self.activation(x)
        return x


def _orthogonal(members: int, n_in: int, n_out: int) -> Tensor:
    """(E, n_in, n_out), each drawn for itself, gain sqrt 2."""
    weight = torch.empty(members, n_in, n_out)
    for member in weight:
        nn.init.orthogonal_(member, 2**0.5)
    return weight
