"""Where a scene's cameras look from, and what their depth is worth as a point cloud."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robolearn.pointcloud import CloudCfg, cloud
from robolearn.rotations import matrix_to_quat, quat_apply, quat_conjugate, quat_mul
from sim.backends.base import Backend
from sim.scene import CameraCfg


def optical_frame(cfg: CameraCfg) -> Tensor:
    """(7,) of the camera (x right, y down, z forward) in the world, or in the frame of its link."""
    eye, target = torch.tensor(cfg.eye_m).double(), torch.tensor(cfg.target_m).double()
    forward = (target - eye) / (target - eye).norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]).double())
    if right.norm() < 1e-6:  # straight up or down: the picture's right is then world x
        right = torch.tensor([1.0, 0.0, 0.0]).double()
    right = right / right.norm()
    turn = torch.stack((right, torch.linalg.cross(forward, right), forward), dim=1)
    return torch.cat((eye, matrix_to_quat(turn[None])[0])).float()


def optical_pose(backend: Backend, camera: str, base: str | None = None) -> Tensor:
    """(B, 7) of the camera in the frame of the asset `base`, or in the env-local world."""
    cfg = backend.scene.cameras[camera]
    pose = optical_frame(cfg).to(backend.device).expand(backend.num_envs, 7)
    if cfg.link is not None:
        asset, _, link = cfg.link.partition("/")
        pose = _composed(backend.body_pose(asset, [link])[:, 0] if link else backend.pose(asset), pose)
    return pose if base is None else _composed(_inverse(backend.pose(base)), pose)


def camera_cloud(backend: Backend, camera: str, cfg: CloudCfg, base: str | None = None,
                 env_ids: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Points (n, cfg.points, 3) in the frame of `base` (the robot's, as on hardware) or in the world, and how many
    different ones there were, by the function that a real depth camera's node calls."""
    ids = list(range(backend.num_envs) if env_ids is None else env_ids)
    depth = torch.from_numpy(backend.depth(camera, ids)).to(backend.device)
    intrinsics = torch.tensor(backend.scene.cameras[camera].intrinsics, device=backend.device)
    return cloud(depth, intrinsics, optical_pose(backend, camera, base)[ids], cfg)


def _composed(first: Tensor, second: Tensor) -> Tensor:
    at = first[:, :3] + quat_apply(first[:, 3:], second[:, :3])
    return torch.cat((at, quat_mul(first[:, 3:], second[:, 3:])), dim=1)


def _inverse(pose: Tensor) -> Tensor:
    back = quat_conjugate(pose[:, 3:])
    return torch.cat((-quat_apply(back, pose[:, :3]), back), dim=1)
