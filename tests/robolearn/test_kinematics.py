"""Kinematics against MuJoCo, finite differences and hand arithmetic."""

import math

import mujoco
import numpy as np
import pytest
import torch

from robolearn import config
from robolearn.kinematics import Chain, damped_ik
from robolearn.paths import resolve
from robolearn.rotations import from_rotation_vector, pose_difference, quat_mul, quat_to_matrix
from robolearn.urdf import read_joints

config.discover(["robolearn.robots"])
FRANKA = config.entry("robot", "franka").value
INERTIA = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_joints(n, seed=0):
    low, high = torch.tensor(FRANKA.lower), torch.tensor(FRANKA.upper)
    return low + (high - low) * torch.rand(n, FRANKA.dof, generator=seeded(seed))


def double(chain):
    """The same chain in float64, for finite differences."""
    for name in ("_constants", "_tip"):
        setattr(chain, name, getattr(chain, name).double())
    return chain


def urdf(tmp_path, joints, links):
    text = "".join(f'<link name="{n}">{INERTIA}</link>' for n in links) + "".join(joints)
    path = tmp_path / "robot.urdf"
    path.write_text(f'<robot name="r">{text}</robot>')
    return path


def joint(name, kind, parent, child, xyz=(0, 0, 0), rpy=(0, 0, 0), axis=(1, 0, 0)):
    def words(values):
        return " ".join(str(float(v)) for v in values)

    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{words(xyz)}" rpy="{words(rpy)}"/><axis xyz="{words(axis)}"/>'
        f'<limit lower="-3" upper="3" effort="1" velocity="1"/></joint>'
    )


@pytest.fixture
def odd_arm(tmp_path):
    """Five joints of all kinds about random axes, fixed offsets in the middle and at the tip, and a
    branch."""
    numbers = torch.randn(8, 9, generator=seeded(42)).tolist()
    kinds = ["revolute", "prismatic", "fixed", "continuous", "prismatic", "revolute", "fixed"]
    links = [f"l{i}" for i in range(len(kinds) + 1)]
    joints = [
        joint(f"j{i}", kind, links[i], links[i + 1], n[:3], n[3:6], n[6:])
        for i, (kind, n) in enumerate(zip(kinds, numbers, strict=False))
    ]
    joints.append(joint("side", "revolute", "l1", "branch", (1, 0, 0)))
    return urdf(tmp_path, joints[::-1], [*links, "branch"])  # children before their parents


ODD = ("j5", "side", "j0", "j4", "j1", "j3")  # not the order of the file


def engine_poses(path, names, q, tip):
    """Poses (B, 7) and Jacobians (B, 6, J) of a link by MuJoCo, columns in the order of `names`."""
    spec = mujoco.MjSpec.from_string(path.read_text())
    model = spec.compile()
    data, poses, jacobians = mujoco.MjData(model), [], []
    columns = [model.joint(n).dofadr[0] for n in names]
    for row in q:
        for name, value in zip(names, row.tolist(), strict=True):
            data.qpos[model.joint(name).qposadr[0]] = value
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        body = model.body(tip).id
        mujoco.mj_jacBody(model, data, linear, angular, body)
        poses.append([*data.xpos[body], *data.xquat[body][[1, 2, 3, 0]]])
        jacobians.append(np.concatenate((linear, angular))[:, columns])
    return torch.tensor(np.array(poses)), torch.tensor(np.array(jacobians))


def test_odd_arm_is_where_mujoco_has_it(odd_arm):
    q = torch.rand(50, 6, generator=seeded(1), dtype=torch.float64) * 4 - 2
    # MuJoCo welds links behind fixed joints to their parents: l7 is drawn as a part of l6, so ask for l6.
    expected, jacobian = engine_poses(odd_arm, ODD, q, "l6")
    pose, ours = double(Chain(str(odd_arm), "l6", ODD)).pose_and_jacobian(q)
    assert pose_difference(pose, expected).abs().max() < 1e-6  # the constants were rounded to float32
    torch.testing.assert_close(ours, jacobian, atol=1e-6, rtol=0)
    side = ODD.index("side")
    assert not ours[:, :, side].any()


def test_pose_alone_is_pose_beside_the_jacobian(odd_arm):
    q = torch.rand(20, 6, generator=seeded(2)) * 4 - 2
    for tip in ("l7", "l6", "l4", "l1"):
        chain = Chain(str(odd_arm), tip, ODD)
        pose, _ = chain.pose_and_jacobian(q)
        assert pose_difference(chain.pose(q), pose).abs().max() < 5e-6


def test_a_fixed_tip_adds_its_offset(odd_arm):
    _, joints = read_joints(odd_arm)
    last = next(j for j in joints if j.name == "j6")
    q = torch.rand(20, 6, generator=seeded(3)) * 4 - 2
    before, after = Chain(str(odd_arm), "l6", ODD).pose(q), Chain(str(odd_arm), "l7", ODD).pose(q)
    offset = quat_to_matrix(before[:, 3:]) @ torch.tensor(last.xyz)
    torch.testing.assert_close(after[:, :3], before[:, :3] + offset, atol=5e-6, rtol=0)


@pytest.mark.parametrize("case", ["franka", "odd"])
def test_jacobian_is_the_derivative_of_the_pose(odd_arm, case):
    if case == "franka":
        chain, q = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names), random_joints(20).double()
    else:
        chain, q = Chain(str(odd_arm), "l7", ODD), torch.rand(20, 6, generator=seeded(4)).double() * 4 - 2
    chain, h = double(chain), 1e-6
    _, jacobian = chain.pose_and_jacobian(q)
    for j in range(q.shape[1]):
        step = h * torch.eye(q.shape[1], dtype=torch.float64)[j]
        numeric = pose_difference(chain.pose(q - step), chain.pose(q + step)) / (2 * h)
        # Constants are float32: rotations are orthonormal to 1e-7, no better.
        torch.testing.assert_close(jacobian[..., j], numeric, atol=1e-6, rtol=1e-6)


def test_franka_flange_by_hand():
    """Upright, elbow and wrist at zero: 0.333 + 0.316 + 0.384 up to the wrist, 0.088 out, 0.107 down to link
    8."""
    pose = Chain(FRANKA.urdf, "panda_link8", FRANKA.joint_names).pose(torch.zeros(1, 9))
    torch.testing.assert_close(pose[0, :3], torch.tensor([0.088, 0.0, 0.333 + 0.316 + 0.384 - 0.107]))
    flipped = torch.tensor([1.0, 0.0, 0.0, 0.0])  # the flange looks down
    torch.testing.assert_close((pose[0, 3:] * flipped).sum().abs(), torch.tensor(1.0))


def test_a_slide_by_hand(tmp_path):
    path = urdf(tmp_path, [joint("s", "prismatic", "a", "b", (1, 0, 0), (0, 0, math.pi / 2), (2, 0, 0))], ["a", "b"])
    pose, jacobian = Chain(str(path), "b", ("s",)).pose_and_jacobian(torch.tensor([[0.0], [0.5]]))
    # The joint's x is the base's y; its axis counts by direction, not by length.
    torch.testing.assert_close(pose[:, :3], torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]]))
    torch.testing.assert_close(jacobian[:, :, 0], torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]] * 2))


# --- inverse kinematics -------------------------------------------------------------------------------------


def test_damped_least_squares_by_hand():
    """One joint that moves the tip 2 m/rad along x: dq = 2 dx / (4 + damping^2)."""
    jacobian = torch.zeros(1, 6, 1)
    jacobian[0, 0, 0] = 2.0
    delta = torch.tensor([[1.0, 5.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(damped_ik(jacobian, delta, 1.0), torch.tensor([[0.4]]))
    torch.testing.assert_close(damped_ik(jacobian, delta, 1e-3), torch.tensor([[0.5]]))


def iterated_ik(spread, steps, limited):
    """Which of 500 poses, of random joint positions within `spread` of the default, come within 1 mm, 0.01
    rad."""
    chain = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.arm_joints)
    low, high = (torch.tensor(FRANKA.of(n, FRANKA.arm_joints)) for n in ("lower", "upper"))
    q = torch.tensor(FRANKA.of("default_joint_pos", FRANKA.arm_joints)).expand(500, -1)
    goal = chain.pose((q + 2 * spread * (torch.rand(500, 7, generator=seeded(7)) - 0.5)).clamp(low, high))
    for _ in range(steps):
        pose, jacobian = chain.pose_and_jacobian(q)
        q = q + damped_ik(jacobian, pose_difference(pose, goal), 0.05)
        q = q.clamp(low, high) if limited else q
    error = pose_difference(chain.pose(q), goal)
    return ((error[:, :3].norm(dim=1) < 1e-3) & (error[:, 3:].norm(dim=1) < 1e-2)).float().mean()


def test_damped_ik_reaches_random_poses_from_the_default_posture_in_ten_steps():
    assert iterated_ik(0.7, 10, limited=False) >= 0.99
    assert iterated_ik(0.3, 10, limited=True) >= 0.95


def test_joint_limits_stop_damped_ik_short_of_some_poses():
    """Clamped joints do not hand their share to the others: with wide goals some 12 % stay out of reach."""
    assert 0.8 < iterated_ik(0.7, 30, limited=True) < 0.95


def test_damping_keeps_the_step_bounded_at_a_singularity():
    stretched = torch.zeros(1, 7)
    _, jacobian = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.arm_joints).pose_and_jacobian(stretched)
    step = damped_ik(jacobian, torch.tensor([[0.0, 0.0, 0.1, 0.0, 0.0, 0.0]]), 0.05)
    assert step.abs().max() <= 0.1 / (2 * 0.05) + 1e-4  # s / (s^2 + d^2) is at most 1 / (2 d)


# --- bad input ----------------------------------------------------------------------------------------------


def test_an_unknown_tip_lists_the_links():
    with pytest.raises(ValueError, match=r"no link 'panda_hnd'; the robot has panda_link0, .*panda_hand"):
        Chain(FRANKA.urdf, "panda_hnd", FRANKA.joint_names)


def test_a_joint_on_the_way_that_the_robot_does_not_name():
    with pytest.raises(ValueError, match=r"joints \['panda_joint2'\] on the way to panda_link2"):
        Chain(FRANKA.urdf, "panda_link2", ("panda_joint1",))


def two_links(kind="fixed", **numbers):
    return f'<robot><link name="base"/><link name="arm"/>{joint("j", kind, "base", "arm", **numbers)}</robot>'


def three_links(*joints):
    return '<robot><link name="r"/><link name="a"/><link name="b"/>' + "".join(joints) + "</robot>"


X, Y = joint("x", "fixed", "a", "b"), joint("y", "fixed", "b", "a")
MALFORMED = {
    "not xml": ("<robot", "is not a URDF"),
    "empty": ("", "is not a URDF"),
    "two roots": (three_links(X), r"one root link, found \['r', 'a'\]"),
    "no links": ("<robot/>", r"one root link, found \[\]"),
    "no child": (two_links().replace('<child link="arm"/>', ""), "joint j lacks a parent or a child"),
    "words": (
        two_links().replace("0.0", "zero", 1),
        "joint j: origin xyz = 'zero 0.0 0.0' is not three numbers",
    ),
    "two numbers": (two_links(xyz=(1, 2)), "joint j: origin xyz = '1.0 2.0'"),
    "nan": (two_links(rpy=(0, math.nan, 0)), "joint j: origin rpy = '0.0 nan 0.0'"),
    "no axis": (two_links("revolute", axis=(0, 0, 0)), "joint j: its axis has no direction"),
    "loop": (three_links(X, Y), r"joints \['x', 'y'\] hang on no link"),
    "two parents": (three_links(X, joint("z", "fixed", "r", "b")), "link b has two parents: x, z"),
    "kind": (two_links("planar"), "joint j: type 'planar' is none of revolute, continuous, prismatic, fixed"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_urdfs_are_named(tmp_path, case):
    text, message = MALFORMED[case]
    path = tmp_path / "bad.urdf"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_joints(path)
    assert "bad.urdf" in str(caught.value)


def test_the_franka_reads_parents_first():
    root, joints = read_joints(resolve(FRANKA.urdf))
    known = {root}
    for j in joints:
        assert j.parent in known
        known.add(j.child)
    assert root == FRANKA.base_link


def test_a_turned_axis_turns_by_the_right_hand(tmp_path):
    path = urdf(tmp_path, [joint("j", "continuous", "a", "b", axis=(1, 2, -2))], ["a", "b"])
    pose = Chain(str(path), "b", ("j",)).pose(torch.tensor([[0.9]]))
    expected = from_rotation_vector(0.9 * torch.tensor([[1.0, 2.0, -2.0]]) / 3)
    torch.testing.assert_close(quat_mul(pose[:, 3:], -expected * torch.tensor([1.0, 1.0, 1.0, -1.0])).abs(),
                               torch.tensor([[0.0, 0.0, 0.0, 1.0]]), atol=1e-6, rtol=0)  # fmt: skip
