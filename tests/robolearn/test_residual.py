"""Corrections of a base policy: at the start there are none, every environment has its own queue, and units agree."""

import copy
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from chunk_samples import Constant, chunk_spec, diffusion, gaussian, step_spec
from torch import Tensor

from robolearn import bundle, config
from robolearn.algos.ppo import PPO, PPOCfg
from robolearn.algos.sac import SAC, SACCfg
from robolearn.algos.td3 import TD3, TD3Cfg
from robolearn.bundle import Bundle
from robolearn.cli import _world
from robolearn.cli._loops.online import load_base
from robolearn.errors import ConfigError
from robolearn.loops import checkpoint
from robolearn.loops.guided import GuidedEnv
from robolearn.loops.threads import one_thread
from robolearn.policies.base import Policy, build
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.residual import ResidualPolicy, correction_spec
from robolearn.robots.franka import FRANKA
from robolearn.spec import PolicySpec, to_dict

_world.discover()
TASK = config.entry("task", "cartpole").config
CPU = torch.device("cpu")


@pytest.fixture
def world():
    """Makes cartpoles; episodes of 40 periods, unless the pole falls before."""
    made = []

    def make(num_envs: int, seed: int = 0):
        backend = config.entry("backend", "mujoco").config(threads=1)
        made.append(_world.make_env(TASK(episode_length_s=4 / 3), backend, num_envs, "cpu", seed))
        return made[-1]

    with one_thread():
        yield make
    for env in made:
        env.close()


def cartpole_spec(**action) -> PolicySpec:
    spec = _world.spec_of(TASK())
    return replace(spec, action=replace(spec.action, horizon=8, execute=4, **action))


def lively(policy: ChunkedPolicy, seed: int = 0) -> ChunkedPolicy:
    """Random weights, large enough that its actions differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (policy.mean if hasattr(policy, "mean") else policy.network).parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return policy.eval()


def base_of(kind: str = "gaussian") -> ChunkedPolicy:
    torch.manual_seed(0)
    spec = cartpole_spec()
    return lively(gaussian(spec) if kind == "gaussian" else diffusion(spec, {"name": "streaming", "steps": 4}))


def head_of(base: ChunkedPolicy, scale: float, corrects: bool = False) -> Policy:
    about = {"hidden": [8], "activation": "relu", "normalizer": "running", "stochastic": False}
    head = build("squashed", correction_spec(base.spec, scale), about)
    if corrects:
        torch.nn.init.normal_(head.net[-1].weight, generator=torch.Generator().manual_seed(1))
    return head


def seeded(policy: Policy, num_envs: int) -> Policy:
    policy.generator = torch.Generator().manual_seed(3)
    policy.reset(torch.ones(num_envs, dtype=torch.bool))
    return policy


class Feedback(Constant):
    """Pushes by the oldest and newest observation, less and less along a chunk; the same in any batch, to the bit."""

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        push = 0.5 * obs["policy"][:, 0, 1] + 0.4 * obs["policy"][:, -1, 3]
        return push[:, None, None] * (1.0 - torch.arange(self.horizon)[:, None] / 16)


class Still:
    """A world where the robot does the part `obeys` of what it is told, and `over` says whose episodes end."""

    device, common_step_counter = CPU, 0

    def __init__(self, num_envs: int):
        self.num_envs, self.action_spec = num_envs, step_spec().action
        self.over, self.sent, self.obeys = torch.zeros(num_envs, dtype=torch.bool), torch.zeros(0), 1.0

    def reset(self, seed=None, options=None):
        return {"policy": torch.zeros(self.num_envs, 3)}, {}

    def step(self, action: Tensor):
        self.sent, obs = action, {"policy": torch.zeros(self.num_envs, 3)}
        no = torch.zeros(self.num_envs, dtype=torch.bool)
        return obs, no.float(), self.over, no, {"final_obs": obs, "applied_action": self.obeys * action}

    def state_dict(self):
        return {"nothing": 0}

    def load_state_dict(self, state) -> None: ...


def guided(says: float, scale: float, num_envs: int = 4, **given) -> GuidedEnv:
    base = Constant(chunk_spec(8, 4), {"observation_steps": 1, "says": says})
    return GuidedEnv(Still(num_envs), step_spec(), base, scale, 0, **given)


# --- at the start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gaussian", "diffusion"])
def test_an_untrained_correction_changes_no_action_of_an_episode(world, kind):
    env, base = world(3), base_of(kind)
    policy = seeded(ResidualPolicy.of(base, head_of(base, 0.3), 0.3).eval(), 3)
    seeded(base, 3)
    said, (obs, _) = [], env.reset()
    for _ in range(40):
        said.append(base.act(obs))
        assert torch.equal(policy.act(obs), said[-1])
        obs, _, terminated, truncated, _ = env.step(said[-1])
        for one in (base, policy):
            one.reset(terminated | truncated)
    assert len(torch.stack(said).unique()) > 30


def test_a_guided_world_without_corrections_is_the_bases_own(world):
    """Over several episodes that end at different times."""
    own, other = world(6), world(6)
    base, same = (Feedback(cartpole_spec(), {"observation_steps": 3}) for _ in range(2))
    env = GuidedEnv(other, other.policy_spec(), same, 0.3, 0)
    (obs, _), (seen, _) = own.reset(), env.reset()
    ends = torch.zeros(6)
    for _ in range(90):
        action = base.act(obs)
        assert torch.equal(seen["policy"], torch.cat((obs["policy"], action), dim=1))
        obs, *rest, extras = own.step(action)
        seen, *found, about = env.step(torch.zeros(6, 1))
        assert all(torch.equal(a, b) for a, b in zip(rest, found, strict=True))
        final = extras["final_obs"]["policy"]  # at an episode's end, too, what the base would have done next
        ahead = copy.deepcopy(base).act({"policy": final})
        assert torch.equal(about["final_obs"]["policy"], torch.cat((final, ahead), dim=1))
        done = rest[1] | rest[2]
        ends += done
        base.reset(done)
    assert int(ends.min()) >= 2 and len(ends.unique()) > 1


@pytest.mark.parametrize("make", [lambda s: PPO(PPOCfg(hidden=(8,)), s, 5, CPU, torch.Generator()),
                                  lambda s: TD3(TD3Cfg(hidden=(8,), capacity=100), s, 5, CPU, torch.Generator())],
                         ids=["ppo", "td3"])  # fmt: skip
def test_a_learner_starts_exactly_at_the_base(world, make):
    env, base = world(5), base_of()
    there = GuidedEnv(env, env.policy_spec(), base, 0.3, 0)
    head, (seen, _) = make(there.policy_spec()).policy.eval(), there.reset()
    for _ in range(10):
        correction = head.act(seen)
        assert torch.equal(correction, torch.zeros(5, 1))
        seen = there.step(correction)[0]
    composed = seeded(ResidualPolicy.of(base, head, 0.3), 5)
    obs = {"policy": torch.randn(5, seen["policy"].shape[1] - 1)}
    assert torch.equal(composed.act(obs), seeded(base, 5).act(obs))


# --- queues --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_every_environment_is_guided_as_if_it_were_alone(world, seed):
    """Random corrections and random lengths of episodes; the base of each sees what happens to that one only."""
    env, chance = world(5, seed), random.Random(seed)
    there = GuidedEnv(env, env.policy_spec(), base_of(), 0.3, 0)
    alone = [seeded(base_of(), 1) for _ in range(5)]
    generator, (seen, _) = torch.Generator().manual_seed(seed), there.reset()
    for _ in range(60):
        env.episode_limit_buf.copy_(torch.tensor([chance.randint(1, 30) for _ in range(5)]))
        expected = torch.cat([one.act({"policy": seen["policy"][i : i + 1, :-1]}) for i, one in enumerate(alone)])
        torch.testing.assert_close(seen["policy"][:, -1:], expected, rtol=0, atol=1e-5)
        seen, _, terminated, truncated, extras = there.step(2 * torch.rand(5, 1, generator=generator) - 1)
        on = ~(terminated | truncated)
        assert torch.equal(seen["policy"][on], extras["final_obs"]["policy"][on])
        for one, over in zip(alone, terminated | truncated, strict=True):
            one.reset(over[None])


@pytest.mark.parametrize("kind", ["gaussian", "diffusion"])
def test_those_outside_the_mask_neither_look_nor_move_on(kind):
    policy, n = seeded(base_of(kind), 5), base_of(kind).spec.observation.dim("policy")
    policy.act({"policy": torch.randn(5, n)})
    mask = torch.tensor([True, False, True, False, False])
    policy.reset(torch.tensor([True, False, False, True, False]))
    before = {k: {"": v} if isinstance(v, Tensor) else dict(v) for k, v in policy.memory().items()}
    action = policy.act({"policy": torch.randn(5, n)}, mask)
    after = {k: {"": v} if isinstance(v, Tensor) else dict(v) for k, v in policy.memory().items()}
    for name, parts in before.items():
        assert all(torch.equal(old[~mask], after[name][key][~mask]) for key, old in parts.items()), name
    assert policy._left.tolist() == [3, 3, 2, 0, 3] and policy._fresh.tolist() == [False, False, False, True, False]
    torch.testing.assert_close(action[0], policy._queue[0, 0])
    torch.testing.assert_close(action[2], before["queue"][""][2, 1])


# --- units ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TD3, SAC])
def test_critics_see_what_reaches_the_robot(kind):
    """base + scale * correction, cut to the bounds: 0.5 + 0.2 * 1, 0.9 + 0.2 * 1, -0.3 + 0.2 * 0.5 and 0 - 0.2."""
    cfg = (TD3Cfg if kind is TD3 else SACCfg)(hidden=(8,), capacity=100)
    algo = kind(cfg, correction_spec(step_spec(), 0.2), 2, CPU, torch.Generator())
    obs = {"policy": torch.tensor([[7.0, 7.0, 7.0, 0.5, 0.9], [7.0, 7.0, 7.0, -0.3, 0.0]])}
    correction = torch.tensor([[1.0, 1.0], [0.5, -1.0]])
    sent = torch.tensor([[0.7, 1.0], [-0.2, -0.2]])
    torch.testing.assert_close(algo.sent(obs, correction), sent)
    algo.action_mean, algo.action_std = torch.tensor([0.1, 0.2]), torch.tensor([0.5, 2.0])
    read = algo.values(lambda x, picked: x, torch.zeros(2, 3), obs, correction)
    torch.testing.assert_close(read[:, 3:], (sent - algo.action_mean) / algo.action_std)
    plain = kind(cfg, step_spec(), 2, CPU, torch.Generator())
    assert torch.equal(plain.sent(obs, correction), correction)


def test_the_applied_action_is_in_units_of_the_correction():
    """The base says 0.9 and the scale is 0.2: of a correction of 1, a half has room."""
    env = guided(0.9, 0.2)
    obs, _ = env.reset()
    assert torch.equal(obs["policy"], torch.tensor([[0.0, 0.0, 0.0, 0.9, 0.9]] * 4))
    for asked, sent, applied in ((1.0, 1.0, 0.5), (0.25, 0.95, 0.25), (-1.0, 0.7, -1.0), (0.0, 0.9, 0.0)):
        extras = env.step(torch.full((4, 2), asked))[4]
        torch.testing.assert_close(env.env.sent, torch.full((4, 2), sent))
        torch.testing.assert_close(extras["applied_action"], torch.full((4, 2), applied))
    env.env.obeys = 0.0
    extras = env.step(torch.full((4, 2), 1.0))[4]  # a robot that stands still: -0.9 of 0.2
    torch.testing.assert_close(extras["applied_action"], torch.full((4, 2), -4.5))


def test_at_the_start_of_the_switch_nothing_is_corrected():
    """And the learner is told so; at its end every episode that begins is."""
    env, ones = guided(0.1, 0.2, num_envs=200, switch_steps=2000), torch.ones(200, 2)
    env.reset()
    extras = env.step(ones)[4]
    assert bool((extras["applied_action"] == 0).all())
    torch.testing.assert_close(env.env.sent, 0.1 * ones)
    env.env.obeys = 0.0  # nor what the robot's limits did to the base's action
    assert bool((env.step(ones)[4]["applied_action"] == 0).all())
    env.env.obeys, shares = 1.0, []
    for _ in range(11):
        env.env.over = torch.ones(200, dtype=torch.bool)
        env.step(ones)
        env.env.over = torch.zeros(200, dtype=torch.bool)
        extras = env.step(ones)[4]
        on = (extras["applied_action"] - 1.0).abs().amax(1) < 1e-5
        assert bool((extras["applied_action"][~on] == 0).all())
        torch.testing.assert_close(env.env.sent, 0.1 + 0.2 * on[:, None] * ones)
        shares.append(float(on.float().mean()))
    assert shares[:2] == pytest.approx([600 / 2000, 1000 / 2000], abs=0.1) and shares[-1] == 1.0


# --- warnings ------------------------------------------------------------------------------------------------


def warned(env: GuidedEnv, steps: int, caplog) -> list[str]:
    for _ in range(steps):
        env.step(torch.ones(500, 2))
    return [r.getMessage() for r in caplog.records]


@pytest.mark.parametrize(("says", "warns"), [(0.9, True), (0.5, False)])
def test_corrections_without_room_are_reported_once(says, warns, caplog):
    env = guided(says, 0.2, num_envs=500)
    env.reset()
    assert warned(env, 3, caplog) == []
    found = warned(env, 9, caplog)
    assert len(found) == warns
    assert all("no room: 100 % of the actions are cut to [-1, 1]; make residual.scale smaller" in m for m in found)


def test_what_was_cut_before_a_checkpoint_counts_after_it(caplog):
    first, second = (guided(0.9, 0.2, num_envs=500) for _ in range(2))
    for env in (first, second):
        env.reset()
    assert warned(first, 3, caplog) == []
    second.load_state_dict(checkpoint.unflatten(_flat(first)))
    assert "100 % of the actions" in warned(second, 1, caplog)[0]


def _flat(env: GuidedEnv) -> dict:
    tensors, values = checkpoint.flatten(env.state_dict())
    return tensors | values


# --- bundles and checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b", "b.zip"])
def test_a_composed_policy_in_a_bundle_is_the_same(tmp_path, name):
    """The base's memory and noise, and the correction that was learned; it fits wherever the base does."""
    base = base_of("diffusion")
    policy = ResidualPolicy.of(base, head_of(base, 0.3, corrects=True), 0.3).eval()
    robot = config.build(TASK()).robot
    loaded = bundle.load(bundle.save(tmp_path / name, Bundle(policy, robot))).policy
    assert isinstance(loaded, ResidualPolicy) and loaded.scale == 0.3
    _world.require_spec(loaded, _world.spec_of(TASK()))
    for one in (policy, loaded, base):
        seeded(one, 4)
    n, corrected = base.spec.observation.dim("policy"), []
    for t in range(10):
        obs = {"policy": torch.randn(4, n)}
        said = policy.act(obs)
        assert torch.equal(loaded.act(obs), said) and float(said.abs().max()) <= 1.0
        corrected.append(said - base.act(obs))
        done = torch.arange(4) == t % 5
        for one in (policy, loaded, base):
            one.reset(done)
    assert 0.01 < float(torch.cat(corrected).abs().max()) <= 0.3 + 1e-6


def test_a_guided_world_that_was_put_back_goes_on_the_same(world):
    """Queues, histories, the base's noise, and who is corrected, through a checkpoint's flat form."""
    first, second = (GuidedEnv(e, e.policy_spec(), base_of("diffusion"), 0.3, s, switch_steps=150)
                     for s, e in enumerate((world(4), world(4, seed=9))))  # fmt: skip
    actions = 2 * torch.rand(60, 4, 1, generator=torch.Generator().manual_seed(0)) - 1
    for env in (first, second):
        env.reset()
    for action in actions[:25]:
        first.step(action)
    second.load_state_dict(checkpoint.unflatten(_flat(first)))
    assert 0.0 < float(first._on.mean()) < 1.0
    for action in actions[25:]:
        (obs, *rest, extras), (seen, *found, about) = (env.step(action) for env in (first, second))
        assert torch.equal(obs["policy"], seen["policy"])
        assert all(torch.equal(a, b) for a, b in zip(rest, found, strict=True))
        assert torch.equal(extras["applied_action"], about["applied_action"])


# --- refusals ------------------------------------------------------------------------------------------------


def refused(path: Path, policy: Policy) -> str:
    robot = FRANKA if policy.spec.robot == "franka" else config.build(TASK()).robot
    bundle.save(path, Bundle(policy, robot))
    with pytest.raises(ConfigError) as caught:
        load_base(SimpleNamespace(residual=SimpleNamespace(base=str(path)), task=TASK()))
    return str(caught.value)


def test_a_base_that_fits_is_loaded(tmp_path):
    path = bundle.save(tmp_path / "b", Bundle(base_of(), config.build(TASK()).robot))
    found = load_base(SimpleNamespace(residual=SimpleNamespace(base=str(path)), task=TASK()))
    obs = {"policy": torch.randn(3, found.spec.observation.dim("policy"))}
    assert torch.equal(found.act(obs), base_of().act(obs))


def test_bases_of_other_worlds_are_refused_with_both(tmp_path):
    spec = cartpole_spec()
    for k, (other, said) in enumerate((
        (chunk_spec(8, 4), "robot: 'franka' != 'cartpole'"),
        (replace(spec, rate_hz=15.0), "rate_hz: 15.0 != 30.0"),
        (cartpole_spec(scale=(10.0,)), "action.scale.0: 10.0 != 20.0"),
        (cartpole_spec(function="joint_position"), f"action.function: 'joint_position' != '{spec.action.function}'"),
    )):  # fmt: skip
        assert said in refused(tmp_path / str(k), gaussian(other))


def test_a_base_without_chunks_is_refused(tmp_path):
    about = {"hidden": [8], "activation": "relu", "normalizer": "running", "stochastic": False}
    plain = build("squashed", _world.spec_of(TASK()), about)
    message = refused(tmp_path / "b", plain)
    assert "is a policy of kind squashed; corrected are those that plan chunks" in message and "algo=bc" in message
    with pytest.raises(ConfigError, match="plans chunks of actions; 'squashed' does not"):
        base = {"kind": "squashed", "config": about, "spec": to_dict(plain.spec)}
        build("residual", plain.spec, {"base": base, "head": base, "scale": 0.1})
