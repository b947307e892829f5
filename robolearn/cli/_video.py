"""Films of a policy: several environments in a grid, in real time, as H.264."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn import optional
from robolearn.cli import _world
from robolearn.errors import ConfigError

if TYPE_CHECKING:
    from robolearn.policies.base import Policy
    from sim.env import SimEnv

WIDTH_PX, BORDER_PX = 960, 3
MIN_S, MAX_FPS, HOLD_S = 2.0, 30.0, 0.7
SUCCESS, ELSE, EMPTY = (46, 170, 80), (112, 118, 126), (24, 27, 31)


def record(policy: Policy | _world.Scripted, cfg: Any, path: Path, num_envs: int, seed: int,
           width_px: int | None = None) -> np.ndarray:  # fmt: skip
    """Write an episode of `num_envs` environments (more if short) to `path`; the last frame (H, W, 3).
    `width_px`: other than WIDTH_PX."""
    from robolearn.loops.log import Display

    optional.load("av", "report")
    env = world(cfg, num_envs, seed)
    try:
        require_cameras(env, cfg.backend.name)
        acting = _world.bound(policy, env, seed)
        episodes = math.ceil(MIN_S / (env.max_episode_length * env.step_dt))
        steps = episodes * env.max_episode_length - 1  # the next would show the start of another one
        stride = math.ceil(1.0 / (env.step_dt * MAX_FPS) - 1e-6)
        rate = Fraction(1.0 / (env.step_dt * stride)).limit_denominator(1001)
        with Display(steps, "film") as display:
            frames = _rollout(env, acting, steps, stride, lambda n: display.update(n, {}), width_px)
            return write(path, _held(frames, round(HOLD_S * rate)), rate)
    finally:
        env.close()


def world(cfg: Any, num_envs: int, seed: int) -> SimEnv:
    """What a person watches: never a task's fast environment, which has no time for the goals' markers."""
    from sim.env import SimEnv

    return SimEnv(cfg.task, cfg.backend, num_envs, _world.pick_device(cfg.device, cfg.backend), seed)


def require_cameras(env: SimEnv, backend: str) -> None:
    """Raise ConfigError unless the engine and the task can be filmed."""
    if not env.backend.capabilities.cameras:
        raise ConfigError(f"backend {backend} draws no pictures; film with backend=mujoco")
    if env.task.camera not in env.backend.scene.cameras:
        raise ConfigError(f"task {env.cfg.name} has no camera '{env.task.camera}'")


def _rollout(env: SimEnv, policy: _world.Acting, steps: int, stride: int, progress: Any,
             width_px: int | None) -> Iterator[np.ndarray]:  # fmt: skip
    import torch

    obs, _ = env.reset()
    policy.reset(torch.ones(env.num_envs, dtype=torch.bool, device=env.device))
    success = torch.zeros(env.num_envs, dtype=torch.bool)
    yield snapshot(env, success, width_px)
    for step in range(1, steps + 1):
        with torch.inference_mode():
            obs, _, terminated, truncated, extras = env.step(policy.act(obs))
        policy.reset(terminated | truncated)
        success = extras["episode"]["success"] > 0.5
        progress(step)
        if step % stride == 0:
            yield snapshot(env, success, width_px)


def snapshot(env: SimEnv, success: Any, width_px: int | None = None) -> np.ndarray:
    """The grid's picture of this moment; `success` (B,) bool colours the borders. `width_px`: other than WIDTH_PX."""
    columns = math.ceil(math.sqrt(env.num_envs))
    camera = env.backend.scene.cameras[env.task.camera]
    width = (width_px or WIDTH_PX) // columns - 2 * BORDER_PX
    height = width * camera.height // camera.width // 2 * 2
    pictures = env.backend.render(env.task.camera, range(env.num_envs), film=(height, width // 2 * 2))
    return tile(pictures, success.tolist(), columns)


def tile(pictures: np.ndarray, success: list[bool], columns: int) -> np.ndarray:
    """(n, H, W, 3) -> one picture of even size, row by row, each with a border: green where `success`."""
    n, height, width, _ = pictures.shape
    rows, b = math.ceil(n / columns), BORDER_PX
    cells = np.empty((rows * columns, height + 2 * b, width + 2 * b, 3), np.uint8)
    cells[:] = EMPTY
    for cell, picture, good in zip(cells, pictures, success, strict=False):
        cell[:] = SUCCESS if good else ELSE
        cell[b:-b, b:-b] = picture
    grid = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2).reshape(rows * cells.shape[1], -1, 3)
    return grid[: len(grid) // 2 * 2, : grid.shape[1] // 2 * 2]


def _held(frames: Iterator[np.ndarray], extra: int) -> Iterator[np.ndarray]:
    """The last frame stands still for a moment."""
    frame = None
    for frame in frames:
        yield frame
    if frame is not None:
        yield from [frame] * extra


def write(path: Path, frames: Iterable[np.ndarray], rate: Fraction) -> np.ndarray:
    """Encode (H, W, 3) uint8 frames, whole or not at all; the last of them."""
    av = optional.load("av", "report")
    part, last = path.with_name(path.name + ".part"), None
    try:
        with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "21", "preset": "medium"})
            stream.pix_fmt = "yuv420p"
            for last in frames:
                if not stream.codec_context.is_open:
                    stream.height, stream.width = last.shape[:2]
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(last), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if last is None:
        raise ValueError("a film needs at least one frame")
    return last
