"""What every task must keep on every engine of the default run."""

import copy
import dataclasses

import pytest
import torch

from robolearn import config
from robolearn.config import ConfigError
from sim.env import SimEnv
from sim.randomize import RandomizeCfg

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
STEPPERS = {"mujoco": "threads", "pybullet": "workers"}
"""The setting that says how many steppers an engine has, if it has one."""
TASKS = [n for n in config.names("task") if config.entry("task", n).module.startswith("sim.tasks")]


def engines(task):
    entry = config.entry("task", task)
    return ["mujoco", "pybullet"] if entry.value(entry.config()).robot.quadrotor is None else ["quadrotor"]


EVERY = [pytest.param(t, e, id=f"{t}-{e}") for t in TASKS for e in engines(t)]
PARAMS = {"mass", "inertia", "friction", "kp", "kd", "effort_limit"}
B, PERIODS = 5, 12


def everything(task, engine):
    """All that can be randomised, at once."""
    noise = {t.field.name: 0.01 for t in task.observation_spec().terms("policy") if t.sensed}
    ranges = dict.fromkeys(PARAMS & config.entry("backend", engine).value.capabilities.randomized, (0.8, 1.25))
    return RandomizeCfg(
        **ranges, initial_joint_pos=0.1, initial_joint_vel=0.1, actuator_trim=0.01, action_delay=(0, 2),
        observation_delay=(0, 2), observation_dropout=0.2, observation_noise=noise, push_force_n=5.0,
        push_probability=0.3, push_periods=3,
    )  # fmt: skip


@pytest.fixture
def make(monkeypatch):
    """make(task, engine, ...) -> a SimEnv, wild: everything randomised and three frames of history."""
    opened = []

    def build(task, engine, num_envs=B, wild=True, seed=7, threads=1, **changes):
        entry = config.entry("task", task)
        cfg = entry.config(**changes)
        if wild:
            plain = entry.value.observation_spec
            cfg.randomize = everything(entry.value(cfg), engine)
            monkeypatch.setattr(
                entry.value, "observation_spec",
                lambda self: dataclasses.replace(plain(self), history={"policy": 3}),
            )  # fmt: skip
        setting = STEPPERS.get(engine)
        backend = config.entry("backend", engine).config(**({setting: threads} if setting else {}))
        env = SimEnv(cfg, backend, num_envs, seed=seed)
        monkeypatch.undo()
        opened.append(env)
        return env

    yield build
    for env in opened:
        env.close()


def actions(env, seed=1, periods=PERIODS):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(periods, env.num_envs, env.action_spec.dim, generator=generator) * 2 - 1


def start(env):
    """Reset, with episodes that end at different periods during the test."""
    obs, _ = env.reset(seed=11)
    env.episode_length_buf = env.max_episode_length - 2 - torch.arange(env.num_envs)
    return obs


def everything_out(outcome):
    obs, reward, terminated, truncated, extras = outcome
    tensors = {**obs, "reward": reward, "terminated": terminated, "truncated": truncated}
    tensors |= {f"final/{k}": v for k, v in extras["final_obs"].items()}
    tensors |= {f"episode/{k}": v for k, v in extras["episode"].items()}
    return {k: v.clone() for k, v in (tensors | {"applied": extras["applied_action"]}).items()}


def roll(env, acts):
    return [everything_out(env.step(a)) for a in acts]


def assert_same(first, second, rows=slice(None)):
    for period, (a, b) in enumerate(zip(first, second, strict=True)):
        for key in a:
            assert torch.equal(a[key][rows], b[key][rows]), f"{key} differs in period {period}"


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_shapes_types_and_finite(make, task, engine):
    env = make(task, engine)
    obs = start(env)
    assert {k: tuple(v.shape[1:]) for k, v in obs.items()} == env.observation_spec.shapes()
    for out in roll(env, actions(env)):
        for key, shape in env.observation_spec.shapes().items():
            assert out[key].shape == out[f"final/{key}"].shape == (B, *shape)
        assert out["applied"].shape == (B, env.action_spec.dim)
        assert out["reward"].shape == (B,)
        assert out["terminated"].dtype == out["truncated"].dtype == torch.bool
        floats = [v for v in out.values() if v.dtype != torch.bool]
        assert all(v.dtype == torch.float32 and v.isfinite().all() for v in floats)


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_same_seed_same_rollout_on_one_thread_and_on_two(make, task, engine):
    rollouts = []
    for threads in (1, 1, 2):
        env = make(task, engine, threads=threads)
        start(env)
        rollouts.append(roll(env, actions(env)))
    assert_same(rollouts[0], rollouts[1])
    assert_same(rollouts[0], rollouts[2])
    assert any(out["truncated"].any() for out in rollouts[0])


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_reset_with_a_seed_repeats_the_rollout(make, task, engine):
    env = make(task, engine)
    start(env)
    first = roll(env, actions(env))
    start(env)
    assert_same(first, roll(env, actions(env)))


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_another_seed_starts_elsewhere(make, task, engine):
    env = make(task, engine)
    first, _ = env.reset(seed=1)
    again, _ = env.reset(seed=2)
    assert not any(torch.equal(first[k], again[k]) for k in first)


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_an_end_leaves_every_other_environment_alone(make, task, engine):
    env, twin = make(task, engine), make(task, engine)
    for e in (env, twin):
        e.reset(seed=11)
    env.episode_length_buf[2] = env.max_episode_length - 4
    acts = actions(env)
    ours, theirs = roll(env, acts), roll(twin, acts)
    assert ours[3]["truncated"][2]
    assert not theirs[3]["truncated"][2]
    others = torch.tensor([0, 1, 3, 4])
    assert_same(ours, theirs, others)
    assert not torch.equal(ours[4]["policy"][2], theirs[4]["policy"][2])


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_loaded_state_continues_bit_by_bit(make, task, engine):
    env = make(task, engine)
    start(env)
    acts = actions(env, periods=3 * PERIODS)
    roll(env, acts[:5])
    saved = env.state_dict()
    before = copy.deepcopy(saved)
    onward = roll(env, acts[5:])
    assert str(saved) == str(before)
    env.load_state_dict(saved)
    assert_same(onward, roll(env, acts[5:]))
    fresh = make(task, engine, seed=99)
    fresh.load_state_dict(saved)  # a second time: stepping must not have changed what was saved
    if task == "franka_reach":
        fresh.task.goals = env.task.goals  # a table that is drawn once, from the seed that the run was made with
    assert_same(onward, roll(fresh, acts[5:]))


@pytest.mark.parametrize("wild", [True, False])
@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_final_observation_is_that_before_the_reset(make, task, engine, wild):
    env, endless = make(task, engine, wild=wild), make(task, engine, wild=wild)
    for e in (env, endless):
        e.reset(seed=11)
    env.episode_length_buf[1] = env.max_episode_length - 1
    act = actions(env)[0]
    obs, _, terminated, truncated, extras = env.step(act)
    as_if, *_ = endless.step(act)
    assert (terminated | truncated).tolist() == [False, True, False, False, False]
    for key, final in extras["final_obs"].items():
        assert torch.equal(final, as_if[key])
        assert torch.equal(obs[key][[0, 2, 3, 4]], final[[0, 2, 3, 4]])
        assert not torch.equal(obs[key][1], final[1])


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_the_clock_truncates_and_reports_the_episode(make, task, engine):
    env = make(task, engine, wild=False, num_envs=2, episode_length_s=0.17)
    env.reset(seed=1)
    total = torch.zeros(2)
    still = torch.zeros(2, env.action_spec.dim)
    for _ in range(env.max_episode_length):
        _, reward, terminated, truncated, extras = env.step(still)
        total = total + reward
    assert truncated.all()
    assert not terminated.any()
    episode = extras["episode"]
    torch.testing.assert_close(episode["return"], total)
    assert episode["length"].tolist() == [env.max_episode_length] * 2
    assert episode["success"].unique().tolist() in ([0.0], [1.0], [0.0, 1.0])
    assert env.episode_length_buf.tolist() == [0, 0]
    env.step(still)
    assert env.episode_length_buf.tolist() == [1, 1]


def test_an_end_that_happens_in_the_last_period_is_a_termination_not_a_truncation(make):
    env = make("cartpole", "mujoco", wild=False, num_envs=2)
    env.reset(seed=1)
    fallen = torch.tensor([[0.0, 0.0], [0.0, 1.5]])
    env.backend.write_joints("robot", fallen, torch.zeros(2, 2), torch.tensor([True, True]))
    env.episode_length_buf[:] = env.max_episode_length - 1
    _, _, terminated, truncated, _ = env.step(torch.zeros(2, 1))
    assert terminated.tolist() == [False, True]
    assert truncated.tolist() == [True, False]


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_nan_and_infinite_actions_count_as_zero_and_as_the_bounds(make, task, engine):
    env, twin = make(task, engine), make(task, engine)
    for e in (env, twin):
        start(e)
    bad, good = actions(env)[0], actions(env)[0]
    bad[0, 0], good[0, 0] = torch.nan, 0.0
    bad[1, -1], good[1, -1] = torch.inf, 1.0
    assert_same([everything_out(env.step(bad))], [everything_out(twin.step(good))])


@pytest.mark.parametrize(("task", "engine"), EVERY)
@pytest.mark.parametrize("shape", ["short", "wide", "flat"])
def test_actions_of_another_shape_are_refused(make, task, engine, shape):
    env = make(task, engine, wild=False)
    env.reset()
    n = env.action_spec.dim
    action = {"short": torch.zeros(B - 1, n), "wide": torch.zeros(B, n + 1), "flat": torch.zeros(B * n)}[shape]
    with pytest.raises(ValueError, match=rf"must be \({B}, {n}\)"):
        env.step(action)


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_one_environment_behaves_as_the_first_of_many(make, task, engine):
    """Physics does not depend on the batch: the same joints and the same actions give the same motion."""
    one, many = make(task, engine, num_envs=1, wild=False), make(task, engine, wild=False)
    acts = actions(many)
    one.reset(seed=1)
    many.reset(seed=1)
    one.backend.set_state(many.backend.get_state()[:1])
    one._target = many._target[:1].clone()
    one.commander.reset(torch.ones(1, dtype=torch.bool), one._target[:, one._driven])
    for act in acts[:5]:  # before any reset: draws depend on the batch
        one.step(act[:1])
        many.step(act)
        assert torch.equal(one.backend.joint_pos("robot")[0], many.backend.joint_pos("robot")[0])


@pytest.mark.parametrize(("task", "engine"), EVERY)
def test_diverged_physics_ends_only_its_own_environment(make, task, engine, monkeypatch):
    env, twin = make(task, engine), make(task, engine)
    for e in (env, twin):
        e.reset(seed=11)
    hit, rest, step = torch.arange(B) == 3, env._rest.expand(B, -1), env.backend.step

    def explode_once(n):
        step(n)
        if env.robot.quadrotor is None:
            env.backend.write_joints("robot", rest, torch.full_like(rest, torch.nan), hit)
        else:
            env.backend.write_pose("robot", env.backend.pose("robot"), torch.full((B, 6), torch.nan), hit)
        monkeypatch.undo()

    monkeypatch.setattr(env.backend, "step", explode_once)
    acts = actions(env)
    ours, theirs = roll(env, acts), roll(twin, acts)
    assert ours[0]["terminated"].tolist() == (theirs[0]["terminated"] | hit).tolist()
    assert ours[0]["reward"][3] == 0.0
    assert env.diverged_count == 1
    assert all(v.isfinite().all() for out in ours for v in out.values())
    assert_same(ours, theirs, ~hit)


def test_no_environment_is_refused():
    with pytest.raises(ConfigError, match="num_envs must be at least 1, got 0"):
        SimEnv(config.entry("task", "cartpole").config(), config.entry("backend", "mujoco").config(), 0)
