"""Housekeeping of a set that nobody else writes to: joining small files, removing what no episode uses, statistics.

Joining is safe at every moment: the joined file takes the place of its first part, whose frames keep their places in
it; then the rows point into it; then the other parts go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data import layout, stats, video
from robolearn.data.layout import STATS, WRITING, DataError, Info, pa
from robolearn.data.video import VideoFile
from robolearn.optional import lazy

compute = lazy("pyarrow.compute", extra="data")
log = logging.getLogger(__name__)

MB = 1024**2
Row = dict[str, Any]


def kinds(info: Info) -> list[str]:
    """The sorts of files: `data`, and `videos/KEY` of every camera."""
    return ["data", *(f"videos/{k}" for k in info.videos)]


def orphans(root: Path, info: Info, rows: Sequence[Row]) -> list[Path]:
    """Files that no episode is in."""
    used = {layout.path_of(kind, layout.number(row, kind)) for kind in kinds(info) for row in rows}
    there = [*root.glob("data/chunk-*/file-*.parquet"), *root.glob("videos/*/chunk-*/file-*.mp4")]
    return [path for path in there if path.relative_to(root).as_posix() not in used]


def remove_orphans(root: Path, info: Info, rows: Sequence[Row]) -> None:
    """And what else a killed writer left."""
    for path in orphans(root, info, rows):
        log.info("%s belongs to no episode (a recorder was killed?) and is removed", path)
        path.unlink()
    layout.clear_writing(root)


def strays(root: Path, rows: Sequence[Row]) -> dict[Path, set[int]]:
    """Data files with frames of episodes that are whole in another file, where the rows have them, and which: a writer
    was killed when it had joined files and before the rows said so."""
    home = {row["episode_index"]: layout.number(row, "data") for row in rows}
    there: dict[int, set[int]] = {}
    for number in sorted(set(home.values())):
        try:
            column = layout.read_table(root / layout.path_of("data", number), ["episode_index"])["episode_index"]
            there[number] = set(column.unique().to_pylist())
        except (DataError, KeyError):  # found by the check of its episodes
            there[number] = set()
    twice = {n: {e for e in found if home.get(e, n) != n and e in there[home[e]]} for n, found in there.items()}
    return {root / layout.path_of("data", n): episodes for n, episodes in twice.items() if episodes}


def remove_strays(root: Path, rows: Sequence[Row]) -> None:
    for path, episodes in strays(root, rows).items():
        table = layout.read_table(path)
        kept = table.filter(compute.invert(_among(table, episodes)))
        layout.write_table(root, path.relative_to(root).as_posix(), kept)


def join_small(root: Path, info: Info) -> None:
    """Neighbouring files of each sort become one, up to its size in info.json. Those of episodes that were skipped, and
    what cannot be joined, are left as they are."""
    rows, skipped = layout.read_rows(root), layout.read_skipped(root)
    gone: list[Path] = []
    for kind in kinds(info):
        limit = (info.data_mb if kind == "data" else info.video_mb) * MB
        left = {layout.number(rows[e], kind) for e in skipped if e < len(rows)}
        for group in list(_groups(root, kind, rows, limit, left)):
            try:
                gone += _join_data(root, group) if kind == "data" else _join_videos(root, info, kind, group)
            except DataError as error:
                log.warning("files of %s are not joined: %s", kind, error)
    if gone:
        _write_places(root, info, rows)
        for path in gone:
            path.unlink()


def _groups(root: Path, kind: str, rows: Sequence[Row], limit: float, left: set[int]) -> Iterator[list[Row]]:
    """Rows whose files, two or more and in the order of the episodes, are at most `limit` bytes together; without
    those of the files `left`."""
    group: list[Row] = []
    size, last = 0.0, -1
    for row in rows:
        number = layout.number(row, kind)
        if number in left:
            continue
        if number != last:
            path = root / layout.path_of(kind, number)
            more = path.stat().st_size if path.exists() else float("inf")
            if group and size + more > limit:
                yield from _if_several(group, kind)
                group, size = [], 0.0
            size, last = size + more, number
        group.append(row)
    yield from _if_several(group, kind)


def _if_several(group: list[Row], kind: str) -> Iterator[list[Row]]:
    if len({layout.number(row, kind) for row in group}) > 1:
        yield group


def _others(root: Path, kind: str, group: Sequence[Row]) -> list[Path]:
    first = layout.number(group[0], kind)
    numbers = dict.fromkeys(layout.number(row, kind) for row in group)
    return [root / layout.path_of(kind, n) for n in numbers if n != first]


def _join_data(root: Path, group: Sequence[Row]) -> list[Path]:
    paths = [root / layout.path_of("data", layout.number(group[0], "data")), *_others(root, "data", group)]
    wanted = {row["episode_index"] for row in group}
    tables = []
    for path in paths:
        table = layout.read_table(path)
        tables.append(table.filter(_among(table, wanted)))
        wanted -= set(tables[-1]["episode_index"].unique().to_pylist())
        try:
            tables[-1] = tables[-1].select(tables[0].column_names).cast(tables[0].schema)  # another program's lists
        except (pa.ArrowException, KeyError) as error:
            raise DataError(f"{path} has other columns than {paths[0]}: {str(error).splitlines()[0][:120]}") from None
    if wanted:
        raise DataError(f"the frames of episodes {layout.spans(wanted)} are missing")
    layout.write_table(root, paths[0].relative_to(root).as_posix(), pa.concat_tables(tables))
    at = layout.place(layout.number(group[0], "data"))
    for row in group:
        row |= {f"data/{name}": value for name, value in at.items()}
    return paths[1:]


def _join_videos(root: Path, info: Info, kind: str, group: Sequence[Row]) -> list[Path]:
    first = layout.number(group[0], kind)
    target, others = root / layout.path_of(kind, first), _others(root, kind, group)
    head = VideoFile(target, info.fps)
    for path in others:
        other = VideoFile(path, info.fps)
        if not head.same_stream(other):
            raise DataError(f"{path} was encoded in another way than {target}")
        other.close()
    head.close()
    parts, starts, done = list[tuple[Path, int, int]](), list[int](), 0
    for row in group:
        start = first_frame(row, kind, info.fps)
        if layout.number(row, kind) == first and start != done:
            raise DataError(f"episode {row['episode_index']} is not where the one before it ends in {target}")
        parts.append((root / layout.path_of(kind, layout.number(row, kind)), start, start + row["length"]))
        starts.append(done)
        done += row["length"]
    part = root / WRITING / "joined.mp4"
    video.join(part, parts, info.fps)
    layout.replace(part, target)
    for row, start in zip(group, starts, strict=True):
        row |= {f"{kind}/{name}": value for name, value in layout.place(first).items()}
        row[f"{kind}/from_timestamp"] = start / info.fps
        row[f"{kind}/to_timestamp"] = (start + row["length"]) / info.fps
    return others


def first_frame(row: Row, kind: str, fps: float) -> int:
    """Number of an episode's first frame in its video file."""
    return round(row[f"{kind}/from_timestamp"] * float(video.rate_of(fps)))


def _write_places(root: Path, info: Info, rows: Sequence[Row]) -> None:
    """Into meta/episodes, file by file: what they say of places before and after is both true."""
    names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    for path in layout.episode_files(root):
        table = layout.read_table(path)
        mine = [rows[i] for i in table["episode_index"].to_pylist()]
        for name in (f"{kind}/{n}" for kind in kinds(info) for n in names):
            if name in table.column_names:
                at = table.schema.get_field_index(name)
                values = pa.array([row[name] for row in mine], table.schema.field(at).type)
                table = table.set_column(at, table.schema.field(at), values)
        layout.write_table(root, path.relative_to(root).as_posix(), table)


def write_stats(root: Path, info: Info) -> None:
    """meta/stats.json of all episodes but the skipped ones."""
    skipped, wanted = layout.read_skipped(root), dict[int, list[int]]()
    for row in layout.read_rows(root):
        if row["episode_index"] not in skipped:
            wanted.setdefault(layout.number(row, "data"), []).append(row["episode_index"])
    parts: dict[str, list[Any]] = {key: [] for key in info.vectors}
    for number, episodes in wanted.items():
        path = root / layout.path_of("data", number)
        try:
            table = layout.read_table(path, [*info.vectors, "episode_index"])
            table = table.filter(_among(table, episodes))
            arrays = {k: layout.to_numpy(table[k], info.features[k], f"{path}: {k}") for k in info.vectors}
        except (DataError, KeyError) as error:
            log.warning("not in the statistics: %s", error)
            continue
        for key, array in arrays.items():
            parts[key].append(array)
    found = {key: stats.of_numbers(np.concatenate(arrays)) for key, arrays in parts.items() if arrays}
    rows = [r for p in layout.episode_files(root) for r in _stats_of(p, info.videos)]
    for key in info.videos:
        each = [s for r in rows if r["episode_index"] not in skipped and (s := stats.from_row(r, key)) is not None]
        if each:
            found[key] = stats.merged(each)
    layout.write_json(root, STATS, stats.to_json(found))


def _among(table: Any, episodes: Iterable[int]) -> Any:
    return compute.is_in(table["episode_index"], pa.array(sorted(episodes), pa.int64()))


def _stats_of(path: Path, keys: Sequence[str]) -> list[Row]:
    table = layout.read_table(path)
    wanted = tuple(f"stats/{k}/" for k in keys)
    return table.select(["episode_index", *(c for c in table.column_names if c.startswith(wanted))]).to_pylist()
