"""Episodes on disk, measured: `python -m benchmarks.data [key=value ...]`.

- write: transitions a second into a set of two 84x84 cameras, a state of 30 numbers and an action of 7; bytes on disk;
- memory: what `preload` of all of it takes;
- loader: pictures a second in random batches of windows (two pictures of each camera, 16 actions) that `workers`
  processes read: decoding each window afresh (open, seek, decode), with the cache (second pass), and preloaded.

The pictures are drawn here: a still, shaded, textured background for each episode, three shaded boxes that move, and
noise of `noise` grey levels (0: as a renderer gives them). `transitions=100000`, `episode=150` steps, `codec=h264`,
`gop=8`, `batch=64`, `seconds=20` for each loader, `cache_mb=512` for each worker, `folder=` for the set (a temporary
one is removed). Windows are drawn from the first `loader=10000` transitions.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from robolearn.data.layout import Feature
from robolearn.data.loader import Batch, Order, Windows
from robolearn.data.read import Episodes
from robolearn.data.video import VideoCfg
from robolearn.data.write import Writer
from robolearn.errors import ConfigError, unknown

SETTINGS = {"transitions": "100000", "episode": "150", "codec": "h264", "gop": "8", "noise": "1.0", "batch": "64",
            "workers": "2", "seconds": "20", "cache_mb": "512", "loader": "10000", "folder": ""}  # fmt: skip
SIDE, FPS = 84, 20.0
CAMERAS = "observation.images.front", "observation.images.wrist"
FEATURES = {"observation.state": Feature("float32", (30,)), "action": Feature("float32", (7,))} | {
    camera: Feature("video", (SIDE, SIDE, 3)) for camera in CAMERAS
}
OFFSETS = {"observation.state": [-1, 0], "action": range(16)} | {camera: [-1, 0] for camera in CAMERAS}
MB, GB = 1e6, 1e9


def settings(words: Sequence[str]) -> dict[str, str]:
    found = dict(SETTINGS)
    for word in words:
        key, _, value = word.partition("=")
        if key not in SETTINGS:
            raise ConfigError(unknown("setting", key, list(SETTINGS)))
        found[key] = value
    return found


def scenes(seed: int, steps: int, noise: float) -> Iterator[np.ndarray]:
    """(SIDE, SIDE, 3) uint8 of one camera in one episode."""
    rng = np.random.default_rng(seed)
    down = np.arange(SIDE)[:, None] / SIDE
    table = 90 + 60 * down + 20 * np.kron(rng.random((SIDE // 4, SIDE // 4)), np.ones((4, 4)))
    still = np.stack([table * c for c in rng.uniform(0.5, 1.0, 3)], -1)
    sizes, colours = rng.integers(8, 20, 3), rng.uniform(40, 250, (3, 3))
    phase, speed = rng.uniform(0, 6.3, (3, 2)), rng.uniform(0.02, 0.08, (3, 2))
    for step in range(steps):
        picture = still.copy()
        for size, colour, (row, column) in zip(sizes, colours, 0.5 + 0.45 * np.sin(phase + speed * step), strict=True):
            top, left = int(row * (SIDE - size)), int(column * (SIDE - size))
            shade = 1.0 - 0.4 * np.linspace(0, 1, size)[:, None, None]
            picture[top : top + size, left : left + size] = colour * shade
        yield (picture + noise * rng.standard_normal(picture.shape)).clip(0, 255).astype(np.uint8)


def write(root: Path, found: dict[str, str]) -> None:
    total, each = int(found["transitions"]), int(found["episode"])
    video, noise = VideoCfg(found["codec"], int(found["gop"])), float(found["noise"])
    rng, spent = np.random.default_rng(0), 0.0
    with Writer(root, FPS, FEATURES, video=video) as writer:
        for first in range(0, total, each):
            steps = min(each, total - first)
            pictures = [list(scenes(2 * first + k, steps, noise)) for k in range(2)]
            numbers = rng.standard_normal((steps, 37)).cumsum(0).astype(np.float32)
            began = time.perf_counter()
            writer.begin("drawn")
            for step in range(steps):
                pair = {camera: pictures[k][step] for k, camera in enumerate(CAMERAS)}
                writer.add({"observation.state": numbers[step, :30], "action": numbers[step, 30:], **pair})
            writer.end()
            spent += time.perf_counter() - began
        began = time.perf_counter()
    spent += time.perf_counter() - began
    size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
    say("write", f"{total / spent:.0f} transitions/s with encoding, {spent:.0f} s")
    say("disk", f"{size / GB:.3f} GB for {total} transitions: {size / total / 1000:.2f} kB each")


def memory(root: Path) -> None:
    before, began = resident(), time.perf_counter()
    episodes = Episodes(root)
    episodes.preload()
    spent = time.perf_counter() - began
    say("memory", f"{(resident() - before) / GB:.2f} GB for {episodes.frames} transitions, preloaded in {spent:.0f} s: "
                  f"{2 * episodes.frames / spent:.0f} pictures/s")  # fmt: skip


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Afresh(Windows):
    """Each window opens, seeks and decodes for itself."""

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        parts = []
        for index in indices:
            episodes = Episodes.__new__(Episodes)
            episodes.__dict__ = self.episodes.__getstate__()
            whole, self.episodes = self.episodes, episodes
            parts.append(super().__getitems__([index]))
            self.episodes = whole
        return tuple({k: torch.cat([p[i][k] for p in parts]) for k in OFFSETS} for i in range(2))  # type: ignore[return-value]


def loader(root: Path, found: dict[str, str]) -> None:
    batch, workers, seconds = (int(found[k]) for k in ("batch", "workers", "seconds"))
    count = min(int(found["loader"]), int(found["transitions"]))

    def of(kind: Callable[..., Windows], cache_mb: float, preload: bool) -> Windows:
        episodes = Episodes(root, ids=range(max(1, count // int(found["episode"]))), cache_mb=cache_mb)
        if preload:
            episodes.preload()
        return kind(episodes, OFFSETS)

    cases = {"afresh": (Afresh, 0.0, False), "cached": (Windows, float(found["cache_mb"]), False),
             "preloaded": (Windows, 0.0, True)}  # fmt: skip
    speed = {}
    for name, (kind, cache_mb, preload) in cases.items():
        windows = of(kind, cache_mb, preload)
        warm = 1 if name == "cached" else 0
        speed[name] = pictures_per_s(windows, batch, workers, seconds, warm * workers * len(windows) // batch)
        times = speed[name] / speed["afresh"]
        say(f"loader {name}", f"{speed[name]:.0f} pictures/s with {workers} workers, {times:.1f} times afresh")


def pictures_per_s(windows: Windows, batch: int, workers: int, seconds: float, warm: int) -> float:
    """After `warm` batches."""
    order = Order(len(windows), batch, seed=0)
    batches = iter(DataLoader(windows, batch_sampler=order, num_workers=workers, collate_fn=lambda b: b))
    for _ in range(max(warm, 2 * workers)):
        next(batches)
    began, pictures = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        values, _ = next(batches)
        pictures += sum(values[c].shape[0] * values[c].shape[1] for c in CAMERAS)
    return pictures / (time.perf_counter() - began)


def say(name: str, text: str) -> None:
    print(f"{name:18} {text}", flush=True)


def main(words: Sequence[str]) -> None:
    found = settings(words)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(found["folder"] or folder) / "set"
        write(root, found)
        memory(root)
        loader(root, found)


if __name__ == "__main__":
    main(sys.argv[1:])
