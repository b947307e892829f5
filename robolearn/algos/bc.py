"""Behaviour cloning: the most likely Gaussian over action chunks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robolearn.algos.imitation import Imitation, ImitationCfg, WindowSource
from robolearn.errors import unknown
from robolearn.nets.mlp import ACTIVATIONS
from robolearn.policies.gaussian_chunk import GaussianChunkPolicy
from robolearn.registry import register
from robolearn.spec import PolicySpec


@dataclass
class BCCfg(ImitationCfg):
    name: str = "bc"
    hidden: tuple[int, ...] = (512, 512)
    activation: str = "relu"
    initial_std: float = 0.5
    min_std: float = 0.01
    """Both in units of half the action's range in the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.min_std <= self.initial_std:
            raise ValueError(f"algo.min_std must be above 0 and at most initial_std, got {self.min_std}")
        if self.activation not in ACTIVATIONS:
            raise ValueError("algo.activation: " + unknown("activation", self.activation, tuple(ACTIVATIONS)))


@register("algo", "bc", BCCfg)
class BehaviourCloning(Imitation):
    def __init__(self, cfg: BCCfg, spec: PolicySpec, source: WindowSource, total_updates: int,
                 device: torch.device, generator: torch.Generator):  # fmt: skip
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator, device=device)))
        policy = GaussianChunkPolicy(cfg.chunked(spec), {
            "observation_steps": cfg.observation_steps, "encoder": cfg.encoder(), "hidden": list(cfg.hidden),
            "activation": cfg.activation, "initial_std": cfg.initial_std, "min_std": cfg.min_std,
        })  # fmt: skip
        super().__init__(cfg, policy, source, total_updates, device, generator)
