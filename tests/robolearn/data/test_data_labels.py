from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
from episode_samples import FPS, length_of, make

from robolearn.data import labels
from robolearn.data.labels import Label
from robolearn.data.layout import DataError, Feature
from robolearn.data.read import Episodes
from robolearn.data.write import Writer

pytest.importorskip("pyarrow")

FEATURES = {"reward": Feature("float32", (1,)), "state": Feature("float32", (2,))}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "set", range(3), FEATURES)


def values(factor: float, episodes: range = range(3)) -> dict[int, np.ndarray]:
    return {e: factor * np.arange(length_of(e)) + 100.0 * e for e in episodes}


def test_labelling_again_makes_a_version_and_changes_nothing(root: Path) -> None:
    before = {p: hashlib.sha256(p.read_bytes()).digest() for p in root.rglob("*") if p.is_file()}
    recorded = Episodes(root).column("reward")
    first = labels.write(root, "reward", values(1.0), {"model": "clip"})
    labels.write(root, "reward", values(2.0), {"model": "other"})
    assert first == Label("reward", 1, Feature("float64", (1,)), {"model": "clip"})
    assert labels.versions(root) == {"reward": [1, 2]}
    assert all(hashlib.sha256(p.read_bytes()).digest() == digest for p, digest in before.items())
    for what, column in {"reward@1": values(1.0), "reward@2": values(2.0), "reward": values(2.0)}.items():
        found = Episodes(root, {"r": what}).column("r").numpy()
        np.testing.assert_array_equal(found[:, 0], np.concatenate(list(column.values())))
    np.testing.assert_array_equal(Episodes(root).column("reward")[:, 0], np.concatenate(list(values(2.0).values())))
    np.testing.assert_array_equal(Episodes(root, {"reward": "reward@0"}).column("reward"), recorded)
    assert labels.read(root, "reward", 2)[0].about == {"model": "other"}


def test_labels_are_in_windows(root: Path) -> None:
    labels.write(root, "vlm", {e: np.stack([v, -v], 1).astype(np.float32) for e, v in values(1.0).items()})
    found, masks = Episodes(root).windows([1], [4], {"vlm": [0, 1, 2]})
    np.testing.assert_array_equal(found["vlm"][0], [[104, -104], [105, -105], [105, -105]])
    assert masks["vlm"].tolist() == [[True, True, False]]


def test_an_episode_without_values_is_named(root: Path) -> None:
    labels.write(root, "vlm", values(1.0))
    with Writer(root, FPS, FEATURES) as writer:
        writer.begin()
        writer.add({"reward": 0.0, "state": np.zeros(2, np.float32)})
        writer.end()
    episodes = Episodes(root)
    episodes.column("state")
    with pytest.raises(DataError, match="vlm@1 has no values for episodes 3 of"):
        episodes.column("vlm")


BAD = [
    ("vlm", {0: np.zeros(4)}, r"episode 0: \(4,\) values for 5 steps"),
    ("vlm", {1: np.array([0, 0, np.inf, 0, 0, 0])}, "episode 1, step 2: element 0 is inf"),
    ("vlm", {7: np.zeros(5)}, "there is no episode 7; there are 3"),
    ("vlm", {0: np.zeros(5), 1: np.zeros((6, 2))}, "one dtype and shape"),
    ("../vlm", {0: np.zeros(5)}, "a label's name"),
]


@pytest.mark.parametrize(("name", "given", "message"), BAD)
def test_bad_values_are_refused(root: Path, name: str, given: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels.write(root, name, given)
    assert labels.versions(root) == {}


def test_what_there_is_is_said(root: Path) -> None:
    labels.write(root, "vlm", values(1.0))
    with pytest.raises(DataError, match="no label 'vln'; did you mean vlm"):
        Episodes(root, {"reward": "vln"})
    with pytest.raises(DataError, match=r"'vlm' has the versions \[1\] \(and 0, what was recorded\), not '3'"):
        Episodes(root, {"reward": "vlm@3"})
    with pytest.raises(DataError, match="no recorded feature 'vlm'"):
        Episodes(root, {"reward": "vlm@0"})


def test_a_label_that_lacks_an_episode_hides_nothing_else(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whole episodes, which exports and pages are made of, come without it, unless it was asked for."""
    labels.write(root, "vlm", values(1.0, range(2)))
    with caplog.at_level(logging.WARNING):
        assert Episodes(root).episode(0).keys() == {"reward", "state"}
    assert "vlm@1 is left out: it has no values for episodes 2" in caplog.text
    assert "vlm" in Episodes(root, ids=[0, 1]).episode(0)
    with pytest.raises(DataError, match="vlm@1 has no values for episodes 2"):
        Episodes(root, {"vlm": "vlm"}).episode(0)
