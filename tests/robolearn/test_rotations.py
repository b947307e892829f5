"""Rotations against cases worked out by hand, none of them symmetric."""

import math

import pytest
import torch

from robolearn import rotations as R

HALF = math.sqrt(0.5)
ABOUT_X = torch.tensor([HALF, 0.0, 0.0, HALF], dtype=torch.float64)  # a quarter turn
ABOUT_Y = torch.tensor([0.0, HALF, 0.0, HALF], dtype=torch.float64)
ABOUT_Z = torch.tensor([0.0, 0.0, HALF, HALF], dtype=torch.float64)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


V = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


def quats(n=500, seed=0):
    q = R.random_quat((n,), torch.Generator().manual_seed(seed), "cpu").double()
    return q / q.norm(dim=-1, keepdim=True)


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def same_rotation(a, b, atol=1e-12):
    close((a * b).sum(-1).abs(), torch.ones(a.shape[:-1], dtype=a.dtype), atol)


def test_quarter_turns_move_the_axes_as_a_right_hand_does():
    close(R.quat_apply(ABOUT_X, V), f64([1.0, -3.0, 2.0]))
    close(R.quat_apply(ABOUT_Y, V), f64([3.0, 2.0, -1.0]))
    close(R.quat_apply(ABOUT_Z, V), f64([-2.0, 1.0, 3.0]))


def test_product_turns_by_the_second_and_then_by_the_first():
    # z first: (1, 2, 3) -> (-2, 1, 3); then x: -> (-2, -3, 1)
    close(R.quat_apply(R.quat_mul(ABOUT_X, ABOUT_Z), V), f64([-2.0, -3.0, 1.0]))
    close(R.quat_mul(ABOUT_X, ABOUT_Z), f64([0.5, -0.5, 0.5, 0.5]))


def test_conjugate_undoes():
    q = quats()
    v = V.expand(len(q), 3)
    close(R.quat_apply(R.quat_conjugate(q), R.quat_apply(q, v)), v)
    identity = f64([0.0, 0.0, 0.0, 1.0]).expand_as(q)
    close(R.quat_mul(q, R.quat_conjugate(q)), identity)


def test_matrix_of_a_turn_about_an_oblique_axis():
    # A third of a turn about (1, 1, 1) takes x to y, y to z, z to x.
    q = torch.tensor([0.5, 0.5, 0.5, 0.5])
    assert R.quat_to_matrix(q).tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_matrix_does_what_the_quaternion_does():
    q = quats()
    v = torch.randn(len(q), 3, generator=torch.Generator().manual_seed(1)).double()
    close((R.quat_to_matrix(q) @ v[..., None]).squeeze(-1), R.quat_apply(q, v))


@pytest.mark.parametrize("angle", [0.0, 1e-5, 0.7, 1.6, 2.4, math.pi - 1e-5, math.pi])
def test_matrix_round_trip_at_every_angle(angle):
    axes = torch.randn(200, 3, generator=torch.Generator().manual_seed(2)).double()
    axes[:3] = torch.eye(3)
    axes = axes / axes.norm(dim=1, keepdim=True)
    q = R.from_rotation_vector(angle * axes)
    back = R.matrix_to_quat(R.quat_to_matrix(q))
    assert (back[:, 3] >= 0).all()
    close(back.norm(dim=1), torch.ones(200).double())
    close(R.quat_to_matrix(back), R.quat_to_matrix(q), 1e-9)


def test_matrix_to_quat_by_hand_and_in_more_dimensions():
    m = f64([[[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]])
    assert R.matrix_to_quat(m).shape == (1, 1, 4)
    close(R.matrix_to_quat(m)[0, 0], ABOUT_Z)


def test_rotation_vector_by_hand():
    close(R.rotation_vector(ABOUT_Y), f64([0.0, math.pi / 2, 0.0]))
    close(R.rotation_vector(-ABOUT_Y), f64([0.0, math.pi / 2, 0.0]))  # the same rotation
    third = 2 * math.pi / 3 / math.sqrt(3)
    close(R.rotation_vector(torch.full((4,), 0.5).double()), f64([third] * 3))


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-5, 0.3, 2.0, 3.1])
def test_rotation_vector_round_trip(size):
    axes = torch.randn(200, 3, generator=torch.Generator().manual_seed(3)).double()
    r = size * axes / axes.norm(dim=1, keepdim=True)
    close(R.rotation_vector(R.from_rotation_vector(r)), r, 1e-12)


def test_rotation_vector_has_a_finite_gradient_at_rest():
    r = torch.zeros(2, 3, requires_grad=True)
    R.from_rotation_vector(r)[:, :3].sum().backward()
    assert r.grad.tolist() == [[0.5] * 3] * 2


def test_roll_pitch_yaw_turns_about_fixed_x_then_y_then_z():
    rpy = f64([0.3, -0.8, 1.9])
    x, y, z = (torch.eye(3).double()[i] for i in range(3))
    turns = [R.from_rotation_vector(a * n) for a, n in zip(rpy, (x, y, z), strict=True)]
    same_rotation(R.from_rpy(rpy), R.quat_mul(turns[2], R.quat_mul(turns[1], turns[0])))
    # A quarter of roll then a quarter of yaw: y -> z stays; x -> y; z -> -y -> x.
    q = R.from_rpy(f64([math.pi / 2, 0.0, math.pi / 2]))
    close(R.quat_apply(q, V), f64([3.0, 1.0, 2.0]))


def test_difference_is_in_the_outer_frame():
    # From a quarter about z to "then a quarter about the outer x".
    close(R.rotation_difference(ABOUT_Z, R.quat_mul(ABOUT_X, ABOUT_Z)), R.rotation_vector(ABOUT_X))
    a, b = quats(seed=4), quats(seed=5)
    turn = R.from_rotation_vector(R.rotation_difference(a, b))
    same_rotation(R.quat_mul(turn, a), b)
    assert (R.rotation_difference(a, b).norm(dim=1) <= math.pi + 1e-9).all()


def test_pose_difference_is_metres_then_turn():
    start = torch.cat((f64([1.0, 2.0, 3.0]), ABOUT_Z))
    end = torch.cat((f64([1.5, 1.0, 3.25]), R.quat_mul(ABOUT_X, ABOUT_Z)))
    close(R.pose_difference(start, end), f64([0.5, -1.0, 0.25, math.pi / 2, 0.0, 0.0]))


def test_random_rotations_are_unit_seeded_and_uniform():
    q = quats(20_000)
    close(q.norm(dim=1), torch.ones(len(q)).double(), 1e-6)
    assert torch.equal(q[:10], quats(20_000)[:10])
    turned = R.quat_apply(q, V.expand(len(q), 3))
    assert turned.mean(0).abs().max() < 0.06  # four standard errors of a uniform direction of length sqrt(14)
    # The angle of a uniform rotation has density (1 - cos a) / pi: mean pi / 2 + 2 / pi.
    angle = R.rotation_vector(q).norm(dim=1)
    assert angle.mean().item() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
