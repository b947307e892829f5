"""Films of what twins did: their recorded states, drawn by the engine of the training, and a picture of all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from robolearn import optional
from robolearn.cli import _video, _world
from robolearn.rotations import quat_apply, quat_conjugate
from sim.cameras import optical_frame
from sim.scene import CameraCfg

FPS, WIDTH_PX, EPISODES = 15, 480, 5
WAY, FLOWN, KILLED = (235, 235, 235), (64, 156, 255), (255, 92, 80)
MOMENT = 0.45
"""Of a film, for the picture."""


def film_flight(path: Path, run: Path, measured: Path) -> None:
    """From the policy's start to the end of what was recorded, with the way that it should take and the one it took;
    the way is red, and the border grey, from the kill on."""
    found = json.loads(measured.read_text())
    times, poses = np.array(found["times_s"]), np.array(found["poses"])
    goals = np.array(found["goals"])
    dead = int(np.searchsorted(times, found["killed_s"]))
    with _Stage(run) as stage:
        way, flown = stage.seen(goals[:, 1:]), stage.seen(poses[:, :3])

        def frames() -> Iterator[np.ndarray]:
            for now in np.arange(times[0], times[-1], 1.0 / FPS):
                k = min(int(np.searchsorted(times, now)), len(times) - 1)
                g = min(int(np.searchsorted(goals[:, 0], now)), len(goals) - 1)
                picture = stage.draw_flight(poses[k], goals[g, 1:], k < dead)
                for line, colour, strength in (
                    (way, WAY, 0.35),
                    (flown[: min(k, dead) + 1], FLOWN, 0.9),
                    (flown[dead : k + 1], KILLED, 0.9),
                ):
                    draw_line(picture, line, colour, strength)
                yield picture

        _video.write(path, frames(), Fraction(FPS))


def film_arm(path: Path, run: Path, measured: Path) -> None:
    """The first episodes, one after the other; the border is green where an episode ended well."""
    found = json.loads(measured.read_text())
    with _Stage(run) as stage:

        def frames() -> Iterator[np.ndarray]:
            for episode in found["tracks"][:EPISODES]:
                track = np.array(episode["track"])
                for now in np.arange(track[0, 0], track[-1, 0], 1.0 / FPS):
                    row = track[min(int(np.searchsorted(track[:, 0], now)), len(track) - 1)]
                    yield stage.draw_arm(row[1:], episode["goals"], bool(episode["success"]))

        _video.write(path, frames(), Fraction(FPS))


class _Stage:
    """One environment of the task whose robot is put where it was."""

    def __init__(self, run: Path):
        _, cfg, _ = _world.load_run(str(run))
        self.env = _video.world(cfg, 1, seed=0)
        _video.require_cameras(self.env, cfg.backend.name)
        self.env.reset()
        self.asset, self.everyone = self.env.task.asset, torch.ones(1, dtype=torch.bool)

    def seen(self, points: np.ndarray) -> np.ndarray:
        return pixels_of(self.env.backend.scene.cameras[self.env.task.camera], points)

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *error: object) -> None:
        self.env.close()

    def draw_flight(self, pose: np.ndarray, goal: np.ndarray, good: bool) -> np.ndarray:
        backend = self.env.backend
        backend.write_pose(self.asset, torch.tensor(pose[None], dtype=torch.float32), torch.zeros(1, 6), self.everyone)
        backend.forward()
        level = torch.tensor([[*goal, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float32)
        backend.set_marker("goal", level)
        return _video.snapshot(self.env, torch.tensor([good]), WIDTH_PX)

    def draw_arm(self, arm: np.ndarray, goals: dict[str, list[float]], good: bool) -> np.ndarray:
        backend, robot = self.env.backend, self.env.robot
        joints = torch.tensor([robot.default_joint_pos])
        joints[:, list(robot.arm_ids)] = torch.tensor(arm[None], dtype=torch.float32)
        backend.write_joints(self.asset, joints, torch.zeros_like(joints), self.everyone)
        backend.forward()
        for name, pose in goals.items():
            if name in backend.scene.markers:
                backend.set_marker(name, torch.tensor([pose], dtype=torch.float32))
        return _video.snapshot(self.env, torch.tensor([good]), WIDTH_PX)


def pixels_of(camera: CameraCfg, points: np.ndarray) -> np.ndarray:
    """(n, 2) where points (n, 3), m, are in a film WIDTH_PX wide of one environment."""
    pose = optical_frame(camera).double()
    x, y, z = quat_apply(quat_conjugate(pose[None, 3:]), torch.from_numpy(points).double() - pose[:3]).numpy().T
    width = WIDTH_PX - 2 * _video.BORDER_PX
    height = width * camera.height // camera.width // 2 * 2
    focal = height / (2.0 * math.tan(math.radians(camera.fov_deg) / 2.0))
    return np.stack((x, y), axis=1) / z[:, None] * focal + np.array([width, height]) / 2.0 - 0.5 + _video.BORDER_PX


def draw_line(picture: np.ndarray, pixels: np.ndarray, colour: tuple[int, int, int], strength: float) -> None:
    """Along (n, 2) pixels, two wide, with soft edges, into (H, W, 3) uint8; what lies outside is left out."""
    if len(pixels) < 2:
        return
    steps = np.ceil(4.0 * abs(np.diff(pixels, axis=0)).max(axis=1)).astype(int) + 1
    pairs = zip(pixels[:-1], pixels[1:], steps, strict=True)
    dense = np.concatenate([a + (b - a) * np.linspace(0.0, 1.0, n, endpoint=False)[:, None] for a, b, n in pairs])
    height, width, _ = picture.shape
    cover = np.zeros((height, width))
    for corner in np.ndindex(3, 3):
        at = np.floor(dense).astype(int) + corner - 1
        near = np.clip(1.5 - np.linalg.norm(at - dense, axis=1), 0.0, 1.0)
        inside = (at >= 0).all(axis=1) & (at < (width, height)).all(axis=1)
        np.maximum.at(cover, (at[inside, 1], at[inside, 0]), near[inside])
    share = (strength * cover)[..., None]
    picture[:] = (picture * (1.0 - share) + share * np.array(colour)).round()


def picture(path: Path, films: Sequence[Path]) -> None:
    """A moment of each film, side by side."""
    av, images = optional.load("av", "report"), optional.load("matplotlib.image", "report")
    moments = []
    for film in films:
        with av.open(str(film)) as opened:
            frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
        moments.append(frames[int(MOMENT * len(frames))])
    images.imsave(path, np.hstack(moments))
