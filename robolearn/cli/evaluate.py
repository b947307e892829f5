"""Measure a trained policy: success with its 95 % interval, errors, clip rate, and a video.

usage: robolearn evaluate run=RUN [key=value ...]

RUN is a run's folder, a bundle (folder or .zip), or `last`. The policy is the bundle, acting without exploration on
fresh environments. `backend=` another engine gives the sim-to-sim score. Physics that diverges leaves a trace in
RUN/diverged, to be replayed with `robolearn play dump=FILE`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from robolearn import config
from robolearn.cli import _options, _world
from robolearn.cli._options import MISSING, option
from robolearn.config import ConfigError


@dataclass
class EvaluateCfg:
    run: str = option(MISSING, "a run's folder, a bundle, or last")
    backend: str = option("", "physics engine, if not the one it was trained in")
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


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(EvaluateCfg)}"


def main(argv: list[str]) -> int:
    options = config.parse(EvaluateCfg, argv)
    _world.discover()
    for file in filter(None, (options.json, options.video)):
        if not Path(file).absolute().parent.is_dir():
            raise ConfigError(f"the folder of {file} does not exist")
    from robolearn.loops.evaluate import table

    folder, cfg, packed = _world.load_run(options.run, options.backend)
    scores = _world.score(
        packed.policy,
        cfg.task,
        cfg.backend,
        options.episodes,
        options.seed,
        options.device,
        _world.beside(folder) / "diverged",
    )
    scores |= {"run": str(folder), "task": cfg.task.name, "backend": cfg.backend.name, "seed": options.seed}
    print(f"{cfg.task.name} on {cfg.backend.name}, {folder}")
    print(table(scores))
    if options.json:
        Path(options.json).write_text(json.dumps(scores, indent=1, allow_nan=False))
    if options.video:
        from robolearn.cli import _video

        _video.record(packed.policy, cfg, Path(options.video), options.video_envs, options.seed)
        print(f"{'video':22} {options.video}")
    return 0
