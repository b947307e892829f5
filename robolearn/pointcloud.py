"""Depth images as point clouds, batched, the same for a simulated and a real camera.

A depth image (B, H, W) holds metres along the optical axis (not along the ray). A camera's frame is the optical one: x
right, y down, z forward; the centre of the first pixel is (0, 0). Intrinsics are (fx, fy, cx, cy) in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robolearn.rotations import quat_apply


@dataclass(frozen=True)
class CloudCfg:
    """What is kept of a cloud. The box is in the frame that the points are given in."""

    near_m: float = 0.1
    far_m: float = 3.0
    """Along the optical axis: a depth outside is none."""
    low_m: tuple[float, float, float] = (-math.inf, -math.inf, -math.inf)
    high_m: tuple[float, float, float] = (math.inf, math.inf, math.inf)
    voxel_m: float = 0.0
    """Edge of the cubes whose points become one, their mean; 0 leaves all."""
    points: int = 1024
    """How many a cloud has: evenly picked of more, repeated if fewer; what looks for the largest sees no difference."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.near_m < self.far_m < math.inf:
            raise ValueError(f"near_m and far_m must be 0 <= near < far, got {self.near_m}, {self.far_m}")
        if any(not low < high for low, high in zip(self.low_m, self.high_m, strict=True)):
            raise ValueError(f"a cloud's box is empty: {self.low_m} to {self.high_m}")
        if not 0.0 <= self.voxel_m < math.inf or self.points < 1:
            raise ValueError(f"voxel_m must be at least 0 and points at least 1, got {self.voxel_m}, {self.points}")


def cloud(depth_m: Tensor, intrinsics: Tensor, camera: Tensor, cfg: CloudCfg) -> tuple[Tensor, Tensor]:
    """Points (B, cfg.points, 3) in the frame in which the camera's poses (B, 7) are given, and (B,) how many different
    ones there were: zero is a cloud of zeros, of which nothing follows."""
    points = transformed(deproject(depth_m, intrinsics), camera)
    kept = measured(depth_m, cfg.near_m, cfg.far_m).flatten(1) & inside(points, cfg.low_m, cfg.high_m)
    if cfg.voxel_m:
        points, kept = voxel_means(points, kept, cfg.voxel_m)
    return evenly(points, kept, cfg.points), kept.sum(1)


def deproject(depth_m: Tensor, intrinsics: Tensor) -> Tensor:
    """(B, H * W, 3) in the camera's frame, row by row; intrinsics (4,) or (B, 4). Of a pixel without a depth the point
    is as senseless as its depth."""
    height, width = depth_m.shape[1:]
    fx, fy, cx, cy = intrinsics.expand(len(depth_m), 4)[:, :, None, None].unbind(1)
    x = (torch.arange(width, device=depth_m.device) - cx) / fx
    y = (torch.arange(height, device=depth_m.device)[:, None] - cy) / fy
    return torch.stack((depth_m * x, depth_m * y, depth_m), dim=-1).flatten(1, 2)


def measured(depth_m: Tensor, near_m: float, far_m: float) -> Tensor:
    """Where a depth is a number within these, as drivers say 0, NaN or infinity where they see nothing."""
    return (depth_m >= near_m) & (depth_m <= far_m)


def transformed(points: Tensor, pose: Tensor) -> Tensor:
    """Points (B, N, 3) of frames whose poses are (B, 7), in the outer frame."""
    return pose[:, None, :3] + quat_apply(pose[:, None, 3:].expand(-1, points.shape[1], 4), points)


def inside(points: Tensor, low_m: tuple[float, ...], high_m: tuple[float, ...]) -> Tensor:
    """(B, N) bool: within the box, borders included; NaN is outside."""
    low, high = (torch.tensor(bound, dtype=points.dtype, device=points.device) for bound in (low_m, high_m))
    return ((points >= low) & (points <= high)).all(-1)


def voxel_means(points: Tensor, kept: Tensor, edge_m: float) -> tuple[Tensor, Tensor]:
    """The mean of the kept points of each occupied cube of a grid through the origin: points (B, N, 3) and kept (B, N)
    of the same shape, cubes in the grid's order (x first), the occupied ones in front."""
    batch = torch.arange(len(points), device=points.device)[:, None].expand_as(kept)[kept]
    chosen = points[kept]
    cells = torch.cat((batch[:, None], torch.floor(chosen / edge_m).long()), dim=1)
    occupied, cell = torch.unique(cells, dim=0, return_inverse=True)
    sums = chosen.new_zeros(len(occupied), 3).index_add_(0, cell, chosen)
    counts = chosen.new_zeros(len(occupied)).index_add_(0, cell, torch.ones_like(chosen[:, 0]))
    row = occupied[:, 0]
    place = torch.arange(len(row), device=row.device) - torch.searchsorted(row.contiguous(), row.contiguous())
    out, there = torch.zeros_like(points), torch.zeros_like(kept)
    out[row, place], there[row, place] = sums / counts[:, None], True
    return out, there


def evenly(points: Tensor, kept: Tensor, count: int) -> Tensor:
    """(B, count, 3): of the kept points every n-th, or each several times; zeros where none is kept."""
    total = kept.sum(1, keepdim=True)
    order = torch.argsort(~kept, dim=1, stable=True)  # the kept ones first, in their order
    step = torch.arange(count, device=points.device)
    pick = torch.where(total >= count, (2 * step + 1) * total // (2 * count), step % total.clamp_min(1))
    chosen = points.gather(1, order.gather(1, pick)[..., None].expand(-1, -1, 3))
    return torch.where((total > 0)[..., None], chosen, 0.0)


def outliers(points: Tensor, neighbours: int, deviations: float) -> Tensor:
    """(N,) bool of one cloud (N, 3): points whose mean distance to their nearest neighbours is more than so many
    standard deviations above the mean of all (Rusu et al. 2008). Takes time and memory as N^2: for a few thousands."""
    if len(points) <= neighbours:
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distance.topk(neighbours, dim=1, largest=False).values.mean(1)  # itself among them, as Open3D counts
    return mean > mean.mean() + deviations * mean.std()
