"""A hand that is closed or open, as a decision: a deep Q network with double-Q targets (van Hasselt et al. 2016) learns
which, beside the actor that moves the arm (HIL-SERL, Luo et al. 2024)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.algos.off_policy_cfg import OffPolicyCfg
from robolearn.data.replay import Batch, Replay
from robolearn.policies.squashed import CLOSED, OPEN, SquashedPolicy

STILL = 0.05
"""Of a gripper's number: by less it has not moved."""
SHARPNESS = 10.0
"""Logits of a choice by what the two are worth: one that is worth 0.3 more is nearly certain."""


def told(now: Tensor, before: Tensor) -> Tensor:
    """(B,) bool, open: what the hand was told, where its number is `now` (B,) and was `before`.

    Fingers need their time, and what reached them says how far they were let: so it is the direction that counts; of a
    hand that stays, where it is.
    """
    moved = now - before
    return torch.where(moved.abs() > STILL, moved > 0.0, now > (CLOSED + OPEN) / 2)


class Gripper:
    """The decisions of `policy`, made and learned. An episode begins with an open hand."""

    def __init__(self, cfg: OffPolicyCfg, policy: SquashedPolicy):
        assert policy.hand is not None
        self.cfg, self.policy, self.hand = cfg, policy, policy.hand
        self.target = copy.deepcopy(policy.hand).requires_grad_(False)
        most = cfg.gripper_penalty / max(1e-3, 1.0 - cfg.gamma)
        self.low = cfg.value_low - most
        """No return can be less, with what all changes cost."""

    # --- what was decided -------------------------------------------------------------------------------------------

    def told(self, replay: Replay, rows: Tensor) -> Tensor:
        """(B,) bool, open: in the transitions `rows` (B,). Of one whose predecessor was overwritten its number alone
        says it."""
        now, (before, known) = replay.action[rows, -1], replay.before(rows)
        first = torch.where(replay.t[rows] == 0, torch.full_like(now, OPEN), now)
        return told(now, torch.where(known, replay.action[before, -1], first))

    def changed(self, replay: Replay, rows: Tensor) -> Tensor:
        """(B,) bool: it was told something else than in the step before, or than it was when the episode began."""
        now, (before, known) = self.told(replay, rows), replay.before(rows)
        first = torch.where(replay.t[rows] == 0, torch.ones_like(now), now)
        return now != torch.where(known, self.told(replay, before), first)

    def of(self, replay: Replay, rows: Tensor) -> Batch:
        """For a batch of the transitions `rows`: `choice` (B,), the number of what was told, and `cost` (B,), the
        discounted sum of what the changes cost over as many steps as rewards are summed over."""
        path, made = replay.path(rows, self.cfg.n_step)
        cost = torch.zeros_like(replay.reward[rows])
        for k, (at, alive) in enumerate(zip(path[:-1], made, strict=True)):
            cost = cost + self.cfg.gamma**k * self.cfg.gripper_penalty * (alive & self.changed(replay, at))
        return {"choice": self.told(replay, rows).long(), "cost": cost}

    # --- deciding ---------------------------------------------------------------------------------------------------

    def explored(self, action: Tensor, generator: torch.Generator) -> Tensor:
        """Actions (B, A), some of them with the hand at random."""
        drawn = torch.rand(2, len(action), generator=generator, device=action.device)
        either = torch.where(drawn[0] < 0.5, OPEN, CLOSED)
        hand = torch.where(drawn[1] < self.cfg.gripper_epsilon, either, action[:, -1])
        return torch.cat((action[:, :-1], hand[:, None]), dim=1)

    # --- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, seen: Tensor, after: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of what the choices are worth, of features (B, dim) and those of the next frames. A
        person's are imitated besides where `labels` says so."""
        cfg = self.cfg
        with torch.no_grad():
            best = self.policy.choices(after).argmax(1, keepdim=True)
            later = self.target(after)[0].gather(1, best).squeeze(1)
            goal = batch["reward"] - batch["cost"] + batch["discount"] * later
            goal = goal.clamp(self.low, cfg.value_high)
        said = self.policy.choices(seen)
        loss = ((said.gather(1, batch["choice"][:, None]).squeeze(1) - goal) ** 2).mean()
        figures = {"gripper_loss": loss.detach(), "gripper_cost": batch["cost"].mean()}
        if cfg.labels == "supervised":
            loss = loss + cfg.imitation * self.surprise(batch, seen)
        return loss, figures

    def surprise(self, batch: Batch, seen: Tensor) -> Tensor:
        """The mean cross entropy to what a person chose."""
        human = batch["human"].float()
        each = functional.cross_entropy(SHARPNESS * self.policy.choices(seen), batch["choice"], reduction="none")
        return (each * human).sum() / human.sum().clamp_min(1.0)

    @torch.no_grad()
    def follow(self) -> None:
        """The target's network, by `tau`."""
        torch._foreach_lerp_(list(self.target.parameters()), list(self.hand.parameters()), self.cfg.tau)

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.hand.parameters()

    def state_dict(self) -> dict[str, Any]:
        """The network itself is the policy's."""
        return self.target.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.target.load_state_dict(state)
