"""Episodes of which it is known where they show success: there the picture's left half is bright."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robolearn.data import labels
from robolearn.data.layout import Feature
from robolearn.data.video import VideoCfg
from robolearn.data.write import Writer

SIZE, LENGTH = 24, 6
FRONT = "observation.images.front"
FEATURES = {
    "observation.state": Feature("float32", (2,)), FRONT: Feature("video", (SIZE, SIZE, 3)),
    "action": Feature("float32", (1,)), "next.reward": Feature("float32", (1,)),
    "next.terminated": Feature("bool", (1,)), "next.success": Feature("bool", (1,)),
}  # fmt: skip
SMALL = ["reward.widths=[8,8]", "reward.features=8", "reward.hidden=16", "reward.points=4", "reward.margin=2"]


def picture(done: bool, rng: np.random.Generator) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 of noise, its left half 100 grey levels brighter if `done`."""
    out = rng.integers(40, 80, (SIZE, SIZE, 3))
    out[:, : SIZE // 2] += 100 * done
    return out.astype(np.uint8)


def make(root: Path, starts: Sequence[int | None], label: bool = True, seed: int = 0) -> Path:
    """An episode for each number, the step from which on it shows success; None: it never does."""
    rng = np.random.default_rng(seed)
    shown = [np.arange(LENGTH) >= (LENGTH if s is None else s) for s in starts]
    with Writer(root, 10.0, FEATURES, video=VideoCfg("h264_lossless")) as writer:
        for done in shown:
            writer.begin("make it bright")
            for t in range(LENGTH):
                writer.add(_step(t, done, rng))
            writer.end()
    if label:
        labels.write(root, "success", dict(enumerate(shown)))
    return root


def _step(t: int, done: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    last = t == LENGTH - 1
    state = np.array([t, 10.0 * t], dtype=np.float32)
    one = {"next.reward": np.float32(-t), "next.terminated": last, "next.success": last and bool(done[-1])}
    return {"observation.state": state, "action": np.array([t / 10], dtype=np.float32), FRONT: picture(done[t], rng),
            **{k: np.array([v]) for k, v in one.items()}}  # fmt: skip
