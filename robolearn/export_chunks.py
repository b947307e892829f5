"""What is exported of a policy that plans chunks: the whole plan, from a history of observations and given noise."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.diffusion import DiffusionPolicy
from robolearn.policies.samplers import Drawn, Sampler, Streaming
from robolearn.spec import Field

MOST_CALLS = 32
"""Of the network in one graph, where they stand one after another."""
NOISE, BUFFER, AFTER = "noise", "buffer", "next_buffer"


class Planning(nn.Module):
    """Histories by key (B, T, ...), with `noise` (B, n, H, A) and `buffer` (B, H, A) where the sampler has them, ->
    a chunk (B, H, A) in the units of the action, and `next_buffer`.

    `fields` are the inputs, without the batch; `outputs` their names. ValueError for a sampler of too many calls.
    """

    def __init__(self, policy: ChunkedPolicy):
        super().__init__()
        self.policy, self.outputs = policy, ["action"]
        kinds = {k: "uint8" for k in policy.encoder.pictures}
        self.fields = {
            k: Field(k, (policy.steps, *s), dtype=kinds.get(k, "float32")) for k, s in policy.encoder.shapes.items()
        }
        self.about = {"observation_steps": str(policy.steps)}
        if isinstance(policy, DiffusionPolicy):
            self._add_noise(policy)

    def _add_noise(self, policy: DiffusionPolicy) -> None:
        made, size = policy.sampler, (policy.horizon, policy.spec.action.dim)
        if made.calls > MOST_CALLS:
            raise ValueError(
                f"{made.kind} calls the network {made.calls} times a chunk, and a file holds every call (at most "
                f"{MOST_CALLS}): export with steps=16, and sampler=ddim in place of ddpm"
            )
        self.fields[NOISE] = Field(NOISE, (_draws(made, size), *size))
        self.about |= {"sampler": json.dumps(policy.config["sampler"]), "network_calls": str(made.calls)}
        if isinstance(made, Streaming):
            self.fields[BUFFER] = Field(BUFFER, size)
            self.outputs.append(AFTER)
            self.about["first_buffer_std"] = json.dumps(made.waiting_noise().tolist())

    def forward(self, inputs: dict[str, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        obs = {k: inputs[k] for k in self.policy.encoder.shapes}
        if not isinstance(self.policy, DiffusionPolicy):
            return self.policy.in_units(self.policy.plan(obs, torch.empty(0)))
        features = self.policy.encoder(obs)
        buffer, noise = inputs.get(BUFFER), inputs[NOISE]
        if buffer is None:  # each chunk begins with noise; that of the next chunk is drawn, but not read
            buffer, noise = self.policy.sampler.temperature * noise[:, 0], noise.roll(-1, 1)
        chunk, after = self.policy.sampler.advance(self._denoise(features), buffer, Drawn(noise))
        action = self.policy.in_units(chunk)
        return (action, after) if BUFFER in self.fields else action

    def _denoise(self, features: Tensor) -> Any:
        network = self.policy.get_submodule("network")
        return lambda noisy, level: network(noisy, level, features)


class _Counted(Drawn):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.count = 0

    def take(self, like: Tensor) -> Tensor:
        self.count += 1
        return torch.zeros_like(like)


def _draws(made: Sampler, size: tuple[int, ...]) -> int:
    """How many noises one `advance` asks for."""
    counted = _Counted()
    made.advance(lambda noisy, level: torch.zeros_like(noisy), torch.zeros(1, *size), counted)
    return counted.count
