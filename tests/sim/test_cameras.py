"""What simulated cameras measure, against geometry worked out by hand."""

import math

import pytest
import torch

pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from robolearn.pointcloud import CloudCfg
from robolearn.robots.franka import FRANKA
from robolearn.rotations import quat_apply
from sim.backends.mujoco import Mujoco, MujocoCfg
from sim.cameras import camera_cloud, optical_frame, optical_pose
from sim.scene import Box, CameraCfg, Decal, ObjectCfg, RobotCfg, SceneCfg

CPU = torch.device("cpu")
DOWN = CameraCfg((0.5, 0.1, 1.0), (0.5, 0.1, 0.0), fov_deg=40.0, width=64, height=48)
SLANTED = CameraCfg((1.2, -0.4, 0.9), (0.5, 0.1, 0.05), fov_deg=40.0, width=64, height=48)
HELD = CameraCfg((0.05, 0.0, 0.0), (0.05, 0.0, 1.0), fov_deg=60.0, width=64, height=48, link="robot/panda_hand")
BOX = ObjectCfg(Box((0.2, 0.1, 0.3)), fixed=True, pose=(0.5, 0.1, 0.15, 0.0, 0.0, 0.0, 1.0))
SCENE = SceneCfg(
    {"robot": RobotCfg(FRANKA, (-0.4, 0.2, 0.0, 0.0, 0.0, math.sin(0.3), math.cos(0.3)))},
    objects={"box": BOX}, cameras={"down": DOWN, "slanted": SLANTED, "held": HELD},
)  # fmt: skip


@pytest.fixture(scope="module")
def world():
    made = Mujoco(MujocoCfg(), SCENE, 1, CPU, 0)
    yield made
    made.close()


def test_depth_is_along_the_optical_axis(world):
    """From 1 m above: 0.7 m to the box' top over the whole of it, 1 m to the ground beside it."""
    depth = torch.from_numpy(world.depth("down", [0])[0])
    assert depth.shape == (48, 64) and depth[24, 32] == pytest.approx(0.7, abs=1e-3)
    corners = depth[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == pytest.approx([1.0] * 4, abs=1e-3)


def test_what_is_near_is_seen():
    """A camera in a hand looks at what it holds: 3 cm above a box."""
    near = CameraCfg((0.5, 0.1, 0.33), (0.5, 0.1, 0.0), width=16, height=16)
    world = Mujoco(MujocoCfg(), SceneCfg({}, objects={"box": BOX}, cameras={"near": near}), 1, CPU, 0)
    try:
        assert world.depth("near", [0])[0, 8, 8] == pytest.approx(0.03, abs=1e-4)
    finally:
        world.close()


def test_a_box_is_as_wide_in_the_cloud_as_it_is(world):
    cfg = CloudCfg(points=4000, low_m=(0.0, -0.5, 0.02), high_m=(1.0, 0.6, 1.0))
    for camera in ("down", "slanted"):
        points, found = camera_cloud(world, camera, cfg)
        assert found[0] > 50
        low, high = points[0].min(0).values, points[0].max(0).values
        pixel = 0.02  # a pixel's width at 1 m, and more where a face is slanted
        assert high[2] == pytest.approx(0.3, abs=2e-3)
        assert (low[:2] > torch.tensor([0.4, 0.05]) - 2e-3).all()
        assert (high[:2] < torch.tensor([0.6, 0.15]) + 2e-3).all()
        assert (high[:2] - low[:2] > torch.tensor([0.2, 0.1]) - 2 * pixel).all()


def test_the_ground_is_flat_in_the_cloud_of_any_camera(world):
    points, _ = camera_cloud(world, "slanted", CloudCfg(points=4000, low_m=(0.65, -9.0, -9.0)))
    assert points[0, :, 2].abs().max() < 2e-3  # the lines of its grid are half a millimetre high


def test_a_cloud_can_be_had_in_the_frame_of_the_robots_base(world):
    cfg = CloudCfg(points=3000)
    ours, theirs = camera_cloud(world, "slanted", cfg)[0], camera_cloud(world, "slanted", cfg, base="robot")[0]
    base = torch.tensor(SCENE.robots["robot"].pose)
    assert torch.allclose(quat_apply(base[3:].expand(3000, 4), theirs[0]) + base[:3], ours[0], atol=1e-4)


def test_a_camera_on_a_link_moves_with_it(world):
    before = optical_pose(world, "held")
    joints = world.joint_pos("robot").clone()
    joints[:, 0] += 0.5
    world.write_joints("robot", joints, torch.zeros_like(joints), torch.ones(1, dtype=torch.bool))
    after = optical_pose(world, "held")
    base = torch.tensor([-0.4, 0.2, 0.0])
    turn = torch.tensor([0.0, 0.0, math.sin(0.25), math.cos(0.25)])
    assert torch.allclose(after[0, :3], base + quat_apply(turn, before[0, :3] - base), atol=1e-5)
    points, found = camera_cloud(world, "held", CloudCfg(points=500, near_m=0.2))  # beyond the fingers
    assert found[0] > 100 and points[0, :, 2].min() > -0.01


def test_the_optical_frame_looks_at_the_target_with_its_y_down():
    pose = optical_frame(CameraCfg((1.0, 0.0, 1.0), (0.0, 0.0, 0.0)))
    axes = [quat_apply(pose[3:], v) for v in torch.eye(3)]
    half = math.sqrt(0.5)
    assert axes[2].tolist() == pytest.approx([-half, 0.0, -half], abs=1e-6)
    assert axes[0].tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)
    assert axes[1].tolist() == pytest.approx([half, 0.0, -half], abs=1e-6)


def test_intrinsics_put_the_target_in_the_middle_and_the_edge_at_half_the_angle():
    fx, fy, cx, cy = DOWN.intrinsics
    assert (cx, cy) == (31.5, 23.5) and fx == fy
    assert math.degrees(math.atan((cy + 0.5) / fy)) == pytest.approx(20.0)


def test_a_decal_is_drawn_as_it_is_read():
    """An L of black cells on the box' top, seen from above with the picture's up along the world's y."""
    cells = ((False, False, False, False), (False, True, False, False), (False, True, True, False), (False,) * 4)
    box = ObjectCfg(Box((0.4, 0.4, 0.1)), fixed=True, pose=(0.5, 0.1, 0.05, 0.0, 0.0, 0.0, 1.0),
                    decals=(Decal(cells, 0.08, (0.0, 0.0, 0.05, 0.0, 0.0, 0.0, 1.0)),))  # fmt: skip
    near = CameraCfg((0.5, 0.1, 0.9), (0.5, 0.1, 0.0), fov_deg=22.0, width=80, height=80)
    world = Mujoco(MujocoCfg(), SceneCfg({}, objects={"box": box}, cameras={"near": near}), 1, CPU, 0)
    try:
        picture = world.render("near", [0])[0].mean(-1)
    finally:
        world.close()
    # 0.8 m above the top the picture spans 0.311 m: a cell is 20.6 pixels.
    centres = [round(39.5 + (k - 1.5) * 20.6) for k in range(4)]
    seen = [[bool(picture[v, u] < 90) for u in centres] for v in centres]
    assert seen == [list(row) for row in cells]
