from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from episode_samples import CAMERA, FEATURES, FPS, LOSSLESS, STATE, expected, length_of, make, record, unjoined

from robolearn.data import join, layout
from robolearn.data.check import Finding, check, repair
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.data.video import VideoCfg
from robolearn.data.write import Writer

pytest.importorskip("pyarrow")
av = pytest.importorskip("av")


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


def test_what_a_writer_killed_while_joining_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are joined, and the rows do not know: frames are there twice until a repair."""
    root = unjoined(tmp_path / "set", 3)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(join, "_write_places", killed)
        join.join_small(root, layout.read_info(root))
    assert frames(root) > sum(map(length_of, range(3)))
    text = "data/chunk-000/file-000.parquet holds frames of episodes 1-2, which are in another file"
    assert any(text in str(f) for f in check(root))
    assert repair(root, check(root)) == []
    assert check(root) == []
    assert frames(root) == sum(map(length_of, range(3)))
    for episode in range(3):
        np.testing.assert_array_equal(Episodes(root).episode(episode)[STATE], expected(episode, STATE))
    assert json.loads((root / layout.STATS).read_text())[STATE]["count"] == [frames(root)]


def test_a_second_copy_is_kept_while_it_is_the_only_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = unjoined(tmp_path / "set", 2)
    with monkeypatch.context() as patch:
        patch.setattr(join, "_write_places", lambda *_: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        join.join_small(root, layout.read_info(root))
    cut(root / layout.path_of("data", 1), 0.5)
    assert repair(root, check(root)) == [1]
    assert frames_of(root / layout.path_of("data", 0)) == length_of(0) + length_of(1)


def frames_of(path: Path) -> int:
    return len(layout.read_table(path))


def frames(root: Path) -> int:
    """Of all data files, as other readers take them."""
    return sum(frames_of(p) for p in root.glob("data/*/*.parquet"))


def test_instructions_that_were_lost_are_found_in_the_episodes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    with Writer(root, FPS, FEATURES, video=LOSSLESS) as writer:
        for episode, task in enumerate(["peg", "cube", "peg"]):
            record(writer, episode, task)
    cut(root / layout.TASKS, 0.5)
    (finding,) = check(root)
    assert finding.episode is None and "meta/tasks.parquet is truncated" in finding.text
    repair(root, [finding])
    assert check(root) == [] and Episodes(root).tasks == ["peg", "cube"]
    (root / layout.TASKS).unlink()
    assert [str(f) for f in check(root)] == ["meta/tasks.parquet lacks the instruction 'cube'"]


def test_broken_meta_says_what_to_do(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    (root / layout.SKIPPED).write_text("{")
    with pytest.raises(DataError, match=r"skipped.json cannot be read.*remove it"):
        Episodes(root)
    (root / layout.SKIPPED).unlink()
    rows = layout.episode_files(root)[0]
    whole = layout.read_table(rows)
    layout.pq.write_table(whole.drop_columns(["length"]), str(rows))
    with pytest.raises(DataError, match=r"file-000.parquet has no column length"):
        Episodes(root)
    cut(rows, 0.5)
    with pytest.raises(DataError, match="only this file says where its episodes are: restore it from a copy"):
        Episodes(root)
    raw = json.loads((root / layout.INFO).read_text())
    for wrong, message in (({"fps": 0}, "fps must be above 0"), ({"features": {"x": 1}}, "feature 'x' is 1"),
                           ({"fps": None}, "cannot be read")):  # fmt: skip
        (root / layout.INFO).write_text(json.dumps(raw | wrong))
        with pytest.raises(DataError, match=message):
            Episodes(root)


def test_a_picture_that_a_decoder_would_paint_over_is_found(tmp_path: Path) -> None:
    """Noise in a frame, in the middle of a file that is whole as a file."""
    root = make(tmp_path / "set", range(3), video=VideoCfg("h264"))
    path = root / layout.path_of(f"videos/{CAMERA}", 0)
    at, size = packets(path)[length_of(0) + 2]
    data = bytearray(path.read_bytes())
    data[at + 40 : at + size] = np.random.default_rng(0).bytes(size - 40)
    path.write_bytes(data)
    assert {f.episode for f in check(root)} == {1}


def packets(path: Path) -> list[tuple[int, int]]:
    """Where each frame of a video lies in its file, and its bytes."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.pts is not None]
