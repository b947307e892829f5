"""Depth images as clouds, against geometry worked out by hand."""

import math

import pytest
import torch

from robolearn.observation import ObservationTerms
from robolearn.pointcloud import CloudCfg, cloud, deproject, evenly, inside, measured, outliers, voxel_means
from robolearn.spec import Field, ObservationSpec, TermSpec
from robolearn.state import RobotState, SceneState

LENS = torch.tensor([100.0, 50.0, 1.0, 0.0])  # fx, fy, cx, cy
STILL = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])


def test_a_pixel_lies_on_its_ray_at_its_depth():
    depth = torch.tensor([[[2.0, 2.0, 2.0], [4.0, 4.0, 4.0]]])
    points = deproject(depth, LENS)[0]
    # (u - 1) / 100 * depth, v / 50 * depth, depth
    expected = [[-0.02, 0, 2], [0, 0, 2], [0.02, 0, 2], [-0.04, 0.08, 4], [0, 0.08, 4], [0.04, 0.08, 4]]
    assert points.tolist() == [pytest.approx(p) for p in expected]


def test_each_camera_has_its_own_intrinsics():
    depth = torch.ones(2, 1, 1)
    points = deproject(depth, torch.tensor([[1.0, 1.0, -3.0, 0.0], [1.0, 1.0, 5.0, 0.0]]))
    assert points[:, 0, 0].tolist() == [3.0, -5.0]


def test_what_drivers_say_where_they_see_nothing_is_no_depth():
    depth = torch.tensor([[[0.0, math.nan, math.inf, -1.0, 0.5, 3.5]]])
    assert measured(depth, 0.1, 3.0).flatten().tolist() == [False, False, False, False, True, False]


def test_a_plane_seen_by_a_camera_that_looks_down_lies_on_the_ground():
    """At (0.3, 0.2, 1), turned half around x: its z is down, its y is the world's -y."""
    camera = torch.tensor([[0.3, 0.2, 1.0, 1.0, 0.0, 0.0, 0.0]])
    points, found = cloud(torch.ones(1, 3, 3), torch.tensor([10.0, 10.0, 1.0, 1.0]), camera, CloudCfg(points=9))
    assert found.tolist() == [9]
    assert points[0, :, 2].abs().max() < 1e-6
    assert points[0, 0].tolist() == pytest.approx([0.2, 0.3, 0.0], abs=1e-6)  # first pixel: left, up
    assert points[0, 8].tolist() == pytest.approx([0.4, 0.1, 0.0], abs=1e-6)


def test_the_box_keeps_what_is_in_it_and_its_borders():
    points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.01], [math.nan, 0.5, 0.5]]])
    assert inside(points, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).tolist() == [[True, True, False, False]]


def test_the_points_of_a_cube_become_their_mean():
    points = torch.tensor([
        [[0.1, 0.1, 0.1], [0.3, 0.1, 0.1], [-0.1, 0.1, 0.1], [5.0, 5.0, 5.0]],
        [[0.9, 0.0, 0.0], [0.7, 0.0, 0.0], [0.2, 0.0, 0.0], [0.4, 0.0, 0.0]],
    ])  # fmt: skip
    kept = torch.tensor([[True, True, True, False], [True, True, True, True]])
    means, there = voxel_means(points, kept, 0.5)
    assert there.tolist() == [[True, True, False, False], [True, True, False, False]]
    assert means[0, :2].tolist() == [pytest.approx([-0.1, 0.1, 0.1]), pytest.approx([0.2, 0.1, 0.1])]
    assert means[1, :2, 0].tolist() == pytest.approx([0.3, 0.8])


def test_a_cloud_has_its_number_of_points_whatever_there_was():
    points = torch.arange(8.0)[None, :, None].expand(3, 8, 3)
    kept = torch.zeros(3, 8, dtype=torch.bool)
    kept[0], kept[1, 2], kept[1, 5] = True, True, True
    picked = evenly(points, kept, 4)[..., 0]
    assert picked.tolist() == [[1.0, 3.0, 5.0, 7.0], [2.0, 5.0, 2.0, 5.0], [0.0, 0.0, 0.0, 0.0]]


def test_an_environment_sees_what_it_sees_alone():
    torch.manual_seed(0)
    depth, cfg = torch.rand(3, 6, 8) + 0.2, CloudCfg(voxel_m=0.05, points=32, far_m=1.0)
    poses = STILL.repeat(3, 1)
    together, found = cloud(depth, LENS, poses, cfg)
    for k in range(3):
        alone, number = cloud(depth[k : k + 1], LENS, poses[k : k + 1], cfg)
        assert torch.equal(alone[0], together[k]) and number[0] == found[k]


def test_a_camera_that_sees_nothing_gives_zeros_and_says_so():
    points, found = cloud(torch.full((1, 4, 4), math.nan), LENS, STILL, CloudCfg(points=5, voxel_m=0.1))
    assert found.tolist() == [0] and not points.any()


def test_a_cloud_is_an_observation_of_its_own_key():
    """Beside the group's vector, shaped as the specification says."""
    still = CloudCfg(points=5)
    points, _ = cloud(torch.ones(2, 3, 4), LENS, STILL.repeat(2, 1), still)
    field = Field("cloud", (5, 3), "m", "base", kind="point_cloud")
    spec = ObservationSpec({"policy": (TermSpec(field, "point_cloud", {"sensor": "wrist"}),)})
    terms = ObservationTerms(spec, "cpu")
    robot = RobotState(*(torch.zeros(2, 1) for _ in range(7)), chain=None)
    frames = terms.frames(robot, SceneState(sensors={"wrist": points}), torch.zeros(2, 1))
    terms.check(frames)
    assert list(frames) == ["policy/cloud"] and torch.equal(frames["policy/cloud"], points)


def test_a_point_far_from_all_others_is_an_outlier():
    grid = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0), torch.zeros(1))
    lonely = torch.tensor([[30.0, 30.0, 30.0]])
    assert outliers(torch.cat((grid, lonely)), 4, 2.0).nonzero().flatten().tolist() == [25]


@pytest.mark.parametrize(
    "wrong", [{"near_m": 1.0, "far_m": 0.5}, {"points": 0}, {"voxel_m": math.nan}, {"low_m": (0.0, 0.0, 0.0),
                                                                                 "high_m": (1.0, 0.0, 1.0)}],
)  # fmt: skip
def test_a_cloud_that_can_hold_nothing_is_refused(wrong):
    with pytest.raises(ValueError):
        CloudCfg(**wrong)
