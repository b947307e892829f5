"""Where a hand that looks down goes to pick an object up and to set it down: poses for the waypoints of experts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robolearn.rotations import from_rpy, pose_inverse, pose_mul, quat_apply
from robolearn.state import RobotState, SceneState
from sim.experts import Waypoint

PoseOf = Callable[[RobotState, SceneState], Tensor]
Held = Callable[[RobotState, SceneState], Tensor]
"""Whether the hand holds the object, (B,) bool."""


def yaw_of(pose: Tensor) -> Tensor:
    """About z, of the x axis of poses (B, 7); (B,) rad."""
    x = quat_apply(pose[:, 3:], torch.tensor([1.0, 0.0, 0.0], device=pose.device).expand(len(pose), 3))
    return torch.atan2(x[:, 1], x[:, 0])


def square(yaw: Tensor) -> Tensor:
    """The same for something that looks alike from four sides: in +-45 degrees."""
    quarter = math.pi / 2
    return torch.remainder(yaw + quarter / 2, quarter) - quarter / 2


def level(position: Tensor, yaw: Tensor) -> Tensor:
    """Poses (B, 7) that stand upright."""
    zero = torch.zeros_like(yaw)
    return torch.cat((position, from_rpy(torch.stack((zero, zero, yaw), dim=1))), dim=1)


def hand_down(position: Tensor, yaw: Tensor) -> Tensor:
    """Poses (B, 7) of a hand above its grasp point, its fingers on both sides of the y axis at yaw 0."""
    zero = torch.zeros_like(yaw)
    return torch.cat((position, from_rpy(torch.stack((zero + math.pi, zero, yaw), dim=1))), dim=1)


def over(name: str, up_m: float, turn_rad: float = 0.0) -> PoseOf:
    """The hand `up_m` over the centre of an object, its fingers along two of the sides."""

    def pose(robot: RobotState, scene: SceneState) -> Tensor:
        thing = scene.objects[name].pose
        place = thing[:, :3] + torch.tensor([0.0, 0.0, up_m], device=thing.device)
        return hand_down(place, square(yaw_of(thing)) + turn_rad)

    return pose


def lifted(name: str, to: float | str) -> PoseOf:
    """Straight up with the object, until its centre is at `to`, metres or the name of a commanded height."""

    def pose(robot: RobotState, scene: SceneState) -> Tensor:
        thing = scene.objects[name].pose
        height = scene.commands[to] if isinstance(to, str) else torch.full_like(thing[:, 2:3], to)
        return _holding(robot, thing, level(torch.cat((thing[:, :2], height), dim=1), yaw_of(thing)))

    return pose


def carried(name: str, onto: str, up_m: float) -> PoseOf:
    """The held object `up_m` over the centre of the object `onto`, sides along sides."""

    def pose(robot: RobotState, scene: SceneState) -> Tensor:
        thing, there = scene.objects[name].pose, scene.objects[onto].pose
        place = there[:, :3] + torch.tensor([0.0, 0.0, up_m], device=there.device)
        yaw = yaw_of(thing)
        return _holding(robot, thing, level(place, yaw + square(yaw_of(there) - yaw)))

    return pose


def _holding(robot: RobotState, thing: Tensor, goal: Tensor) -> Tensor:
    """The hand's pose that brings what it holds to `goal`."""
    return pose_mul(goal, pose_inverse(pose_mul(pose_inverse(robot.ee_pose), thing)))


def pick(name: str, turn_rad: float, lift: float | str, held: Held | None = None) -> list[Waypoint]:
    """From anywhere to holding the object at a height (see `lifted`)."""
    return [
        Waypoint(over(name, 0.1, turn_rad), open=True, within_m=0.02, within_rad=0.1, error_m=0.01, free=True),
        Waypoint(over(name, 0.0, turn_rad), open=True, within_m=0.005, within_rad=0.05, speed=0.6, error_m=0.003),
        Waypoint(over(name, 0.0, turn_rad), within_m=0.02, within_rad=0.3, stay_s=0.35, over=held),
        Waypoint(lifted(name, lift), within_m=0.03, within_rad=0.2),
    ]


def place(name: str, onto: str, turn_rad: float, gap_m: float, high_m: float) -> list[Waypoint]:
    """From holding the object to having let it go with its centre `gap_m` over that of `onto`."""
    return [
        Waypoint(carried(name, onto, high_m), within_m=0.02, within_rad=0.1, error_m=0.008, free=True),
        Waypoint(carried(name, onto, gap_m + 0.02), within_m=0.006, within_rad=0.05, speed=0.6, error_m=0.003),
        Waypoint(carried(name, onto, gap_m + 0.002), within_m=0.004, within_rad=0.05, speed=0.4, error_m=0.003,
                 give_up_s=1.0),
        Waypoint(over(name, 0.0, turn_rad), open=True, within_m=0.05, within_rad=0.5, stay_s=0.3),
    ]  # fmt: skip
