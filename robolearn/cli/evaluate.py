"""Measure a trained policy: success with its 95 % interval, errors, clip rate, and a video.

usage: robolearn evaluate run=RUN [key=value ...] [task.key=value ...]
       robolearn evaluate task=NAME policy=geometric|expert [key=value ...] [task.key=value ...]

RUN is a run's folder, a bundle (folder or .zip), or `last`. The policy is the bundle, acting without exploration on
fresh environments. `backend=` another engine gives the sim-to-sim score, `task.key=` another case of the task, such as
task.randomize.mass=[1,1]. Physics that diverges leaves a trace in RUN/diverged, to be replayed with
`robolearn play dump=FILE`. `policy=geometric` is the controller that flight results are compared with,
`policy=expert` the task's script, which knows the true state (`noise=1`: with a person's faults); neither is trained.

Of a policy that plans chunks of actions, what a plan costs is reported too. A diffusion policy's network can be tried
with other samplers on the same episodes: sampler=ddpm, sampler=ddim steps=8.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.cli import _chunks, _options, _world
from robolearn.cli._options import option
from robolearn.config import ConfigError


@dataclass
class EvaluateCfg:
    run: str = option("", "a run's folder, a bundle, or last")
    task: str = option("", "for a policy that needs no training: what it is to do")
    policy: str = option("", "that policy: geometric, or expert for the task's scripted one")
    noise: float = option(0.0, "of the expert: 0 clean, 1 like a person")
    backend: str = option("", "physics engine, if not the one it was trained in (geometric: quadrotor, expert: mujoco)")
    episodes: int = option(500, "how many")
    seed: int = option(10_000, "of the environments")
    device: str = option("auto", "cpu, cuda or auto")
    sampler: str = option("", "of a diffusion policy, if not its own: ddim, ddpm, streaming or flow")
    steps: int = option(0, "of that sampler: network calls from noise to a chunk")
    temperature: float = option(-1.0, "of its noise, 0 to 1; the run's own if not given")
    json: str = option("", "file for the scores")
    video: str = option("", "file.mp4 for a grid of environments")
    video_envs: int = option(9, "environments in the grid")

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        _options.check_range(self, seed=_options.SEEDS, episodes=_options.EPISODES, video_envs=_options.FILMED)
        if self.video and not self.video.endswith(".mp4"):
            raise ValueError(f"video must be a .mp4 file, got {self.video}")
        if bool(self.task) != bool(self.policy) or bool(self.run) == bool(self.task):
            given = [f"{n}={getattr(self, n)}" for n in ("run", "task", "policy") if getattr(self, n)]
            raise ValueError(
                f"{' '.join(given)}: give run=RUN, or task=NAME and policy=geometric or expert" if given
                else "missing: run=... (or task=... and policy=geometric or expert)"
            )  # fmt: skip
        if self.noise and self.policy != "expert":
            raise ValueError(f"noise is of policy=expert; {self.policy or self.run} has none")


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
    _chunks.use_sampler(policy, options.sampler, options.steps, options.temperature)
    scores = _world.score(policy, cfg.task, cfg.backend, options.episodes, options.seed, options.device, traces)
    scores |= {"run": name, "task": cfg.task.name, "backend": cfg.backend.name, "seed": options.seed}
    print(f"{cfg.task.name} on {cfg.backend.name}, {name}")
    print(table(scores))
    if chunk := _chunks.measure(policy):
        scores["chunk"] = chunk
        print(_chunks.table(chunk))
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
        cfg, baseline = _world.load_baseline(options.policy, options.task, options.backend, changes, options.noise)
        return options.policy, cfg, baseline, None
    folder, cfg, packed = _world.load_run(options.run, options.backend, changes)
    return str(folder), cfg, packed.policy, _world.beside(folder) / "diverged"
