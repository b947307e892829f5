"""The parts of a period as the environment puts them together."""

import dataclasses

import pytest
import torch

from robolearn import config
from robolearn.env import Env
from robolearn.rotations import pose_difference
from sim.backends.mujoco import MujocoCfg
from sim.env import SimEnv
from sim.randomize import RandomizeCfg

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
B = 4


def make(task="franka_reach", num_envs=B, seed=0, **changes):
    steps = {"decimation": 8, "joint_step_rad": 0.04, "ee_step_m": 0.03, "ee_step_rad": 0.12}
    changes = {"randomize": RandomizeCfg()} | (steps if task == "franka_reach" else {}) | changes
    return SimEnv(config.entry("task", task).config(**changes), MujocoCfg(threads=1), num_envs, seed=seed)


def ones(env):
    return torch.ones(env.num_envs, env.action_spec.dim)


def test_it_fulfils_the_contract():
    env = make()
    assert isinstance(env, Env)
    assert env.step_dt == pytest.approx(8 / 240)
    assert env.max_episode_length == 90
    assert env.policy_spec().rate_hz == pytest.approx(30.0)
    assert env.policy_spec().robot == "franka"


def test_joint_deltas_move_the_set_points_and_then_the_joints():
    env = make()
    env.reset(seed=1)
    action = torch.zeros(B, 7)
    action[:, 2] = 0.5
    start = env.backend.joint_pos("robot")[:, 2].clone()
    for period in range(1, 31):
        *_, extras = env.step(action if period <= 10 else torch.zeros(B, 7))
        if period > 2 and period <= 10:  # the first periods accelerate
            torch.testing.assert_close(extras["applied_action"], action, atol=1e-4, rtol=0)
    moved = env._target[:, 2] - start
    assert 0.15 < moved[0] <= 0.2 + 1e-5  # ten times half of 0.04 rad, less what the first periods lacked
    torch.testing.assert_close(env.backend.joint_pos("robot")[:, 2] - start, moved, atol=3e-3, rtol=0)


def test_the_applied_action_is_what_the_limits_left():
    env = make(joint_step_rad=10.0)  # far beyond the joints' speed
    env.reset(seed=1)
    last = env._target[:, :7].clone()
    for _ in range(5):
        *_, extras = env.step(ones(env))
        torch.testing.assert_close(extras["applied_action"], (env._target[:, :7] - last) / 10.0, atol=1e-5, rtol=0)
        last = env._target[:, :7].clone()
    assert (extras["episode"]["clip_rate"] == 1.0).all()
    assert extras["applied_action"].max() < 0.01


def test_ee_deltas_move_the_end_effector_along_the_base_axes():
    env = make(action="ee_delta")
    env.reset(seed=1)
    before = env.chain.pose(env.backend.joint_pos("robot"))
    action = torch.zeros(B, 6)
    action[:, 1] = 0.4
    for _ in range(10):
        env.step(action)
    for _ in range(20):
        env.step(torch.zeros(B, 6))
    moved = pose_difference(before, env.chain.pose(env.backend.joint_pos("robot")))
    assert (moved[:, 1] > 0.08).all()  # at most ten times 0.4 of 3 cm
    assert (moved[:, 1] < 0.125).all()
    assert moved[:, [0, 2]].abs().max() < 0.015
    assert moved[:, 3:].norm(dim=1).max() < 0.06


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_actions_arrive_d_periods_late(delay):
    env = make("cartpole", randomize=RandomizeCfg(action_delay=(delay, delay)))
    env.reset(seed=1)
    seen = []
    for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        *_, extras = env.step(torch.full((B, 1), value))
        seen.append(extras["applied_action"][0, 0].item())
        assert env.backend.joint_effort("robot")[0, 0].item() == pytest.approx(20.0 * seen[-1], abs=1e-4)
    assert seen == pytest.approx([0.1] * delay + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6][: 6 - delay])


def test_observations_arrive_d_periods_late_but_not_what_the_controller_knows():
    env, late = (make(randomize=RandomizeCfg(observation_delay=(d, d))) for d in (0, 2))
    for e in (env, late):
        e.reset(seed=1)
    late.task.goal = env.task.goal  # its own came after the draw of the delays
    on_time, delayed = [], []
    for _ in range(6):
        on_time.append(env.step(ones(env))[0]["policy"].clone())
        delayed.append(late.step(ones(late))[0]["policy"].clone())
    own = slice(env.observation_spec.frame_dim("policy") - 7, None)  # the last action
    for period in range(2, 6):
        assert torch.equal(delayed[period][:, : own.start], on_time[period - 2][:, : own.start])
        assert torch.equal(delayed[period][:, own], on_time[period][:, own])


def test_trim_offsets_what_is_reached_from_what_is_commanded():
    env = make(randomize=RandomizeCfg(actuator_trim=0.02))
    env.reset(seed=1)
    for _ in range(60):
        env.step(torch.zeros(B, 7))
    off = env.backend.joint_pos("robot")[:, :7] - env._target[:, :7]
    torch.testing.assert_close(off, env._trim, atol=2e-3, rtol=0)
    assert env._trim.std() > 0.01


def test_pushes_move_the_arm():
    still, pushed = make(), make(randomize=RandomizeCfg(push_force_n=50.0, push_probability=1.0))
    for e in (still, pushed):
        e.reset(seed=1)
        for _ in range(10):
            e.step(torch.zeros(B, 7))
    away = (pushed.backend.joint_pos("robot") - still.backend.joint_pos("robot")).abs().amax(1)
    assert (away > 0.005).all()


def test_starts_spread_as_far_as_they_are_told_and_the_gripper_does_not():
    env = make(num_envs=400, randomize=RandomizeCfg(initial_joint_pos=0.1, initial_joint_vel=0.2))
    env.reset(seed=1)
    off = env.backend.joint_pos("robot") - torch.tensor(env.robot.default_joint_pos)
    assert 0.095 < off[:, :7].abs().max() <= 0.1 + 1e-6
    assert not off[:, 7:].any()
    assert 0.19 < env.backend.joint_vel("robot").abs().max() <= 0.2 + 1e-6


def test_parameters_are_drawn_anew_for_those_that_end_and_for_no_others():
    env = make("cartpole", randomize=RandomizeCfg(mass=(0.5, 2.0)))
    env.reset(seed=1)
    before = env.backend.params()["robot.mass"].clone()
    env.episode_length_buf[1] = env.max_episode_length - 1
    env.step(torch.zeros(B, 1))
    changed = env.backend.params()["robot.mass"] != before
    assert changed.tolist() == [False, True, False, False]


def test_history_is_filled_by_the_first_frame_and_then_slides(monkeypatch):
    task = config.entry("task", "cartpole").value
    plain = task.observation_spec
    monkeypatch.setattr(task, "observation_spec", lambda self: dataclasses.replace(plain(self), history={"policy": 3}))
    env = make("cartpole")
    obs, _ = env.reset(seed=1)
    frames = obs["policy"].unflatten(1, (3, -1))
    assert torch.equal(frames[:, 0], frames[:, 2])
    after = env.step(ones(env))[0]["policy"].unflatten(1, (3, -1))
    assert torch.equal(after[:, :2], frames[:, 1:])
    assert not torch.equal(after[:, 2], after[:, 1])


def test_return_and_log_are_sums_and_means_of_the_terms():
    env = make("cartpole")
    env.reset(seed=1)
    total = torch.zeros(B)
    for _ in range(3):
        _, reward, *_, extras = env.step(torch.zeros(B, 1))
        total += reward
        terms = sum(v for k, v in extras["log"].items() if k.startswith("reward/"))
        assert terms.item() * env.step_dt == pytest.approx(reward.mean().item(), rel=1e-5)
    torch.testing.assert_close(extras["episode"]["return"], total)
    assert extras["episode"]["length"].tolist() == [3.0] * B
    assert extras["log"]["diverged"].item() == 0.0


def test_reset_without_a_seed_goes_on_and_does_not_repeat():
    env = make("cartpole", randomize=RandomizeCfg(initial_joint_pos=0.1))
    first, second = env.reset(seed=1)[0]["policy"], env.reset()[0]["policy"]
    assert not torch.equal(first, second)
    again = env.reset(seed=1)[0]["policy"]
    assert torch.equal(first, again)
    assert torch.equal(second, env.reset()[0]["policy"])


def test_weights_are_configuration():
    alone = {"alive": 2.0, "tilt": 0.0, "off_centre": 0.0, "speed": 0.0}
    plain, doubled = make("cartpole"), make("cartpole", weights=alone)
    for env in (plain, doubled):
        env.reset(seed=1)
    _, reward, *_ = doubled.step(torch.zeros(B, 1))
    torch.testing.assert_close(reward, torch.full((B,), 2.0 * doubled.step_dt))
    torch.testing.assert_close(plain.step(torch.zeros(B, 1))[1], torch.full((B,), plain.step_dt))
    with pytest.raises(config.ConfigError, match="no reward term 'tillt'; did you mean tilt"):
        make("cartpole", weights={"tillt": 1.0})


def test_a_seeded_reset_determines_the_rollout_whatever_the_environment_was_built_with():
    first, second = make(seed=0), make(seed=1)
    for env in (first, second):
        env.reset(seed=5)
    assert torch.equal(first.task.goal, second.task.goal)
    for _ in range(3):
        ours, theirs = first.step(ones(first))[0], second.step(ones(second))[0]
        assert torch.equal(ours["policy"], theirs["policy"])


def test_a_diverged_episode_is_no_success():
    env = make("cartpole")
    env.reset(seed=1)
    state = env.backend.get_state()
    state[1, 2] = float("nan")
    env.backend.set_state(state)
    *_, terminated, _, extras = env.step(torch.zeros(B, 1))
    assert terminated.tolist() == [False, True, False, False]
    assert extras["episode"]["success"].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert extras["episode"]["diverged"].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_delay_is_not_taken_for_a_limit():
    """With a delay of one period and actions that the limits leave alone, nothing counts as beyond them."""
    env = make(randomize=RandomizeCfg(action_delay=(1, 1)))
    env.reset(seed=1)
    for period in range(20):
        *_, extras = env.step(0.05 * ones(env) * (-1) ** period)
        assert extras["log"]["reward/beyond_limits"].abs().item() < 1e-6
