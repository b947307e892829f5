"""Limits of tool and posture, and the chase, on tensors and arrays."""

import math

import numpy as np
import pytest
import torch

from robolearn.limits import (
    JointLimits,
    TargetState,
    ToolLimits,
    between,
    box_room,
    brake_path,
    chase,
    follow_bounds,
    limit_target,
    speed_share,
    tool_speed,
)

ONE = JointLimits(*(torch.tensor([v], dtype=torch.float64) for v in (-3.0, 3.0, 2.0, 10.0, 5000.0)))
NUMPY = JointLimits(*(getattr(ONE, n).numpy() for n in ("lower", "upper", "velocity", "acceleration", "jerk")))


def test_arrays_and_tensors_give_the_same():
    rng = np.random.default_rng(0)
    position, velocity, acceleration = rng.normal(size=(3, 50, 1))
    target = position + 0.1 * rng.normal(size=(50, 1))
    target[3] = math.nan
    arrays = TargetState(position, velocity, acceleration)
    tensors = TargetState(*(torch.from_numpy(a) for a in (position, velocity, acceleration)))
    mine, clipped = limit_target(target, arrays, NUMPY, 0.01)
    theirs, also = limit_target(torch.from_numpy(target), tensors, ONE, 0.01)
    np.testing.assert_allclose(mine.position, theirs.position.numpy(), atol=1e-12)
    np.testing.assert_array_equal(clipped, also.numpy())
    shares = np.linspace(0, 1, 4)
    path = brake_path(tensors, ONE, 0.01, torch.from_numpy(shares))
    np.testing.assert_allclose(brake_path(arrays, NUMPY, 0.01, shares), path.numpy(), atol=1e-12)
    rate = np.zeros_like(position)
    np.testing.assert_allclose(chase(position, rate, arrays, NUMPY, 0.01), 0.0, atol=1e-12)


@pytest.mark.parametrize("dt", [0.001, 0.01])
@pytest.mark.parametrize("goal", [0.001, 0.05, 1.0])
def test_a_chase_arrives_without_overshoot_and_stays(dt, goal):
    state, positions = TargetState.at(np.zeros((1, 1))), []
    for _ in range(round(2.0 / dt)):
        velocity = chase(np.array([[goal]]), np.zeros((1, 1)), state, NUMPY, dt)
        state, _ = limit_target(state.position + velocity * dt, state, NUMPY, dt)
        positions.append(state.position[0, 0])
    assert max(positions) <= goal + 1e-4
    assert positions[-1] == pytest.approx(goal, abs=1e-6)
    assert np.ptp(positions[-20:]) < 1e-6


def test_a_chase_of_a_moving_target_does_not_lag():
    state, dt = TargetState.at(np.zeros((1, 1))), 0.001
    for k in range(1, 1001):
        velocity = chase(np.array([[0.5 * k * dt]]), np.array([[0.5]]), state, NUMPY, dt)
        state, _ = limit_target(state.position + velocity * dt, state, NUMPY, dt)
    assert state.position[0, 0] == pytest.approx(0.5, abs=1e-6)


def test_the_brake_path_ends_where_braking_ends():
    dt, state = 0.001, TargetState(np.zeros((1, 1)), np.full((1, 1), 1.0), np.zeros((1, 1)))
    path = brake_path(state, NUMPY, dt, np.linspace(0.0, 1.0, 5))[:, 0, 0]
    assert path[0] == 0.0 and (np.diff(path) > 0).all()
    # v^2 / 2a = 0.05 m, and 1 rad/s for the 4 ms that the jerk limit takes to turn the acceleration, and one period.
    assert path[-1] == pytest.approx(0.05 + 0.005, abs=1e-9)
    while state.velocity[0, 0] > 0.0:
        state, _ = limit_target(np.full((1, 1), math.nan), state, NUMPY, dt)
    assert 0.05 - 1e-9 <= state.position[0, 0] <= path[-1]


def test_tool_speed_by_hand():
    before, after = np.tile(np.eye(4), (2, 1, 1)), np.tile(np.eye(4), (2, 1, 1))
    after[0, :3, 3] = [0.003, 0.0, 0.004]
    c, s = math.cos(0.02), math.sin(0.02)
    after[1, :2, :2] = [[c, -s], [s, c]]
    speed, rotation = tool_speed(before, after, 0.01)
    np.testing.assert_allclose(speed, [0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(rotation, [0.0, 2.0], atol=1e-9)


def test_the_share_of_a_speed():
    braking, wanted = torch.tensor([0.2, 0.2, 0.2, 1.5]), torch.tensor([0.5, 1.8, 1.0, 2.0])
    assert speed_share(braking, wanted, 1.0).tolist() == pytest.approx([1.0, 0.5, 1.0, 0.0])
    mid = between(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0.25, 1.0]))
    assert mid.tolist() == [[0.25] * 3, [1.0] * 3]


def test_room_in_the_box_by_hand():
    box = ToolLimits(torch.tensor([0.0, -1.0, 0.1]), torch.tensor([1.0, 1.0, 0.5]), 1.0, 1.0)
    room = box_room(torch.tensor([[0.2, -1.5, 0.1]]), box)
    assert room[0].tolist() == pytest.approx([0.2, -0.5, 0.0, 0.8, 2.5, 0.4])


def test_the_target_stays_near_the_measured_position():
    last = TargetState.at(np.array([[0.0], [0.5], [-0.05]]))
    measured, error = np.zeros((3, 1)), np.array([0.1])
    low, high = follow_bounds(last, measured, error, NUMPY, 0.1)
    np.testing.assert_allclose(low[:, 0], [-1.0, -2.0, -0.5])
    np.testing.assert_allclose(high[:, 0], [1.0, -2.0, 1.5])  # from outside: back, at the velocity limit


@pytest.mark.filterwarnings("error")
def test_a_speed_that_braking_has_too_leaves_nothing_to_choose():
    assert speed_share(np.array([2.0]), np.array([2.0]), 1.0).tolist() == [0.0]
