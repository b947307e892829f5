"""The hand's frame and back: numbers by hand, and round trips with rotations that are symmetric to nothing."""

import math

import torch

from robolearn.actions import Commander
from robolearn.hil.frames import absolute_pose, adjoint, relative_pose, to_base, to_tool
from robolearn.kinematics import Chain
from robolearn.robots.franka import FRANKA
from robolearn.rotations import from_rpy, pose_inverse, pose_mul, random_quat
from robolearn.spec import ActionSpec

HALF = math.sqrt(0.5)
ABOUT_Z = torch.tensor([0.0, 0.0, HALF, HALF])  # a quarter turn: x becomes y, y becomes -x


def poses(n, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.cat((torch.randn(n, 3, generator=draw), random_quat((n,), draw, "cpu")), dim=-1)


def test_the_adjoint_of_a_shifted_quarter_turn_by_hand():
    """Along the frame's x at 1 m/s while turning about its y at 2 rad/s; the frame is at (0, 0, 3). Outside: along y at
    1, turning about -x at 2; its point at the outer origin is 3 below: v = (0, 1, 0) + p x w = (0, 1 - 6, 0)."""
    pose = torch.cat((torch.tensor([0.0, 0.0, 3.0]), ABOUT_Z))
    twist = torch.tensor([1.0, 0.0, 0.0, 0.0, 2.0, 0.0])
    torch.testing.assert_close(adjoint(pose) @ twist, torch.tensor([0.0, 1.0 - 6.0, 0.0, -2.0, 0.0, 0.0]))


def test_the_tools_own_twist_has_no_lever():
    twist = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    torch.testing.assert_close(to_base(twist, ABOUT_Z), torch.tensor([-2.0, 1.0, 3.0, -5.0, 4.0, 6.0]))
    torch.testing.assert_close(to_tool(twist, ABOUT_Z), torch.tensor([2.0, -1.0, 3.0, 5.0, -4.0, 6.0]))
    here = torch.cat((torch.zeros(3), ABOUT_Z))
    torch.testing.assert_close(adjoint(here) @ twist, to_base(twist, ABOUT_Z))


def test_there_and_back_again():
    pose, twist = poses(500), torch.randn(500, 6, generator=torch.Generator().manual_seed(1))
    back = (adjoint(pose_inverse(pose)) @ adjoint(pose) @ twist[..., None]).squeeze(-1)
    torch.testing.assert_close(back, twist, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(to_tool(to_base(twist, pose[:, 3:]), pose[:, 3:]), twist, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(absolute_pose(relative_pose(pose, poses(500, 2)), poses(500, 2))[:, :3], pose[:, :3],
                               atol=1e-5, rtol=1e-5)  # fmt: skip


def test_the_adjoint_of_a_product_is_the_product_of_the_adjoints():
    a, b = poses(200, 3), poses(200, 4)
    torch.testing.assert_close(adjoint(pose_mul(a, b)), adjoint(a) @ adjoint(b), atol=2e-5, rtol=1e-4)


def test_a_relative_pose_by_hand():
    """From (1, 2, 3), a quarter turn about z, to (1, 4, 3) unturned: two ahead along its own x, turned back."""
    reset = torch.cat((torch.tensor([1.0, 2.0, 3.0]), ABOUT_Z))
    pose = torch.tensor([1.0, 4.0, 3.0, 0.0, 0.0, 0.0, 1.0])
    expected = torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0, -HALF, HALF])
    torch.testing.assert_close(relative_pose(pose, reset), expected)


def test_a_relative_pose_does_not_know_where_the_robot_stands():
    reset, pose, elsewhere = poses(100, 5), poses(100, 6), poses(100, 7)
    moved = relative_pose(pose_mul(elsewhere, pose), pose_mul(elsewhere, reset))
    alike = (moved * relative_pose(pose, reset)).abs()[:, 3:]  # a quaternion's sign is free; positions are compared
    torch.testing.assert_close(moved[:, :3], relative_pose(pose, reset)[:, :3], atol=2e-5, rtol=1e-4)
    assert alike.sum(1).min() > 0.3


def commander(frame):
    spec = ActionSpec("ee_delta", ("x", "y", "z", "rx", "ry", "rz"), "m, rad", frame=frame,
                      scale=(0.004,) * 3 + (0.02,) * 3, params={"damping": 1e-3})  # fmt: skip
    made = Commander(spec, FRANKA, 1, 0.05, "cpu")
    q = torch.tensor([[0.3, -0.4, 0.2, -2.2, 0.5, 2.1, 0.9]])
    made.reset(torch.ones(1, dtype=torch.bool), q)
    return made, Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.arm_joints), q


def test_an_action_in_the_tools_frame_moves_the_tool_along_its_own_axes():
    made, chain, q = commander("tool")
    before = chain.pose(q)
    action = torch.tensor([[0.5, -0.25, 1.0, 0.0, 0.0, 0.0]])
    for _ in range(4):  # the first periods speed up
        start = chain.pose(made.last.position)
        command = made(action)
    moved = relative_pose(chain.pose(command.target), start)[0, :3]
    torch.testing.assert_close(moved, torch.tensor([0.002, -0.001, 0.004]), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(command.applied_action, action, atol=0.03, rtol=0.0)
    assert (before[0, 3:].abs() > 0.01).all()  # turned about no axis alone


def test_the_same_motion_given_in_either_frame_is_the_same_command():
    tool, chain, q = commander("tool")
    base, _, _ = commander("base")
    action = torch.tensor([[0.3, -0.5, 0.2, 0.4, -0.1, 0.6]])
    turned = to_base(action, chain.pose(q)[:, 3:])
    turned_scaled = to_base(action * tool.term.scale, chain.pose(q)[:, 3:]) / base.term.scale
    torch.testing.assert_close(turned, turned_scaled)  # the scales of the axes are alike
    a, b = tool(action), base(turned)
    torch.testing.assert_close(a.target, b.target)
    torch.testing.assert_close(to_base(a.applied_action, chain.pose(q)[:, 3:]), b.applied_action, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(a.applied_action, b.applied_action, atol=0.05)


def test_rotations_of_the_round_trip_are_not_symmetric():
    """Of what is tested above: roll, pitch and yaw all differ, so swapped axes or signs would show."""
    twist = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    turned = to_base(twist, from_rpy(torch.tensor([0.3, -0.7, 1.1])))
    cp, sp, cy, sy = math.cos(-0.7), math.sin(-0.7), math.cos(1.1), math.sin(1.1)
    torch.testing.assert_close(turned[:3], torch.tensor([cp * cy, cp * sy, -sp]))
