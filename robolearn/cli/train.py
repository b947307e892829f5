"""Train a policy, evaluate it, and pack it into a bundle.

usage: robolearn train experiment=NAME [key=value ...]
       robolearn train task=NAME [algo=NAME] [key=value ...]
       robolearn train task=NAME algo=sac|td3 [data.path=FOLDER] [key=value ...]
       robolearn train task=NAME algo=td3|sac|ppo residual.base=RUN [key=value ...]
       robolearn train task=NAME algo=bc|diffusion data.path=FOLDER [key=value ...]
       robolearn train resume=RUN [key=value ...]

sac and td3 keep what they experience, and learn from episodes beside it if data.path is given (half of every batch).
`residual.base=RUN` corrects a policy of bc or diffusion: the bundle holds both, and goes wherever the base could.

The run's folder gets config.yaml (everything, resolved), TensorBoard events and metrics.jsonl, checkpoints/ (atomic,
the newest two), scores.json and bundle/. Ctrl-C finishes the iteration under way and writes a checkpoint; `resume=RUN`
goes on from there exactly, after a kill from the checkpoint before it.

bc and diffusion learn from episodes (`robolearn collect` records them), which must have been recorded with the task's
observations, actions and rate; `updates` and `batch` are their length, `num_envs` and `total_steps` are not for them.

Any value of the configuration can be set: task.episode_length_s=5 algo.learning_rate=3e-4 backend.threads=1
task.randomize.mass=[0.8,1.2]. A wrong name or type is refused, with the nearest valid one, before anything starts.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _options, _world
from robolearn.cli._loops.options import DataOptions, ResidualOptions
from robolearn.cli._options import option
from robolearn.config import ConfigError

if TYPE_CHECKING:
    from robolearn.cli._loops.base import Loop

log = logging.getLogger(__name__)


@dataclass
class TrainCfg:
    defaults: list[Any] = field(
        default_factory=lambda: [
            {"task": "???"}, {"algo": "ppo"}, {"backend": "mujoco"}, {"person": "nobody"}, "_self_",
            {"optional experiment": None},
        ]
    )  # fmt: skip
    task: Any = option(_options.MISSING, "what to learn; robolearn list tasks", group=True)
    algo: Any = option(_options.MISSING, "how to learn it; robolearn list algos", group=True)
    backend: Any = option(_options.MISSING, "physics engine; robolearn list backends", group=True)
    person: Any = option(_options.MISSING, "who takes over at times, simulated; robolearn list persons", group=True)
    num_envs: int = option(256, "parallel environments")
    seed: int = option(0, "of everything: same seed, same run")
    device: str = option("auto", "cpu, cuda, cuda:1; auto takes the GPU if the engine can use it")
    total_steps: int = option(1_000_000, "environment steps, over all environments")
    time_limit_s: float = option(0.0, "end after this long, start-up included, if total_steps does not; 0 for never")
    data: DataOptions = field(
        default_factory=DataOptions, metadata={"help": "what is learned from: its keys are below", "choices": ()}
    )
    residual: ResidualOptions = field(
        default_factory=ResidualOptions, metadata={"help": "what is corrected: its keys are below", "choices": ()}
    )
    updates: int = option(20_000, "of an algorithm that learns from data")
    batch: int = option(256, "windows of each of these")
    run_dir: str = option("", "folder to write; made of name, date and seed under runs/ if not given")
    run_name: str = option("", "first part of that folder")
    short_episodes: float = option(0.0, "share of the environments whose episodes end early: more starts are seen")
    short_episode_s: float = option(1.0, "after this long, as by a time limit")
    eval_episodes: int = option(500, "episodes of the evaluation at the end; 0 for none")
    checkpoint_every_s: float = option(
        20.0, "seconds between checkpoints, at least; they take a twentieth of the time at most"
    )
    torch_threads: int = option(1, "of the update on a CPU; more pays for large networks on an idle machine only")

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be from 0 to {2**31 - 1}, got {self.seed}")
        if self.num_envs < 1 or self.total_steps < 1 or self.eval_episodes < 0:
            raise ValueError("num_envs and total_steps must be at least 1, eval_episodes at least 0")
        if self.updates < 1 or self.batch < 1:
            raise ValueError(f"updates and batch must be at least 1, got {self.updates} and {self.batch}")
        if not self.time_limit_s >= 0.0:
            raise ValueError(f"time_limit_s must be at least 0, got {self.time_limit_s}")
        if not 0.0 <= self.short_episodes <= 1.0 or not self.short_episode_s > 0.0:
            raise ValueError("short_episodes must be in [0, 1], short_episode_s above 0")


def help_text() -> str:
    names = "\n".join(f"  {n}" for n in sorted(config.experiments()))
    options = f"{_options.describe(TrainCfg)}\n{_options.describe(DataOptions, 'data.')}\n"
    options += _options.describe(ResidualOptions, "residual.")
    return f"{__doc__}\noptions:\n{options}\n\nexperiments:\n{names}"


def main(argv: list[str], started: float | None = None) -> int:
    """`started` (time.monotonic) is when the training's clock began, if not with this process."""
    started = time.monotonic() - _process_age() if started is None else started
    _world.discover()
    resume = [w.partition("=")[2] for w in argv if w.startswith("resume=")]
    overrides = [w for w in argv if not w.startswith("resume=")]
    if resume:
        from robolearn import runs

        folder = runs.find_run(resume[-1])
        cfg = config.reload(TrainCfg, folder / "config.yaml", overrides)
    else:
        cfg = config.load(TrainCfg, overrides)
        folder = new_folder(cfg, overrides)
        cfg.run_dir = str(folder)
    return _train(cfg, folder, bool(resume), started)


def _process_age() -> float:
    """Seconds since this process was started, interpreter and imports included; zero where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a run's folder; ConfigError if another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder} is being trained by another process") from None
        yield


def new_folder(cfg: TrainCfg, overrides: list[str]) -> Path:
    from robolearn import runs

    chosen = [w.partition("=")[2] for w in overrides if w.startswith("experiment=")]
    name = cfg.run_name or (chosen[-1] if chosen else f"{cfg.task.name}_{cfg.algo.name}")
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(cfg.run_dir) if cfg.run_dir else runs.RUNS / name / f"{stamp}_seed{cfg.seed}"
    if (folder / "config.yaml").exists():
        raise ConfigError(f"{folder} holds a run already; continue it with resume={folder} or choose another run_dir")
    return folder


def _train(cfg: TrainCfg, folder: Path, resume: bool, started: float) -> int:
    from robolearn.loops.online import LearningDiverged

    loop: Loop = config.entry("loop", cfg.algo.loop).value(cfg, folder)
    try:
        with exclusive(folder):  # only now: what cannot be built leaves no folder behind
            loop.prepare(started)
            if resume:
                _restore(loop, folder)
            config.save(cfg, folder / "config.yaml")
            log.info("training %s with %s: %s, run %s", cfg.task.name, cfg.algo.name, loop.said(), folder)
            try:
                loop.trainer.run()
            except LearningDiverged:
                _pack_best(cfg, loop, folder)
                raise
            pack(cfg, loop, folder)
    except KeyboardInterrupt:
        log.info("go on with: robolearn train resume=%s", folder)
        raise
    finally:
        loop.close()
    return 0


def _restore(loop: Loop, folder: Path) -> None:
    from robolearn.loops import checkpoint

    try:
        loop.trainer.load_state_dict(checkpoint.read_newest(folder / "checkpoints"))
    except checkpoint.CheckpointError as error:
        raise ConfigError(f"{folder} cannot be resumed: {error}") from None
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"the checkpoint in {folder} does not fit these settings: {reason}") from error
    log.info("resumed %s at %s", folder, loop.ended())


def _pack_best(cfg: TrainCfg, loop: Loop, folder: Path) -> None:
    """Of a training that diverged: the policy that had succeeded most often, if any had."""
    from robolearn import bundle
    from robolearn.loops.online import BEST
    from robolearn.paths import share_dir

    step = getattr(loop.trainer, "restore_best", int)()
    if step:
        packed = bundle.Bundle(
            loop.policy, loop.robot, config=config.to_plain(cfg), git_revision=bundle.git_revision(share_dir())
        )
        bundle.save(folder / BEST / "bundle", packed)
        log.warning("the best policy so far, of step %d, is in %s", step, folder / BEST / "bundle")


def pack(cfg: TrainCfg, loop: Loop, folder: Path) -> None:
    """Evaluate the final policy and write scores.json and bundle/."""
    from robolearn import bundle
    from robolearn.loops.evaluate import table
    from robolearn.paths import share_dir

    policy, scores = loop.policy, loop.done()
    if cfg.eval_episodes:
        scores |= _world.score(policy, cfg.task, cfg.backend, cfg.eval_episodes, loop.eval_seed, cfg.device)
    (folder / "scores.json").write_text(json.dumps(scores, indent=1))
    packed = bundle.Bundle(
        policy, loop.robot, config=config.to_plain(cfg), scores=scores, git_revision=bundle.git_revision(share_dir())
    )
    bundle.save(folder / "bundle", packed)
    if cfg.eval_episodes:
        print(table(scores))
    print(f"{'trained':22} {loop.ended()}")
    print(f"{'bundle':22} {folder / 'bundle'}")
