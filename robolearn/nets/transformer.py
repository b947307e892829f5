"""A transformer over action chunks: the second denoiser of Diffusion Policy (Chi et al. 2023), with a noise level for
every position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robolearn.nets.unet import LevelEmbedding


class ChunkTransformer(nn.Module):
    """Noisy chunk (B, H, A), noise level (B, H) or (B, 1) in [0, 1], features (B, T, F) -> (B, H, A).

    Each action is a token that carries its noise level; it attends to the actions (to earlier ones only if `causal`)
    and to the T observations. Layers normalise first.
    """

    def __init__(self, action_dim: int, horizon: int, steps: int, feature_dim: int, width: int = 256, layers: int = 8,
                 heads: int = 4, dropout: float = 0.0, causal: bool = False):  # fmt: skip
        super().__init__()
        if width % heads:
            raise ValueError(f"network.width must be a multiple of network.heads, got {width} and {heads}")
        self.embedding = LevelEmbedding(width)
        self.action, self.feature = nn.Linear(action_dim, width), nn.Linear(feature_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, horizon, width))
        self.time = nn.Parameter(0.02 * torch.randn(1, steps, width))
        layer = nn.TransformerDecoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.last = nn.Linear(width, action_dim)
        mask = nn.Transformer.generate_square_subsequent_mask(horizon) if causal else None
        self.mask: Tensor | None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, noisy: Tensor, level: Tensor, features: Tensor) -> Tensor:
        tokens = self.action(noisy) + self.position + self.embedding(level)
        memory = self.feature(features) + self.time
        return self.last(self.layers(tokens, memory, tgt_mask=self.mask, tgt_is_causal=self.mask is not None))
