"""robomimic's HDF5, written here by hand as its documentation has it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_samples import FPS, LOSSLESS, STATE, VECTORS, expected, make

from robolearn.data import hdf5, isaaclab
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes

h5py = pytest.importorskip("h5py")
pytest.importorskip("pyarrow")
pytest.importorskip("av")

ENV = {"env_name": "NutAssemblySquare", "type": 1, "env_kwargs": {"control_freq": 20}}


def arrays(demo: int) -> dict[str, np.ndarray]:
    rng, t = np.random.default_rng(demo), 4 + demo % 3
    obs = {"robot0_eef_pos": rng.random((t, 3)), "agentview_image": rng.integers(0, 256, (t, 16, 16, 3), np.uint8)}
    done = (np.arange(t) == t - 1).astype(np.int64)
    return {"actions": rng.uniform(-1, 1, (t, 7)), "rewards": done.astype(np.float64), "dones": done,
            "states": rng.random((t, 5)), **{f"obs/{k}": v for k, v in obs.items()},
            **{f"next_obs/{k}": np.concatenate((v[1:], v[-1:])) for k, v in obs.items()}}  # fmt: skip


def robomimic(path: Path, demos: int = 11, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        for demo in range(demos):
            found = arrays(demo)
            for key, values in {**found, **more}.items():
                file[f"data/demo_{demo}/{key}"] = values
            file[f"data/demo_{demo}"].attrs["num_samples"] = len(found["actions"])
        file["data"].attrs["total"] = sum(len(arrays(d)["actions"]) for d in range(demos))
        file["data"].attrs["env_args"] = json.dumps(ENV)
        file["mask/train"] = np.array([b"demo_10", b"demo_2"])
    return path


def test_robomimic_comes_in_and_goes_out_as_it_was(tmp_path: Path) -> None:
    source = robomimic(tmp_path / "low_dim.hdf5")
    assert hdf5.load(source, tmp_path / "set", task="square", video=LOSSLESS) == 11
    episodes = Episodes(tmp_path / "set")
    assert (episodes.fps, episodes.task(10), len(episodes)) == (20, "square", 11)
    assert sorted(episodes.info.features) == [
        "action", "next.done", "next.reward", "observation.images.agentview_image", "observation.robot0_eef_pos",
        "states",
    ]  # fmt: skip
    np.testing.assert_array_equal(episodes.episode(10)["action"], arrays(10)["actions"])
    assert hdf5.save(episodes, tmp_path / "back.hdf5") == 11
    with h5py.File(source) as before, h5py.File(tmp_path / "back.hdf5") as after:
        for demo in before["data"]:
            for key, values in arrays(int(demo.removeprefix("demo_"))).items():
                there = after[f"data/{demo}/{key}"]
                assert there.dtype == values.dtype, key
                np.testing.assert_array_equal(there[()], values, err_msg=key)
            assert after[f"data/{demo}"].attrs["num_samples"] == before[f"data/{demo}"].attrs["num_samples"]
        assert after["data"].attrs["total"] == before["data"].attrs["total"]
        assert json.loads(after["data"].attrs["env_args"]) == ENV
        assert after["mask/train"][()].tolist() == [b"demo_10", b"demo_2"]


def isaac(path: Path) -> dict[str, np.ndarray]:
    """A file of two demonstrations as Isaac Lab's recorder writes it; its data sets by path."""
    found: dict[str, np.ndarray] = {}
    for demo, length in enumerate((4, 1)):
        rng, to = np.random.default_rng(demo), f"data/demo_{demo}"
        found |= {f"{to}/actions": rng.random((length, 2), dtype=np.float32),
                  f"{to}/obs/joint_pos": rng.random((length, 9), dtype=np.float32),
                  f"{to}/obs/table_cam": rng.integers(0, 256, (length, 16, 16, 3), np.uint8),
                  f"{to}/states/articulation/robot/root_pose": rng.random((length, 7), dtype=np.float32),
                  f"{to}/initial_state/articulation/robot/root_pose": rng.random((1, 7), dtype=np.float32)}  # fmt: skip
    with h5py.File(path, "w") as file:
        for key, values in found.items():
            file.create_dataset(key, data=values, compression="gzip")
        for demo, length in enumerate((4, 1)):
            file[f"data/demo_{demo}"].attrs.update({"num_samples": length, "success": demo == 0})
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Isaac-Stack-Cube", "type": 2})
        file["data"].attrs["total"] = 5
    return found


def datasets(file: Any) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_isaac_labs_comes_in_and_goes_out_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "isaac.hdf5"
    there = isaac(source)
    with pytest.raises(DataError, match=r"does not say its rate.*give fps="):
        isaaclab.load(source, tmp_path / "set")
    assert isaaclab.load(source, tmp_path / "set", fps=30, video=LOSSLESS) == 2
    found = Episodes(tmp_path / "set").episode(0)
    pose = "articulation/robot/root_pose"
    np.testing.assert_array_equal(found["states.articulation.robot.root_pose"], there[f"data/demo_0/states/{pose}"])
    np.testing.assert_array_equal(
        found["initial_state.articulation.robot.root_pose"], np.repeat(there[f"data/demo_0/initial_state/{pose}"], 4, 0)
    )
    assert found["next.success"][:, 0].tolist() == [False, False, False, True]
    assert isaaclab.save(Episodes(tmp_path / "set"), tmp_path / "back.hdf5") == 2
    with h5py.File(tmp_path / "back.hdf5") as file:
        back = datasets(file)
        assert back.keys() == there.keys()
        for key, values in there.items():
            assert back[key].dtype == values.dtype, key
            np.testing.assert_array_equal(back[key], values, err_msg=key)
        assert [dict(file[f"data/demo_{d}"].attrs) for d in range(2)] == [
            {"num_samples": 4, "success": True}, {"num_samples": 1, "success": False}]  # fmt: skip
        assert json.loads(file["data"].attrs["env_args"]) == {"env_name": "Isaac-Stack-Cube", "type": 2}
        assert file["data"].attrs["total"] == 5


def test_what_has_no_row_a_step_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = robomimic(tmp_path / "low_dim.hdf5", 1, camera_matrix=np.eye(3))
    with caplog.at_level(logging.WARNING):
        hdf5.load(source, tmp_path / "set")
    assert "demo_0: camera_matrix" in caplog.text and "left out" in caplog.text
    assert "camera_matrix" not in Episodes(tmp_path / "set").keys


def test_what_was_never_robomimic_goes_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    episodes = Episodes(make(tmp_path / "set", range(3)))
    with caplog.at_level(logging.WARNING):
        hdf5.save(episodes, tmp_path / "some.hdf5", ids=[2, 0])
    assert "actions outside [-1, 1]" in caplog.text
    with h5py.File(tmp_path / "some.hdf5") as file:
        demo = file["data/demo_0"]
        np.testing.assert_array_equal(demo["obs/state"][()], expected(2, STATE))
        np.testing.assert_array_equal(demo["next_obs/state"][()], expected(2, STATE)[[1, 2, 3, 4, 5, 6, 6]])
        assert demo["rewards"][()].tolist() == [0.0] * 7
        assert demo["dones"][()].tolist() == [False] * 6 + [True]
        assert file["data"].attrs["total"] == 12


def test_bad_files_are_named(tmp_path: Path) -> None:
    source = robomimic(tmp_path / "low_dim.hdf5", 3)
    with pytest.raises(DataError, match=r"nowhere.hdf5 does not exist"):
        hdf5.load(tmp_path / "nowhere.hdf5", tmp_path / "set")
    (tmp_path / "cut.hdf5").write_bytes(source.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cut.hdf5 is truncated or no HDF5"):
        hdf5.load(tmp_path / "cut.hdf5", tmp_path / "set")
    with h5py.File(tmp_path / "empty.hdf5", "w") as file:
        file.create_group("data")
    with pytest.raises(DataError, match=r"empty.hdf5 has no data/demo_0"):
        hdf5.load(tmp_path / "empty.hdf5", tmp_path / "set")
    with h5py.File(source, "a") as file:
        file["data/demo_1/actions"][2, 3] = np.nan
    with pytest.raises(DataError, match="demo_1: episode 1, step 2: action: element 3 is nan"):
        hdf5.load(source, tmp_path / "set")
    assert len(Episodes(tmp_path / "set")) == 1
    only = {STATE: VECTORS[STATE]}
    with pytest.raises(DataError, match="has no action: robomimic needs one"):
        hdf5.save(Episodes(make(tmp_path / "states", features=only)), tmp_path / "out.hdf5")
    assert not (tmp_path / "out.hdf5").exists() and FPS


def test_nothing_is_written_over(tmp_path: Path) -> None:
    source = robomimic(tmp_path / "low_dim.hdf5", 3)
    hdf5.load(source, tmp_path / "set")
    with pytest.raises(DataError, match=r"low_dim.hdf5 exists already: choose another name"):
        hdf5.save(Episodes(tmp_path / "set"), source)
    with pytest.raises(DataError, match=r"the folder of .*out.hdf5 does not exist"):
        hdf5.save(Episodes(tmp_path / "set"), tmp_path / "nowhere" / "out.hdf5")
    with pytest.raises(DataError, match=r"has masks \(train\), which count its own demonstrations"):
        hdf5.load(source, tmp_path / "set")
    assert len(Episodes(tmp_path / "set")) == 3
