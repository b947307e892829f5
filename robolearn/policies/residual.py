"""Corrections of a base policy that plans chunks: a = base + scale * correction (Silver et al. 2018, Ankile et al.
2024).

The base is seen through its actions only, so any chunked policy serves, and its queues stay its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robolearn.errors import ConfigError
from robolearn.policies.base import CORRECTION, Policy, build
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.spec import Field, ObservationSpec, PolicySpec, TermSpec, from_dict, stepwise, to_dict

BASE, STATE = "base_action", "state"


def correction_spec(spec: PolicySpec, scale: float) -> PolicySpec:
    """What a policy of corrections reads and says, where `spec` is a world's: every group's vector is followed by the
    base's action of the same moment; the action is the correction in units of `scale`."""
    seen, action = spec.observation, stepwise(spec).action

    def group(name: str) -> tuple[TermSpec, ...]:
        base = TermSpec(Field(BASE, (action.dim,)), BASE)
        state = [TermSpec(Field(STATE, (seen.dim(name),)), STATE)] if seen.frame_dim(name) else []
        return (*state, base, *(t for t in seen.terms(name) if t.field.kind != "vector"))

    about = replace(action, function=CORRECTION, low=-1.0, high=1.0, params={"scale": scale, "low": action.low,
                    "high": action.high})  # fmt: skip
    return replace(spec, observation=ObservationSpec({g: group(g) for g in seen.groups}), action=about)


def extended(obs: dict[str, Tensor], base: Tensor, spec: PolicySpec) -> dict[str, Tensor]:
    """An observation of `spec`'s world with the base's action (B, A), as `correction_spec` says."""
    groups = {g: torch.cat((obs[g], base), dim=1) if g in obs else base for g in spec.observation.groups}
    return dict(obs) | groups


def composed(base: Tensor, correction: Tensor, scale: float) -> Tensor:
    """The action, before it is cut to its bounds; all (B, A)."""
    return base + scale * correction


class ResidualPolicy(Policy):
    """config: base (kind, config, spec), head (kind, config) and scale. The head is a policy of its own, made for
    `correction_spec`."""

    kind = "residual"

    def __init__(self, spec: PolicySpec, config: dict[str, Any]):
        super().__init__(spec, config)
        about, head = config["base"], config["head"]
        base = build(about["kind"], from_dict(PolicySpec, about["spec"]), about["config"])
        if not isinstance(base, ChunkedPolicy):
            raise ConfigError(f"a base policy plans chunks of actions; '{about['kind']}' does not")
        self.base, self.scale = base, float(config["scale"])
        self.head = build(head["kind"], correction_spec(spec, self.scale), head["config"])

    @classmethod
    def of(cls, base: ChunkedPolicy, head: Policy, scale: float) -> ResidualPolicy:
        """Of two policies that are there; the weights are copied."""
        about = {"kind": base.kind, "config": base.config, "spec": to_dict(base.spec)}
        config = {"base": about, "head": {"kind": head.kind, "config": head.config}, "scale": scale}
        made = cls(base.spec, config)
        made.base.load_state_dict(base.state_dict())
        made.head.load_state_dict(head.state_dict())
        return made.to(next(head.parameters()).device)

    @property
    def generator(self) -> torch.Generator | None:
        return self.base.generator

    @generator.setter
    def generator(self, value: torch.Generator | None) -> None:
        self.base.generator = self.head.generator = value

    @torch.no_grad()
    def act(self, obs: dict[str, Tensor]) -> Tensor:
        return self.correct(obs, self.base.act(obs))

    @torch.no_grad()
    def correct(self, obs: dict[str, Tensor], base: Tensor) -> Tensor:
        """The action (B, A) where the base policy, planning elsewhere, says `base` (B, A)."""
        correction = self.head.act(extended(obs, base, self.spec))
        return composed(base, correction, self.scale).clamp(self.spec.action.low, self.spec.action.high)

    def reset(self, mask: Tensor) -> None:
        self.base.reset(mask)
        self.head.reset(mask)
