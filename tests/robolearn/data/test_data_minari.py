"""Minari's HDF5: written by hand as its documentation has it, and read and written by Minari itself where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_samples import ACTION, CAMERA, LOSSLESS, STATE, VECTORS, expected, make

from robolearn.data import minari
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes

h5py = pytest.importorskip("h5py")
pytest.importorskip("pyarrow")
pytest.importorskip("av")


def episode(number: int, flat: bool) -> dict[str, Any]:
    rng, t = np.random.default_rng(number), 3 + number
    state = rng.random((t + 1, 3), dtype=np.float32)
    pictures = rng.integers(0, 256, (t + 1, 8, 8, 3), np.uint8)
    return {"observations": state if flat else {"state": state, "front": pictures},
            "actions": rng.random((t, 2), dtype=np.float32), "rewards": rng.random(t),
            "terminations": np.zeros(t, bool), "truncations": np.arange(t) == t - 1}  # fmt: skip


def by_hand(root: Path, flat: bool, episodes: int = 3) -> Path:
    (root / "data").mkdir(parents=True)
    with h5py.File(root / "data/main_data.hdf5", "w") as file:
        for number in range(episodes):
            for key, values in episode(number, flat).items():
                for name, part in values.items() if isinstance(values, dict) else [("", values)]:
                    file[f"episode_{number}/{key}/{name}".rstrip("/")] = part
    (root / "data/metadata.json").write_text(json.dumps({"dataset_id": root.name, "author": ["me"]}))
    return root


@pytest.mark.parametrize("flat", [True, False])
def test_it_comes_in_and_goes_out_as_it_was(tmp_path: Path, flat: bool) -> None:
    assert minari.load(by_hand(tmp_path / "in-v0", flat), tmp_path / "set", 10.0, "push", LOSSLESS) == 3
    found = Episodes(tmp_path / "set")
    np.testing.assert_array_equal(found.episode(2)["next.truncated"][:, 0], [False] * 4 + [True])
    minari.save(found, tmp_path / "out-v0")
    with (
        h5py.File(tmp_path / "in-v0/data/main_data.hdf5") as a,
        h5py.File(tmp_path / "out-v0/data/main_data.hdf5") as b,
    ):
        compared: list[str] = []

        def compare(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                assert item.dtype == b[name].dtype
                np.testing.assert_array_equal(item[()], b[name][()], err_msg=name)
                compared.append(name)

        a.visititems(compare)
    assert len(compared) == 3 * (5 if flat else 6)
    assert json.loads((tmp_path / "out-v0/data/metadata.json").read_text())["total_steps"] == 3 + 4 + 5


def test_minari_reads_what_we_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari.save(Episodes(make(tmp_path / "set", range(3))), tmp_path / "peg-v0")
    found = list(real.load_dataset("peg-v0").iterate_episodes())
    assert [e.actions.shape for e in found] == [(5, 2), (6, 2), (7, 2)]
    np.testing.assert_array_equal(found[1].actions, expected(1, ACTION))
    state, pictures = (found[1].observations[k] for k in ("state", "front"))
    np.testing.assert_array_equal(state, expected(1, STATE)[[0, 1, 2, 3, 4, 5, 5]])
    np.testing.assert_array_equal(pictures[:6], expected(1, CAMERA))


def test_we_read_what_minari_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("minari")
    spaces = pytest.importorskip("gymnasium").spaces
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    given = [episode(n, True) for n in range(3)]
    buffers = [real.data_collector.EpisodeBuffer(id=n, seed=n, infos={}, **{k: list(v) for k, v in e.items()})
               for n, e in enumerate(given)]  # fmt: skip
    real.create_dataset_from_buffers(
        "test-v0", buffer=buffers, observation_space=spaces.Box(0, 1, (3,), np.float32), algorithm_name="a", author="b",
        action_space=spaces.Box(0, 1, (2,), np.float32), author_email="c", code_permalink="d", data_format="hdf5",
        description="e",
    )  # fmt: skip
    assert minari.load(tmp_path / "test-v0", tmp_path / "set", 10.0) == 3
    found = Episodes(tmp_path / "set")
    for number, e in enumerate(given):
        numbers = found.episode(number)
        np.testing.assert_array_equal(numbers[STATE], e["observations"][:-1])
        np.testing.assert_array_equal(numbers["next.observation.state"], e["observations"][1:])
        np.testing.assert_array_equal(numbers[ACTION], e["actions"])
        np.testing.assert_array_equal(numbers["next.reward"][:, 0], e["rewards"])


def test_bad_sets_are_named(tmp_path: Path) -> None:
    source = by_hand(tmp_path / "in-v0", True)
    with h5py.File(source / "data/main_data.hdf5", "a") as file:
        del file["episode_1/observations"]
        file["episode_1/observations"] = np.zeros((4, 3), np.float32)
    with pytest.raises(DataError, match=r"episode_1: observation.state has 4 rows of float32, not 5"):
        minari.load(source, tmp_path / "set", 10.0)
    with pytest.raises(DataError, match=r"has no metadata.json"):
        minari.load(tmp_path, tmp_path / "other", 10.0)
    state = {STATE: VECTORS[STATE]}
    with pytest.raises(DataError, match="has no action: Minari needs one"):
        minari.save(Episodes(make(tmp_path / "states", features=state)), tmp_path / "out-v0")
    with pytest.raises(DataError, match="names that end in -v and a number"):
        minari.save(Episodes(make(tmp_path / "whole")), tmp_path / "out")
