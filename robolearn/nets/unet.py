"""A one-dimensional U-Net over action chunks, conditioned by FiLM (Perez et al. 2018), after Janner et al. 2022 and
Chi et al. 2023 (Diffusion Policy). Every position has a noise level of its own, as streaming samplers need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

LEVEL_SCALE = 1000.0


class LevelEmbedding(nn.Module):
    """Noise level in [0, 1] (...,) -> (..., dim): sines and cosines (Vaswani et al. 2017), then two layers."""

    frequencies: Tensor

    def __init__(self, dim: int):
        super().__init__()
        if dim < 4 or dim % 2:
            raise ValueError(f"the embedding of the noise level must have an even size of at least 4, got {dim}")
        frequencies = torch.exp(torch.arange(dim // 2) * (-math.log(10_000.0) / (dim // 2 - 1)))
        self.register_buffer("frequencies", LEVEL_SCALE * frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))

    def forward(self, level: Tensor) -> Tensor:
        phase = level[..., None] * self.frequencies
        return self.layers(torch.cat((phase.sin(), phase.cos()), dim=-1))


def _block(n_in: int, n_out: int, kernel: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2), nn.GroupNorm(groups, n_out), nn.Mish())


class FilmBlock(nn.Module):
    """Two convolutions with a residual; the first one's output is scaled and shifted by the condition. The part of the
    condition that is the same at all positions is projected once."""

    def __init__(self, n_in: int, n_out: int, n_level: int, n_features: int, kernel: int, groups: int):
        super().__init__()
        self.first, self.second = _block(n_in, n_out, kernel, groups), _block(n_out, n_out, kernel, groups)
        self.by_level = nn.Sequential(nn.Mish(), nn.Conv1d(n_level, 2 * n_out, 1))
        self.by_features = nn.Sequential(nn.Mish(), nn.Linear(n_features, 2 * n_out))
        self.residual = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, level: Tensor, features: Tensor) -> Tensor:
        """x (B, C, T), level (B, n_level, T) or (B, n_level, 1), features (B, n_features)."""
        film = self.by_level(level) + self.by_features(features)[..., None]
        scale, shift = film.chunk(2, dim=1)
        return self.residual(x) + self.second((1.0 + scale) * self.first(x) + shift)


class Unet(nn.Module):
    """Noisy chunk (B, H, A), noise level (B, H) or (B, 1) in [0, 1], features (B, T, F) -> (B, H, A).

    `channels` are those of the resolutions, each half the one before: H must be a multiple of 2^(len(channels) - 1).
    """

    def __init__(self, action_dim: int, horizon: int, steps: int, feature_dim: int,
                 channels: Sequence[int] = (256, 512, 1024), level_dim: int = 256, kernel: int = 5,
                 groups: int = 8):  # fmt: skip
        super().__init__()
        parts = 2 ** (len(channels) - 1)
        if horizon % parts:
            raise ValueError(f"a U-Net of {len(channels)} resolutions needs a horizon that is a multiple of {parts}, "
                             f"not {horizon}; change the horizon or network.channels")  # fmt: skip
        if any(c % groups for c in channels) or kernel % 2 == 0:
            raise ValueError(f"network.channels must be multiples of groups ({groups}) and the kernel odd; "
                             f"got {tuple(channels)} and {kernel}")  # fmt: skip
        self.embedding = LevelEmbedding(level_dim)

        def blocks(n_in: int, n_out: int) -> nn.ModuleList:
            sizes = ((n_in, n_out), (n_out, n_out))
            return nn.ModuleList(FilmBlock(a, b, level_dim, steps * feature_dim, kernel, groups) for a, b in sizes)

        top, bottom = channels[0], channels[-1]
        pairs = list(zip([action_dim, *channels[:-1]], channels, strict=True))
        self.down = nn.ModuleList(blocks(a, b) for a, b in pairs)
        self.shrink = nn.ModuleList(nn.Conv1d(c, c, 3, stride=2, padding=1) for c in channels[:-1])
        self.middle = blocks(bottom, bottom)
        self.grow = nn.ModuleList(nn.ConvTranspose1d(c, c, 4, stride=2, padding=1) for c in channels[1:])
        self.up = nn.ModuleList(blocks(a + b, a) for a, b in pairwise(channels))
        self.last = nn.Sequential(_block(top, top, kernel, groups), nn.Conv1d(top, action_dim, 1))

    def forward(self, noisy: Tensor, level: Tensor, features: Tensor) -> Tensor:
        x, seen = noisy.transpose(1, 2), features.flatten(1)
        levels = _pyramid(self.embedding(level).transpose(1, 2), len(self.down))
        kept: list[Tensor] = []
        for i, pair in enumerate(self.down):
            x = self._through(pair, x, levels[i], seen)
            if i < len(self.shrink):
                kept.append(x)
                x = self.shrink[i](x)
        x = self._through(self.middle, x, levels[-1], seen)
        for i in reversed(range(len(self.up))):
            x = torch.cat((self.grow[i](x), kept[i]), dim=1)
            x = self._through(self.up[i], x, levels[i], seen)
        return self.last(x).transpose(1, 2)

    @staticmethod
    def _through(pair: nn.Module, x: Tensor, level: Tensor, seen: Tensor) -> Tensor:
        assert isinstance(pair, nn.ModuleList)
        for block in pair:
            x = block(x, level, seen)
        return x


def _pyramid(level: Tensor, resolutions: int) -> list[Tensor]:
    """The embedded levels (B, E, H) at every resolution: means of neighbours. One level for all stays one."""
    out = [level]
    for _ in range(resolutions - 1):
        out.append(out[-1] if level.shape[2] == 1 else nn.functional.avg_pool1d(out[-1], 2))
    return out
