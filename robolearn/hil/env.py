"""A world in which a person may take over from whoever acts."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from robolearn.env import Env, Extras, Obs


class Person(Protocol):
    """Watches B environments, and acts in some of them."""

    def reset(self, mask: Tensor) -> None:
        """Episodes begin in the environments `mask` (B,)."""
        ...

    def act(self, obs: Obs, proposed: Tensor) -> tuple[Tensor, Tensor]:
        """Who is in control in this step, (B,) bool: the person where true; and what the person does there, (B, A).
        Called once a step with what the policy would do, (B, A)."""
        ...


class HumanEnv:
    """Fulfils `robolearn.env.Env`: `action` is a proposal, which reaches the robot unless the person is in control.

    Beside what the world says, extras hold `proposed` (B, A), the policy's action, and `intervened` (B,) bool, whether
    `applied_action` was the person's; and the episode's `intervened`, the share of its steps that were. So an
    intervention is a run of steps with `intervened`: its onset is the first, and every step has both actions.
    """

    def __init__(self, env: Env, person: Person):
        self.env, self.person = env, person
        self._obs: Obs = {}
        self._steps = torch.zeros(env.num_envs, device=env.device)
        """Of the person's, in each environment's episode."""

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # not there yet, or any more
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, Extras]:
        self._obs, extras = self.env.reset(seed, options)
        self._begin(torch.ones(self.env.num_envs, dtype=torch.bool, device=self.env.device))
        return self._obs, extras

    @torch.no_grad()
    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        human, said = self.person.act(self._obs, action)
        sent = torch.where(human[:, None], said, action)
        length = self.env.episode_length_buf + 1.0
        self._obs, reward, terminated, truncated, extras = self.env.step(sent)
        self._steps = self._steps + human
        episode = extras["episode"] | {"intervened": self._steps / length}
        log = extras["log"] | {"intervened": human.float().mean()}
        extras = extras | {"intervened": human, "proposed": action, "episode": episode, "log": log}
        done = terminated | truncated
        if bool(done.any()):
            self._begin(done)
        return self._obs, reward, terminated, truncated, extras

    def _begin(self, mask: Tensor) -> None:
        self.person.reset(mask)
        self._steps = self._steps * ~mask

    # --- checkpoints -----------------------------------------------------------------------------------------------

    @property
    def continues(self) -> bool:
        """Whether the world can be put back to where it was; hardware cannot."""
        return hasattr(self.env, "state_dict")

    def state_dict(self) -> dict[str, Any]:
        env: dict[str, Any] = getattr(self.env, "state_dict", dict)()
        person: dict[str, Any] = getattr(self.person, "state_dict", dict)()  # a real one has none
        return {"env": env, "person": person, "obs": dict(self._obs), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("env"):
            self.env.load_state_dict(state["env"])  # type: ignore[attr-defined]
        if state.get("person"):
            self.person.load_state_dict(state["person"])  # type: ignore[attr-defined]
        self._obs, self._steps = state["obs"], state["steps"]
