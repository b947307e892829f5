"""TD3 and SAC against hand arithmetic: what is learned from, how often, towards which targets; and exact resumption."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from chunk_samples import step_spec
from torch import Tensor
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from robolearn import config
from robolearn.algos.off_policy import OffPolicy
from robolearn.algos.sac import SAC, SACCfg
from robolearn.algos.td3 import TD3, TD3Cfg
from robolearn.cli import _world, train
from robolearn.loops import checkpoint
from robolearn.loops.log import read_metrics
from robolearn.loops.online import LearningDiverged
from robolearn.loops.threads import one_thread
from robolearn.nets.ensemble import Ensemble

_world.discover()
BOTH = pytest.mark.parametrize("algo", ["td3", "sac"])
KINDS = {"td3": (TD3, TD3Cfg), "sac": (SAC, SACCfg)}
SMALL = {"hidden": (16,), "batch": 16, "capacity": 1000, "warmup_steps": 20}


def make(algo: str = "td3", num_envs: int = 4, seed: int = 0, **given) -> OffPolicy:
    """Three numbers are seen, two are said."""
    kind, cfg = KINDS[algo]
    return kind(cfg(**(SMALL | given)), step_spec(), num_envs, torch.device("cpu"), torch.Generator().manual_seed(seed))


def feed(algo: OffPolicy, steps: int, reward: float | None = None, end: str = "", seed: int = 0) -> None:
    """Random observations; where `end` is `terminated` or `truncated`, every step is the last of its episode."""
    generator, n = torch.Generator().manual_seed(seed), algo.num_envs
    obs, over = {"policy": torch.randn(n, 3, generator=generator)}, torch.ones(n, dtype=torch.bool)
    with one_thread():
        for _ in range(steps):
            action = algo.act(obs)
            final, obs = ({"policy": torch.randn(n, 3, generator=generator)} for _ in range(2))
            obs = obs if end else final
            given = torch.rand(n, generator=generator) if reward is None else torch.full((n,), reward)
            ends = [over if end == name else ~over for name in ("terminated", "truncated")]
            algo.observe(obs, given, *ends, {"final_obs": final, "applied_action": action})


def fed(algo: str = "td3", steps: int = 30, **given) -> OffPolicy:
    """With experience, before its first update."""
    made = make(algo, **({"warmup_steps": 10**6} | given))
    feed(made, steps)
    return made


def constant(ensemble: Ensemble, *values: float) -> None:
    """Member i says values[i] of everything."""
    with torch.no_grad():
        ensemble.weights[-1].zero_()
        ensemble.biases[-1][:, 0, 0] = torch.tensor(values)


def said(algo: OffPolicy) -> dict[str, Tensor]:
    """All that a learner's next steps follow from, copied."""
    return copy.deepcopy(checkpoint.flatten(algo.state_dict())[0])


def weights(module: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- what is learned from ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_demonstrations_are_exactly_their_share_of_every_batch(algo, share):
    """Their rewards are 1, one's own are 0."""
    learner = make(algo, demo_share=share, warmup_steps=10**6)
    feed(learner, 10, reward=0.0)
    demos = learner.new_replay(50, 1)
    ends = torch.arange(20) == 19
    demos.add_episode({"policy": torch.randn(20, 3)}, torch.rand(20, 2), torch.ones(20), ends)
    learner.learn_also_from(demos)
    for _ in range(5):
        batch = learner.batch()
        assert float(batch["reward"].sum()) == 16 * share and len(batch["reward"]) == 16
        assert {len(v) for v in batch.values()} == {16}


def test_without_demonstrations_the_batch_is_ones_own():
    learner = fed(demo_share=0.5)
    assert len(learner.batch()["reward"]) == 16
    with pytest.raises(config.ConfigError, match="not one transition in the demonstrations"):
        learner.learn_also_from(learner.new_replay(50, 1))


@BOTH
@pytest.mark.parametrize(("ratio", "per_step"), [(0.25, 1), (1.0, 4), (2.5, 10)])
def test_updates_follow_the_steps_exactly_once_warm(algo, ratio, per_step, monkeypatch):
    """Four environments, 20 steps to warm up: none before the fifth period, which is the first that counts."""
    learner, calls = make(algo, ratio=ratio), []
    monkeypatch.setattr(learner, "learn", lambda: calls.append(learner.env_steps))
    feed(learner, 4)
    assert calls == [] and learner.env_steps == 16
    feed(learner, 6)
    assert calls == [n for n in (20, 24, 28, 32, 36, 40) for _ in range(per_step)]


def test_a_fraction_of_an_update_is_owed(monkeypatch):
    """One environment, three updates in eight steps."""
    learner, calls = make(num_envs=1, ratio=0.375, warmup_steps=0), []
    monkeypatch.setattr(learner, "learn", lambda: calls.append(learner.env_steps))
    feed(learner, 16)
    assert calls == [3, 6, 8, 11, 14, 16]


@BOTH
def test_the_figures_of_an_iteration(algo):
    learner = make(algo)
    feed(learner, 10)
    figures = learner.update({}, 0.0)
    assert learner.updates == 24 and figures["replay"] == 40.0
    assert 0.0 < figures["value"] < 10.0 and figures["critic_loss"] > 0.0 and "actor_value" in figures
    assert "critics_diverged" not in figures and learner.update({}, 0.0)["updates_per_s"] == 0.0


@BOTH
def test_the_actor_waits_for_the_critics(algo):
    """Until the sixth update; the critics move from the first on, their targets a little behind them."""
    learner = fed(algo, critic_warmup=5, actor_every=1)
    start, critics, targets = (weights(n) for n in (learner.policy.net, learner.critic, learner.target))
    for _ in range(5):
        learner.learn()
    assert same(start, weights(learner.policy.net)) and not same(critics, weights(learner.critic))
    assert not same(targets, weights(learner.target)) and not same(weights(learner.target), weights(learner.critic))
    learner.learn()
    assert not same(start, weights(learner.policy.net))


def test_the_targets_follow_by_tau():
    learner = fed(tau=0.25)
    before = weights(learner.target)
    learner.learn()
    for old, new, now in zip(before, weights(learner.critic), weights(learner.target), strict=True):
        torch.testing.assert_close(now, old + 0.25 * (new - old))


def test_the_actor_takes_every_third_turn():
    learner, moved = fed(actor_every=3), []
    for _ in range(7):
        before = weights(learner.policy.net)
        learner.learn()
        moved.append(not same(before, weights(learner.policy.net)))
    assert moved == [False, False, True, False, False, True, False]


# --- targets -------------------------------------------------------------------------------------------------


def target_of(learner: OffPolicy) -> float:
    everything = torch.arange(learner.cfg.critics)
    return float(learner.critic_loss(learner.batch(), learner.noise(16), everything)[1]["target"])


@BOTH
@pytest.mark.parametrize(("end", "expected"), [("terminated", 1.0), ("truncated", 5.0), ("", 5.0)])
def test_a_time_limit_bootstraps_and_a_termination_does_not(algo, end, expected):
    """Reward 1, gamma 0.5, and critics that say 8 of everything."""
    given = {"entropy_in_targets": False} if algo == "sac" else {}
    learner = make(algo, gamma=0.5, warmup_steps=10**6, **given)
    feed(learner, 30, reward=1.0, end=end)
    constant(learner.target, 8.0, 8.0)
    assert target_of(learner) == pytest.approx(expected)


@BOTH
def test_targets_are_cut_to_what_a_return_can_be(algo):
    learner = fed(algo, value_low=-2.0, value_high=3.0)
    for said_of_it, expected in ((100.0, 3.0), (-100.0, -2.0)):
        constant(learner.target, said_of_it, said_of_it)
        assert target_of(learner) == pytest.approx(expected)


@BOTH
@pytest.mark.parametrize(("picked", "least"), [([0, 1], 2.0), ([0, 3], 4.0), ([2], 3.0), ([0, 1, 2, 3], 2.0)])
def test_the_least_of_the_picked_critics_counts(algo, picked, least):
    given = {"entropy_in_targets": False} if algo == "sac" else {}
    learner = fed(algo, critics=4, **given)
    constant(learner.target, 5.0, 2.0, 3.0, 4.0)
    value = learner.next_value({"policy": torch.randn(6, 3)}, learner.noise(6), torch.tensor(picked))
    torch.testing.assert_close(value, torch.full((6,), least))


def test_critics_are_picked_anew_for_every_update(monkeypatch):
    """As many as are sampled, and none twice."""
    learner, seen = fed(critics=5, sampled_critics=2), []
    value = learner.next_value
    monkeypatch.setattr(learner, "next_value", lambda obs, noise, p: (seen.append(p.tolist()), value(obs, noise, p))[1])
    for _ in range(30):
        learner.learn()
    assert all(len(set(p)) == 2 for p in seen) and set().union(*seen) == set(range(5))


def test_entropy_is_worth_the_temperature():
    """V = Q - temperature * log density."""
    learner = fed("sac", temperature=0.5)
    constant(learner.target, 7.0, 7.0)
    obs, noise = {"policy": torch.randn(6, 3)}, learner.noise(6)
    _, density = learner.policy.sample(learner.policy.features(obs), noise)
    torch.testing.assert_close(learner.next_value(obs, noise, torch.arange(2)), 7.0 - 0.5 * density)


def test_noise_on_a_targets_action_is_bounded():
    learner, seen = fed(smoothing=10.0, smoothing_most=0.1), []
    learner.values = lambda critic, features, obs, action, picked: (
        seen.append(action),
        torch.zeros(2, len(action), 1),
    )[1]
    obs = {"policy": torch.randn(6, 3)}
    learner.next_value(obs, learner.noise(6), torch.arange(2))
    off = (seen[0] - learner.policy.act(obs)).detach().abs()
    assert 0.09 < float(off.max()) <= 0.1 + 1e-6


@BOTH
def test_histogram_critics_learn_a_constant_return(algo):
    """Every episode is one step of reward 1."""
    learner = make(algo, value_low=0.0, value_high=2.0, hl_gauss=21, critic_rate=1e-2, warmup_steps=10**6)
    feed(learner, 30, reward=1.0, end="terminated")
    with one_thread():
        for _ in range(60):
            learner.learn()
    batch = learner.batch()
    assert float(learner.critic_loss(batch, learner.noise(16), torch.arange(2))[1]["value"]) == pytest.approx(
        1, abs=0.1
    )


# --- SAC's own -----------------------------------------------------------------------------------------------


def test_the_log_density_is_torchs():
    policy = make("sac").policy
    with torch.no_grad():
        policy.net[-1].weight.mul_(100.0)
    features, noise = policy.features({"policy": torch.randn(50, 3)}), torch.randn(50, 2)
    action, density = policy.sample(features, noise)
    mean, log_std = policy.net(features).double().chunk(2, dim=-1)
    expected = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    raw = mean + log_std.exp() * noise
    torch.testing.assert_close(action.double(), torch.tanh(raw), rtol=1e-4, atol=1e-5)
    transform = expected.transforms[0]
    by_torch = expected.base_dist.log_prob(raw) - transform.log_abs_det_jacobian(raw, torch.tanh(raw))
    torch.testing.assert_close(density.double(), by_torch.sum(-1), rtol=1e-4, atol=1e-3)
    inside = (action.abs() < 0.99).all(1)
    assert int(inside.sum()) > 20
    torch.testing.assert_close(
        density[inside].double(), expected.log_prob(torch.tanh(raw))[inside].sum(-1), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(("entropy", "rises"), [(-3.0, True), (1.0, False)])
def test_the_temperature_rises_where_there_is_too_little_entropy(entropy, rises):
    """Two numbers of -0.5 each are wanted: -1."""
    learner = make("sac", temperature=0.2, temperature_rate=0.01)
    after = float(learner.after_actor({"actor_entropy": torch.tensor(entropy)})["actor_temperature"])
    assert after == pytest.approx(0.2 * 2.718282 ** (0.01 if rises else -0.01), rel=1e-4)


# --- checkpoints ---------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("steps", [3, 10], ids=["before the first update", "with a part of an update owed"])
def test_what_follows_a_checkpoint_is_the_same_to_the_bit(algo, steps, tmp_path):
    one, other = make(algo, ratio=0.3), make(algo, seed=1, ratio=0.3)
    feed(one, steps)
    checkpoint.write(tmp_path, 1, one.state_dict())
    other.load_state_dict(checkpoint.read_newest(tmp_path))
    other.generator.set_state(one.generator.get_state())
    for learner in (one, other):
        feed(learner, 3, seed=7)
    a, b = said(one), said(other)
    assert a.keys() == b.keys() and [k for k in a if not torch.equal(a[k], b[k])] == []
    assert one.updates == {3: 2, 10: 10}[steps] and one.state_dict()["counters"] == other.state_dict()["counters"]


@BOTH
def test_learning_rates_fall_on_a_straight_line_and_go_on_from_a_checkpoint(algo, tmp_path):
    """To a fifth: half of the way is 60 %."""
    one, other = (make(algo, critic_rate=1e-3, actor_rate=1e-4, rate_at_end=0.2) for _ in range(2))
    feed(one, 10)
    one.update({}, 0.5)
    checkpoint.write(tmp_path, 1, one.state_dict())
    other.load_state_dict(checkpoint.read_newest(tmp_path))
    for learner in (one, other):
        rates = {name: o.param_groups[0]["lr"] for name, o in learner.optimizers.items()}
        assert rates["critic"] == pytest.approx(6e-4) and rates["actor"] == pytest.approx(6e-5)
        assert rates.get("temperature", 1.8e-4) == pytest.approx(1.8e-4)
    one.update({}, 2.0)  # the last report of a training that overshoots
    assert one.optimizers["critic"].param_groups[0]["lr"] == pytest.approx(2e-4)


TINY = ["task=cartpole", "num_envs=8", "eval_episodes=0", "backend.threads=1", "algo.hidden=[16,16]", "algo.batch=16",
        "algo.report_steps=80", "algo.warmup_steps=100", "algo.ratio=0.25", "algo.capacity=400"]  # fmt: skip


def run(folder: Path, algo: str, *overrides: str) -> dict[str, Tensor]:
    """All that the end of a training left."""
    assert train.main([*TINY, f"algo={algo}", f"run_dir={folder}", *overrides]) == 0
    return left(folder)


def left(folder: Path) -> dict[str, Tensor]:
    state = checkpoint.read_newest(folder / "checkpoints")
    return checkpoint.flatten({k: state[k] for k in ("algo", "generator", "env", "obs")})[0]


@BOTH
@pytest.mark.parametrize("half", [80, 640], ids=["before the first update", "with a full replay"])
def test_resuming_equals_never_having_stopped(tmp_path, algo, half):
    """Replay, both kinds of critics, optimisers and random numbers: bit by bit."""
    whole = run(tmp_path / "whole", algo, "total_steps=960")
    run(tmp_path / "half", algo, f"total_steps={half}")
    assert train.main([f"resume={tmp_path / 'half'}", "total_steps=960"]) == 0
    resumed = left(tmp_path / "half")
    assert whole.keys() == resumed.keys() and len(whole) > 40
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []
    assert read_metrics(tmp_path / "half")[-1]["learn/replay"] < 400


# --- refusals ------------------------------------------------------------------------------------------------


@BOTH
def test_critics_that_diverge_are_refused_by_name_and_step(tmp_path, algo, monkeypatch):
    """From the fourth iteration on they say what no return can reach."""
    update: Callable = OffPolicy.update

    def grown(self, obs, progress):
        figures = update(self, obs, progress)
        if self.env_steps == 240:
            for bias in (self.critic.biases[-1], self.target.biases[-1]):
                bias.data.fill_(1e6)
        return figures

    monkeypatch.setattr(OffPolicy, "update", grown)
    with pytest.raises(LearningDiverged, match=r"diverged at step 240 .*critics_diverged"):
        run(tmp_path / "run", algo, "total_steps=960", "checkpoint_every_s=0")
    assert 0 < checkpoint.read_newest(tmp_path / "run" / "checkpoints")["counters"]["env_steps"] <= 240
    assert not (tmp_path / "run" / "bundle").exists()


@BOTH
def test_what_cannot_be_held_or_is_not_for_them_is_refused_with_the_remedy(tmp_path, algo):
    with pytest.raises(config.ConfigError, match=r"algo\.capacity=10{13} would take .* GB can be had: make it smaller"):
        run(tmp_path / "run", algo, f"algo.capacity={10**13}")
    for word in ("updates=5", "batch=64"):
        with pytest.raises(config.ConfigError, match=rf"^{word.split('=')[0]}: algo={algo} .* total_steps=, .* algo\."):
            run(tmp_path / "run", algo, word)
    assert not (tmp_path / "run" / "config.yaml").exists()


# --- learning ------------------------------------------------------------------------------------------------

LEARN = ["task=cartpole", "num_envs=16", "eval_episodes=50", "backend.threads=1", "seed=1", "total_steps=10000",
         "algo.hidden=[64,64]", "algo.batch=128", "algo.critic_rate=1e-3", "algo.actor_rate=1e-3", "algo.ratio=0.5",
         "algo.warmup_steps=500", "algo.report_steps=2000", "algo.capacity=20000", "algo.tau=0.02",
         "algo.n_step=5"]  # fmt: skip
ITS = {"td3": "algo.exploration=0.3", "sac": "algo.temperature=0.02"}


@BOTH
def test_every_algorithm_learns_the_toy(tmp_path, algo):
    """At first the pole falls within 50 of 150 periods."""
    assert train.main([*LEARN, f"algo={algo}", ITS[algo], f"run_dir={tmp_path / 'run'}"]) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert read_metrics(tmp_path / "run")[0]["episode/length"] < 50.0
    assert scores["length"]["mean"] > 100.0
