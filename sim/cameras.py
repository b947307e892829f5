"""Which cameras a task observes, where a scene's cameras look from, and what their depth is worth as a point cloud."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robolearn.errors import ConfigError, unknown
from robolearn.pointcloud import CloudCfg, cloud
from robolearn.rotations import matrix_to_quat, pose_inverse, pose_mul
from robolearn.spec import ObservationSpec
from sim.backends.base import Backend
from sim.scene import CameraCfg


def observed(spec: ObservationSpec, backend: Backend) -> tuple[str, ...]:
    """Cameras that the terms `image` read. ConfigError for one that the scene or the engine does not have, or whose
    pictures are of another size than the term's field."""
    terms = [t for group in spec.groups.values() for t in group if t.function == "image"]
    cameras = backend.scene.cameras
    for term in terms:
        name = term.params["camera"]
        if not backend.capabilities.cameras:
            engine = type(backend).__name__.lower()
            raise ConfigError(f"the task observes camera '{name}' and backend {engine} has none; use backend=mujoco "
                              "or backend=pybullet, or take it out of the task's cameras")  # fmt: skip
        if name not in cameras:
            raise ConfigError(unknown("camera in the scene", name, list(cameras)))
        shape = (cameras[name].height, cameras[name].width, 3)
        if term.field.kind != "image" or term.field.dtype != "uint8" or term.field.shape != shape:
            raise ConfigError(f"observation '{term.field.name}' of camera '{name}' must be an image of {shape} uint8, "
                              f"it is {term.field.kind} {term.field.shape} {term.field.dtype}")  # fmt: skip
    return tuple(dict.fromkeys(t.params["camera"] for t in terms))


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
        pose = pose_mul(backend.body_pose(asset, [link])[:, 0] if link else backend.pose(asset), pose)
    return pose if base is None else pose_mul(pose_inverse(backend.pose(base)), pose)


def camera_cloud(backend: Backend, camera: str, cfg: CloudCfg, base: str | None = None,
                 env_ids: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Points (n, cfg.points, 3) in the frame of `base` (the robot's, as on hardware) or in the world, and how many
    different ones there were, by the function that a real depth camera's node calls."""
    ids = list(range(backend.num_envs) if env_ids is None else env_ids)
    depth = torch.from_numpy(backend.depth(camera, ids)).to(backend.device)
    intrinsics = torch.tensor(backend.scene.cameras[camera].intrinsics, device=backend.device)
    return cloud(depth, intrinsics, optical_pose(backend, camera, base)[ids], cfg)
