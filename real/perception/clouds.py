"""Point clouds thinned and freed of outliers: by Open3D where it is installed, else by our own functions, which give
the same and take longer."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from robolearn.optional import lazy
from robolearn.pointcloud import outliers, voxel_means

open3d = lazy("open3d", extra="vision")

MOST_WITHOUT = 20_000
"""Points from which the distances of all to all do not fit into the memory."""


def cleaned(points: Tensor, voxel_m: float = 0.0, neighbours: int = 0, deviations: float = 2.0,
            by_open3d: bool | None = None) -> Tensor:  # fmt: skip
    """Of one cloud (N, 3): the mean of each occupied cube of `voxel_m` (0: all points), then without the points whose
    mean distance to their `neighbours` nearest (0: keep all) is more than so many standard deviations above the mean.
    `by_open3d`: None is where it is installed. The order of what is left is open."""
    if by_open3d is None:
        by_open3d = find_spec("open3d") is not None
    points = points[points.isfinite().all(1)]
    if by_open3d:
        return _by_open3d(points, voxel_m, neighbours, deviations)
    if voxel_m:
        means, there = voxel_means(points[None], torch.ones(1, len(points), dtype=torch.bool), voxel_m)
        points = means[0][there[0]]
    if not neighbours:
        return points
    if len(points) > MOST_WITHOUT:
        raise ValueError(f"{len(points)} points are too many without Open3D: thin them first, or install it "
                         "(pip install 'robolearn[vision]')")  # fmt: skip
    return points[~outliers(points, neighbours, deviations)]


def _by_open3d(points: Tensor, voxel_m: float, neighbours: int, deviations: float) -> Tensor:
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.double().numpy()))
    if voxel_m and len(points):
        # Its grid begins half a cube before the least point: with this one it is that through the origin, as ours.
        low = points.double().min(0).values.numpy()
        start = np.floor(low / voxel_m) * voxel_m
        high = points.double().max(0).values.numpy() + voxel_m
        cloud, _, _ = cloud.voxel_down_sample_and_trace(voxel_m, start, high)
    if neighbours and len(cloud.points) > neighbours:
        cloud, _ = cloud.remove_statistical_outlier(neighbours, deviations)
    return torch.from_numpy(np.asarray(cloud.points)).float()
