"""Sets as LeRobot writes them: variable lists, pandas' index, AV1 with frames out of order, features that we lack."""

from __future__ import annotations

import json
import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from robolearn.data import layout
from robolearn.data.check import check, repair
from robolearn.data.layout import DataError, Feature
from robolearn.data.read import Episodes
from robolearn.data.write import Writer

pa = pytest.importorskip("pyarrow")
av = pytest.importorskip("av")

FPS, LENGTHS, SIDE = 15, (7, 5), 64
CAMERA = "observation.images.top"
STREAMS = {
    "av1": ("libsvtav1", {"crf": "30", "g": "2", "preset": "12"}),
    "h264 with B-frames": ("libx264", {"crf": "18", "g": "10", "bf": "2"}),
}


def picture(frame: int) -> np.ndarray:
    """Grey, the level says the number."""
    return np.full((SIDE, SIDE, 3), 10 + 18 * frame, np.uint8)


def foreign(root: Path, codec: str = "av1", note: bool = True) -> Path:
    """With a feature that is not read, `note`."""
    total = sum(LENGTHS)
    state = np.random.default_rng(0).random((total, 2), dtype=np.float32)
    episode = np.repeat(np.arange(2), LENGTHS)
    steps = np.concatenate([np.arange(n) for n in LENGTHS])
    counters = {"timestamp": pa.array(steps / FPS, pa.float32()), "frame_index": pa.array(steps),
                "episode_index": pa.array(episode), "index": pa.array(range(total)),
                "task_index": pa.array(episode)}  # fmt: skip
    for folder in ("data/chunk-000", "meta/episodes/chunk-000", f"videos/{CAMERA}/chunk-000"):
        (root / folder).mkdir(parents=True)
    table = {"observation.state": pa.array(state.tolist(), pa.list_(pa.float32())), "note": pa.array(["x"] * total)}
    if not note:
        del table["note"]
    layout.pq.write_table(pa.table({**table, **counters}), str(root / "data/chunk-000/file-000.parquet"))
    rows = [{"episode_index": e, "tasks": [f"task {e}"], "length": n, "data/chunk_index": 0, "data/file_index": 0,
             "dataset_from_index": 7 * e, "dataset_to_index": 7 * e + n, f"videos/{CAMERA}/chunk_index": 0,
             f"videos/{CAMERA}/file_index": 0, f"videos/{CAMERA}/from_timestamp": 7 * e / FPS,
             f"videos/{CAMERA}/to_timestamp": (7 * e + n) / FPS} for e, n in enumerate(LENGTHS)]  # fmt: skip
    layout.pq.write_table(pa.Table.from_pylist(rows), str(root / "meta/episodes/chunk-000/file-000.parquet"))
    tasks = pa.table({"task_index": [1, 0], "__index_level_0__": ["task 1", "task 0"]})
    layout.pq.write_table(tasks, str(root / "meta/tasks.parquet"))
    features = {"observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
                "note": {"dtype": "string", "shape": [1], "names": None},
                CAMERA: {"dtype": "video", "shape": [3, SIDE, SIDE], "names": ["channels", "height", "width"],
                         "info": {"video.codec": "av1"}},
                "frame_index": {"dtype": "int64", "shape": [1], "names": None}}  # fmt: skip
    if not note:
        del features["note"]
    (root / "meta/info.json").write_text(json.dumps({
        "splits": {"train": "0:1", "val": "1:2"},
        "codebase_version": "v3.0", "robot_type": "so100", "fps": FPS, "total_episodes": 2, "total_frames": total,
        "features": features, "data_path": layout.DATA, "video_path": layout.VIDEO}))  # fmt: skip
    encoder, options = STREAMS[codec]
    with av.open(str(root / f"videos/{CAMERA}/chunk-000/file-000.mp4"), "w") as container:
        stream = container.add_stream(encoder, rate=Fraction(FPS), options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for frame in range(total):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(frame), format="rgb24")))
        container.mux(stream.encode())
    return root


@pytest.mark.parametrize("codec", STREAMS)
def test_numbers_tasks_and_pictures_are_read(tmp_path: Path, codec: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        episodes = Episodes(foreign(tmp_path / "set", codec), cache_mb=0.0)
    assert "not read: note (string)" in caplog.text
    assert episodes.info.features[CAMERA].shape == (SIDE, SIDE, 3)
    assert episodes.info.features["observation.state"].names is None
    assert (episodes.info.robot, episodes.tasks, episodes.task(1)) == ("so100", ["task 0", "task 1"], "task 1")
    expected = np.random.default_rng(0).random((12, 2), dtype=np.float32)
    np.testing.assert_array_equal(episodes.episode(1)["observation.state"], expected[7:])
    for episode, step in [(1, 4), (0, 0), (0, 6), (1, 0), (0, 3), (0, 2), (1, 3)]:
        level = episodes.pictures(CAMERA, episode, [step]).numpy().mean()
        assert abs(level - (10 + 18 * (7 * episode + step))) < 6, (episode, step)


def test_they_are_not_appended_to_with_less(tmp_path: Path) -> None:
    root = foreign(tmp_path / "set")
    features = {"observation.state": Feature("float32", (2,)), CAMERA: Feature("video", (SIDE, SIDE, 3))}
    with pytest.raises(DataError, match="features that are not written here: note"):
        Writer(root, FPS, features, "so100")


def test_they_are_appended_to_and_stay_theirs(tmp_path: Path) -> None:
    """Lists of any length and ours of a fixed one in one file; names and shapes in info.json as they were."""
    root = foreign(tmp_path / "set", note=False)
    before, rows = json.loads((root / layout.INFO).read_text()), layout.read_table(layout.episode_files(root)[0])
    rows = rows.append_column("stats/observation.state/min", pa.array([1.0, 2.0]))  # of another shape than ours
    layout.pq.write_table(rows.append_column("theirs", pa.array(["a", "b"])), str(layout.episode_files(root)[0]))
    with Writer(root, FPS, Episodes(root).info.features, "so100") as writer:
        writer.begin("task 0")
        for frame in range(3):
            writer.add({"observation.state": [frame, 0.5], CAMERA: picture(frame)})
        writer.end()
    after = json.loads((root / layout.INFO).read_text())
    assert after["features"].items() >= before["features"].items()
    assert (after["total_episodes"], after["splits"]) == (3, {"train": "0:3"})
    assert len(list(root.glob("data/*/*"))) == 1 and len(layout.episode_files(root)) == 1
    found = Episodes(root)
    np.testing.assert_array_equal(found.episode(2)["observation.state"], [[0, 0.5], [1, 0.5], [2, 0.5]])
    np.testing.assert_array_equal(
        found.episode(1)["observation.state"], np.random.default_rng(0).random((12, 2), dtype=np.float32)[7:]
    )
    assert abs(found.pictures(CAMERA, 2, [2]).numpy().mean() - (10 + 2 * 18)) < 6
    table = layout.read_table(layout.episode_files(root)[0])
    assert table["theirs"].to_pylist() == ["a", "b", None]
    assert table["stats/observation.state/min"].to_pylist() == [1.0, 2.0, None]


def test_a_repair_keeps_their_splits(tmp_path: Path) -> None:
    root = foreign(tmp_path / "set", note=False)
    repair(root, check(root))
    assert json.loads((root / layout.INFO).read_text())["splits"] == {"train": "0:1", "val": "1:2"}


def test_pandas_reads_our_tasks_as_lerobot_does(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    layout.write_tasks(tmp_path, ["insert", "stack"])
    found = pandas.read_parquet(tmp_path / layout.TASKS)
    assert found.loc["stack"].task_index == 1 and list(found.index) == ["insert", "stack"]
