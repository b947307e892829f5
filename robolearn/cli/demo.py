"""Train robots, evaluate in two engines and arms through ROS 2, film and export, and write one page about all.

usage: robolearn demo [out=demo] [experiments=franka_reach_ppo,crazyflie_eight_ppo] [seed=0] [key=value ...]

`out` gets report.html, one file that loads nothing from elsewhere, and a folder for each experiment: run/ (all that
training writes, with the policy bundle), episodes_ENGINE.json, film.mp4, policy.onnx, and sysid/: what was identified
from a log of the robot, changed, in the second engine. Further key=value words go to every training. An interrupted
demo continues where it stopped; what is finished is not repeated.

The policies are deployed too, with `robolearn launch`: policy, guard and a simulated robot are processes that talk over
DDS, in a domain of their own on this machine. The arm reaches goals as in an evaluation, the quadrotor takes off and
follows a figure-eight; then the policy is killed while the robot moves. ros2.json or flight.json is what was measured,
twin.mp4 what the simulated robot did, twins.png a moment of all. That takes the extra `ros`, or a ROS 2 installation.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.cli import _options, _sysid_trial, _world
from robolearn.cli._jobs import Job, Jobs, stale
from robolearn.cli._options import option
from robolearn.errors import ConfigError, UserError

log = logging.getLogger(__name__)

FILM_PX = 720
"""Width; without a GPU a film's time is its pixels'."""


@dataclass
class DemoCfg:
    out: str = option("demo", "folder to write")
    experiments: str = option("franka_reach_ppo,crazyflie_eight_ppo", "what to train; robolearn list experiments")
    seed: int = option(0, "of the trainings")
    episodes: int = option(500, "of an evaluation in the engine of the training")
    second_backend: str = option("pybullet", "engine of the second evaluation; empty for none")
    second_episodes: int = option(50, "of that evaluation")
    sysid: bool = option(True, "identify each robot from a log of the second engine")
    video_envs: int = option(2, "environments in a film")
    ros_episodes: int = option(8, "of an arm through ROS 2, 3 s or so each; 0 for none")

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
    folders = [out / name for name in options.names]
    with Jobs(out / "jobs.log") as jobs:
        for folder, name in zip(folders, options.names, strict=True):
            run = _trained(folder, name, options, training)
            jobs.add(_made_of(folder, run, options))
        jobs.wait()  # what comes next needs real time
        tried = [_tried(folder, options) for folder in folders]
        for folder in folders:
            jobs.add(_filmed(folder))
    from robolearn.cli import _report, _twin_film

    if films := [film for folder in folders if (film := folder / _report.TWIN_FILM).is_file()]:
        _twin_film.picture(out / "twins.png", films)
    page = out / "report.html"
    _report.write(page, [out / name for name in options.names])
    print(f"{'report':22} {page.resolve()}")
    print(f"{'this took':22} {time.monotonic() - started:.0f} s")
    return 0 if all(tried) else UserError.exit_code


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


def _made_of(folder: Path, run: Path, options: DemoCfg) -> list[Job]:
    """What is made of a training, each independent of the others; the longest first."""
    _, cfg, packed = _world.load_run(str(run))
    made: dict[str, tuple[Any, ...]] = {}
    if _second(cfg, options):
        if options.sysid and _sysid_trial.possible(packed.robot):
            made[_sysid_trial.FILE] = _sysid_trial.measure, packed.robot.name, options.second_backend, options.seed
        second = run, options.second_backend, options.second_episodes, options.seed
        made[f"episodes_{options.second_backend}.json"] = _evaluate, *second
    made["film.mp4"] = _film, run, options
    made[f"episodes_{cfg.backend.name}.json"] = _evaluate, run, "", options.episodes, options.seed
    made["policy.onnx"] = _export, run
    source = run / "bundle" / "bundle.json"
    return [Job(folder / file, source, make, args) for file, (make, *args) in made.items()]


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
    _video.record(packed.policy, cfg, path, options.video_envs, options.seed + 30_000, FILM_PX)


def _tried(folder: Path, options: DemoCfg) -> bool:
    """Try a policy through ROS 2, where that is possible; False if it should have been, and was not."""
    from robolearn.cli import _deploy_trial, _fly_trial

    run = folder / "run"
    _, cfg, packed = _world.load_run(str(run))
    flies, moves = _fly_trial.can_fly(packed), _deploy_trial.site_of(packed.spec.robot) is not None
    if not options.ros_episodes or not (flies or moves):
        return True
    if why := _deploy_trial.obstacle(packed):
        log.warning("%s is not tried through ROS 2: %s", folder.name, why)
        return True
    found = folder / (_fly_trial.FILE if flies else _deploy_trial.FILE)
    if not stale(found, run / "bundle" / "bundle.json"):
        return True
    try:
        if flies:
            _fly_trial.measure(found, run, cfg.task.period_s, cfg.task.size_m)
        else:
            _deploy_trial.measure(found, run, options.ros_episodes, options.seed + 20_000)
    except UserError as error:
        log.error("%s through ROS 2: %s", folder.name, error)
        return False
    return True


def _filmed(folder: Path) -> list[Job]:
    """Of what was measured through ROS 2, if anything was."""
    from robolearn.cli import _deploy_trial, _fly_trial, _report, _twin_film

    films = {_fly_trial.FILE: _twin_film.film_flight, _deploy_trial.FILE: _twin_film.film_arm}
    return [
        Job(folder / _report.TWIN_FILM, folder / file, film, [folder / "run", folder / file])
        for file, film in films.items()
        if (folder / file).is_file()
    ]


def _export(path: Path, run: Path) -> None:
    from robolearn import bundle, export

    export.export(bundle.load(run / "bundle").policy, path, "onnx")
