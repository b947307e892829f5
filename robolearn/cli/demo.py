"""Train, evaluate, film and export a robot arm's policy, and write a page about it.

usage: robolearn demo [out=demo] [experiment=franka_reach_ppo] [seed=0] [key=value ...]

`out` gets run/ (all that training writes, with the policy bundle), film.mp4, policy.onnx and report.html: one
file that loads nothing from elsewhere. Further key=value words go to training. An interrupted demo continues
where it stopped; what is finished is not repeated.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.cli import _options, _world
from robolearn.cli._options import option
from robolearn.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass
class DemoCfg:
    out: str = option("demo", "folder to write")
    experiment: str = option("franka_reach_ppo", "what to train; robolearn list experiments")
    seed: int = option(0, "of the training")
    episodes: int = option(500, "of the evaluation")
    video_envs: int = option(6, "environments in the film")

    def __post_init__(self) -> None:
        _options.check_range(self, seed=_options.SEEDS, episodes=_options.EPISODES, video_envs=_options.FILMED)


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(DemoCfg)}"


def main(argv: list[str]) -> int:
    started = time.monotonic()
    ours = {f.name for f in dataclasses.fields(DemoCfg)}
    mine = [word for word in argv if word.partition("=")[0] in ours]
    options = config.parse(DemoCfg, mine)
    _world.discover()
    out = Path(options.out)
    run = _trained(out, options, [word for word in argv if word not in mine])
    finished = run / "bundle" / "bundle.json"
    made = {
        "episodes.json": lambda path: _evaluate(path, run, options),
        "film.mp4": lambda path: _film(path, run, options),
        "policy.onnx": lambda path: _export(path, run),
    }
    for name, make in made.items():
        _once(out / name, finished, make)
    from robolearn.cli import _report

    _report.write(out / "report.html", run, out)
    print(f"{'report':22} {(out / 'report.html').resolve()}")
    print(f"{'this took':22} {time.monotonic() - started:.0f} s")
    return 0


def _trained(out: Path, options: DemoCfg, overrides: list[str]) -> Path:
    """The run's folder, trained to its end: now, further, or before."""
    from robolearn.cli import train

    run, about = out / "run", out / "demo.json"
    asked = {"experiment": options.experiment, "seed": options.seed, "training": overrides}
    if about.is_file() and json.loads(about.read_text()) != asked:
        raise ConfigError(f"{out} holds a demo of something else ({about}); remove it or choose another out=")
    if (run / "config.yaml").exists() and not about.is_file():
        raise ConfigError(f"{run} is not a demo's run; choose another out=")
    if (run / "bundle" / "bundle.json").is_file():
        log.info("%s is trained already", run)
    elif any((run / "checkpoints").glob("*.safetensors")):
        train.main([f"resume={run}"])
    else:
        words = [f"experiment={options.experiment}", f"seed={options.seed}", f"run_dir={run}", *overrides]
        if about.is_file():
            shutil.rmtree(run, ignore_errors=True)  # it stopped before its first checkpoint
        else:
            config.load(train.TrainCfg, words)  # refuses before anything is written
        out.mkdir(parents=True, exist_ok=True)
        about.write_text(json.dumps(asked))
        train.main(words)
    return run


def _once(path: Path, source: Path, make: Callable[[Path], Any]) -> None:
    """Make a file unless it is there and not older than what it is made from."""
    if not path.is_file() or path.stat().st_mtime < source.stat().st_mtime:
        make(path)


def _evaluate(path: Path, run: Path, options: DemoCfg) -> None:
    """Fresh episodes, one row of results each."""
    _, cfg, packed = _world.load_run(str(run))
    seed = options.seed + 20_000
    rows = _world.run_episodes(packed.policy, cfg.task, cfg.backend, options.episodes, seed, cfg.device)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"seed": seed, "rows": {k: v.tolist() for k, v in rows.items()}}))
    part.replace(path)


def _film(path: Path, run: Path, options: DemoCfg) -> None:
    from robolearn.cli import _video

    _, cfg, packed = _world.load_run(str(run))
    _video.record(packed.policy, cfg, path, options.video_envs, options.seed + 30_000)


def _export(path: Path, run: Path) -> None:
    from robolearn import bundle, export

    export.export(bundle.load(run / "bundle").policy, path, "onnx")
