"""The diffusion process over action chunks: noise schedules, and one reverse step for every position's own level.

A level is an index: -1 is clean, N - 1 the most noise. `alphas_cumprod[k]` is the share of the signal's power that is
left at level k (Ho et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robolearn.optional import lazy

_ddpm = lazy("diffusers.schedulers.scheduling_ddpm", extra="diffusion")


def alphas_cumprod(levels: int, schedule: str = "squaredcos_cap_v2") -> list[float]:
    """Of a schedule of `diffusers`. Stored in the policy's configuration: a robot needs no diffusers. ValueError for a
    schedule that there is not."""
    if levels < 2:
        raise ValueError(f"a diffusion process needs at least 2 noise levels, got {levels}")
    try:
        made = _ddpm.DDPMScheduler(num_train_timesteps=levels, beta_schedule=schedule)
    except NotImplementedError as error:
        raise ValueError(f"no noise schedule '{schedule}': {error}") from None
    return made.alphas_cumprod.tolist()


class NoiseProcess(nn.Module):
    """The process, in normalised units. `clip` bounds what a step takes the clean chunk for, 0 for no bound."""

    alphas: Tensor

    def __init__(self, alphas_cumprod: Sequence[float], clip: float = 1.0):
        super().__init__()
        alphas = torch.tensor([1.0, *alphas_cumprod], dtype=torch.float64)
        if len(alphas) < 3 or not (alphas[1:] < alphas[:-1]).all() or not alphas[-1] > 0.0:
            raise ValueError("alphas_cumprod must fall from below 1 and stay above 0")
        self.levels, self.clip = len(alphas_cumprod), clip
        self.register_buffer("alphas", alphas.float(), persistent=False)

    def share(self, level: Tensor) -> Tensor:
        """What a network is told: 0 for clean, 1 for the most noise."""
        return (level + 1).float() / self.levels

    def noisy(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """clean and noise (B, H, A), level (B, H) or (B, 1): a draw of q(x_level | clean)."""
        alpha = self.alphas[level + 1][..., None]
        return alpha.sqrt() * clean + (1.0 - alpha).sqrt() * noise

    def step(self, x: Tensor, epsilon: Tensor, level: Tensor, to: Tensor, eta: float, noise: Tensor | None) -> Tensor:
        """From `level` to the lower level `to` (each (B, H) or (B, 1)); positions with to == level stay as they are.

        Song et al. 2021 (DDIM), eq. 12 and 16: `eta` 0 is deterministic; 1 between neighbouring levels is the
        posterior of Ho et al. 2020, eq. 7. `noise` (B, H, A) is read if eta > 0.
        """
        now, then = self.alphas[level + 1][..., None], self.alphas[to + 1][..., None]
        clean = (x - (1.0 - now).sqrt() * epsilon) / now.sqrt()
        if self.clip:
            clean = clean.clamp(-self.clip, self.clip)
            epsilon = (x - now.sqrt() * clean) / (1.0 - now).clamp_min(1e-12).sqrt()
        variance = eta**2 * (1.0 - then) / (1.0 - now).clamp_min(1e-12) * (1.0 - now / then).clamp_min(0.0)
        out = then.sqrt() * clean + (1.0 - then - variance).clamp_min(0.0).sqrt() * epsilon
        if eta > 0.0 and noise is not None:
            out = out + variance.sqrt() * noise
        return torch.where((to == level)[..., None], x, out)
