"""Do engines agree? Drive the same robot in each, weigh cubes, slide boxes: a report, and a verdict.

usage: robolearn parity [robot=franka] [backends=mujoco,pybullet] [out=parity] [key=value ...]

Each engine runs in a process of its own; where packages clash, in an interpreter of its own:
`python.pybullet=/path/to/venv/bin/python` (it needs robolearn's requirements and that engine; this source is used).
The first engine is the one that the others are compared with. `out` gets report.html (one file that loads nothing),
parity.json (every check with its value and limit) and each engine's recording, ENGINE.safetensors.

  free motion   the robot follows random smooth targets through its PD law: positions and efforts
  weight        cubes of 0.2, 1 and 5 kg rest on the ground: contact force against m g
  sliding       flat boxes are launched on the ground: distance against v0^2 / (2 mu g)

The exit code is 0 if every check is within its tolerance, else 1.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _options, _world
from robolearn.cli._options import option
from robolearn.cli._table import table
from robolearn.errors import ConfigError, UserError, unknown

if TYPE_CHECKING:
    from sim.parity import Check, Recording

log = logging.getLogger(__name__)


class RecordingError(UserError):
    """An engine's process ended without a recording."""


@dataclass
class ParityCfg:
    robot: str = option("franka", "a robot with a fixed base; robolearn list robots")
    backends: str = option("mujoco,pybullet", "engines, separated by commas; robolearn list backends")
    out: str = option("parity", "folder to write")
    seed: int = option(0, "of the targets")
    python: dict[str, str] = dataclasses.field(
        default_factory=dict, metadata={"help": "ENGINE: its interpreter, as python.pybullet=PATH", "choices": ()}
    )

    def __post_init__(self) -> None:
        _options.check_range(self, seed=_options.SEEDS)


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(ParityCfg)}"


def main(argv: list[str]) -> int:
    options = config.parse(ParityCfg, argv)
    _world.discover()
    engines = _engines(options)
    from robolearn.cli import _parity_report
    from sim import parity

    spec = config.entry("robot", options.robot).value
    if spec.quadrotor is not None:
        raise ConfigError(f"{options.robot} has no fixed base; parity drives robots through their joints")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    recordings = {engine: _record(engine, options, out) for engine in engines}
    limits = parity.Tolerances()
    checks = parity.checks(recordings, spec, limits)
    passed = all(c.passed for c in checks)
    about = {"robot": options.robot, "backends": engines, "seed": options.seed, "passed": passed}
    _write(out / "parity.json", about, checks, dataclasses.asdict(limits))
    _parity_report.write(out / "report.html", options.robot, spec, recordings, checks)
    print(table([_row(c) for c in checks], ("", "experiment", "engine", "value", "at most", "what")))
    print(f"\n{sum(c.passed for c in checks)} of {len(checks)} checks passed; {out / 'report.html'}")
    return 0 if passed else 1


def _engines(options: ParityCfg) -> list[str]:
    """Names that exist, two or more, each once."""
    names = [name.strip() for name in options.backends.split(",") if name.strip()]
    for name in [*names, *options.python]:
        config.entry("backend", name)
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"backends must be two or more different engines, got '{options.backends}'")
    for name, python in options.python.items():
        if name not in names:
            raise ConfigError(unknown("engine of this comparison", name, names))
        if not os.access(python, os.X_OK):
            raise ConfigError(f"python.{name}: {python} is no interpreter that can be run")
    return names


def _record(engine: str, options: ParityCfg, out: Path) -> Recording:
    """One engine's recording, by a process of its own."""
    from safetensors.torch import load_file

    file = out / f"{engine}.safetensors"
    error = file.with_suffix(".error")
    for old in (file, error):
        old.unlink(missing_ok=True)
    python = options.python.get(engine, sys.executable)
    source = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
    words = [python, "-m", "sim.parity", engine, options.robot, str(options.seed), str(file)]
    code = subprocess.run(words, env={**os.environ, "PYTHONPATH": paths}).returncode
    if error.exists():
        said = json.loads(error.read_text())
        error.unlink()
        raise (ConfigError if said["code"] == ConfigError.exit_code else RecordingError)(said["text"])
    if code or not file.exists():
        raise RecordingError(f"{engine} was not recorded: {python} ended with exit code {code}, see above")
    return load_file(file)


def _write(path: Path, about: dict[str, Any], checks: list[Check], limits: dict[str, float]) -> None:
    rows = [
        dataclasses.asdict(c) | {"value": c.value if math.isfinite(c.value) else None, "passed": c.passed}
        for c in checks
    ]
    path.write_text(json.dumps(about | {"tolerances": limits, "checks": rows}, indent=1, allow_nan=False))


def _row(check: Check) -> tuple[str, ...]:
    verdict = "passed" if check.passed else "FAILED"
    return verdict, check.experiment, check.engine, f"{check.value:.2g}", f"{check.limit:g} {check.unit}", check.what
