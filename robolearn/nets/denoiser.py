"""The networks that a diffusion policy can be made of, by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from robolearn.errors import ConfigError, unknown
from robolearn.nets.transformer import ChunkTransformer
from robolearn.nets.unet import Unet

DENOISERS: dict[str, type[nn.Module]] = {"unet": Unet, "transformer": ChunkTransformer}


def denoiser(config: dict[str, Any], action_dim: int, horizon: int, steps: int, feature_dim: int) -> nn.Module:
    """`config["name"]` of DENOISERS with the rest of config as its settings. ConfigError for a name or setting that
    does not exist."""
    settings = dict(config)
    name = settings.pop("name", "")
    if name not in DENOISERS:
        raise ConfigError(unknown("network", name, tuple(DENOISERS)))
    try:
        return DENOISERS[name](action_dim, horizon, steps, feature_dim, **settings)
    except TypeError as error:
        raise ConfigError(f"network {name}: {error}") from None
