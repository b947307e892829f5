"""What an actor tells a learner of a step, and how both read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robolearn.distributed.records import About, Field, Record, fields
from robolearn.env import Extras, Obs
from robolearn.nets.encoder import observed
from robolearn.policies.base import Policy
from robolearn.spec import PolicySpec, to_dict

OBS = "obs/"
NUMBERS = ("human", "reward", "terminated", "truncated", "success", "weights")
"""Of a step: whose action it was, what came of it, and the version of the weights that the policy acted with."""


def about(run: str, spec: PolicySpec, policy: Policy) -> About:
    """Both ends must be of one run, one robot, one rate, one observation and one action."""
    shapes = observed(spec.observation)
    seen = {f"{OBS}{k}": Field("uint8" if len(s) > 1 else "float32", tuple(s), first=True) for k, s in shapes.items()}
    action = Field("float32", (spec.action.dim,))
    return About(run, to_dict(spec), seen | {"action": action, "proposed": action}, NUMBERS,
                 fields(policy.state_dict()))  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One environment's, (1, ...) each."""

    action: Tensor
    """As it reached the robot."""
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Obs
    human: Tensor
    success: bool
    weights: int

    @property
    def done(self) -> bool:
        return bool(self.terminated | self.truncated)


def first(obs: Obs, keys: Any) -> Record:
    """The frame that an episode of one environment begins with; `obs` (1, ...)."""
    return Record(_seen(obs, keys), first=True)


def step(action: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, extras: Extras, keys: Any,
         weights: int) -> Record:  # fmt: skip
    """What came of the policy's `action` (1, A)."""
    human = extras.get("intervened", torch.zeros_like(terminated))
    success = extras["episode"].get("success", torch.zeros_like(reward)) * (terminated | truncated)
    numbers = {"human": human, "reward": reward, "terminated": terminated, "truncated": truncated, "success": success}
    tensors = {"action": extras["applied_action"][0], "proposed": action[0]}
    return Record(_seen(extras["final_obs"], keys) | tensors, {k: float(v) for k, v in numbers.items()} |
                  {"weights": float(weights)})  # fmt: skip


def frame_of(record: Record) -> Obs:
    """(1, ...) by key."""
    return {k.removeprefix(OBS): torch.as_tensor(v)[None] for k, v in record.tensors.items() if k.startswith(OBS)}


def step_of(record: Record) -> Step:
    told = record.numbers
    flag = {k: torch.tensor([bool(told[k])]) for k in ("human", "terminated", "truncated")}
    action = torch.as_tensor(record.tensors["action"])[None]
    return Step(action, torch.tensor([told["reward"]], dtype=torch.float32), flag["terminated"], flag["truncated"],
                frame_of(record), flag["human"], bool(told["success"]), int(told["weights"]))  # fmt: skip


def _seen(obs: Obs, keys: Any) -> dict[str, Tensor]:
    return {f"{OBS}{k}": obs[k][0] for k in keys}
