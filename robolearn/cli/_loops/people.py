"""Simulated people in the worlds of trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robolearn import config, runs
from robolearn.config import ConfigError
from robolearn.hil.env import HumanEnv
from robolearn.loops import checkpoint
from robolearn.state import put_tensors, tensors_of

if TYPE_CHECKING:
    from sim.env import SimEnv
    from sim.experts import Expert

ALONE = "nobody"


def accompanied(env: SimEnv, cfg: Any) -> HumanEnv:
    """The world with a simulated person in it, who has the hand of the task's scripted expert."""
    generator = torch.Generator(env.device).manual_seed(cfg.seed + 3)
    run = getattr(cfg.person, "critic", "")
    value = _critic(env, run) if run else None
    expert = env.task.expert(env.num_envs, env.device, cfg.person.noise, generator)
    if cfg.person.strategy:
        expert.keep_to(cfg.person.strategy)
    hand = ExpertHand(env, expert)
    return HumanEnv(env, config.build(cfg.person, hand=hand, num_envs=env.num_envs, dt=env.step_dt, device=env.device,
                                      generator=generator, value=value))  # fmt: skip


class ExpertHand:
    """A task's scripted expert, which sees the true state."""

    def __init__(self, env: SimEnv, expert: Expert):
        self.env, self.expert = env, expert

    def reset(self, mask: Tensor) -> None:
        self.expert.reset(mask)

    def take_over(self, mask: Tensor) -> None:
        self.expert.join(mask, *self.env.states())

    def act(self) -> Tensor:
        return self.expert.act(*self.env.states())

    def state_dict(self) -> dict[str, Any]:
        return {k: v.clone() for k, v in tensors_of(self.expert).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        put_tensors(self.expert, state)


def _critic(env: SimEnv, run: str) -> Any:
    """What a run's critics say of actions. ConfigError for those of another task, and for an algorithm without."""
    from robolearn.cli.train import TrainCfg

    folder = runs.find_run(run)
    cfg = config.reload(TrainCfg, folder / "config.yaml")
    state = checkpoint.read_newest(folder / "checkpoints")["algo"]
    if "critic" not in state:
        raise ConfigError(f"person.critic={run} is a run of {cfg.algo.name}, which has no critics of actions")
    cfg.algo.capacity = 3 * cfg.num_envs
    algo = config.build(cfg.algo, spec=env.policy_spec(), num_envs=cfg.num_envs, device=env.device,
                        generator=torch.Generator(env.device))  # fmt: skip
    try:
        algo.load_networks(state)
    except RuntimeError:
        raise ConfigError(f"person.critic={run} judges another task's actions") from None
    return algo.value
