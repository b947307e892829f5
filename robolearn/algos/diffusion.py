"""Learning a diffusion policy (Chi et al. 2023), for any of its samplers; defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from robolearn.algos.imitation import Imitation, ImitationCfg, WindowSource
from robolearn.errors import unknown
from robolearn.nets.denoiser import DENOISERS
from robolearn.policies.diffusion import DiffusionPolicy
from robolearn.policies.noise import alphas_cumprod
from robolearn.policies.samplers import SAMPLERS
from robolearn.registry import register
from robolearn.spec import PolicySpec


@dataclass
class DiffusionCfg(ImitationCfg):
    name: str = "diffusion"
    network: str = "unet"
    """unet or transformer."""
    channels: tuple[int, ...] = (256, 512, 1024)
    """Of the U-Net's resolutions."""
    level_dim: int = 256
    """Of the U-Net's embedding of the noise level."""
    width: int = 256
    layers: int = 8
    heads: int = 4
    """Of the transformer."""
    sampler: str = "ddim"
    """ddpm, ddim, streaming or flow. A network that is trained for streaming serves ddpm and ddim too."""
    steps: int = 16
    """Network calls from pure noise to a chunk; ddpm makes one a noise level."""
    temperature: float = 1.0
    """Scale of the noise that chunks are drawn from, once trained: 1 draws from what was learned, less keeps to what is
    likely of it."""
    noise_levels: int = 100
    schedule: str = "squaredcos_cap_v2"
    """A noise schedule of the library diffusers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, table in (("network", DENOISERS), ("sampler", SAMPLERS)):
            if getattr(self, key) not in table:
                raise ValueError(f"algo.{key}: " + unknown(key, getattr(self, key), tuple(table)))
        if not 0.0 <= self.temperature <= 1.0:
            raise ValueError(f"algo.temperature must be in [0, 1], got {self.temperature}")
        if not 1 <= self.steps <= self.noise_levels:
            raise ValueError(f"algo.steps must be from 1 to algo.noise_levels, got {self.steps}")

    def denoiser(self) -> dict[str, Any]:
        if self.network == "unet":
            return {"name": "unet", "channels": list(self.channels), "level_dim": self.level_dim}
        return {"name": self.network, "width": self.width, "layers": self.layers, "heads": self.heads}


@register("algo", "diffusion", DiffusionCfg)
class Diffusion(Imitation):
    def __init__(self, cfg: DiffusionCfg, spec: PolicySpec, source: WindowSource, total_updates: int,
                 device: torch.device, generator: torch.Generator):  # fmt: skip
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator, device=device)))
        policy = DiffusionPolicy(cfg.chunked(spec), {
            "observation_steps": cfg.observation_steps, "encoder": cfg.encoder(), "network": cfg.denoiser(),
            "sampler": {"name": cfg.sampler, "temperature": cfg.temperature}
            | ({} if cfg.sampler == "ddpm" else {"steps": cfg.steps}),
            "alphas_cumprod": alphas_cumprod(cfg.noise_levels, cfg.schedule),
        })  # fmt: skip
        super().__init__(cfg, policy, source, total_updates, device, generator)
