"""What the off-policy learners ask of their optimizers, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def fall(optimizers: Mapping[str, torch.optim.Optimizer], cfg: Any, progress: float) -> None:
    """Each one's learning rate, cfg.NAME_rate, on its straight way down to the share cfg.rate_at_end of it."""
    share = 1.0 - (1.0 - cfg.rate_at_end) * min(1.0, progress)
    for name, optimizer in optimizers.items():
        optimizer.param_groups[0]["lr"] = getattr(cfg, f"{name}_rate") * share


def state_of(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
    return {name: {str(i): s for i, s in o.state_dict()["state"].items()} for name, o in optimizers.items()}


def rates_of(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, float]:
    return {name: o.param_groups[0]["lr"] for name, o in optimizers.items()}


def put_state(optimizers: Mapping[str, torch.optim.Optimizer], state: dict[str, Any], rates: dict[str, float]) -> None:
    """What `state_of` and `rates_of` gave."""
    for name, optimizer in optimizers.items():
        moments = {int(i): s for i, s in state.get(name, {}).items()}
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        optimizer.param_groups[0]["lr"] = rates.get(name, optimizer.param_groups[0]["lr"])
