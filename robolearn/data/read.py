"""Reading: numbers of all steps at once, pictures by (episode, step) without decoding whole files, windows of both.

Numbers are read when a key is first asked for, and kept. Pictures are decoded from the key frame before them and kept
in a cache of the size that is given; `preload` keeps all of them, uint8, on a device.
"""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.data import join, labels, layout
from robolearn.data.cache import FrameCache
from robolearn.data.layout import DataError, Feature
from robolearn.data.video import VideoFile
from robolearn.errors import unknown
from robolearn.spec import differences

log = logging.getLogger(__name__)

OPEN_FILES = 32
REMEDY = "`robolearn data check --repair PATH` leaves such episodes out"


class Episodes:
    """A set of episodes. Safe to hand to worker processes: each opens the videos for itself.

    `ids` are the episodes that are read: all, or those that were asked for, but those that a repair took out.
    Wherever an episode is asked for, its number in the set is meant.
    """

    def __init__(self, root: Path, columns: Mapping[str, str] | None = None, cache_mb: float = 512.0,
                 ids: Sequence[int] | None = None):  # fmt: skip
        """`columns`: labels to read as a key, `{"reward": "vlm_reward@2"}`, or `"vlm_reward"` for the newest one; the
        newest version of every label is there under its own name. Raises DataError if there is no set, or if meta or a
        label is broken."""
        self.root = Path(root)
        self.info, self._signature = layout.read_info(self.root), layout.signature(self.root)
        self.rows, self.tasks = layout.read_rows(self.root), layout.read_tasks(self.root)
        self.skipped = layout.read_skipped(self.root)
        for episode, why in self.skipped.items():
            log.warning("%s: episode %d is skipped: %s", self.root, episode, why)
        asked = range(len(self.rows)) if ids is None else ids
        if strange := sorted(set(asked) - set(range(len(self.rows)))):
            raise DataError(f"{self.root} has no episode {strange[0]}; it has {len(self.rows)}")
        self.ids = sorted(set(asked) - self.skipped.keys())
        self.lengths = np.array([self.rows[e]["length"] for e in self.ids], dtype=np.int64)
        self.starts = np.concatenate(([0], np.cumsum(self.lengths)))[:-1].astype(np.int64)
        self._order = np.full(len(self.rows), -1, dtype=np.int64)
        self._order[self.ids] = np.arange(len(self.ids))
        self.labels, self._asked = self._find_labels(columns or {}), frozenset(columns or ())
        self._columns: dict[str, Tensor] = {}
        self._numbers: list[str] | None = None
        self._whole: dict[str, Tensor] = {}
        self.device = torch.device("cpu")
        self._cache = FrameCache(cache_mb)
        self._files: OrderedDict[Path, VideoFile] = OrderedDict()
        self._pid = os.getpid()

    def _find_labels(self, columns: Mapping[str, str]) -> dict[str, tuple[str, int]]:
        newest = {name: (name, numbers[-1]) for name, numbers in labels.versions(self.root).items()}
        asked = {key: labels.find(self.root, what) for key, what in columns.items()}
        for key, (name, version) in asked.items():
            if version == labels.RECORDED and name not in self.info.vectors:
                raise DataError(f"{key}: {unknown('recorded feature', name, self.info.vectors)}")
        return newest | asked

    @property
    def fps(self) -> float:
        return self.info.fps

    @property
    def frames(self) -> int:
        """Steps of all episodes that are read."""
        return int(self.lengths.sum())

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys((*self.info.features, *self.labels)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict(), "_cache": FrameCache(self._cache.limit_mb)}

    def require(self, fps: float | None = None, features: Mapping[str, Feature] | None = None,
                robot: str | None = None, about: Mapping[str, Any] | None = None) -> None:  # fmt: skip
        """Raise DataError, with both values, where the set differs from what is given; other features may be there."""
        pairs: list[tuple[str, Any, Any]] = [("fps", float(self.fps), None if fps is None else float(fps))]
        wanted = None if about is None else json.loads(json.dumps(about))  # as a file gives it back: lists, no tuples
        pairs += [("robot", self.info.robot, robot), ("about", self.info.about, wanted)]
        mine = {k: changed(f, codec="") for k, f in self.info.features.items()}
        pairs += [(k, mine.get(k), changed(f, codec="")) for k, f in (features or {}).items()]
        found = [d for path, a, b in pairs if b is not None for d in differences(a, b, path)]
        if found:
            raise DataError(f"{self.root} does not fit (data != here): {'; '.join(found)}")

    # --- numbers ---

    def length(self, episode: int) -> int:
        return int(self.lengths[self._position(episode)])

    def task(self, episode: int) -> str:
        """The instruction, in words."""
        self._position(episode)
        return str((self.rows[episode].get("tasks") or [""])[0])

    def column(self, key: str) -> Tensor:
        """(frames, *shape) of all episodes, in the order of `ids`; on `device`. Raises DataError, naming the episodes
        of a broken file, and episode and step of what is not finite."""
        if key not in self._columns:
            values = self._read_column(key)
            if bad := layout.not_finite(values):
                episode, step = self._episode_at(bad[0])
                raise DataError(f"{self.root}: {key}: episode {episode}, step {step}: {bad[1]}; {REMEDY}")
            self._columns[key] = torch.from_numpy(values).to(self.device)
        return self._columns[key]

    def episode(self, episode: int) -> dict[str, Tensor]:
        """All `numbers`, (T, *shape) each."""
        at = self._position(episode)
        start, stop = self.starts[at], self.starts[at] + self.lengths[at]
        return {k: self.column(k)[start:stop] for k in self.numbers}

    @property
    def numbers(self) -> list[str]:
        """All keys but the cameras, and but labels that nobody asked for and that lack an episode, which is said."""
        if self._numbers is None:
            plain = [k for k in self.keys if k not in self.info.videos]
            self._numbers = [k for k in plain if k in self._asked or k not in self.labels or self._is_whole(k)]
        return self._numbers

    def _is_whole(self, key: str) -> bool:
        label, found = labels.read(self.root, *self.labels[key])
        if lacking := set(self.ids) - found.keys():
            log.warning("%s: %s is left out: it has no values for episodes %s", self.root, label, layout.spans(lacking))
        return not lacking

    def _position(self, episode: int) -> int:
        if not 0 <= episode < len(self.rows):
            raise DataError(f"{self.root} has no episode {episode}; it has {len(self.rows)}")
        if episode in self.skipped:
            raise DataError(f"{self.root}: episode {episode} is skipped: {self.skipped[episode]}")
        if self._order[episode] < 0:
            raise DataError(f"{self.root}: episode {episode} is not among the ids= that were asked for")
        return int(self._order[episode])

    def _episode_at(self, frame: int) -> tuple[int, int]:
        at = int(np.searchsorted(self.starts, frame, side="right")) - 1
        return self.ids[at], frame - int(self.starts[at])

    def _read_column(self, key: str) -> np.ndarray:
        name, version = self.labels.get(key, (key, labels.RECORDED))
        if version != labels.RECORDED:
            label, found = labels.read(self.root, name, version)
            lacking = set(self.ids) - found.keys()
            if lacking:
                raise DataError(f"{label} has no values for episodes {layout.spans(lacking)} of {self.root}: label "
                                "them, or name another version in columns=")  # fmt: skip
            parts = [self._of_length(found[e], e, str(label)) for e in self.ids]
            return np.concatenate(parts) if parts else np.zeros((0, *label.feature.shape), label.feature.dtype)
        if name not in self.info.vectors:
            raise DataError(
                f"{self.root}: {unknown('column', name, [k for k in self.keys if k not in self.info.videos])}"
            )
        feature = self.info.features[name]
        self._refresh()
        values = np.empty((self.frames, *feature.shape), feature.dtype)
        for episode, found_values in read_column(self.root, self.rows, name, feature, set(self.ids)):
            start = self.starts[self._order[episode]]
            values[start : start + len(found_values)] = found_values
        return values

    def _of_length(self, values: np.ndarray, episode: int, what: str) -> np.ndarray:
        if len(values) != self.rows[episode]["length"]:
            raise DataError(f"{what}, episode {episode}: {len(values)} values for {self.length(episode)} steps")
        return values

    # --- pictures ---

    def pictures(self, key: str, episode: int, steps: Sequence[int]) -> Tensor:
        """(len(steps), H, W, 3) uint8 of steps in the episode."""
        length = self.length(episode)
        if outside := [s for s in steps if not 0 <= s < length]:
            raise DataError(f"episode {episode} has {length} steps, and no {outside[0]}")
        return self._frames(key, self.starts[self._position(episode)] + np.asarray(steps, dtype=np.int64))

    def preload(self, device: torch.device | str = "cpu", keys: Sequence[str] | None = None) -> None:
        """Decode all frames of the cameras `keys` (all of them if not given) into (frames, H, W, 3) uint8 on `device`;
        numbers and windows are on that device from then on."""
        device = torch.device(device)
        self._columns = {k: v.to(device) for k, v in self._columns.items()}
        for key in self.info.videos if keys is None else keys:
            whole = torch.empty((self.frames, *self._video(key).shape), dtype=torch.uint8, device=device)
            for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
                for first in range(start, start + length, 64):
                    span = np.arange(first, min(first + 64, start + length))
                    found = {frame: picture for frame, picture in self._decode(key, span) if frame >= first}
                    pictures = np.stack([found[frame] for frame in span.tolist()])
                    whole[first : first + len(span)] = torch.from_numpy(pictures).to(device)
            self._whole[key] = whole
        self.device = device

    def _video(self, key: str) -> Feature:
        if key not in self.info.videos:
            raise DataError(f"{self.root}: {unknown('camera', key, self.info.videos)}")
        return self.info.features[key]

    def _frames(self, key: str, frames: np.ndarray) -> Tensor:
        """(*frames.shape, H, W, 3) uint8 of frames counted over all episodes."""
        if key in self._whole:
            return self._whole[key][torch.from_numpy(frames).to(self.device)]
        shape = self._video(key).shape
        unique, where = np.unique(frames, return_inverse=True)
        found = {f: picture for f in unique.tolist() if (picture := self._cache.get((key, f))) is not None}
        missing = np.array([f for f in unique.tolist() if f not in found], dtype=np.int64)
        wanted = set(missing.tolist())
        for frame, picture in self._decode(key, missing):
            self._cache.put((key, frame), picture)
            if frame in wanted:
                found[frame] = picture
        stacked = np.stack([found[f] for f in unique.tolist()]) if len(unique) else np.empty((0, *shape), np.uint8)
        return torch.from_numpy(stacked[where.reshape(frames.shape)]).to(self.device)

    def _decode(self, key: str, frames: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Of `frames` (ascending, counted over all episodes) and of what had to be decoded on the way to them."""
        kind, at = f"videos/{key}", np.searchsorted(self.starts, frames, side="right") - 1
        for position in np.unique(at).tolist():
            episode, start = self.ids[position], int(self.starts[position])
            row = self._placed(episode, kind)
            first = join.first_frame(row, kind, self.fps)
            steps = frames[at == position] - start
            try:
                file = self._file(self.root / layout.path_of(kind, layout.number(row, kind)), key)
                for number, picture in file.read((first + steps).tolist()):
                    if first <= number < first + row["length"]:
                        yield start + number - first, picture
            except DataError as error:
                raise DataError(f"episode {episode}, steps {steps[0]} to {steps[-1]}: {error}; {REMEDY}") from None

    def _placed(self, episode: int, kind: str) -> dict[str, Any]:
        """The episode's row, true of a file that is open already or is there now."""
        if os.getpid() != self._pid:  # a worker: the place in the file is its parent's
            self._files, self._pid = OrderedDict(), os.getpid()
        if self.root / layout.path_of(kind, layout.number(self.rows[episode], kind)) not in self._files:
            self._refresh()
        return self.rows[episode]

    def _refresh(self) -> None:
        """Look where episodes are now: a writer that closes joins files, which moves episodes and changes none."""
        now = layout.signature(self.root)
        if now == self._signature:
            return
        rows, mine = layout.read_rows(self.root), len(self.rows)
        if [r["length"] for r in rows[:mine]] != [r["length"] for r in self.rows]:
            raise DataError(f"{self.root} is another set than when it was opened: open it again")
        self.rows, self._signature = rows[:mine], now
        while self._files:
            self._files.popitem()[1].close()

    def _file(self, path: Path, key: str) -> VideoFile:
        if path not in self._files:
            file = VideoFile(path, self.fps)
            if file.shape != self._video(key).shape:
                raise DataError(f"{path} has pictures of {file.shape[:2]}, not of {self._video(key).shape[:2]}")
            self._files[path] = file
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]

    # --- windows ---

    def windows(self, episode: Sequence[int] | np.ndarray, step: Sequence[int] | np.ndarray,
                offsets: Mapping[str, Sequence[int]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
        """What lies at `step` (B,) plus `offsets` (n,) of each key in `episode` (B,): values (B, n, *shape), and masks
        (B, n), True where the step is in the episode. Beyond an end its first or last step is repeated."""
        at = np.array([self._position(int(e)) for e in episode], dtype=np.int64)
        steps, length = np.asarray(step, dtype=np.int64), self.lengths[at]
        if outside := np.flatnonzero((steps < 0) | (steps >= length)).tolist():
            k = outside[0]
            raise DataError(f"episode {episode[k]} has {length[k]} steps, and no {steps[k]}")
        values: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for key, given in offsets.items():
            there = steps[:, None] + np.asarray(given, dtype=np.int64)
            inside = np.clip(there, 0, length[:, None] - 1)
            frames = self.starts[at][:, None] + inside
            video = key in self.info.videos
            columns = None if video else self.column(key)
            values[key] = self._frames(key, frames) if columns is None else columns[torch.from_numpy(frames)]
            masks[key] = torch.from_numpy(there == inside).to(self.device)
        return values, masks


def by_file(rows: Sequence[Mapping[str, Any]], wanted: Iterable[int]) -> dict[int, list[int]]:
    """Numbers of the data files of the wanted episodes, and which are in each."""
    files: dict[int, list[int]] = {}
    for episode in sorted(wanted):
        files.setdefault(layout.number(rows[episode], "data"), []).append(episode)
    return files


def places(table: Any, episodes: Sequence[int]) -> dict[int, np.ndarray]:
    """Rows of each episode in the table of a data file, in their order there."""
    there = table["episode_index"].to_numpy()
    order = np.argsort(there, kind="stable")
    return {e: order[slice(*np.searchsorted(there, [e, e + 1], sorter=order))] for e in episodes}


def read_column(root: Path, rows: Sequence[Mapping[str, Any]], key: str, feature: Feature,
                wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
    """(T, *shape) of each wanted episode, file by file. Raises DataError, naming the episodes of a broken file."""
    for number, episodes in by_file(rows, wanted).items():
        path = root / layout.path_of("data", number)
        try:
            table = layout.read_table(path, [key, "episode_index", "frame_index"])
            if key not in table.column_names:
                raise DataError(f"{path} has no column {key}")
            values = layout.to_numpy(table[key], feature, f"{path}: {key}")
        except DataError as error:
            raise DataError(f"episodes {layout.spans(episodes)}: {error}; {REMEDY}") from None
        steps = table["frame_index"].to_numpy()
        for episode, mine in places(table, episodes).items():
            length = rows[episode]["length"]
            if not np.array_equal(steps[mine], np.arange(length)):
                raise DataError(f"episode {episode}: {path} has {len(mine)} of its {length} steps, or not in their "
                                f"order; {REMEDY}")  # fmt: skip
            yield episode, values[mine]
