"""PPO against hand arithmetic, and what a wrong treatment of episode ends would do."""

from types import SimpleNamespace

import pytest
import torch

from robolearn.algos.ppo import PPO, PPOCfg, gae
from robolearn.errors import ConfigError
from robolearn.nets.mlp import Normalizer, mlp
from robolearn.policies.gaussian import log_prob
from robolearn.spec import ActionSpec, Field, ObservationSpec, PolicySpec, TermSpec


def spec(**groups: int) -> PolicySpec:
    terms = {g: (TermSpec(Field("x", (n,)), "command", {"name": "x"}),) for g, n in groups.items()}
    return PolicySpec("toy", 10.0, ObservationSpec(terms), ActionSpec("joint_position", ("a",), "rad", scale=(1.0,)))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_gae_by_hand_with_a_termination_and_a_timeout_inside():
    """gamma = 0.5, lam = 0.5. Step 1 terminates, step 3 is cut off by the clock with V(final_obs) = 8."""
    advantage = gae(
        reward=column(1.0, 2.0, 3.0, 4.0, 5.0),
        value=column(1.0, 1.0, 1.0, 1.0, 1.0),
        next_value=column(1.0, 100.0, 1.0, 8.0, 2.0),
        terminated=column(0, 1, 0, 0, 0).bool(),
        done=column(0, 1, 0, 1, 0).bool(),
        gamma=0.5,
        lam=0.5,
    )
    # t=4: 5 + .5*2 - 1 = 5                      t=3 (cut off): 4 + .5*8 - 1 = 7, nothing from t=4
    # t=2: 3 + .5*1 - 1 + .25*7 = 4.25           t=1 (terminated): 2 - 1 = 1, V(next) = 100 ignored
    # t=0: 1 + .5*1 - 1 + .25*1 = 0.75
    torch.testing.assert_close(advantage.flatten(), torch.tensor([0.75, 1.0, 4.25, 7.0, 5.0]))


def test_gae_keeps_environments_apart():
    generator = torch.Generator().manual_seed(0)
    args = [torch.randn(6, 3, generator=generator) for _ in range(3)]
    ends = [torch.rand(6, 3, generator=generator) < p for p in (0.2, 0.4)]
    together = gae(*args, ends[0], ends[0] | ends[1], 0.9, 0.8)
    for b in range(3):
        rows = [x[:, b : b + 1] for x in (*args, ends[0], ends[0] | ends[1])]
        torch.testing.assert_close(together[:, b : b + 1], gae(*rows, 0.9, 0.8))


def test_log_prob_is_torchs():
    action, mean, log_std = torch.randn(4, 3), torch.randn(4, 3), torch.randn(3)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1)
    torch.testing.assert_close(log_prob(action, mean, log_std), expected)


def test_normalizer_merges_batches_to_the_moments_of_the_whole():
    data = torch.randn(1000, 3) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, -3.0, 10.0])
    normalizer = Normalizer(3)
    for batch in data.split([1, 99, 400, 500]):
        normalizer.update(batch)
    torch.testing.assert_close(normalizer.mean, data.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(normalizer.var, data.var(0, unbiased=False), atol=1e-4, rtol=1e-4)


class Corridor:
    """Reward 1 every step for ever, cut into pieces of three steps by the clock: V = 1 / (1 - gamma) everywhere."""

    def __init__(self, algo: PPO, num_envs: int, terminate: bool):
        self.algo, self.n, self.terminate, self.t = algo, num_envs, terminate, 0

    def iterate(self, progress: float = 0.0) -> None:
        obs = {"policy": torch.ones(self.n, 1)}
        for _ in range(self.algo.steps_per_iteration):
            self.t += 1
            end = torch.full((self.n,), self.t % 3 == 0)
            self.algo.act(obs)
            no = torch.zeros_like(end)
            flags = (end, no) if self.terminate else (no, end)
            self.algo.observe(obs, torch.ones(self.n), *flags, {"final_obs": obs})
        self.algo.update(obs, progress)

    def value(self) -> float:
        obs = torch.ones(1, 1)
        return float(self.algo.critic(self.algo.critic_normalizer(obs)).detach())


@pytest.mark.parametrize(("terminate", "expected"), [(False, 2.0), (True, (1 + 1.5 + 1.75) / 3)])
def test_timeout_bootstraps_value(terminate: bool, expected: float):
    """With gamma = 0.5 the true value is 2; taking the clock for the end of the world gives 1, 1.5 and 1.75."""
    cfg = PPOCfg(horizon=12, gamma=0.5, lam=0.95, schedule="constant", learning_rate=1e-2, hidden=(16,))
    algo = PPO(cfg, spec(policy=1), 8, torch.device("cpu"), torch.Generator().manual_seed(0))
    world = Corridor(algo, 8, terminate)
    for _ in range(40):
        world.iterate()
    assert world.value() == pytest.approx(expected, abs=0.1)


def test_the_critic_reads_its_own_group():
    cfg = PPOCfg(hidden=(8,))
    algo = PPO(cfg, spec(policy=2, critic=5), 4, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert algo.critic[0].in_features == 5
    assert algo.policy.mean[0].in_features == 2


def test_adaptive_learning_rate_follows_the_divergence():
    cfg = PPOCfg(hidden=(8,), schedule="adaptive")
    algo = PPO(cfg, spec(policy=1), 4, torch.device("cpu"), torch.Generator().manual_seed(0))
    start = algo.learning_rate
    algo._adapt(0.1)
    assert algo.learning_rate == pytest.approx(start / 1.5)
    algo._adapt(0.001)
    assert algo.learning_rate == pytest.approx(start)
    algo._adapt(0.01)
    assert algo.learning_rate == pytest.approx(start)


@pytest.mark.parametrize(
    ("decay_from", "expected"), [(0.0, [1.0, 0.75, 0.5, 0.25, 0.0]), (0.5, [1.0, 1.0, 1.0, 0.5, 0.0])]
)
def test_the_rate_falls_linearly_from_a_part_of_the_training_on(decay_from, expected):
    cfg = PPOCfg(horizon=4, hidden=(8,), learning_rate=1e-3, decay_from=decay_from)
    algo = PPO(cfg, spec(policy=1), 4, torch.device("cpu"), torch.Generator().manual_seed(0))
    world, rates = Corridor(algo, 4, terminate=False), []
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        world.iterate(progress)
        rates.append(algo.learning_rate / 1e-3)
    assert rates == pytest.approx(expected)


class Late:
    """A pool that begins when its result is asked for: after the policy has learnt."""

    def submit(self, call, *args):
        return SimpleNamespace(result=lambda: call(*args))


def test_an_adaptive_rate_reaches_the_critic_at_the_next_update_whichever_thread_is_first():
    rates = []
    cfg = PPOCfg(horizon=4, hidden=(8,), schedule="adaptive", learning_rate=1e-3)
    algo = PPO(cfg, spec(policy=1), 4, torch.device("cpu"), torch.Generator().manual_seed(0))
    algo._pool = Late()
    descend = algo._descend
    algo._descend = lambda name, loss, rate: (rates.append((name, rate)), descend(name, loss, rate))
    Corridor(algo, 4, terminate=False).iterate()
    assert algo.learning_rate != 1e-3
    assert {rate for name, rate in rates if name == "critic"} == {1e-3}


NAN = float("nan")
POSITIVE = ("learning_rate", "clip", "initial_std", "min_std", "max_grad_norm", "desired_kl")
BAD = [(name, value) for name in POSITIVE for value in (0.0, -1.0, NAN, float("inf"))]
BAD += [
    ("schedule", "cosine"),
    ("gamma", 1.5),
    ("lam", NAN),
    ("decay_from", 1.0),
    ("decay_from", NAN),
    ("entropy", NAN),
    ("horizon", 0),
    ("hidden", (64, 0)),
]
BAD += [("activation", "rleu")]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_settings_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"algo.*{name}"):
        PPOCfg(**{name: value})


def test_an_unknown_activation_names_the_nearest():
    with pytest.raises(ConfigError, match="no activation 'rleu'; did you mean relu"):
        mlp([1, 1], "rleu")


def test_an_asymmetric_critic_learns_from_what_only_it_sees():
    """The reward is in the critic's observation alone; its value follows it, the policy's input stays constant."""
    cfg = PPOCfg(horizon=8, gamma=0.0, schedule="constant", learning_rate=1e-2, hidden=(16,))
    algo = PPO(cfg, spec(policy=1, critic=1), 64, torch.device("cpu"), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    no = torch.zeros(64, dtype=torch.bool)
    for _ in range(60):
        for _ in range(cfg.horizon):
            obs = {"policy": torch.zeros(64, 1), "critic": torch.rand(64, 1, generator=generator)}
            algo.act(obs)
            algo.observe(obs, obs["critic"][:, 0], no, no, {"final_obs": obs})
        algo.update(obs, 0.0)
    seen = torch.tensor([[0.1], [0.9]])
    value = algo.critic(algo.critic_normalizer(seen)).detach().flatten()
    torch.testing.assert_close(value, seen.flatten(), atol=0.1, rtol=0)
    assert algo.policy.normalizer.mean.item() == 0.0
