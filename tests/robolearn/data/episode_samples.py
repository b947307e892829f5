"""Episodes whose every number and picture follows from their index."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data.layout import Feature
from robolearn.data.video import VideoCfg
from robolearn.data.write import Writer

FPS = 10.0
STATE, ACTION, CAMERA = "observation.state", "action", "observation.images.front"
VECTORS = {STATE: Feature("float32", (3,), ("x", "y", "z"), "m", "base"), ACTION: Feature("float64", (2,)),
           "contact": Feature("bool", (1,)), "wrench": Feature("float32", (2, 3))}  # fmt: skip
FEATURES = VECTORS | {CAMERA: Feature("video", (32, 48, 3))}
LOSSLESS = VideoCfg("h264_lossless", gop=4)


def length_of(episode: int) -> int:
    return 5 + episode % 4


def steps(episode: int, features: dict[str, Feature] = FEATURES) -> list[dict[str, Any]]:
    """Noise, also in the pictures: no two are alike."""
    rng = np.random.default_rng(episode)
    return [{k: _value(f, rng) for k, f in features.items()} for _ in range(length_of(episode))]


def _value(feature: Feature, rng: np.random.Generator) -> np.ndarray:
    if feature.video:
        return rng.integers(0, 256, feature.shape, dtype=np.uint8)
    return (rng.standard_normal(feature.shape) * 2.0).astype(feature.dtype)


def expected(episode: int, key: str, features: dict[str, Feature] = FEATURES) -> np.ndarray:
    """(T, *shape)."""
    return np.stack([step[key] for step in steps(episode, features)])


def record(writer: Writer, episode: int, task: str = "insert the peg", features: dict[str, Feature] = FEATURES) -> None:
    writer.begin(task)
    for step in steps(episode, features):
        writer.add(step)
    writer.end()


def make(
    root: Path, episodes: Sequence[int] = range(4), features: dict[str, Feature] = FEATURES, **options: Any
) -> Path:
    with Writer(root, FPS, features, **{"video": LOSSLESS, **options}) as writer:
        for episode in episodes:
            record(writer, episode, features=features)
    return root


def unjoined(root: Path, episodes: int) -> Path:
    """As a writer leaves it that is killed after some episodes: each has files of its own."""
    writer = Writer(root, FPS, FEATURES, video=LOSSLESS)
    for episode in range(episodes):
        record(writer, episode)
    copy = shutil.copytree(root, root.with_name("killed"))
    writer.close()
    return copy
