"""Learning from what the policy itself does in parallel environments."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _world
from robolearn.cli._loops.base import Loop
from robolearn.config import register

if TYPE_CHECKING:
    from robolearn.policies.base import Policy
    from sim.env import SimEnv


@register("loop", "on_policy")
class OnPolicy(Loop):
    def __init__(self, cfg: Any, folder: Path):
        self.cfg, self.folder = cfg, folder
        self.env = _world.make_env(cfg.task, cfg.backend, cfg.num_envs, cfg.device, cfg.seed, folder / "diverged")
        self.robot = self.env.robot
        shorten(self.env, cfg)

    def prepare(self, started: float) -> None:
        import torch

        from robolearn.loops.on_policy import Trainer

        cfg, env = self.cfg, self.env
        torch.set_num_threads(max(1, cfg.torch_threads))
        generator = torch.Generator(env.device).manual_seed(cfg.seed + 1)
        world = {"spec": env.policy_spec(), "num_envs": env.num_envs, "device": env.device}
        algo = config.build(cfg.algo, **world, generator=generator)
        limit = cfg.time_limit_s or math.inf
        self.trainer: Trainer = Trainer(
            env, algo, cfg.total_steps, self.folder, generator, cfg.checkpoint_every_s, started, limit
        )

    @property
    def policy(self) -> Policy:
        return self.trainer.algo.policy.eval()

    @property
    def eval_seed(self) -> int:
        return int(self.cfg.seed) + 10_000

    def said(self) -> str:
        return f"{self.cfg.num_envs} environments on {self.env.device}"

    def done(self) -> dict[str, Any]:
        counters = self.trainer.counters
        return {"train_seconds": counters.seconds, "train_steps": counters.env_steps}

    def ended(self) -> str:
        counters = self.trainer.counters
        return f"{counters.env_steps:,} steps in {counters.seconds:.1f} s, start-up included"

    def close(self) -> None:
        self.env.close()


def shorten(env: SimEnv, cfg: Any) -> None:
    """Let the chosen share of the environments end its episodes early."""
    count = round(cfg.short_episodes * env.num_envs)
    longest = min(cfg.short_episode_s, env.max_episode_length_s)  # goals are planned no further
    env.episode_limit_buf[:count] = max(1, round(longest / env.step_dt))
