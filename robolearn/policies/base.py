"""What every policy can do."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from robolearn.spec import PolicySpec

POLICIES: dict[str, type[Policy]] = {}


class Policy(nn.Module):
    """Observation dictionary (B, ...) -> action (B, A), or (B, H, A) for chunks, in [-1, 1].

    `config` (plain JSON data) and `spec` are all that `build` needs to make the same module again.
    """

    kind = ""
    deterministic = True

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__()
        self.spec, self.config = spec, config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        POLICIES[cls.kind] = cls

    @abstractmethod
    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """The action to execute, without exploration."""

    def reset(self, mask: Tensor) -> None:
        """Forget the recurrent state of these environments (B,)."""


def build(kind: str, spec: PolicySpec, config: dict[str, Any]) -> Policy:
    if kind not in POLICIES:
        raise KeyError(f"no policy kind '{kind}'; there are {', '.join(sorted(POLICIES))}")
    return POLICIES[kind](spec, config)
