from __future__ import annotations

import copy
import itertools
import logging
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from episode_samples import ACTION, CAMERA, FEATURES, FPS, LOSSLESS, STATE, expected, length_of, make, record, unjoined

from robolearn.data import layout
from robolearn.data.layout import DataError, Feature
from robolearn.data.loader import Order, Windows, batches
from robolearn.data.read import Episodes
from robolearn.data.video import VideoFile
from robolearn.data.write import Writer

pytest.importorskip("pyarrow")
pytest.importorskip("av")

OFFSETS = {STATE: [-1, 0], ACTION: range(4), CAMERA: [-2, 0]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("read") / "set", range(6))


def by_hand(episode: int, step: int, key: str, offsets: list[int]) -> tuple[np.ndarray, list[bool]]:
    values, length = expected(episode, key), length_of(episode)
    there = [step + o for o in offsets]
    return values[[min(max(t, 0), length - 1) for t in there]], [0 <= t < length for t in there]


@pytest.mark.parametrize("preload", [False, True])
def test_windows_repeat_the_ends_of_their_own_episode(root: Path, preload: bool) -> None:
    episodes = Episodes(root)
    if preload:
        episodes.preload()
    where = [(e, t) for e in range(6) for t in range(length_of(e))]
    values, masks = episodes.windows(*zip(*where, strict=True), OFFSETS)
    for row, (episode, step) in enumerate(where):
        for key, offsets in OFFSETS.items():
            value, mask = by_hand(episode, step, key, list(offsets))
            np.testing.assert_array_equal(values[key][row].numpy(), value)
            assert masks[key][row].tolist() == mask
    assert values[CAMERA].dtype == torch.uint8


def test_random_access_is_exact_whatever_came_before(root: Path) -> None:
    """Seeks backwards and forwards, over key frames, with a cache of three pictures."""
    episodes, rng = Episodes(root, cache_mb=3.5 * 32 * 48 * 3 / 2**20), np.random.default_rng(0)
    for _ in range(150):
        episode = int(rng.integers(6))
        steps = rng.integers(0, length_of(episode), size=3).tolist()
        np.testing.assert_array_equal(
            episodes.pictures(CAMERA, episode, steps).numpy(), expected(episode, CAMERA)[steps]
        )
    assert episodes._cache.size <= episodes._cache.limit_mb * 2**20


def test_one_picture_is_not_the_whole_file_decoded(root: Path) -> None:
    file = VideoFile(root / layout.path_of(f"videos/{CAMERA}", 0), FPS)
    decoded = [number for number, _ in file.read([29])]
    assert decoded[-1] == 29 and decoded[0] >= 26  # where episode 4 begins, with a key frame


def test_the_cache_spares_decoding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = Episodes(root)
    first = episodes.pictures(CAMERA, 2, [1, 3])
    monkeypatch.setattr(VideoFile, "read", None)
    assert torch.equal(episodes.pictures(CAMERA, 2, [3, 1]), first.flip(0))


def test_steps_and_episodes_that_are_not_there(root: Path) -> None:
    episodes = Episodes(root)
    with pytest.raises(DataError, match="episode 1 has 6 steps, and no 6"):
        episodes.windows([0, 1], [0, 6], {STATE: [0]})
    with pytest.raises(DataError, match="has no episode 6; it has 6"):
        episodes.pictures(CAMERA, 6, [0])
    with pytest.raises(DataError, match=r"no column 'observation.stat'; did you mean observation.state"):
        episodes.column("observation.stat")
    with pytest.raises(DataError, match="is not a set of episodes"):
        Episodes(root / "data")


def test_a_set_that_does_not_fit_is_refused_with_both_shown(tmp_path: Path) -> None:
    episodes = Episodes(make(tmp_path / "set", range(1), robot="franka", about={"action": {"unit": "rad"}}))
    episodes.require(FPS, FEATURES, "franka", {"action": {"unit": "rad"}})
    with pytest.raises(DataError, match=r"fps: 10.0 != 20.0; robot: 'franka' != 'ur5e'"):
        episodes.require(fps=20, robot="ur5e")
    with pytest.raises(DataError, match=r"about.action.unit: 'rad' != 'm'"):
        episodes.require(about={"action": {"unit": "m"}})
    with pytest.raises(DataError, match=r"observation.state.shape: 3 \(x, y, z\) != 2|observation.state.shape"):
        episodes.require(features={STATE: Feature("float32", (2,))})


def test_not_a_number_is_named(tmp_path: Path) -> None:
    root = make(tmp_path / "set", range(3))
    path = root / layout.path_of("data", 0)
    table = layout.read_table(path)
    values = layout.to_numpy(table[ACTION], FEATURES[ACTION], "").copy()
    values[length_of(0) + 2, 1] = np.nan
    column = layout.to_table({ACTION: values})[ACTION]
    layout.pq.write_table(table.set_column(table.schema.get_field_index(ACTION), ACTION, column), str(path))
    with pytest.raises(DataError, match="action: episode 1, step 2: element 1 is nan"):
        Episodes(root).column(ACTION)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_file_is_named_with_its_episode(tmp_path: Path, keep: float) -> None:
    root = unjoined(tmp_path / "set", 3)
    for kind in ("data", f"videos/{CAMERA}"):
        path = root / layout.path_of(kind, 1)
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    episodes = Episodes(root)
    with pytest.raises(DataError, match=r"episodes? 1: .*data.*truncated.*check --repair"):
        episodes.column(STATE)
    with pytest.raises(DataError, match=r"episode 1, steps 2 to 3: .*mp4 is truncated.*check --repair"):
        episodes.pictures(CAMERA, 1, [2, 3])
    np.testing.assert_array_equal(episodes.pictures(CAMERA, 2, [4]).numpy()[0], expected(2, CAMERA)[4])


def test_batches_go_on_where_they_stopped(root: Path) -> None:
    windows = Windows(Episodes(root), OFFSETS)
    whole = list(itertools.islice(batches(windows, 8, seed=3), 12))  # of 4 a pass
    again = list(itertools.islice(batches(windows, 8, seed=3, start=7), 5))
    for (values, masks), (expected_values, expected_masks) in zip(again, whole[7:], strict=True):
        assert all(
            torch.equal(values[k], expected_values[k]) and torch.equal(masks[k], expected_masks[k]) for k in values
        )
    assert not torch.equal(whole[0][0][STATE], whole[4][0][STATE])


def test_each_pass_is_a_permutation() -> None:
    taken = list(itertools.islice(Order(10, 3, seed=0), 6))
    for each in (taken[:3], taken[3:]):
        assert len({i for batch in each for i in batch}) == 9
    assert taken[:3] != taken[3:]
    with pytest.raises(DataError, match="a batch of 11 needs as many steps; the episodes have 10"):
        Order(10, 11, seed=0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same(root: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    windows = Windows(Episodes(root), OFFSETS)
    alone = list(itertools.islice(batches(windows, 16, seed=1), 4))  # the parent has the files open
    loader = torch.utils.data.DataLoader(
        windows,
        batch_sampler=Order(len(windows), 16, 1),
        num_workers=2,
        collate_fn=copy.copy,  # as it is; a function that a new process can import
        multiprocessing_context=method,
    )
    for (values, _), (mine, _) in zip(itertools.islice(loader, 4), alone, strict=True):
        assert all(torch.equal(values[k], mine[k]) for k in OFFSETS)


def test_a_skipped_episode_is_said_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path / "set", range(3))
    layout.write_json(root, layout.SKIPPED, {"1": "its video is cut"})
    with caplog.at_level(logging.WARNING):
        episodes = Episodes(root)
    assert "episode 1 is skipped: its video is cut" in caplog.text
    assert (episodes.ids, episodes.frames) == ([0, 2], length_of(0) + length_of(2))
    np.testing.assert_array_equal(episodes.column(STATE)[length_of(0) :].numpy(), expected(2, STATE))
    np.testing.assert_array_equal(episodes.pictures(CAMERA, 2, [6]).numpy()[0], expected(2, CAMERA)[6])
    with pytest.raises(DataError, match="episode 1 is skipped: its video is cut"):
        episodes.length(1)


def test_some_episodes_only(root: Path) -> None:
    episodes = Episodes(root, ids=[4, 1])
    assert (episodes.ids, len(Windows(episodes, OFFSETS))) == ([1, 4], length_of(1) + length_of(4))
    np.testing.assert_array_equal(episodes.column(STATE)[length_of(1) :].numpy(), expected(4, STATE))
    np.testing.assert_array_equal(episodes.pictures(CAMERA, 4, [2]).numpy()[0], expected(4, CAMERA)[2])
    with pytest.raises(DataError, match="episode 0 is not among the ids="):
        episodes.pictures(CAMERA, 0, [0])
    with pytest.raises(DataError, match="has no episode 6; it has 6"):
        Episodes(root, ids=[0, 6])


def test_a_reader_does_not_mind_a_writer_that_joins_and_goes_on(tmp_path: Path) -> None:
    """Files move under an open reader, and their numbers are used again for other episodes."""
    root = unjoined(tmp_path / "set", 3)
    episodes = Episodes(root, cache_mb=0.0)
    np.testing.assert_array_equal(episodes.pictures(CAMERA, 0, [1]).numpy()[0], expected(0, CAMERA)[1])
    for new in (3, 4):
        writer = Writer(root, FPS, FEATURES, video=LOSSLESS)
        record(writer, new)
        if new == 3:
            writer.close()
    assert (root / layout.path_of("data", 1)).exists()  # episode 4, where 1 was
    for episode in (1, 2, 0):
        np.testing.assert_array_equal(episodes.pictures(CAMERA, episode, [3]).numpy()[0], expected(episode, CAMERA)[3])
        np.testing.assert_array_equal(episodes.episode(episode)[STATE], expected(episode, STATE))
    assert len(episodes) == 3
    writer.close()


def test_another_set_in_its_place_is_noticed(tmp_path: Path) -> None:
    episodes = Episodes(make(tmp_path / "set", range(2)))
    shutil.rmtree(tmp_path / "set")
    make(tmp_path / "set", range(1, 3))
    with pytest.raises(DataError, match="is another set than when it was opened: open it again"):
        episodes.column(STATE)


def test_what_is_required_may_be_tuples(tmp_path: Path) -> None:
    root = make(tmp_path / "set", range(1), about={"joints": ("a", "b")})
    Episodes(root).require(about={"joints": ("a", "b")})
    with pytest.raises(DataError, match=r"about.joints"):
        Episodes(root).require(about={"joints": ("b", "a")})


def test_matrices_are_numbers_for_whoever_knows_their_type(tmp_path: Path) -> None:
    """Of the package `datasets`, which gives matrices a type of its own once it is imported."""
    root = make(tmp_path / "set", range(2), {"wrench": FEATURES["wrench"]})
    path = root / layout.path_of("data", 0)
    table = layout.read_table(path)
    storage = layout.pa.array(table["wrench"].to_pylist(), layout.pa.list_(layout.pa.list_(layout.pa.float32())))

    class Matrix(layout.pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(storage.type, "robolearn.test.matrix")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: object, serialized: bytes) -> Matrix:
            return cls()

    layout.pa.register_extension_type(Matrix())
    try:
        column = layout.pa.ExtensionArray.from_storage(Matrix(), storage)
        layout.pq.write_table(table.set_column(table.column_names.index("wrench"), "wrench", column), str(path))
        found = Episodes(root).episode(1)["wrench"]
    finally:
        layout.pa.unregister_extension_type("robolearn.test.matrix")
    np.testing.assert_array_equal(found, expected(1, "wrench", {"wrench": FEATURES["wrench"]}))
