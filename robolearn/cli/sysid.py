"""Identify a robot from a recorded log: its parameters with intervals, and what to randomise.

usage: robolearn sysid robot=NAME log=FILE [key=value ...]
       robolearn sysid robot=NAME record=FILE [backend=NAME] [truth.PARAMETER=VALUE ...] [trim.JOINT=RAD ...]

The log's commands are replayed in simulation with many candidate parameters at once, in short windows from measured
states, until what was measured is met: an arm's delay, gains, joint friction and trim; a quadrotor's delay, thrust (or
mass), inertia, rotor torque and time constants, drag and trim. The intervals hold all true values jointly with 95 %,
if the simulation can fit the log at all: look at the report's curves. What the log does not show is said to be not
identifiable, and is not randomised.

Written: OUT/ranges.yaml (with `experiment=`, an experiment of its own: put it into configs/experiment), OUT/fit.json
and OUT/report.html. docs/sysid.md says what a log holds and how to record a good one. `record=` makes one of a
simulated robot, to try the whole way:

  robolearn sysid robot=franka record=arm.npz backend=pybullet truth.kp=0.9 truth.delay_s=0.02 noise=0.1
  robolearn sysid robot=franka log=arm.npz experiment=franka_reach_ppo

A flight shows thrust over mass only: weigh the vehicle, and give mass_kg.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _options, _world
from robolearn.cli._options import MISSING, option
from robolearn.cli._table import table
from robolearn.config import ConfigError

if TYPE_CHECKING:
    from robolearn.spec import RobotSpec
    from sim.sysid.fit import Estimate, Fit
    from sim.sysid.log import Log

log = logging.getLogger(__name__)


@dataclass
class SysidCfg:
    robot: str = option(MISSING, "whose log it is; robolearn list robots")
    log: str = option("", "the log to fit, .npz or .csv")
    out: str = option("", "folder of the results; sysid/ beside the log if not given")
    experiment: str = option("", "that the ranges are for: its control period counts, and the YAML goes on from it")
    backend: str = option("", "engine; mujoco for arms and quadrotor for quadrotors if not given")
    window_s: float = option(0.0, "length of a window; 0.5 s for arms and 0.6 s for quadrotors if not given")
    mass_kg: float = option(0.0, "a quadrotor's weighed mass: its thrust is then sought")
    hold: dict[str, float] = field(
        default_factory=dict, metadata={"help": "scales of a quadrotor to take as given, hold.sag=0", "choices": ()}
    )
    seed: int = option(0, "of the candidates, of a recording and of its noise")
    record: str = option("", "make a log of a simulated robot instead: its .npz")
    seconds: float = option(8.0, "recording: how long")
    rate_hz: float = option(0.0, "recording: rows a second; 60 for arms, 100 for quadrotors if not given")
    command: str = option("", "recording: attitude_command (default) or rotor_command of a quadrotor")
    noise: float = option(0.0, "recording: standard deviation, in units of each signal's own")
    truth: dict[str, float] = field(
        default_factory=dict, metadata={"help": "recording: true parameters, by the names of the fit", "choices": ()}
    )
    trim: dict[str, float] = field(
        default_factory=dict, metadata={"help": "recording: true trims in rad, trim.JOINT or trim.roll", "choices": ()}
    )

    def __post_init__(self) -> None:
        _options.check_range(self, seed=_options.SEEDS)
        if bool(self.log) == bool(self.record):
            raise ValueError("give log=FILE to fit one, or record=FILE to make one")
        if self.record and not self.record.endswith(".npz"):
            raise ValueError(f"record must be a .npz file, got {self.record}")
        if not 2.0 <= self.seconds <= 600.0 or not 0.0 <= self.noise <= 10.0:
            raise ValueError("seconds must be 2 to 600, noise 0 to 10")
        if self.rate_hz and not 20.0 <= self.rate_hz <= 1000.0:
            raise ValueError(f"rate_hz must be 20 to 1000, got {self.rate_hz:g}")
        if self.window_s and not 0.1 <= self.window_s <= 2.0:
            raise ValueError(f"window_s must be 0.1 to 2, got {self.window_s:g}")
        if not 0.0 <= self.mass_kg < math.inf:
            raise ValueError(f"mass_kg must be above 0, got {self.mass_kg:g}")


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(SysidCfg)}"


def main(argv: list[str]) -> int:
    options = config.parse(SysidCfg, argv)
    _world.discover()
    spec: RobotSpec = config.entry("robot", options.robot).value
    import torch

    torch.set_num_threads(1)
    return _record(options, spec) if options.record else _fit(options, spec)


def _record(options: SysidCfg, spec: RobotSpec) -> int:
    import numpy as np

    from sim.sysid import log as logs
    from sim.sysid import record

    path = Path(options.record)
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {path} does not exist")
    flies = spec.quadrotor is not None
    engine = _world.backend_config(options.backend or ("quadrotor" if flies else "mujoco"), None)
    rate = options.rate_hz or (100.0 if flies else 60.0)
    truth = options.truth | {f"trim.{name}": value for name, value in options.trim.items()}
    made = record.record(spec, engine, options.seconds, rate, truth, options.seed, options.command)
    noise = np.random.default_rng(options.seed)
    logs.write(logs.noisy(made, options.noise, noise) if options.noise else made, path)
    print(f"{path}: {options.seconds:g} s of {spec.name} in {engine.name} at {rate:g} Hz")
    return 0


def _fit(options: SysidCfg, spec: RobotSpec) -> int:
    from sim.sysid import checks, ranges
    from sim.sysid import log as logs

    path = Path(options.log)
    step_dt_s = _period(options.experiment, spec)
    made = checks.checked(logs.read(path, spec), spec)
    replay = _replay(options, spec, made)
    out = Path(options.out) if options.out else path.parent / "sysid"
    out.mkdir(parents=True, exist_ok=True)  # before the minutes that a fit takes
    fit = _estimate(replay, options.seed)
    for e in fit.estimates:
        if e.at_edge:
            log.warning(
                "%s lies at the edge of what is thought possible, %.4g: do not trust this fit",
                e.parameter.name,
                e.value,
            )
    values = ranges.randomize(fit, spec, step_dt_s or made.period_s, "attitude_command" in made.columns)
    if options.mass_kg and spec.quadrotor:
        values["mass"] = [round(options.mass_kg / spec.quadrotor.mass_kg, 4)] * 2
    about = _about(fit, spec, path, step_dt_s or made.period_s)
    (out / "ranges.yaml").write_text(ranges.text(values, options.experiment, about))
    (out / "fit.json").write_text(json.dumps(_plain(fit, values, path), indent=1))
    from robolearn.cli import _sysid_report

    _sysid_report.write(out / "report.html", spec.name, path, fit, replay, values)
    print(table([_row(e) for e in fit.estimates], ("parameter", "value", "95 % jointly", "unit")))
    print(f"\n{ranges.words(values) or 'nothing to randomise: the log does not show enough'}")
    print(f"\n{out / 'report.html'}, {out / 'ranges.yaml'}")
    return 0


def _period(experiment: str, spec: RobotSpec) -> float:
    """Of the experiment's task; zero without one. ConfigError if it is for another robot."""
    if not experiment:
        return 0.0
    from robolearn.cli.train import TrainCfg

    cfg = config.load(TrainCfg, [f"experiment={experiment}"])
    robot = config.build(cfg.task).robot.name
    if robot != spec.name:
        raise ConfigError(f"experiment {experiment} is for {robot}, the log of {spec.name}")
    return float(cfg.task.step_dt_s)


def _replay(options: SysidCfg, spec: RobotSpec, made: Log) -> Any:
    from sim.sysid.arm import ArmReplay
    from sim.sysid.flight import FlightReplay

    length = {"window_s": options.window_s} if options.window_s else {}
    if spec.quadrotor is None:
        if options.mass_kg or options.hold:
            raise ConfigError(f"mass_kg and hold are for quadrotors; {spec.name} is none")
        return ArmReplay(made, spec, _world.backend_config(options.backend or "mujoco", None), **length)
    if options.backend not in ("", "quadrotor"):
        raise ConfigError("a quadrotor's log is replayed in backend=quadrotor: only its firmware starts as measured")
    if not options.mass_kg:
        log.info("without mass_kg the thrust is taken as specified, and the mass is sought")
    engine = _world.backend_config("quadrotor", None)
    return FlightReplay(made, spec, engine, options.mass_kg or None, dict(options.hold), **length)


def _estimate(replay: Any, seed: int) -> Fit:
    from robolearn.loops.log import Display
    from sim.sysid.fit import Estimator

    estimator = Estimator(replay, seed)
    try:
        with Display(estimator.steps, "fit") as display:
            return estimator(display.update)
    finally:
        replay.close()


def _row(e: Estimate) -> tuple[str, str, str, str]:
    interval = f"{e.low:.4g} to {e.high:.4g}" if e.identifiable else "not identifiable"
    return e.parameter.name, f"{e.value:.4g}" if e.identifiable else "", interval, e.parameter.unit


def _about(fit: Fit, spec: RobotSpec, path: Path, step_dt_s: float) -> list[str]:
    vague = [e.parameter.name for e in fit.estimates if not e.identifiable]
    lines = [f"{spec.name} as identified from {path.name}; delays for a control period of {1e3 * step_dt_s:.4g} ms."]
    return lines + ([f"Not identifiable there, and left out: {', '.join(vague)}."] if vague else [])


def _plain(fit: Fit, values: dict[str, Any], path: Path) -> dict[str, Any]:
    """For fit.json."""
    from robolearn.cli import _sysid_report

    estimates = list(map(_sysid_report.plain, fit.estimates))
    return {"log": str(path), "estimates": estimates, "residuals": fit.noise, "randomize": values}
