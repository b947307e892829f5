"""A robot's recorded commands and measurements: one file, checked before anything is believed.

An `.npz` of one float array a column with rows in time, and `about`, JSON text with `robot`, `joints` (the names of an
arm's columns) and `format`. A `.csv` has the same columns by element: `time_s, joint_target.panda_joint1, ...`.

| column | elements | unit | of |
|---|---|---|---|
| `time_s` | | s, increasing | all |
| `joint_target` | joints | rad | arms: the command sent at that time; the set-point moves to it until the next row |
| `joint_pos`; `joint_vel`, `joint_effort` may be missing | joints | rad, rad/s, N m | arms |
| `attitude_command` | roll, pitch, yaw_rate, thrust | rad, rad, rad/s, N | quadrotors: in force from that row on |
| or `rotor_command` | the rotors | rad/s | quadrotors |
| `position`, `velocity` | x, y, z | m, m/s | quadrotors, world ENU |
| `rotation` | x, y, z, w | unit quaternion, body FLU to world | quadrotors |
| `rates` | x, y, z | rad/s, body frame | quadrotors |
"""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from robolearn.errors import ConfigError
from robolearn.spec import RobotSpec

FORMAT = 1
FEWEST_WINDOWS = 3
FEWEST_ROWS = 8
XYZ = ("x", "y", "z")
ARM: dict[str, tuple[str, ...] | None] = dict.fromkeys(("joint_target", "joint_pos", "joint_vel", "joint_effort"))
FLIGHT: dict[str, tuple[str, ...] | None] = {
    "attitude_command": ("roll", "pitch", "yaw_rate", "thrust"), "rotor_command": None, "position": XYZ,
    "rotation": ("x", "y", "z", "w"), "velocity": XYZ, "rates": XYZ,
}  # fmt: skip
COLUMNS: dict[str, tuple[str, ...] | None] = ARM | FLIGHT
"""Elements of each column; None: one a joint."""


@dataclass(frozen=True)
class Log:
    robot: str
    joints: tuple[str, ...]
    time_s: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    """Name -> (T, n)."""

    @property
    def period_s(self) -> float:
        return float(np.median(np.diff(self.time_s)))

    def windows(self, seconds: float) -> tuple[np.ndarray, int]:
        """First rows (W,) of windows of this length, one after the other, and rows in each. ConfigError if there are
        too few for their scatter to say anything."""
        rows = max(FEWEST_ROWS, round(seconds / self.period_s))
        first = np.arange(0, len(self.time_s) - rows, rows)
        if len(first) < FEWEST_WINDOWS:
            raise ConfigError(
                f"the log of {len(self.time_s)} rows makes {len(first)} windows of {rows * self.period_s:.3g} s, at "
                f"least {FEWEST_WINDOWS} are needed; record longer, or give a shorter window_s (a window has "
                f"{FEWEST_ROWS} rows or more)"
            )
        return first, rows

    @property
    def command(self) -> str:
        """The column that holds what was commanded."""
        return next(n for n in ("joint_target", "attitude_command", "rotor_command") if n in self.columns)


def elements(log: Log, column: str) -> tuple[str, ...]:
    """Names of the elements of a column."""
    return COLUMNS[column] or log.joints


def write(log: Log, path: Path) -> None:
    about = json.dumps({"robot": log.robot, "joints": list(log.joints), "format": FORMAT})
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, about=np.array(about), time_s=log.time_s, **log.columns)
    part.replace(path)


def read(path: Path, spec: RobotSpec) -> Log:
    """The log of a robot. ConfigError, naming what is wrong, for a file that is damaged or of another robot."""
    if not path.is_file():
        raise ConfigError(f"there is no log {path}; make one with record={path}, or export your robot's to it")
    if path.suffix not in (".npz", ".csv"):
        raise ConfigError(f"{path}: a log is a .npz or a .csv file")
    log = _read_npz(path) if path.suffix == ".npz" else _read_csv(path, spec)
    if log.robot != spec.name:
        raise ConfigError(f"{path} is of robot {log.robot}, not of {spec.name}; give robot={log.robot}")
    return log


def _read_npz(path: Path) -> Log:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
        columns = {n: np.asarray(v, dtype=float) for n, v in arrays.items()}
        return Log(about["robot"], tuple(about["joints"]), columns.pop("time_s"), columns)
    except KeyError as error:
        raise ConfigError(f"{path} has no {error}; docs/sysid.md says what a log holds") from None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{path} cannot be read, it may be cut short ({reason}); record or copy it again") from None


def _read_csv(path: Path, spec: RobotSpec) -> Log:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte order mark first
            head, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is no text ({error}); export it again as .csv, or give the .npz") from None
    if not rows:
        raise ConfigError(f"{path} has no rows below its header; record or copy it again")
    names = [name.strip() for name in head]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path} has more than one column {', '.join(twice)}; name each element once")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise ConfigError(f"{path}: line {number} has {len(row)} values, the header {len(names)}; is it cut short?")
    try:
        table = np.array(rows, dtype=float).reshape(-1, len(names))
    except ValueError as error:
        raise ConfigError(f"{path} holds something that is no number ({error})") from None
    given = {name: table[:, i] for i, name in enumerate(names)}
    if "time_s" not in given:
        raise ConfigError(f"{path} has no column time_s; docs/sysid.md says what a log holds")
    joints = spec.joint_names if spec.quadrotor else tuple(_elements_of("joint_pos", names))
    columns = {}
    for column in COLUMNS:
        found = _elements_of(column, names)
        wanted = COLUMNS[column] or joints
        if found:
            _demand_elements(path, column, found, wanted)
            columns[column] = np.stack([given[f"{column}.{e}"] for e in wanted], axis=1)
    return Log(spec.name, joints, given["time_s"], columns)


def _elements_of(column: str, names: list[str]) -> list[str]:
    return [n.partition(".")[2] for n in names if n.startswith(f"{column}.")]


def _demand_elements(path: Path, column: str, found: list[str], wanted: tuple[str, ...]) -> None:
    if set(found) != set(wanted):
        raise ConfigError(f"{path}: {column} has the elements {', '.join(found)}; it must have {', '.join(wanted)}")


def noisy(log: Log, share: float, generator: np.random.Generator) -> Log:
    """With white noise on every measurement, of `share` of the standard deviation that the element has over the log;
    a rotation is turned about each body axis by `share` of its deviation from the mean."""
    columns = dict(log.columns)
    for name, value in log.columns.items():
        if name == log.command:
            continue
        if name == "rotation":
            spread = rotation_vectors(value[:1], value).std(axis=0)
            columns[name] = turned(value, share * spread * generator.standard_normal((len(value), 3)))
        else:
            columns[name] = value + share * value.std(axis=0) * generator.standard_normal(value.shape)
    return replace(log, columns=columns)


def rotation_vectors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., 3) rad in the frame of a: from a to b, quaternions xyzw."""
    va, vb, wa, wb = a[..., :3], b[..., :3], a[..., 3:], b[..., 3:]
    v, w = wa * vb - wb * va - np.cross(va, vb), wa * wb + (va * vb).sum(-1, keepdims=True)
    v, w = np.where(w < 0.0, -v, v), np.abs(w)
    size = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.where(size > 1e-9, 2.0 * np.arctan2(size, w) / np.maximum(size, 1e-9), 2.0) * v


def turned(rotation: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A quaternion (..., 4) followed, in its own frame, by a rotation vector (..., 3)."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    v, w = np.sinc(angle / (2.0 * np.pi)) * vector / 2.0, np.cos(angle / 2.0)
    va, wa = rotation[..., :3], rotation[..., 3:]
    out = np.concatenate((wa * v + w * va + np.cross(va, v), wa * w - (va * v).sum(-1, keepdims=True)), axis=-1)
    return out / np.linalg.norm(out, axis=-1, keepdims=True)
