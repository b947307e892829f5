"""Where things are in a set of episodes: the LeRobot v3.0 layout, as files of JSON and Parquet.

    meta/info.json                              rate, features, totals, path templates
    meta/stats.json                             min, max, mean, std, count and quantiles of every feature
    meta/tasks.parquet                          task_index of every instruction
    meta/episodes/chunk-000/file-000.parquet    a row an episode: length, tasks, where its frames are, its statistics
    data/chunk-000/file-000.parquet             a row a frame: everything but pictures
    videos/KEY/chunk-000/file-000.mp4           the pictures of one camera, episode after episode

Ours, and ignored by other readers: `robolearn` in info.json (what the recorder said of robot and action), `unit` and
`frame` of a feature, meta/skipped.json (episodes that `check --repair` found broken), labels/ (`robolearn.data.labels`)
and .writing/ (the episode that is being written). What is not ours in info.json stays when a set is appended to.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import UserError
from robolearn.optional import lazy

pa = lazy("pyarrow", extra="data")
pq = lazy("pyarrow.parquet", extra="data")
log = logging.getLogger(__name__)

VERSION = "v3.0"
INFO, STATS, TASKS, SKIPPED = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/skipped.json"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
WRITING = ".writing"
OURS = "robolearn"
CHUNK = 1000
"""Files in a folder."""
COUNTERS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
            "task_index": "int64"}  # fmt: skip
"""Columns that every set has and no recorder gives."""
ROW = "episode_index", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index"
"""Columns that an episode cannot be found without."""
NUMBERS = ("float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class DataError(UserError):
    """A set of episodes is broken, foreign, or does not fit; the message names the episode and the remedy."""


@dataclass(frozen=True)
class Feature:
    """What a key holds at each step. A video is (H, W, 3) uint8; the rest are numbers of a numpy `dtype`, stored
    exactly. `names` are those of a vector's elements."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    unit: str = ""
    frame: str = ""
    codec: str = ""
    """Of a video, as its file has it; empty before the first episode."""

    def __post_init__(self) -> None:
        if self.dtype != "video" and self.dtype not in NUMBERS:
            raise DataError(f"a feature's dtype must be video or one of {', '.join(NUMBERS)}, got {self.dtype!r}")
        if self.dtype == "video" and (len(self.shape) != 3 or self.shape[2] != 3):
            raise DataError(f"a video has the shape (height, width, 3), got {self.shape}")
        if not self.shape or min(self.shape) < 1:
            raise DataError(f"a feature's shape needs at least one number, all above 0, got {self.shape}")

    @property
    def video(self) -> bool:
        return self.dtype == "video"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass
class Info:
    """meta/info.json. `about` is what the recorder said of the data: JSON, compared by `Episodes.require`."""

    fps: float
    features: dict[str, Feature]
    robot: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    data_mb: float = 100.0
    video_mb: float = 200.0
    raw: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, Any] = field(default_factory=dict)
    """Features of kinds that are not read here (image, string), as the file has them."""

    @property
    def videos(self) -> list[str]:
        return [k for k, f in self.features.items() if f.video]

    @property
    def vectors(self) -> list[str]:
        return [k for k, f in self.features.items() if not f.video]

    def to_json(self, episodes: int, frames: int, tasks: int) -> dict[str, Any]:
        counters = {k: {"dtype": d, "shape": [1], "names": None} for k, d in COUNTERS.items()}
        ours = {k: _feature_json(f, self.fps) for k, f in self.features.items()} | self.unread | counters
        same = self.raw.get("total_episodes") == episodes  # then splits that another program made still hold
        return self.raw | {
            "codebase_version": VERSION,
            "robot_type": self.robot,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": tasks,
            "chunks_size": CHUNK,
            "data_files_size_in_mb": self.data_mb,
            "video_files_size_in_mb": self.video_mb,
            "fps": int(self.fps) if float(self.fps).is_integer() else self.fps,
            "splits": (self.raw.get("splits") if same else None) or {"train": f"0:{episodes}"},
            "data_path": DATA,
            "video_path": VIDEO if self.videos else None,
            "features": ours | (self.raw.get("features") or {}),
            OURS: self.about,
        }


def _feature_json(feature: Feature, fps: float) -> dict[str, Any]:
    out: dict[str, Any] = {"dtype": feature.dtype, "shape": list(feature.shape)}
    out["names"] = list(feature.names) if feature.names else None
    out |= {k: v for k, v in (("unit", feature.unit), ("frame", feature.frame)) if v}
    if feature.video:
        out["names"] = ["height", "width", "channels"]
        height, width, channels = feature.shape
        out["info"] = {"video.height": height, "video.width": width, "video.channels": channels, "video.fps": fps,
                       "video.codec": feature.codec, "video.is_depth_map": False, "has_audio": False}  # fmt: skip
    return out


def read_info(root: Path) -> Info:
    """Raises DataError if there is no set, or one of another version."""
    try:
        raw = json.loads((root / INFO).read_text())
        version, fps, features = raw["codebase_version"], float(raw["fps"]), dict(raw["features"])
    except FileNotFoundError:
        raise DataError(f"{root} is not a set of episodes: it has no {INFO}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root / INFO} cannot be read: {error!r}") from None
    if not 0.0 < fps < math.inf:
        raise DataError(f"{root / INFO}: fps must be above 0, it is {fps}")
    if version != VERSION:
        raise DataError(f"{root} has LeRobot version {version}; {VERSION} is read: convert it with LeRobot's own tool")
    for name, ours in (("data_path", DATA), ("video_path", VIDEO)):
        if raw.get(name) not in (ours, None):
            raise DataError(f"{root / INFO}: {name} is {raw[name]!r}, which is not that of {VERSION}: {ours!r}")
    if strange := [k for k, f in features.items() if not isinstance(f, dict)]:
        raise DataError(f"{root / INFO}: feature '{strange[0]}' is {features[strange[0]]!r}, no description")
    theirs = {k: f for k, f in features.items() if k not in COUNTERS}
    unread = {k: f for k, f in theirs.items() if f.get("dtype") not in ("video", *NUMBERS)}
    if unread:
        kinds = ", ".join(f"{k} ({f.get('dtype')})" for k, f in unread.items())
        log.warning("%s: not read: %s", root, kinds)
    return Info(
        fps, {k: _feature(root, k, f) for k, f in theirs.items() if k not in unread}, raw.get("robot_type"),
        raw.get(OURS) or {}, raw.get("data_files_size_in_mb") or 100.0, raw.get("video_files_size_in_mb") or 200.0,
        raw, unread,
    )  # fmt: skip


def _feature(root: Path, key: str, raw: Mapping[str, Any]) -> Feature:
    try:
        shape, names = tuple(raw["shape"]), raw.get("names")
        about = raw.get("info") or raw.get("video_info") or {}
        if raw["dtype"] == "video":
            shape = (shape[1], shape[2], shape[0]) if len(shape) == 3 and shape[2] != 3 else shape
            return Feature("video", shape, codec=about.get("video.codec", ""))
        flat = tuple(map(str, names)) if isinstance(names, list) and not isinstance(names[:1], dict) else None
        return Feature(raw["dtype"], shape, flat, raw.get("unit", ""), raw.get("frame", ""))
    except (DataError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{root / INFO}: feature '{key}': {error}") from None


# --- files that appear whole ---


def replace(part: Path, path: Path) -> None:
    """Move a finished file to its place; it survives a loss of power from then on."""
    fresh = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in fresh:  # its name, in the folder around it
        sync(folder.parent)
    sync(part)
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_json(root: Path, name: str, data: Any) -> None:
    part = root / WRITING / Path(name).name
    part.parent.mkdir(exist_ok=True)
    part.write_text(json.dumps(data, indent=2))
    replace(part, root / name)


def write_table(root: Path, name: str, table: Any) -> None:
    part = root / WRITING / name.replace("/", "_")
    part.parent.mkdir(exist_ok=True)
    pq.write_table(table, str(part), compression="snappy")
    replace(part, root / name)


def read_table(path: Path, columns: Sequence[str] | None = None) -> Any:
    """Raises DataError, naming the file, for one that is missing or broken."""
    try:
        table = pq.read_table(str(path), columns=columns, partitioning=None)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (pa.ArrowException, OSError) as error:
        line = str(error).splitlines()[0]
        reason = (line.partition("': ")[2] or line).partition(". ")[0].rstrip(".")  # the path is named already
        raise DataError(f"{path} is truncated or not Parquet: {reason}") from None
    for at, column in enumerate(table.columns):
        if isinstance(column.type, pa.BaseExtensionType):  # of matrices, where the package `datasets` is imported
            plain = pa.chunked_array([c.storage for c in column.chunks], column.type.storage_type)
            table = table.set_column(at, table.column_names[at], plain)
    return table


# --- meta ---


def place(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNK, "file_index": number % CHUNK}


def number(row: Mapping[str, Any], kind: str) -> int:
    """Which file of `data` or `videos/KEY` holds an episode."""
    return int(row[f"{kind}/chunk_index"]) * CHUNK + int(row[f"{kind}/file_index"])


def path_of(kind: str, number: int) -> str:
    """Of a file of `data` or `videos/KEY`, below the root."""
    if kind == "data":
        return DATA.format(**place(number))
    return VIDEO.format(video_key=kind.removeprefix("videos/"), **place(number))


def read_tasks(root: Path) -> list[str]:
    """In the order of their task_index."""
    if not (root / TASKS).exists():
        return []
    table = read_table(root / TASKS)
    names = [c for c in table.column_names if c != "task_index"]
    if len(names) != 1 or "task_index" not in table.column_names:
        raise DataError(f"{root / TASKS} has the columns {table.column_names}, not task and task_index")
    pairs = zip(table["task_index"].to_pylist(), table[names[0]].to_pylist(), strict=True)
    return [task for _, task in sorted(pairs)]


def write_tasks(root: Path, tasks: Sequence[str]) -> None:
    """With the note that lets pandas take the text as the index, as LeRobot's reader expects."""
    columns = [{"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
                "metadata": None}, {"name": "task", "field_name": "task", "pandas_type": "unicode",
                "numpy_type": "object", "metadata": None}]  # fmt: skip
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    write_table(root, TASKS, table.replace_schema_metadata({"pandas": json.dumps(about)}))


def episode_files(root: Path) -> list[Path]:
    return sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))


def signature(root: Path) -> tuple[tuple[str, int, int], ...]:
    """Another one when rows were added or changed."""
    found = ((path, path.stat()) for path in episode_files(root))
    return tuple((path.name, stat.st_ino, stat.st_mtime_ns) for path, stat in found)


def read_rows(root: Path) -> list[dict[str, Any]]:
    """A row an episode, in their order, without the statistics. Raises DataError for a broken or doubled one."""
    rows: list[dict[str, Any]] = []
    for path in episode_files(root):
        try:
            table = read_table(path)
        except DataError as error:
            raise DataError(f"{error}; only this file says where its episodes are: restore it from a copy") from None
        if lacking := [c for c in ROW if c not in table.column_names]:
            raise DataError(f"{path} has no column {', '.join(lacking)}")
        keep = [c for c in table.column_names if not c.startswith("stats/")]
        rows += table.select(keep).to_pylist()
    rows.sort(key=lambda r: r["episode_index"])
    for i, row in enumerate(rows):
        if row["episode_index"] != i:
            raise DataError(f"{root}: meta/episodes has episode {row['episode_index']} where {i} belongs")
    return rows


def read_skipped(root: Path) -> dict[int, str]:
    """Why, of each episode that `check --repair` took out."""
    path = root / SKIPPED
    try:
        return {int(k): str(v) for k, v in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove it, then `robolearn data check --repair`") from None


@contextmanager
def lock(root: Path) -> Iterator[None]:
    """One process at a time writes to a set. Raises DataError if another does."""
    path = root / WRITING / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            mine = False  # or another process ended just now, and removed it
        if not mine:
            raise DataError(f"{root} is being written to by another process")
        yield
        clear_writing(root)
        path.unlink()  # last: until then nobody else begins
    with suppress(OSError):  # somebody else has begun
        path.parent.rmdir()


def clear_writing(root: Path) -> None:
    """All but the lock."""
    for path in (root / WRITING).iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- frames ---


def to_table(columns: Mapping[str, np.ndarray]) -> Any:
    """Arrays (T, ...) as columns: numbers, or nested lists of fixed size."""
    return pa.table({k: _to_arrow(v) for k, v in columns.items()})


def _to_arrow(values: np.ndarray) -> Any:
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    shape = () if values.shape[1:] == (1,) else values.shape[1:]
    for size in reversed(shape):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def to_numpy(column: Any, feature: Feature, where: str) -> np.ndarray:
    """(T, *shape) of the feature's dtype, exactly. Raises DataError, naming `where`, if that is not what is there."""
    array = column.combine_chunks()
    length = len(array)
    while pa.types.is_nested(array.type):
        if not hasattr(array, "flatten") or pa.types.is_struct(array.type):
            raise DataError(f"{where} holds {column.type}, not numbers")
        array = array.flatten()
    if array.null_count or len(array) != length * feature.size:
        raise DataError(f"{where} has {len(array)} numbers ({array.null_count} absent) in {length} frames of shape "
                        f"{feature.shape}")  # fmt: skip
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype != feature.dtype:
        raise DataError(f"{where} is {values.dtype}, {INFO} says {feature.dtype}")
    return values.reshape(length, *feature.shape)


def not_finite(values: np.ndarray) -> tuple[int, str] | None:
    """The first step of (T, ...) with a NaN or an infinity, and what is there."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return None
    flat = values.reshape(len(values), -1)
    step, column = np.argwhere(~np.isfinite(flat))[0]
    return int(step), f"element {column} is {flat[step, column]}"


def spans(numbers: Iterable[int]) -> str:
    """`3, 5-7`: episodes for a person."""
    out: list[list[int]] = []
    for n in sorted(numbers):
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in out)
