"""Specifications and windows in memory, shared by the tests of chunked policies and of their learners."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from robolearn.nets.normalize import statistics_of
from robolearn.policies.base import Policy, build
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.noise import alphas_cumprod
from robolearn.robots.franka import FRANKA
from robolearn.spec import ActionSpec, Field, ObservationSpec, PolicySpec, TermSpec

UNET = {"name": "unet", "channels": [16, 32], "level_dim": 16}
SMALL_CAMERA = {"crop": [20, 20], "widths": [16, 32], "blocks": 1, "features": 8, "points": 4}


def step_spec(state: int = 3, action: int = 2, camera: bool = False) -> PolicySpec:
    """What an environment says: one action at a time."""
    terms = [TermSpec(Field("state", (state,)), "last_action")]
    if camera:
        terms += [TermSpec(Field("wrist", (24, 24, 3), kind="image", dtype="uint8"), "command")]
    act = ActionSpec("joint_position_delta", FRANKA.arm_joints[:action], "rad", scale=(0.04,) * action)
    return PolicySpec("franka", 30.0, ObservationSpec({"policy": tuple(terms)}), act)


def chunk_spec(horizon: int, execute: int, **given: int) -> PolicySpec:
    spec = step_spec(**given)
    return replace(spec, action=replace(spec.action, horizon=horizon, execute=execute))


def diffusion(spec: PolicySpec, sampler: dict, encoder: dict | None = None, steps: int = 2) -> Policy:
    config = {"observation_steps": steps, "encoder": encoder or {}, "network": UNET, "sampler": sampler}
    return build("diffusion", spec, config | {"alphas_cumprod": alphas_cumprod(20)})


def gaussian(spec: PolicySpec, encoder: dict | None = None) -> Policy:
    config = {"hidden": [16], "activation": "relu", "initial_std": 0.5, "min_std": 0.01}
    return build("gaussian_chunk", spec, config | {"observation_steps": 2, "encoder": encoder or {}})


class Constant(ChunkedPolicy):
    """Whose actions are all `config["says"]`."""

    kind = ""

    def loss(self, windows, generator=None) -> Tensor:
        raise NotImplementedError

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        return torch.full((len(rows), self.horizon, self.spec.action.dim), self.config["says"])


class InMemory:
    """Windows that are there already."""

    def __init__(self, **tensors: Tensor):
        self.tensors = {k.replace("__", "."): v for k, v in tensors.items()}

    def __len__(self) -> int:
        return len(self.tensors["action"])

    def windows(self, batch: Tensor) -> dict[str, Tensor]:
        return {k: v[batch] for k, v in self.tensors.items()}

    def stream(self, batches: Iterable[Tensor]) -> Iterator[dict[str, Tensor]]:
        return map(self.windows, batches)

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        return {k: statistics_of(v) for k, v in self.tensors.items() if k != "mask" and v.dtype == torch.float32}
