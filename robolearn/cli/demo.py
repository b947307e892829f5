"""Train robots, evaluate in two engines and arms through ROS 2, film and export, and write one page about all.

usage: robolearn demo [out=demo] [experiments=franka_reach_ppo,crazyflie_eight_ppo] [seed=0] [key=value ...]

`out` gets report.html, one file that loads nothing from elsewhere, and a folder for each experiment: run/ (all that
training writes, with the policy bundle), episodes_ENGINE.json, film.mp4, policy.onnx, and sysid/: what was identified
from a log of the robot, changed, in the second engine. Further key=value words go to every training. An interrupted
demo continues where it stopped; what is finished is not repeated.

The policies are deployed too, with `robolearn launch`: policy, guard and a simulated robot are processes that talk over
DDS, in a domain of their own on this machine. The arm reaches goals as in an evaluation, the quadrotor takes off and
follows a figure-eight; then the policy is killed while the robot moves. ros2.json or flight.json is what was measured,
twin.mp4 what the simulated robot did. That takes the extra `ros`, or a ROS 2 installation.
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
from robolearn.cli import _options, _sysid_trial, _world
from robolearn.cli._options import option
from robolearn.errors import ConfigError, UserError

log = logging.getLogger(__name__)


@dataclass
class DemoCfg:
    out: str = option("demo", "folder to write")
    experiments: str = option("franka_reach_ppo,crazyflie_eight_ppo", "what to train; robolearn list experiments")
    seed: int = option(0, "of the trainings")
    episodes: int = option(500, "of an evaluation in the engine of the training")
    second_backend: str = option("pybullet", "engine of the second evaluation; empty for none")
    second_episodes: int = option(100, "of that evaluation")
    sysid: bool = option(True, "identify each robot from a log of the second engine")
    video_envs: int = option(4, "environments in a film")
    ros_episodes: int = option(10, "of an arm through ROS 2, 3 s or so each; 0 for none")

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("episodes", "second_episodes"), _options.EPISODES)
        filmed, tried = _options.FILMED, (0, _options.EPISODES[1])
        _options.check_range(self, seed=_options.SEEDS, video_envs=filmed, ros_episodes=tried, **counts)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"experiments must be different names with commas between, got '{self.experiments}'")

    @property
    def names(self) -> list[str]:
        return [name.strip() for name in self.experiments.split(",") if name.strip()]


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(DemoCfg)}"


def main(argv: list[str]) -> int:
    started = time.monotonic()
    ours = {f.name for f in dataclasses.fields(DemoCfg)}
    mine = [word for word in argv if word.partition("=")[0] in ours]
    options, training = config.parse(DemoCfg, mine), [word for word in argv if word not in mine]
    _world.discover()
    out = Path(options.out)
    for name in options.names:
        _refuse(out / name, name, options, training)
    tried = True
    for name in options.names:
        _make(out / name, name, options, training)
        tried &= _deploy(out / name, options)
    from robolearn.cli import _report

    page = out / "report.html"
    _report.write(page, [out / name for name in options.names])
    print(f"{'report':22} {page.resolve()}")
    print(f"{'this took':22} {time.monotonic() - started:.0f} s")
    return 0 if tried else UserError.exit_code


# --- before anything is written -----------------------------------------------------------------------------


def _refuse(folder: Path, name: str, options: DemoCfg, training: list[str]) -> None:
    """Raise ConfigError where the folder holds something else, or the words do not make a training whose task both
    engines take."""
    from robolearn.cli import train

    about = folder / "demo.json"
    if about.is_file():
        if json.loads(about.read_text()) != _asked(name, options, training):
            raise ConfigError(f"{folder} holds a demo of something else ({about}); remove it or choose another out=")
        return
    if (folder / "run" / "config.yaml").exists():
        raise ConfigError(f"{folder / 'run'} is not a demo's run; choose another out=")
    cfg = config.load(train.TrainCfg, [f"experiment={name}", f"seed={options.seed}", *training])
    if _second(cfg, options):
        _world.make_env(cfg.task, _world.backend_config(options.second_backend, None), 1, "auto", 0).close()


def _asked(name: str, options: DemoCfg, training: list[str]) -> dict[str, Any]:
    return {"experiment": name, "seed": options.seed, "training": training}


def _second(cfg: Any, options: DemoCfg) -> bool:
    return options.second_backend not in ("", cfg.backend.name)


# --- one robot ----------------------------------------------------------------------------------------------


def _make(folder: Path, name: str, options: DemoCfg, training: list[str]) -> None:
    run = _trained(folder, name, options, training)
    _, cfg, packed = _world.load_run(str(run))
    made = {f"episodes_{cfg.backend.name}.json": lambda path: _evaluate(path, run, "", options.episodes, options.seed)}
    if _second(cfg, options):
        engine, episodes = options.second_backend, options.second_episodes
        made[f"episodes_{engine}.json"] = lambda path: _evaluate(path, run, engine, episodes, options.seed)
        if options.sysid and _sysid_trial.possible(packed.robot):
            made[_sysid_trial.FILE] = lambda path: _sysid_trial.measure(path, packed.robot, engine, options.seed)
    made |= {
        "film.mp4": lambda path: _film(path, run, options),
        "policy.onnx": lambda path: _export(path, run),
    }
    for file, make in made.items():
        _once(folder / file, run / "bundle" / "bundle.json", make)


def _trained(folder: Path, name: str, options: DemoCfg, training: list[str]) -> Path:
    """The run's folder, trained to its end: now, further, or before."""
    from robolearn.cli import train

    run, about, started = folder / "run", folder / "demo.json", time.monotonic()
    if (run / "bundle" / "bundle.json").is_file():
        log.info("%s is trained already", run)
    elif any((run / "checkpoints").glob("*.safetensors")):
        train.main([f"resume={run}"], started)
    else:
        if about.is_file():
            shutil.rmtree(run, ignore_errors=True)  # it stopped before its first checkpoint
        folder.mkdir(parents=True, exist_ok=True)
        about.write_text(json.dumps(_asked(name, options, training)))
        train.main([f"experiment={name}", f"seed={options.seed}", f"run_dir={run}", *training], started)
    return run


def _once(path: Path, source: Path, make: Callable[[Path], Any]) -> None:
    """Make a file unless it is there and not older than what it is made from."""
    if not path.is_file() or path.stat().st_mtime < source.stat().st_mtime:
        make(path)


def _evaluate(path: Path, run: Path, engine: str, episodes: int, seed: int) -> None:
    """Fresh episodes in the named engine (empty: that of the training), one row of results each."""
    _, cfg, packed = _world.load_run(str(run), engine)
    seed, device = seed + 20_000, "auto" if engine else cfg.device
    rows = _world.run_episodes(packed.policy, cfg.task, cfg.backend, episodes, seed, device)
    part = path.with_suffix(".part")
    about = {"backend": cfg.backend.name, "seed": seed, "rows": {k: v.tolist() for k, v in rows.items()}}
    part.write_text(json.dumps(about))
    part.replace(path)


def _film(path: Path, run: Path, options: DemoCfg) -> None:
    from robolearn.cli import _video

    _, cfg, packed = _world.load_run(str(run))
    _video.record(packed.policy, cfg, path, options.video_envs, options.seed + 30_000)


def _deploy(folder: Path, options: DemoCfg) -> bool:
    """Try a policy through ROS 2, where that is possible; False if it should have been, and was not."""
    from robolearn.cli import _deploy_trial, _fly_trial, _report, _twin_film

    run = folder / "run"
    _, cfg, packed = _world.load_run(str(run))
    flies, moves = _fly_trial.can_fly(packed), _deploy_trial.site_of(packed.spec.robot) is not None
    if not options.ros_episodes or not (flies or moves):
        return True
    if why := _deploy_trial.obstacle(packed):
        log.warning("%s is not tried through ROS 2: %s", folder.name, why)
        return True

    def measure(path: Path) -> None:
        if flies:
            _fly_trial.measure(path, run, cfg.task.period_s, cfg.task.size_m)
        else:
            _deploy_trial.measure(path, run, options.ros_episodes, options.seed + 20_000)

    found = folder / (_fly_trial.FILE if flies else _deploy_trial.FILE)
    film = _twin_film.film_flight if flies else _twin_film.film_arm
    try:
        _once(found, run / "bundle" / "bundle.json", measure)
        _once(folder / _report.TWIN_FILM, found, lambda path: film(path, cfg, json.loads(found.read_text())))
    except UserError as error:
        log.error("%s through ROS 2: %s", folder.name, error)
        return False
    return True


def _export(path: Path, run: Path) -> None:
    from robolearn import bundle, export

    export.export(bundle.load(run / "bundle").policy, path, "onnx")
