"""A world in which a base policy acts, and the learner corrects it."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import torch
from torch import Tensor

from robolearn.env import Env, Extras, Obs
from robolearn.errors import ConfigError
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.residual import composed, correction_spec, extended
from robolearn.spec import PolicySpec, stepwise

log = logging.getLogger(__name__)
CUT_SHARE, CUT_STEPS = 0.2, 2000
"""A warning where more than this share of the actions were cut to their bounds, in this many environment steps."""


class GuidedEnv:
    """Fulfils `robolearn.env.Env` for corrections of `base`: the action (B, A) in [-1, 1] is added, times `scale`, to
    the base's own, and the observation holds the base's next action (see `correction_spec`). `applied_action` is the
    correction that reached the robot; it may lie outside [-1, 1], where the robot's limits cut the base's action.

    With `switch_steps` H > 0 an episode of an environment is corrected with probability min(1, steps / H), and the
    base's alone otherwise, of which the learner is told by `applied_action` 0 (Policy Decorator, Yuan et al. 2024).
    """

    def __init__(self, env: Env, spec: PolicySpec, base: ChunkedPolicy, scale: float, seed: int, switch_steps: int = 0):
        self.env, self.base, self.scale, self.switch_steps = env, base.eval().requires_grad_(False), scale, switch_steps
        self.generator = torch.Generator(env.device).manual_seed(seed)
        self.base.generator = self.generator
        self._spec = correction_spec(stepwise(spec), scale)
        self.observation_spec, self.action_spec = self._spec.observation, self._spec.action
        self._action = torch.zeros(env.num_envs, self.action_spec.dim, device=env.device)
        self._on = torch.ones(env.num_envs, 1, device=env.device)
        self._steps, self._cut, self._warned = 0, torch.zeros((), device=env.device), False

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # not there yet, or any more
            raise AttributeError(name)
        return getattr(self.env, name)

    def policy_spec(self) -> PolicySpec:
        return self._spec

    @torch.no_grad()
    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, Extras]:
        obs, extras = self.env.reset(seed, options)
        everyone = torch.ones(self.env.num_envs, dtype=torch.bool, device=self.env.device)
        self.base.reset(everyone)
        self._draw(everyone)
        self._action = self.base.act(obs)
        return extended(obs, self._action, self._spec), extras

    @torch.no_grad()
    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        spec, base = self.env.action_spec, self._action
        wanted = composed(base, action.clamp(-1.0, 1.0) * self._on, self.scale)
        sent = wanted.clamp(spec.low, spec.high)
        obs, reward, terminated, truncated, extras = self.env.step(sent)
        applied = (extras["applied_action"] - base) / self.scale * self._on
        self._count(wanted != sent)
        done = terminated | truncated
        after = self.base.act(extras["final_obs"])
        final = extended(extras["final_obs"], after, self._spec)
        if bool(done.any()):
            self.base.reset(done)
            self._draw(done)
            after = torch.where(done[:, None], self.base.act(obs, done), after)
        self._action = after
        extras = extras | {"final_obs": final, "applied_action": applied}
        return extended(obs, after, self._spec), reward, terminated, truncated, extras

    def _draw(self, mask: Tensor) -> None:
        """Whether the episodes that begin are corrected."""
        if self.switch_steps:
            drawn = torch.rand(self.env.num_envs, 1, generator=self.generator, device=self.env.device)
            on = (drawn < self._steps / self.switch_steps).float()
            self._on = torch.where(mask[:, None], on, self._on)

    def _count(self, cut: Tensor) -> None:
        self._steps += self.env.num_envs
        self._cut = self._cut + cut.any(1).sum()
        if not self._warned and self._steps >= CUT_STEPS:
            self._warned = True
            share = float(self._cut) / self._steps
            if share > CUT_SHARE:
                log.warning("corrections of up to %g leave the base's actions no room: %.0f %% of the actions are cut "
                            "to [%g, %g]; make residual.scale smaller", self.scale, 100 * share,
                            self.env.action_spec.low, self.env.action_spec.high)  # fmt: skip

    # --- checkpoints -----------------------------------------------------------------------------------------------

    @property
    def continues(self) -> bool:
        """Whether the world can be put back to where it was; hardware cannot."""
        return hasattr(self.env, "state_dict")

    def state_dict(self) -> dict[str, Any]:
        env: dict[str, Any] = getattr(self.env, "state_dict", dict)()
        return {"env": env, "base": self.base.memory(), "weights": digest(self.base), "action": self._action,
                "on": self._on, "steps": self._steps, "cut": self._cut,
                "base_generator": self.generator.get_state()}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["weights"] != digest(self.base):
            raise ConfigError("the base policy is not the one that was corrected: it was trained or copied anew since; "
                              "put it back, or begin another run")  # fmt: skip
        if state.get("env"):  # hardware has none
            self.env.load_state_dict(state["env"])  # type: ignore[attr-defined]
        self.base.remember(state["base"])
        self._action, self._on = state["action"], state["on"]
        self._steps, self._cut = state["steps"], state["cut"]
        self.generator.set_state(state["base_generator"].cpu())
        self._warned = self._steps >= CUT_STEPS


def digest(policy: ChunkedPolicy) -> str:
    """Of its weights."""
    found = hashlib.sha256()
    for name, value in sorted(policy.state_dict().items()):
        found.update(name.encode() + value.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()
