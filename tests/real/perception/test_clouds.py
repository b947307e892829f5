"""Open3D's cleaning and ours give the same."""

import math
from importlib.util import find_spec

import pytest
import torch

from real.perception.clouds import cleaned

WAYS = [
    False,
    pytest.param(True, marks=pytest.mark.skipif(find_spec("open3d") is None, reason="no Open3D (extra vision)")),
]


@pytest.fixture
def points():
    torch.manual_seed(0)
    table = torch.rand(1500, 3) * torch.tensor([0.4, 0.3, 0.004])
    strays = torch.tensor([[0.2, 0.1, 0.5], [0.9, 0.9, 0.2], [-0.613, -0.007, 0.1]])
    return torch.cat((table, strays))


@pytest.mark.parametrize("by_open3d", WAYS)
def test_a_cube_of_points_becomes_its_mean(by_open3d):
    cloud = torch.tensor([[0.01, 0.02, 0.03], [0.03, 0.04, 0.05], [0.26, 0.0, 0.0], [math.nan, 0.0, 0.0]])
    thin = cleaned(cloud, voxel_m=0.1, by_open3d=by_open3d)
    assert sorted(thin.tolist()) == [pytest.approx([0.02, 0.03, 0.04]), pytest.approx([0.26, 0.0, 0.0])]


@pytest.mark.parametrize("by_open3d", WAYS)
def test_strays_go_and_the_table_stays(points, by_open3d):
    left = cleaned(points, neighbours=8, deviations=3.0, by_open3d=by_open3d)
    assert left[:, 2].max() < 0.01 and left[:, 0].min() >= 0.0 and len(left) > 1450


@pytest.mark.parametrize("by_open3d", WAYS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_cloud_of_hardly_any_points_is_left_alone(by_open3d, count):
    cloud = torch.rand(count, 3)
    assert len(cleaned(cloud, voxel_m=1e-4, neighbours=8, by_open3d=by_open3d)) == count


@pytest.mark.skipif(find_spec("open3d") is None, reason="no Open3D (extra vision)")
def test_both_ways_leave_the_same_points(points):
    ours, theirs = (cleaned(points, 0.02, 8, 2.0, by_open3d=way) for way in (False, True))
    assert len(ours) == len(theirs)
    assert torch.allclose(*(torch.tensor(sorted(cloud.tolist())) for cloud in (ours, theirs)), atol=1e-5)


def test_too_many_points_for_our_own_way_are_refused():
    with pytest.raises(ValueError, match="thin them first"):
        cleaned(torch.rand(20_001, 3), neighbours=8, by_open3d=False)
