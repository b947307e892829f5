"""Measure a trained policy: success with its 95 % interval, errors, clip rate, and a video.

usage: robolearn evaluate run=RUN [key=value ...] [task.key=value ...]
       robolearn evaluate task=NAME policy=geometric [key=value ...] [task.key=value ...]

RUN is a run's folder, a bundle (folder or .zip), or `last`. The policy is the bundle, acting without exploration on
fresh environments. `backend=` another engine gives the sim-to-sim score, `task.key=` another case of the task, such as
task.randomize.mass=[1,1]. Physics that diverges leaves a trace in RUN/diverged, to be replayed with
`robolearn play dump=FILE`. `policy=geometric` is the controller that flight results are compared with; it is not
trained.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.cli import _options, _world
from robolearn.cli._options import option
from robolearn.config import ConfigError


@dataclass
class EvaluateCfg:
    run: str = option("", "a run's folder, a bundle, or last")
    task: str = option("", "for a policy that needs no training: what it is to do")
    policy: str = option("", "that policy; geometric is the only one")
    backend: str = option("", "physics engine, if not the one it was trained in (geometric: quadrotor)")
    episodes: int = option(500, "how many")
    seed: int = option(10_000, "of the environments")
    device: str = option("auto", "cpu, cuda or auto")
    json: str = option("", "file for the scores")
    video: str = option("", "file.mp4 for a grid of environments")
    video_envs: int = option(9, "environments in the grid")

    def __post_init__(self) -> None:
        _options.check_range(self, seed=_options.SEEDS, episodes=_options.EPISODES, video_envs=_options.FILMED)
        if self.video and not self.video.endswith(".mp4"):
            raise ValueError(f"video must be a .mp4 file, got {self.video}")
        if bool(self.task) != bool(self.policy) or bool(self.run) == bool(self.task):
            given = [f"{n}={getattr(self, n)}" for n in ("run", "task", "policy") if getattr(self, n)]
            raise ValueError(
                f"{' '.join(given)}: give run=RUN, or task=NAME and policy=geometric" if given
                else "missing: run=... (or task=... and policy=geometric)"
            )  # fmt: skip


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(EvaluateCfg)}"


def main(argv: list[str]) -> int:
    changes = [word for word in argv if word.startswith("task.")]
    options = config.parse(EvaluateCfg, [word for word in argv if word not in changes])
    _world.discover()
    for file in filter(None, (options.json, options.video)):
        if not Path(file).absolute().parent.is_dir():
            raise ConfigError(f"the folder of {file} does not exist")
    from robolearn.loops.evaluate import table

    name, cfg, policy, traces = _chosen(options, changes)
    scores = _world.score(policy, cfg.task, cfg.backend, options.episodes, options.seed, options.device, traces)
    scores |= {"run": name, "task": cfg.task.name, "backend": cfg.backend.name, "seed": options.seed}
    print(f"{cfg.task.name} on {cfg.backend.name}, {name}")
    print(table(scores))
    if options.json:
        Path(options.json).write_text(json.dumps(scores, indent=1, allow_nan=False))
    if options.video:
        from robolearn.cli import _video

        _video.record(policy, cfg, Path(options.video), options.video_envs, options.seed)
        print(f"{'video':22} {options.video}")
    return 0


def _chosen(options: EvaluateCfg, changes: list[str]) -> tuple[str, Any, Any, Path | None]:
    """What is measured: its name, its configuration, the policy, and where traces of divergence go."""
    if options.policy:
        cfg, baseline = _world.load_baseline(options.policy, options.task, options.backend, changes)
        return options.policy, cfg, baseline, None
    folder, cfg, packed = _world.load_run(options.run, options.backend, changes)
    return str(folder), cfg, packed.policy, _world.beside(folder) / "diverged"
