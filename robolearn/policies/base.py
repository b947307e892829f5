"""What every policy can do."""

from __future__ import annotations

import importlib
import pkgutil
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from robolearn import policies
from robolearn.registry import claim
from robolearn.spec import PolicySpec

CORRECTION = "correction"
"""The action function of a policy whose action is added to that of another one (robolearn.policies.residual)."""
POLICIES: dict[str, type[Policy]] = {}


class Policy(nn.Module):
    """Observation dictionary (B, ...) -> action (B, A), or (B, H, A) for chunks, in [-1, 1].

    `config` (plain JSON data) and `spec` are all that `build` needs to make the same module again.
    """

    kind = ""
    generator: torch.Generator | None = None
    """Where all noise of acting comes from; torch's own if it is None."""

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__()
        self.spec, self.config = spec, config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            claim(POLICIES, "policy kind", cls.kind, cls)

    @abstractmethod
    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """The action to execute, without exploration."""

    def reset(self, mask: Tensor) -> None:
        """Forget the recurrent state of these environments (B,)."""


def build(kind: str, spec: PolicySpec, config: dict[str, Any]) -> Policy:
    """The policy that calls itself `kind`, in any module here or imported before; KeyError if there is none."""
    if kind not in POLICIES:
        for module in pkgutil.iter_modules(policies.__path__, policies.__name__ + "."):
            importlib.import_module(module.name)
    if kind not in POLICIES:
        raise KeyError(f"no policy kind '{kind}'; there are {', '.join(sorted(POLICIES))}")
    return POLICIES[kind](spec, config)
