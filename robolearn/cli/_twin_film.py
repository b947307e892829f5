"""Films of what twins did: their recorded states, drawn by the engine of the training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from robolearn.cli import _video, _world

FPS, WIDTH_PX, EPISODES = 15, 480, 5


def film_flight(path: Path, run: Path, measured: Path) -> None:
    """From the take-off's end to the end of what was recorded; the border is red from the kill on."""
    found = json.loads(measured.read_text())
    times, poses = np.array(found["times_s"]), np.array(found["poses"])
    goals = np.array(found["goals"])
    with _Stage(run) as stage:

        def frames() -> Iterator[np.ndarray]:
            for now in np.arange(times[0], times[-1], 1.0 / FPS):
                k = min(int(np.searchsorted(times, now)), len(times) - 1)
                g = min(int(np.searchsorted(goals[:, 0], now)), len(goals) - 1)
                yield stage.draw_flight(poses[k], goals[g, 1:], now < found["killed_s"])

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
