"""Recording: episodes are written beside the set and moved in, and a row in meta/episodes makes them part of it.

A process that is killed loses the episode that it was writing, and nothing else: what it left is removed when the set
is next written to. Each episode gets files of its own; `close` joins small ones up to the size in info.json.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace as changed
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from robolearn.data import join, layout, stats
from robolearn.data.layout import COUNTERS, INFO, WRITING, DataError, Feature, Info
from robolearn.data.video import Encoder, VideoCfg, av
from robolearn.spec import differences

log = logging.getLogger(__name__)

ROWS = 1000
"""Episodes in a file of meta/episodes: the last one is written anew for each of them."""
CODEC_NAMES = {"h264_lossless": "h264"}


class Writer:
    """Makes a set of episodes, or appends to one. One writer at a time; readers do not mind.

        with Writer(path, fps=20, features={"observation.state": Feature("float32", (7,)), ...}) as writer:
            writer.begin(task="insert the peg")
            writer.add({"observation.state": q, "action": a, "observation.images.front": picture})  # once a step
            writer.end()

    Any feature may be absent: a set of videos alone is legal, and so is one without actions.
    """

    def __init__(self, root: Path, fps: float, features: Mapping[str, Feature], robot: str | None = None,
                 about: Mapping[str, Any] | None = None, video: VideoCfg | None = None, data_mb: float = 100.0,
                 video_mb: float = 200.0):  # fmt: skip
        """`about`: JSON on what the numbers mean (robot and action specification), for `Episodes.require`.
        Raises DataError if the set that is there differs (both are shown), or is being written to."""
        self.root, self.video = Path(root), video or VideoCfg()
        codec = CODEC_NAMES.get(self.video.codec, self.video.codec)
        given = {k: changed(f, codec=codec) if f.video else f for k, f in features.items()}
        self.info = Info(fps, given, robot, json.loads(json.dumps(about or {})), data_mb, video_mb)
        _check(self.info)
        self._steps: dict[str, list[np.ndarray]] | None = None
        self._closed = False
        self._demand_folder()
        with ExitStack() as stack:
            stack.enter_context(layout.lock(self.root))
            self._open()
            self._lock = stack.pop_all()

    def _demand_folder(self) -> None:
        if self.root.is_dir() and not (self.root / INFO).exists():
            strange = sorted(p.name for p in self.root.iterdir() if p.name not in (WRITING, "meta"))
            if strange:
                raise DataError(f"{self.root} holds {', '.join(strange[:3])} and no {INFO}: choose another folder")

    def _open(self) -> None:
        if (self.root / INFO).exists():
            found = layout.read_info(self.root)
            _demand_same(self.root, found, self.info)
            self.info = found
        self.rows, self.tasks = layout.read_rows(self.root), layout.read_tasks(self.root)
        join.remove_orphans(self.root, self.info, self.rows)
        kinds = join.kinds(self.info)
        self._file = 1 + max((layout.number(row, kind) for row in self.rows for kind in kinds), default=-1)
        files = layout.episode_files(self.root)
        self._meta: Any = layout.read_table(files[-1]) if files else None
        self._meta_file = int(files[-1].stem.removeprefix("file-")) if files else 0
        self._meta_file += layout.CHUNK * int(files[-1].parent.name.removeprefix("chunk-")) if files else 0
        self._write_info()

    # --- an episode ---

    def begin(self, task: str = "") -> None:
        """`task`: the instruction, in words; may be empty."""
        if self._closed:
            raise DataError(f"the writer of {self.root} is closed: make another one")
        if self._steps is not None:
            raise DataError(f"episode {len(self.rows)} has begun already: end() or abandon() it first")
        self._steps = {k: [] for k in self.info.vectors}
        self._task, self._length = task, 0
        self._encoders: dict[str, Encoder] = {}
        self._pictures = {k: stats.Thinned() for k in self.info.videos}
        try:
            for key in self.info.videos:
                path, shape = self._part(key), self.info.features[key].shape
                self._encoders[key] = Encoder(path, self.info.fps, shape, self.video)
        except BaseException:
            self.abandon()
            raise

    def _part(self, key: str) -> Path:
        return self.root / WRITING / f"{key.replace('/', '_')}.mp4"

    def add(self, step: Mapping[str, Any]) -> None:
        """A value for every feature; arrays are copied. Raises DataError, naming episode and step, for what is
        absent, strange, of another shape or a dtype that would lose something, or not finite; the step is then not in
        the episode."""
        if self._steps is None:
            raise DataError("no episode has begun: begin() one")
        where = f"episode {len(self.rows)}, step {self._length}"
        if step.keys() != self.info.features.keys():
            missing, strange = self.info.features.keys() - step.keys(), step.keys() - self.info.features.keys()
            raise DataError(f"{where}: missing {sorted(missing)}, not among the features: {sorted(strange)}")
        values = {k: _value(v, self.info.features[k], f"{where}: {k}") for k, v in step.items()}
        try:
            for key, encoder in self._encoders.items():
                encoder.add(values[key])
        except (av.FFmpegError, OSError) as error:  # some cameras have the step and some not
            self.abandon()
            raise DataError(f"{where}: {key} cannot be written: {error}; the episode is given up") from None
        for key, value in values.items():
            (self._pictures[key].add if key in self._encoders else self._steps[key].append)(value)
        self._length += 1

    def abandon(self) -> None:
        """Forget the episode that has begun."""
        self._steps = None
        for encoder in self._encoders.values():
            with suppress(av.FFmpegError, OSError):  # of a full disk: what it wrote goes all the same
                encoder.abandon()

    def end(self) -> int:
        """Put the episode into the set; its index. Raises DataError for one without a step, or whose videos
        cannot be written, which is forgotten."""
        if self._steps is None:
            raise DataError("no episode has begun: begin() one")
        if not self._length:
            self.abandon()
            raise DataError(f"episode {len(self.rows)} has no step and is not kept")
        arrays = {k: np.stack(v) for k, v in self._steps.items()}
        self._steps = None  # whatever becomes of it: the next one can begin
        try:
            for key in self._encoders:
                self._encoders[key].close()
        except (av.FFmpegError, OSError) as error:  # a disk is often full only when the last frames are written
            self.abandon()
            raise DataError(f"episode {len(self.rows)}: {key} cannot be written: {error}; it is given up") from None
        found = {k: stats.of_numbers(v) for k, v in arrays.items()}
        found |= {k: stats.of_pictures(p.frames) for k, p in self._pictures.items()}
        self._place(arrays)
        self._commit(self._row() | stats.to_row(found))
        return len(self.rows) - 1

    def _place(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Files of the episode, at their places; nobody knows of them yet."""
        if self._task not in self.tasks:
            layout.write_tasks(self.root, [*self.tasks, self._task])
            self.tasks.append(self._task)
        first, n = self._first(), self._length
        steps = np.arange(n)
        counters = {
            "timestamp": steps / self.info.fps, "frame_index": steps, "episode_index": np.full(n, len(self.rows)),
            "index": first + steps, "task_index": np.full(n, self.tasks.index(self._task)),
        }  # fmt: skip
        typed = {k: v.astype(COUNTERS[k]) for k, v in counters.items()}
        for key in self.info.videos:
            layout.replace(self._part(key), self.root / layout.path_of(f"videos/{key}", self._file))
        layout.write_table(self.root, layout.path_of("data", self._file), layout.to_table({**arrays, **typed}))

    def _first(self) -> int:
        return int(self.rows[-1]["dataset_to_index"]) if self.rows else 0

    def _row(self) -> dict[str, Any]:
        first, at = self._first(), layout.place(self._file)
        row = {"episode_index": len(self.rows), "tasks": [self._task], "length": self._length,
               "dataset_from_index": first, "dataset_to_index": first + self._length}  # fmt: skip
        for kind in join.kinds(self.info):
            row |= {f"{kind}/{name}": value for name, value in at.items()}
        for key in self.info.videos:
            row[f"videos/{key}/from_timestamp"] = 0.0
            row[f"videos/{key}/to_timestamp"] = self._length / self.info.fps
        return row

    def _commit(self, row: dict[str, Any]) -> None:
        old, number = self._meta, self._meta_file
        fresh = old is None or len(old) >= ROWS
        number += fresh and old is not None
        table = self._meta_table(row, number)
        try:  # another program's columns stay, and so do their types in a new file: readers want them alike in all
            if old is not None:
                parts = [old.slice(0, 0) if fresh else old, _fitted(table, old.schema)]
                table = layout.pa.concat_tables(parts, promote_options="permissive")
        except layout.pa.ArrowException:
            number += not fresh
            table = self._meta_table(row, number)
        layout.write_table(self.root, layout.EPISODES.format(**layout.place(number)), table)  # from here it is there
        self._meta, self._meta_file = table, number
        self.rows.append(row)
        self._file += 1
        self._write_info()

    def _meta_table(self, row: dict[str, Any], number: int) -> Any:
        at = {f"meta/episodes/{name}": value for name, value in layout.place(number).items()}
        return layout.pa.Table.from_pylist([row | at])

    def _write_info(self) -> None:
        layout.write_json(self.root, INFO, self.info.to_json(len(self.rows), self._first(), len(self.tasks)))

    # --- the end ---

    def close(self) -> None:
        """Forget an episode that has begun, join small files, write the statistics."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._steps is not None:
                log.warning("%s: episode %d was not ended and is not kept", self.root, len(self.rows))
                self.abandon()
            join.join_small(self.root, self.info)
            join.write_stats(self.root, self.info)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()


def _fitted(table: Any, schema: Any) -> Any:
    """The columns of a row with the types of another schema. Statistics that do not fit (LeRobot's of matrices are of
    their columns only) are left out. Raises ArrowException for another column that does not fit."""
    for at, name in reversed(list(enumerate(table.column_names))):
        if name in schema.names:
            try:
                field = schema.field(name)
                table = table.set_column(at, field, table[name].cast(field.type))
            except layout.pa.ArrowException:
                if not name.startswith("stats/"):
                    raise
                table = table.remove_column(at)
    return table


def _check(info: Info) -> None:
    if not 0.0 < info.fps < 1e4:
        raise DataError(f"fps must be above 0, got {info.fps}")
    if not info.features:
        raise DataError("a set needs at least one feature")
    for key, feature in info.features.items():
        if key in COUNTERS or not key or key != key.strip() or "/" in key:
            raise DataError(f"'{key}' cannot be a feature: not empty, no slash, none of {', '.join(COUNTERS)}")
        if feature.names and not feature.video and len(feature.names) != feature.size:
            raise DataError(f"{key} has {feature.size} numbers and {len(feature.names)} names")


def _value(value: Any, feature: Feature, where: str) -> np.ndarray:
    dtype = "uint8" if feature.video else feature.dtype
    array = np.asarray(value)
    plain = isinstance(value, (bool, int, float, list, tuple))
    if not np.can_cast(array.dtype, dtype, "same_kind" if plain else "safe"):
        raise DataError(f"{where} is {array.dtype}; {dtype} cannot hold it exactly: convert it first")
    array = np.array(array, dtype)
    if array.shape != feature.shape:
        if feature.shape != (1,) or array.shape != ():
            raise DataError(f"{where} has shape {array.shape}, not {feature.shape}")
        array = array.reshape(1)
    if bad := layout.not_finite(array[None]):
        raise DataError(f"{where}: {bad[1]}")
    return array


def _demand_same(root: Path, there: Info, here: Info) -> None:
    """Codecs may differ: they do not change what a number means."""
    if there.unread:
        raise DataError(f"{root} has features that are not written here: {', '.join(there.unread)}; use another folder")
    found = differences(_meaning(there), _meaning(here))
    if found:
        raise DataError(f"{root} has other data (there != here): {'; '.join(found)}; choose another folder")


def _meaning(info: Info) -> dict[str, Any]:
    plain = {k: changed(f, codec="", names=None if f.video else f.names) for k, f in info.features.items()}
    return {"fps": float(info.fps), "robot": info.robot, "about": info.about, "features": plain}
