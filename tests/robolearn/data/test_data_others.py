"""Files read by the packages they are meant for, and theirs by us, where these are installed: LeRobot, robomimic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_samples import ACTION, CAMERA, FPS, STATE, VECTORS, expected, length_of, make

from robolearn.data import hdf5
from robolearn.data.check import check
from robolearn.data.read import Episodes
from robolearn.data.write import Writer

pytest.importorskip("pyarrow")
pytest.importorskip("av")


def package(name: str) -> Any:
    """Skips where it does not import: both need torchvision, whose wheel fails beside the CPU build of torch."""
    try:
        return pytest.importorskip(name, exc_type=ImportError)
    except (RuntimeError, OSError) as error:
        pytest.skip(f"{name}: {error}")


def test_lerobot_reads_ours(tmp_path: Path) -> None:
    lerobot = package("lerobot.datasets.lerobot_dataset")
    root = make(tmp_path / "set", range(3))
    found = lerobot.LeRobotDataset(
        "nobody/set", root=root, delta_timestamps={STATE: [-1 / FPS, 0.0]}, video_backend="pyav"
    )
    assert (len(found), found.meta.total_episodes, found.fps) == (18, 3, FPS)
    where = [(e, k) for e in range(3) for k in range(length_of(e))]
    for frame, (episode, step) in enumerate(where):
        item = found[frame]
        assert item["task"] == "insert the peg"
        np.testing.assert_array_equal(item[STATE], expected(episode, STATE)[[max(0, step - 1), step]])
        np.testing.assert_array_equal(item["wrench"], expected(episode, "wrench")[step])
        shown = (item[CAMERA].permute(1, 2, 0) * 255).round().numpy()
        np.testing.assert_array_equal(shown, expected(episode, CAMERA)[step])


def test_we_read_lerobots_and_lerobot_what_we_append(tmp_path: Path) -> None:
    lerobot = package("lerobot.datasets.lerobot_dataset")
    features = {k: {"dtype": VECTORS[k].dtype, "shape": VECTORS[k].shape, "names": None} for k in VECTORS}
    there = lerobot.LeRobotDataset.create("nobody/set", int(FPS), features, root=tmp_path / "set", use_videos=False)
    for episode in range(2):
        for step in range(length_of(episode)):
            there.add_frame({k: expected(episode, k, VECTORS)[step] for k in VECTORS} | {"task": f"task {episode}"})
        there.save_episode()
    there.finalize()
    assert check(tmp_path / "set") == []
    episodes = Episodes(tmp_path / "set")
    with Writer(tmp_path / "set", FPS, episodes.info.features, episodes.info.robot) as writer:
        writer.begin("task 2")
        for step in range(length_of(2)):
            writer.add({k: expected(2, k, VECTORS)[step] for k in VECTORS})
        writer.end()
    episodes = Episodes(tmp_path / "set")
    again = lerobot.LeRobotDataset("nobody/set", root=tmp_path / "set")
    assert len(again) == episodes.frames and check(tmp_path / "set") == []
    for at, episode in enumerate(range(3)):
        assert episodes.task(episode) == f"task {episode}"
        assert again[int(episodes.starts[at])]["task"] == f"task {episode}"
        for key in VECTORS:
            np.testing.assert_array_equal(episodes.episode(episode)[key], expected(episode, key, VECTORS))
            theirs = again[int(episodes.starts[at])][key]  # float32, whatever was recorded
            np.testing.assert_array_equal(
                theirs, np.squeeze(expected(episode, key, VECTORS)[0]).astype(theirs.numpy().dtype)
            )


def test_robomimic_reads_what_we_export(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    dataset, obs = package("robomimic.utils.dataset"), package("robomimic.utils.obs_utils")
    hdf5.save(Episodes(make(tmp_path / "set", range(3))), tmp_path / "set.hdf5")
    obs.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"], "rgb": ["front"]}})
    found = dataset.SequenceDataset(
        str(tmp_path / "set.hdf5"), obs_keys=["state", "front"], dataset_keys=["actions", "rewards", "dones"],
        seq_length=2, hdf5_use_swmr=False,
    )  # fmt: skip
    where = [(e, k) for e in range(3) for k in range(length_of(e))]
    assert len(found) == len(where)
    for frame, (episode, step) in enumerate(where):
        item, after = found[frame], min(step + 1, length_of(episode) - 1)
        np.testing.assert_array_equal(item["actions"][0], expected(episode, ACTION)[step])
        np.testing.assert_array_equal(item["obs"]["state"], expected(episode, STATE)[[step, after]])
        np.testing.assert_array_equal(item["next_obs"]["state"][0], expected(episode, STATE)[after])
        np.testing.assert_array_equal(item["obs"]["front"][0], expected(episode, CAMERA)[step])
        assert item["dones"][0] == (step == length_of(episode) - 1)
    found.close_and_delete_hdf5_handle()
