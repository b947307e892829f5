from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from episode_samples import CAMERA, FPS, STATE, expected, length_of, make, unjoined

from robolearn.data import layout
from robolearn.data.check import Finding, check, repair
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes

pytest.importorskip("pyarrow")
pytest.importorskip("av")


def cut(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def test_nothing_is_wrong_with_a_whole_set(tmp_path: Path) -> None:
    done: list[int] = []
    assert check(make(tmp_path / "set"), done.append) == []
    assert done == [1, 2, 3, 4]


def test_broken_episodes_are_named_and_left_out(tmp_path: Path) -> None:
    root = unjoined(tmp_path / "set", 5)
    cut(root / layout.path_of("data", 1), 0.7)
    cut(root / layout.path_of(f"videos/{CAMERA}", 3), 0.7)
    (root / layout.path_of(f"videos/{CAMERA}", 4)).unlink()
    found = check(root)
    assert sorted({f.episode for f in found if f.episode is not None}) == [1, 3, 4]
    assert "truncated" in str(next(f for f in found if f.episode == 3))
    assert repair(root, found) == [1, 3, 4]
    assert check(root) == []
    episodes = Episodes(root)
    assert episodes.ids == [0, 2]
    np.testing.assert_array_equal(episodes.pictures(CAMERA, 2, [4]).numpy()[0], expected(2, CAMERA)[4])
    stats = json.loads((root / layout.STATS).read_text())
    assert stats[STATE]["count"] == stats[STATE]["count"] == [length_of(0) + length_of(2)]


def test_a_video_that_lacks_its_last_frames(tmp_path: Path) -> None:
    """Whole as a file, and shorter than its episode."""
    root = unjoined(tmp_path / "set", 4)
    short, long = (root / layout.path_of(f"videos/{CAMERA}", n) for n in (0, 3))
    long.write_bytes(short.read_bytes())
    (finding,) = [f for f in check(root) if f.episode is not None]
    assert finding.episode == 3 and "no frame 5: the file ends before it" in finding.text


def test_what_a_killed_writer_left_is_found_and_removed(tmp_path: Path) -> None:
    root = unjoined(tmp_path / "set", 2)
    (root / layout.path_of("data", 7)).write_bytes(b"half a file")
    texts = [str(f) for f in check(root)]
    assert any("data/chunk-000/file-007.parquet belongs to no episode" in t for t in texts)
    assert any("stats.json is not of all episodes" in t for t in texts)
    assert repair(root, check(root)) == []
    assert check(root) == []
    assert not (root / layout.path_of("data", 7)).exists()


def test_wrong_totals_are_found(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    raw = json.loads((root / layout.INFO).read_text())
    (root / layout.INFO).write_text(json.dumps(raw | {"total_frames": 3}))
    assert check(root)[0] == Finding(None, "meta/info.json: total_frames is 3, there are 26 (a recorder was killed?)")


def test_meta_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    cut(layout.episode_files(root)[0], 0.5)
    with pytest.raises(DataError, match=r"meta/episodes/chunk-000/file-000.parquet is truncated"):
        check(root)
    (root / layout.INFO).write_text("{")
    with pytest.raises(DataError, match=r"meta/info.json cannot be read"):
        Episodes(root)


@pytest.mark.parametrize("version", ["v2.1", "v3.1"])
def test_another_version_is_refused(tmp_path: Path, version: str) -> None:
    root = make(tmp_path / "set")
    raw = json.loads((root / layout.INFO).read_text())
    (root / layout.INFO).write_text(json.dumps(raw | {"codebase_version": version, "fps": FPS}))
    with pytest.raises(DataError, match=f"LeRobot version {version}; v3.0 is read"):
        Episodes(root)
