"""Limits as properties of long random target sequences."""

import math

import pytest
import torch

from robolearn import config
from robolearn.limits import JointLimits, TargetState, limit_target

config.discover(["robolearn.robots"])
FRANKA = config.entry("robot", "franka").value
LIMITS = JointLimits.of(FRANKA, FRANKA.joint_names)
RATES = [1 / 10, 1 / 30, 1 / 100, 1 / 240, 1 / 1000]
B, STEPS = 64, 400


def wild_targets(kind, generator, last):
    """Targets that try hard: far jumps, the limits' edges, small steps, and a few that are no numbers."""
    span = LIMITS.upper - LIMITS.lower
    noise = torch.rand(B, len(span), generator=generator)
    if kind == "far":
        return LIMITS.lower - span + 3.0 * span * noise
    if kind == "edge":
        return torch.where(noise < 0.5, LIMITS.lower, LIMITS.upper)
    if kind == "near":
        return last.position + 0.02 * (noise - 0.5)
    return torch.where(noise < 0.1, torch.full_like(noise, math.nan), last.position + (noise - 0.5))


def held(kind, dt, seed=0):
    """A long run: every state, one after the other; each target is held for a random while."""
    generator = torch.Generator().manual_seed(seed)
    span = LIMITS.upper - LIMITS.lower
    start = LIMITS.lower + span * torch.rand(B, len(span), generator=generator)
    states = [TargetState.at(start)]
    target = wild_targets(kind, generator, states[-1])
    for _ in range(STEPS):
        change = torch.rand(B, 1, generator=generator) < 0.1
        target = torch.where(change, wild_targets(kind, generator, states[-1]), target)
        states.append(limit_target(target, states[-1], LIMITS, dt)[0])
    return states


@pytest.mark.parametrize("dt", RATES)
@pytest.mark.parametrize("kind", ["far", "edge", "near", "nan"])
def test_no_limit_is_ever_exceeded(kind, dt):
    states = held(kind, dt)
    position = torch.stack([s.position for s in states]).double()
    velocity = position.diff(dim=0) / dt
    rounding = 4e-7 / dt  # of a float32 position of about three
    assert position.isfinite().all()
    assert (position <= LIMITS.upper + 1e-6).all()
    assert (position >= LIMITS.lower - 1e-6).all()
    assert (velocity.abs() <= LIMITS.velocity + rounding).all()
    told = torch.stack([s.velocity for s in states])
    assert (told.diff(dim=0).abs() / dt <= LIMITS.acceleration * (1 + 1e-3) + 1e-5 / dt).all()
    assert (velocity - told[1:]).abs().max() <= rounding  # what it says it does is what it does


def test_jerk_is_kept_where_neither_velocity_nor_position_forces_the_hand():
    dt, generator = 1 / 1000, torch.Generator().manual_seed(1)
    middle = ((LIMITS.lower + LIMITS.upper) / 2).expand(B, -1)
    state, accelerations = TargetState.at(middle), []
    for _ in range(60):  # 0.06 s at 10 rad/s2 are 0.6 rad/s: short of the arm's velocity limits
        goal = middle + torch.randn(middle.shape, generator=generator).sign()
        state, _ = limit_target(goal, state, LIMITS, dt)
        accelerations.append(state.acceleration)
    assert (state.velocity[:, :7].abs() < 0.7).all()
    arm = torch.stack(accelerations)[..., :7]
    jerk = arm.diff(dim=0).abs() / dt
    assert (jerk <= LIMITS.jerk[:7] * 1.01).all()
    assert (jerk > LIMITS.jerk[:7] * 0.9).any()


@pytest.mark.parametrize("dt", RATES)
def test_filtering_a_filtered_target_changes_nothing(dt):
    for before in held("far", dt, seed=2)[::7]:
        generator = torch.Generator().manual_seed(3)
        once, _ = limit_target(wild_targets("far", generator, before), before, LIMITS, dt)
        again, clipped = limit_target(once.position, before, LIMITS, dt)
        torch.testing.assert_close(again.position, once.position, atol=3e-7, rtol=0)
        assert not clipped.any()


def test_a_target_within_all_limits_passes_unchanged():
    state = TargetState.at(torch.tensor([FRANKA.default_joint_pos]))
    wanted = state.position + 0.5 * 0.9 * (1 / 30) ** 2 * LIMITS.acceleration
    after, clipped = limit_target(wanted, state, LIMITS, 1 / 30)
    torch.testing.assert_close(after.position, wanted)
    assert not clipped.any()


def test_one_step_by_hand():
    one = JointLimits(*(torch.tensor([v]) for v in (-1.0, 1.0, 2.0, 10.0, 50.0)))
    rest = TargetState.at(torch.zeros(1, 1))
    after, clipped = limit_target(torch.full((1, 1), 0.5), rest, one, 0.1)
    # From rest the acceleration may rise to 50 * 0.1 = 5, the velocity to 0.5, the position to 0.05.
    values = [after.acceleration.item(), after.velocity.item(), after.position.item()]
    assert values == pytest.approx([5.0, 0.5, 0.05], abs=1e-6)
    assert clipped.all()


def test_it_arrives_at_the_limit_and_stays():
    dt, state = 1 / 240, TargetState.at(torch.tensor([FRANKA.default_joint_pos]))
    for _ in range(2400):
        state, _ = limit_target(LIMITS.upper[None] + 1.0, state, LIMITS, dt)
    torch.testing.assert_close(state.position, LIMITS.upper[None], atol=1e-3, rtol=0)
    assert state.velocity.abs().max() < 0.02


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_targets_that_are_no_numbers_hold_the_last_one(value):
    state = TargetState.at(torch.tensor([FRANKA.default_joint_pos]))
    target = state.position.clone()
    target[0, 3] = value
    after, clipped = limit_target(target, state, LIMITS, 1 / 30)
    assert torch.equal(after.position, state.position)
    assert clipped[0].tolist() == [i == 3 for i in range(9)]


def test_a_moving_joint_brakes_when_its_target_is_no_number():
    state = TargetState.at(torch.tensor([FRANKA.default_joint_pos]))
    state.velocity[0, 0] = 2.0
    speeds = []
    for _ in range(12):
        state, _ = limit_target(torch.full((1, 9), math.nan), state, LIMITS, 1 / 30)
        speeds.append(state.velocity[0, 0].item())
    assert speeds[:3] == pytest.approx([2.0 - 10 / 30, 2.0 - 20 / 30, 1.0], abs=1e-5)
    assert speeds[-1] == 0.0


def test_from_outside_it_comes_back_at_the_limits_pace():
    outside = TargetState.at(LIMITS.upper[None] + 0.5)
    state, positions = outside, []
    for _ in range(800):
        state, _ = limit_target(LIMITS.upper[None] + 1.0, state, LIMITS, 1 / 240)
        positions.append(state.position)
    path = torch.stack(positions)
    assert ((path - LIMITS.upper).clamp_min(0.0).diff(dim=0) <= 1e-6).all()
    assert (path.diff(dim=0).abs() * 240 <= LIMITS.velocity + 1e-3).all()
    torch.testing.assert_close(path[-1][:, :7], LIMITS.upper[None, :7], atol=2e-3, rtol=0)


def test_limits_scale_down_only():
    slow = LIMITS.tightened(velocity=0.5, acceleration=0.25)
    torch.testing.assert_close(slow.velocity, LIMITS.velocity * 0.5)
    torch.testing.assert_close(slow.acceleration, LIMITS.acceleration * 0.25)
    assert torch.equal(slow.upper, LIMITS.upper)
    for factors in ({"velocity": 1.01}, {"acceleration": 2.0}, {"velocity": 0.0}, {"acceleration": -1.0},
                    {"velocity": math.nan}):  # fmt: skip
        with pytest.raises(ValueError, match="can only be tightened"):
            LIMITS.tightened(**factors)


def test_reset_rests_the_masked_ones_and_leaves_the_others():
    state = held("far", 1 / 30)[50]
    before = TargetState(state.position.clone(), state.velocity.clone(), state.acceleration.clone())
    mask = torch.arange(B) % 3 == 0
    place = torch.full((B, 9), 0.01)
    state.reset(mask, place)
    assert torch.equal(state.position[mask], place[mask])
    assert not state.velocity[mask].any()
    assert not state.acceleration[mask].any()
    for name in ("position", "velocity", "acceleration"):
        assert torch.equal(getattr(state, name)[~mask], getattr(before, name)[~mask])
