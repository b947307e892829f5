from __future__ import annotations

import fcntl
import json
from pathlib import Path

import numpy as np
import pytest
from episode_samples import (
    ACTION,
    CAMERA,
    FEATURES,
    FPS,
    LOSSLESS,
    STATE,
    VECTORS,
    expected,
    make,
    record,
    steps,
    unjoined,
)

from robolearn.data import layout
from robolearn.data.check import check, repair
from robolearn.data.layout import DataError, Feature
from robolearn.data.read import Episodes
from robolearn.data.video import CODECS, Encoder, VideoCfg
from robolearn.data.write import Writer
from robolearn.errors import ConfigError

pq = pytest.importorskip("pyarrow.parquet")
av = pytest.importorskip("av")


def files(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def assert_whole(root: Path, count: int) -> None:
    """Episodes 0 to count - 1 of the samples, bit by bit."""
    found = Episodes(root)
    assert found.ids == list(range(count))
    for episode in found.ids:
        numbers = found.episode(episode)
        for key in VECTORS:
            assert numbers[key].numpy().dtype == FEATURES[key].dtype
            np.testing.assert_array_equal(numbers[key].numpy(), expected(episode, key))
        pictures = found.pictures(CAMERA, episode, range(found.length(episode)))
        np.testing.assert_array_equal(pictures.numpy(), expected(episode, CAMERA))


@pytest.mark.parametrize("codec", [name for name, codec in CODECS.items() if codec.lossless])
def test_numbers_and_lossless_pictures_come_back_bit_by_bit(tmp_path: Path, codec: str) -> None:
    assert_whole(make(tmp_path / "set", range(5), video=VideoCfg(codec, gop=3)), 5)


def test_the_layout_is_that_of_lerobot(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    assert files(root) == [
        "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet", "meta/info.json",
        "meta/stats.json", "meta/tasks.parquet", f"videos/{CAMERA}/chunk-000/file-000.mp4",
    ]  # fmt: skip
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (4, 5 + 6 + 7 + 8, 10)
    assert info["features"][CAMERA]["shape"] == [32, 48, 3]
    assert info["features"]["frame_index"] == {"dtype": "int64", "shape": [1], "names": None}
    data = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert str(data.schema.field(STATE).type) == "fixed_size_list<element: float>[3]"
    assert data["index"].to_pylist() == list(range(26))
    assert data["timestamp"].to_pylist()[5:7] == pytest.approx([0.0, 0.1])
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(r["dataset_from_index"], r["dataset_to_index"]) for r in rows] == [(0, 5), (5, 11), (11, 18), (18, 26)]
    assert [r[f"videos/{CAMERA}/from_timestamp"] for r in rows] == pytest.approx([0.0, 0.5, 1.1, 1.8])
    assert rows[1]["tasks"] == ["insert the peg"]
    with av.open(str(root / f"videos/{CAMERA}/chunk-000/file-000.mp4")) as video:
        assert [round(f.time * FPS) for f in video.decode(video=0)] == list(range(26))


def test_statistics_by_hand(tmp_path: Path) -> None:
    features = {"x": Feature("float64", (1,)), "cam": Feature("video", (4, 4, 3))}
    with Writer(tmp_path / "set", FPS, features, video=LOSSLESS) as writer:
        for values in ([0.0, 1.0], [2.0, 3.0, 4.0]):
            writer.begin()
            for value in values:
                writer.add({"x": value, "cam": np.full((4, 4, 3), 51 * int(value), np.uint8)})
            writer.end()
    found = json.loads((tmp_path / "set/meta/stats.json").read_text())
    assert {k: v[0] for k, v in found["x"].items()} == pytest.approx(
        {"min": 0, "max": 4, "mean": 2, "std": 2**0.5, "count": 5, "q01": 0.04, "q10": 0.4, "q50": 2.0, "q90": 3.6,
         "q99": 3.96})  # fmt: skip
    picture = {k: np.ravel(v)[0] for k, v in found["cam"].items()}
    assert np.shape(found["cam"]["mean"]) == (3, 1, 1)
    assert [picture[k] for k in ("min", "max", "mean", "std", "count")] == pytest.approx([0, 0.8, 0.4, 0.2 * 2**0.5, 5])


def test_a_set_can_be_appended_to(tmp_path: Path) -> None:
    root = make(tmp_path / "set", range(2))
    with Writer(root, FPS, FEATURES, video=LOSSLESS) as writer:
        record(writer, 2, "stack the cubes")
        record(writer, 3)
    assert_whole(root, 4)
    assert [Episodes(root).task(e) for e in (1, 2, 3)] == ["insert the peg", "stack the cubes", "insert the peg"]
    assert len(files(root)) == 6  # joined with what was there
    assert json.loads((root / "meta/stats.json").read_text())[STATE]["count"] == [26]


def test_another_codec_can_follow(tmp_path: Path) -> None:
    root = make(tmp_path / "set", range(2))
    with Writer(root, FPS, FEATURES, video=VideoCfg("ffv1")) as writer:
        record(writer, 2)
        record(writer, 3)
    assert_whole(root, 4)


def test_files_roll_over_at_a_size(tmp_path: Path) -> None:
    one = make(tmp_path / "one", range(1))
    size = sum(p.stat().st_size for p in one.rglob("*.mp4")) / 2**20
    root = make(tmp_path / "set", range(8), video_mb=2.9 * size)
    videos = sorted(root.rglob("*.mp4"))
    assert 3 <= len(videos) <= 5
    assert all(v.stat().st_size < 2.9 * size * 2**20 * 1.01 for v in videos)
    assert len(list(root.glob("data/*/*"))) == 1
    assert_whole(root, 8)


def test_rows_roll_over_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robolearn.data.write.ROWS", 2)
    root = make(tmp_path / "set", range(3))
    with Writer(root, FPS, FEATURES, video=LOSSLESS) as writer:
        record(writer, 3)
        record(writer, 4)
    assert [len(pq.read_table(p)) for p in layout.episode_files(root)] == [2, 2, 1]
    assert_whole(root, 5)


def test_videos_alone_and_numbers_alone_are_legal(tmp_path: Path) -> None:
    only = {CAMERA: FEATURES[CAMERA]}
    found = Episodes(make(tmp_path / "video", features=only))
    np.testing.assert_array_equal(found.pictures(CAMERA, 2, [3]).numpy()[0], expected(2, CAMERA, only)[3])
    assert found.episode(2) == {}
    state = {STATE: FEATURES[STATE]}
    np.testing.assert_array_equal(
        Episodes(make(tmp_path / "state", features=state)).episode(1)[STATE].numpy(), expected(1, STATE, state)
    )


@pytest.mark.parametrize(("codec", "least_db"), [("h264", 35.0), ("av1", 30.0)])
def test_lossy_pictures_are_near(tmp_path: Path, codec: str, least_db: float) -> None:
    """Peak signal to noise of a smooth picture that moves, in three episodes whose files are joined."""
    y, x = np.mgrid[0:84, 0:84]
    pictures = [np.stack([100 + 60 * np.sin((x + 2 * i) / 12), 120 + 60 * np.cos(y / 15), 90 + 0.5 * (x + y)], -1)
                .astype(np.uint8) for i in range(12)]  # fmt: skip
    with Writer(tmp_path / "set", FPS, {"cam": Feature("video", (84, 84, 3))}, video=VideoCfg(codec)) as writer:
        for first in (0, 4, 8):
            writer.begin()
            for picture in pictures[first : first + 4]:
                writer.add({"cam": picture})
            writer.end()
    assert len(list(tmp_path.rglob("*.mp4"))) == 1
    assert check(tmp_path / "set") == []
    episodes = Episodes(tmp_path / "set")
    found = np.concatenate([episodes.pictures("cam", e, range(4)).numpy() for e in (2, 0, 1)])
    error = np.mean((found.astype(float) - np.stack(pictures[8:] + pictures[:8])) ** 2)
    assert 10 * np.log10(255**2 / error) > least_db


BAD = [
    ({STATE: np.zeros(4, np.float32)}, r"episode 1, step 2: observation.state has shape \(4,\), not \(3,\)"),
    ({STATE: np.array([0, np.nan, 0], np.float32)}, "episode 1, step 2: observation.state: element 1 is nan"),
    ({STATE: np.zeros(3)}, "observation.state is float64; float32 cannot hold it exactly"),
    ({CAMERA: np.zeros((32, 48, 3), np.float32)}, "front is float32; uint8 cannot"),
    ({"reward": 1.0}, r"not among the features: \['reward'\]"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_a_bad_step_is_named_and_left_out(tmp_path: Path, wrong: dict, message: str) -> None:
    with Writer(tmp_path / "set", FPS, FEATURES, video=LOSSLESS) as writer:
        record(writer, 0)
        writer.begin()
        for step in steps(1)[:2]:
            writer.add(step)
        with pytest.raises(DataError, match=message):
            writer.add(steps(1)[2] | wrong)
        for step in steps(1)[2:]:
            writer.add(step)
        writer.end()
    assert_whole(tmp_path / "set", 2)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with Writer(tmp_path / "set", FPS, VECTORS) as writer:
        writer.begin()
        with pytest.raises(DataError, match=r"missing \['action'\]"):
            writer.add({k: v for k, v in steps(0, VECTORS)[0].items() if k != ACTION})


def test_other_data_are_refused_with_both_shown(tmp_path: Path) -> None:
    root = make(tmp_path / "set", about={"action": "joint targets"})
    with pytest.raises(DataError, match=r"fps: 10.0 != 20.0"):
        Writer(root, 20.0, FEATURES, about={"action": "joint targets"})
    with pytest.raises(DataError, match=r"about.action: 'joint targets' != 'velocities'"):
        Writer(root, FPS, FEATURES, about={"action": "velocities"})
    with pytest.raises(DataError, match=r"features.action.shape"):
        Writer(root, FPS, FEATURES | {ACTION: Feature("float64", (7,))}, about={"action": "joint targets"})
    assert_whole(root, 4)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        Writer(tmp_path / "set", FPS, VECTORS),
        pytest.raises(DataError, match="being written to by another"),
    ):
        Writer(tmp_path / "set", FPS, VECTORS)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no codec 'h246'; did you mean h264"):
        VideoCfg("h246")
    with pytest.raises(DataError, match="even height and width"):
        Writer(tmp_path / "odd", FPS, {"cam": Feature("video", (83, 84, 3))}).begin()
    with pytest.raises(DataError, match="'frame_index' cannot be a feature"):
        Writer(tmp_path / "set", FPS, {"frame_index": Feature("int64", (1,))})
    with pytest.raises(DataError, match="x has 3 numbers and 2 names"):
        Writer(tmp_path / "set", FPS, {"x": Feature("float32", (3,), ("a", "b"))})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/draft.tex").touch()
    with pytest.raises(DataError, match=r"holds draft.tex and no meta/info.json"):
        Writer(tmp_path / "thesis", FPS, VECTORS)


def test_an_empty_or_abandoned_episode_is_not_kept(tmp_path: Path) -> None:
    with Writer(tmp_path / "set", FPS, FEATURES, video=LOSSLESS) as writer:
        writer.begin()
        with pytest.raises(DataError, match="episode 0 has no step"):
            writer.end()
        writer.begin()
        writer.add(steps(3)[0])
        writer.abandon()
        record(writer, 0)
        writer.begin()
        writer.add(steps(3)[0])
    assert_whole(tmp_path / "set", 1)


def test_a_set_that_fails_to_take_an_episode_takes_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk at a picture, at the last ones, and at the list of instructions: what was there stays, no number is
    left over."""
    with Writer(tmp_path / "set", FPS, FEATURES, video=LOSSLESS) as writer:
        record(writer, 0)
        writer.begin("stack the cubes")
        with (
            monkeypatch.context() as patch,
            pytest.raises(DataError, match=r"episode 1, step 0: .*front cannot be writ"),
        ):
            patch.setattr(Encoder, "add", full)
            writer.add(steps(1)[0])
        with pytest.raises(DataError, match="no episode has begun"):
            writer.add(steps(1)[0])
        with (
            monkeypatch.context() as patch,
            pytest.raises(DataError, match=r"episode 1: .*front cannot be written.*No space"),
        ):
            patch.setattr(Encoder, "close", full)
            record(writer, 1, "stack the cubes")
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(layout, "write_tasks", full)
            record(writer, 1, "stack the cubes")
        record(writer, 1, "stack the cubes")
    assert_whole(tmp_path / "set", 2)
    assert Episodes(tmp_path / "set").tasks == ["insert the peg", "stack the cubes"]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "set", FPS, VECTORS)
    writer.close()
    with pytest.raises(DataError, match="is closed: make another one"):
        writer.begin()


def test_a_lock_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer ends between our opening of its lock and our locking: the file has no name any more."""
    flock = fcntl.flock

    def late(file: object, how: int) -> None:
        (tmp_path / "set" / layout.WRITING / "lock").unlink()
        flock(file, how)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(DataError, match="being written to by another process"):
        patch.setattr(fcntl, "flock", late)
        Writer(tmp_path / "set", FPS, VECTORS)
    make(tmp_path / "set", range(1))
    assert_whole(tmp_path / "set", 1)


def test_skipped_episodes_do_not_keep_the_others_apart(tmp_path: Path) -> None:
    root = unjoined(tmp_path / "set", 5)
    broken = root / layout.path_of(f"videos/{CAMERA}", 2)
    broken.write_bytes(broken.read_bytes()[:300])
    repair(root, check(root))
    with Writer(root, FPS, FEATURES, video=LOSSLESS) as writer:
        record(writer, 5)
    assert len(list(root.glob("videos/*/*/*"))) == 2
    found = Episodes(root)
    assert found.ids == [0, 1, 3, 4, 5]
    for episode in found.ids:
        np.testing.assert_array_equal(found.pictures(CAMERA, episode, [4]).numpy()[0], expected(episode, CAMERA)[4])
        np.testing.assert_array_equal(found.episode(episode)[STATE].numpy(), expected(episode, STATE))


def test_folders_outlive_a_loss_of_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a new folder is written in the folder around it, which must be synchronised too."""
    synced: list[Path] = []
    monkeypatch.setattr(layout, "sync", synced.append)
    (tmp_path / "part").touch()
    layout.replace(tmp_path / "part", tmp_path / "data" / "chunk-000" / "file-000.parquet")
    assert {tmp_path, tmp_path / "data", tmp_path / "data" / "chunk-000"} <= set(synced)
