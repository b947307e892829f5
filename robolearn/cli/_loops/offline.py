"""Learning from a set of episodes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _world
from robolearn.cli._loops.base import Loop
from robolearn.config import ConfigError, register

if TYPE_CHECKING:
    import torch

    from robolearn.policies.base import Policy

log = logging.getLogger(__name__)
EVAL_SEED = 10_000
"""The same for all trainings: what they learned is compared on the same episodes."""


@register("loop", "offline")
class Offline(Loop):
    def __init__(self, cfg: Any, folder: Path):
        from robolearn.data import source

        self.cfg, self.folder = cfg, folder
        _refuse_strange(cfg)
        self.spec, self.robot = _world.spec_of(cfg.task), config.build(cfg.task).robot
        self.device = _learning_device(cfg.device)
        data = cfg.data
        self.episodes = source.open_set(data.path, self.spec, cfg.task.name, data.episodes, data.only_success)
        data.episodes = len(self.episodes)  # a set that has grown meanwhile is not another one
        if cfg.eval_episodes:  # what cannot be evaluated in the end is refused now
            _world.make_env(cfg.task, cfg.backend, 1, cfg.device, 0).close()

    def prepare(self, started: float) -> None:
        import torch

        from robolearn.data.source import EpisodeWindows
        from robolearn.loops.offline import OfflineTrainer

        cfg, data = self.cfg, self.cfg.data
        torch.set_num_threads(max(1, cfg.torch_threads))
        source = EpisodeWindows(
            self.episodes, self.spec, cfg.algo.observation_steps, cfg.algo.horizon, data.preload, data.workers,
            data.memory_mb, self.device,
        )  # fmt: skip
        generator = torch.Generator(self.device).manual_seed(cfg.seed + 1)
        algo = config.build(
            cfg.algo, spec=self.spec, source=source, total_updates=cfg.updates, device=self.device, generator=generator
        )
        self.trainer: OfflineTrainer = OfflineTrainer(
            algo, source, cfg.batch, cfg.seed, self.folder, cfg.checkpoint_every_s
        )

    @property
    def policy(self) -> Policy:
        return self.trainer.algo.policy.eval()

    @property
    def eval_seed(self) -> int:
        return EVAL_SEED

    def said(self) -> str:
        found = self.episodes
        return f"{len(found)} episodes ({found.frames:,} steps) of {found.root} on {self.device}"

    def done(self) -> dict[str, Any]:
        trainer = self.trainer
        data = {"episodes": len(self.episodes), "data_steps": self.episodes.frames}
        return {"train_seconds": trainer.seconds, "train_updates": trainer.algo.updates, **data}

    def ended(self) -> str:
        return f"{self.trainer.algo.updates:,} updates in {self.trainer.seconds:.1f} s"


def _refuse_strange(cfg: Any) -> None:
    given = [name for name in ("time_limit_s", "short_episodes") if getattr(cfg, name)]
    given += ["residual.base"] if cfg.residual.base else []
    if given:
        raise ConfigError(f"{', '.join(given)}: algo={cfg.algo.name} learns from data; its length is updates=")


def _learning_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one, whatever the engine uses. ConfigError for one that is not there."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(_world.usable(device))
