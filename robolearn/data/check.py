"""What is wrong with a set of episodes, episode by episode, and a repair that leaves broken ones out.

Everything is read: every number, every frame of every video.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.data import join, layout
from robolearn.data.layout import COUNTERS, INFO, SKIPPED, STATS, DataError, Feature, Info
from robolearn.data.read import by_file, places, read_column
from robolearn.data.video import VideoFile

Update = Callable[[int], object]


@dataclass(frozen=True)
class Finding:
    """`episode` is None for what concerns the set: a repair puts that right."""

    episode: int | None
    text: str

    def __str__(self) -> str:
        return self.text if self.episode is None else f"episode {self.episode}: {self.text}"


def check(root: Path, update: Update = lambda done: None) -> list[Finding]:
    """`update` takes the number of episodes that have been read. Raises DataError if meta cannot be read: then nothing
    says where the episodes are."""
    info, rows = layout.read_info(root), layout.read_rows(root)
    wanted = {row["episode_index"] for row in rows} - layout.read_skipped(root).keys()
    found, done = list(_of_set(root, info, rows)), 0
    for number, episodes in by_file(rows, wanted).items():
        found += _of_data(root, info, rows, number, episodes)
        for episode in episodes:
            found += [
                Finding(episode, text) for key in info.videos for text in _of_video(root, info, rows[episode], key)
            ]
            done += 1
            update(done)
    return found


def _of_set(root: Path, info: Info, rows: Sequence[join.Row]) -> Iterator[Finding]:
    raw = json.loads((root / INFO).read_text())
    frames = sum(row["length"] for row in rows)
    for name, true in (("total_episodes", len(rows)), ("total_frames", frames)):
        if raw.get(name) != true:
            yield Finding(None, f"{INFO}: {name} is {raw.get(name)}, there are {true} (a recorder was killed?)")
    skipped = layout.read_skipped(root)
    if rows and _stale(root, info, sum(row["length"] for row in rows if row["episode_index"] not in skipped)):
        yield Finding(None, f"{STATS} is not of all episodes (a recorder was killed?)")
    yield from _of_tasks(root, rows)
    for path, strange in join.strays(root, rows).items():
        yield Finding(None, f"{path.relative_to(root)} holds frames of episodes {layout.spans(strange)}, which are in "
                            "another file (a recorder was killed?)")  # fmt: skip
    for path in join.orphans(root, info, rows):
        yield Finding(None, f"{path.relative_to(root)} belongs to no episode (a recorder was killed?)")


def _of_tasks(root: Path, rows: Sequence[join.Row]) -> Iterator[Finding]:
    try:
        there = layout.read_tasks(root)
    except DataError as error:
        yield Finding(None, str(error))
        return
    if lacking := {task for row in rows for task in row.get("tasks") or ()} - set(there):
        yield Finding(None, f"{layout.TASKS} lacks the instruction {min(lacking)!r}")


def _stale(root: Path, info: Info, frames: int) -> bool:
    """Whether the statistics of numbers are not of this many frames."""
    try:
        found = json.loads((root / STATS).read_text())
        return any(found[k]["count"] != [frames] for k in info.vectors)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _of_data(
    root: Path, info: Info, rows: Sequence[join.Row], number: int, episodes: Sequence[int]
) -> Iterator[Finding]:
    path = layout.path_of("data", number)
    numbers = {k: info.features[k] for k in info.vectors} | {k: Feature(d, (1,)) for k, d in COUNTERS.items()}
    try:
        table = layout.read_table(root / path, list(numbers))
        if absent := numbers.keys() - set(table.column_names):
            raise DataError(f"{path} has no column {', '.join(sorted(absent))}")
        columns = {k: layout.to_numpy(table[k], f, f"{path}: {k}") for k, f in numbers.items()}
    except DataError as error:
        yield from (Finding(e, str(error)) for e in episodes)
        return
    for episode, mine in places(table, episodes).items():
        values = {k: v[mine] for k, v in columns.items()}
        yield from (Finding(episode, text) for text in _of_numbers(values, rows[episode], info.fps, path))


def _of_numbers(values: dict[str, np.ndarray], row: join.Row, fps: float, path: str) -> Iterator[str]:
    steps = np.arange(row["length"])
    if not np.array_equal(values["frame_index"][:, 0], steps):
        yield f"{path} has {len(values['frame_index'])} of its {len(steps)} steps, or not in their order"
        return
    if not np.array_equal(values["index"][:, 0], row["dataset_from_index"] + steps):
        yield f"{path}: index does not count the steps of the set"
    if not np.allclose(values["timestamp"][:, 0], steps / fps, rtol=1e-4, atol=1e-3):
        yield f"{path}: timestamp is not that of {fps:g} Hz"
    for key, array in values.items():
        if bad := layout.not_finite(array):
            yield f"{key}, step {bad[0]}: {bad[1]}"


def _of_video(root: Path, info: Info, row: join.Row, key: str) -> Iterator[str]:
    kind = f"videos/{key}"
    start = join.first_frame(row, kind, info.fps)
    try:
        file = VideoFile(root / layout.path_of(kind, layout.number(row, kind)), info.fps, strict=True)
        for _ in file.read(range(start, start + row["length"])):
            pass
        if file.shape != info.features[key].shape:
            yield f"{key} has pictures of {file.shape[:2]}, {INFO} says {info.features[key].shape[:2]}"
        file.close()
    except DataError as error:
        yield str(error)


def repair(root: Path, findings: Sequence[Finding]) -> list[int]:
    """Leave out the episodes of the findings from now on (meta/skipped.json, with the reasons; no episode is changed),
    remove what belongs to none, write totals and statistics anew. The episodes left out, in all."""
    with layout.lock(root):
        info, rows = layout.read_info(root), layout.read_rows(root)
        skipped = layout.read_skipped(root)
        for finding in findings:
            if finding.episode is not None:
                skipped.setdefault(finding.episode, finding.text)
        if skipped:
            layout.write_json(root, SKIPPED, {str(k): v for k, v in sorted(skipped.items())})
        if any(_of_tasks(root, rows)):
            layout.write_tasks(root, _tasks(root, rows, skipped))
        tasks = layout.read_tasks(root)
        join.remove_strays(root, rows)
        join.remove_orphans(root, info, rows)
        frames = sum(row["length"] for row in rows)
        layout.write_json(root, INFO, info.to_json(len(rows), frames, len(tasks)))
        join.write_stats(root, info)
    return sorted(skipped)


def _tasks(root: Path, rows: Sequence[join.Row], skipped: Collection[int]) -> list[str]:
    """The instructions by their number in the frames, as far as the episodes tell."""
    known: dict[int, str] = {}
    single = {row["episode_index"] for row in rows if len(row.get("tasks") or ()) == 1} - set(skipped)
    for episode, values in read_column(root, rows, "task_index", Feature("int64", (1,)), single):
        known[int(values[0, 0])] = rows[episode]["tasks"][0]
    return [known.get(k, f"(lost {k})") for k in range(max(known, default=-1) + 1)]
