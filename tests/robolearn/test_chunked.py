"""Chunked policies: every environment has a history, a queue and a buffer of its own; bundles keep them whole."""

import random
import subprocess
import sys
from collections import deque

import pytest
import torch
from chunk_samples import SMALL_CAMERA, InMemory, chunk_spec, diffusion, gaussian, step_spec
from torch import Tensor

from robolearn import bundle
from robolearn.bundle import Bundle, BundleError
from robolearn.cli._world import require_fit
from robolearn.config import ConfigError
from robolearn.policies import samplers
from robolearn.policies.base import build
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.robots.franka import FRANKA

SAMPLERS = [
    {"name": "ddpm"},
    {"name": "ddim", "steps": 4},
    {"name": "streaming", "steps": 4},
    {"name": "flow", "steps": 3},
]
EVERYBODY = torch.ones(5, dtype=torch.bool)


class Teller(ChunkedPolicy):
    """Its chunk tells the history it was planned from: action t is (oldest, newest) / 1000 + t / 100000."""

    kind = ""

    def loss(self, windows, generator=None) -> Tensor:
        raise NotImplementedError

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        seen = obs["policy"]
        ends = torch.stack((seen[:, 0, 0], seen[:, -1, 0]), dim=-1) / 1000.0
        return ends[:, None] + torch.arange(self.horizon)[:, None] / 100_000.0


class ByHand:
    """The same for one environment, in plain Python."""

    def __init__(self, steps: int, execute: int):
        self.steps, self.execute = steps, execute
        self.begin()

    def begin(self) -> None:
        self.seen: deque[float] = deque(maxlen=self.steps)
        self.queue: deque[tuple[float, float]] = deque()

    def act(self, value: float) -> tuple[float, float]:
        self.seen.extend([value] * (self.steps if not self.seen else 1))
        if not self.queue:
            low, high = self.seen[0] / 1000.0, self.seen[-1] / 1000.0
            self.queue.extend((low + t / 100_000.0, high + t / 100_000.0) for t in range(self.execute))
        return self.queue.popleft()


@pytest.mark.parametrize("seed", range(20))
def test_queues_and_histories_under_random_resets(seed):
    chance = random.Random(seed)
    execute, steps, n = chance.randint(1, 5), chance.randint(1, 4), chance.randint(1, 6)
    policy = Teller(chunk_spec(8, execute), {"observation_steps": steps})
    by_hand = [ByHand(steps, execute) for _ in range(n)]
    for t in range(60):
        values = torch.tensor([100.0 * i + t for i in range(n)])
        obs = {"policy": values[:, None] * torch.tensor([[1.0, 0.0, 0.0]])}
        expected = torch.tensor([one.act(float(v)) for one, v in zip(by_hand, values, strict=True)])
        torch.testing.assert_close(policy.act(obs), expected, rtol=0, atol=1e-6)
        done = torch.tensor([chance.random() < 0.15 for _ in range(n)])
        policy.reset(done)
        for i in done.nonzero().flatten().tolist():
            by_hand[i].begin()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s["name"])
def test_the_reset_of_one_touches_no_other(sampler):
    """Bit for bit: the others' actions, histories, queues and noise buffers."""
    policy = diffusion(chunk_spec(8, 4), sampler).eval()
    policy.generator = torch.Generator().manual_seed(0)
    policy.act({"policy": torch.randn(5, 3)})
    names = ("_queue", "_left", "_fresh", "_started", "_buffer")
    before = {k: getattr(policy, k).clone() for k in names} | {"h": policy._history["policy"].clone()}
    policy.reset(torch.arange(5) == 2)
    after = {k: getattr(policy, k) for k in names} | {"h": policy._history["policy"]}
    others = torch.arange(5) != 2
    assert all(torch.equal(before[k][others], after[k][others]) for k in before)
    assert policy._left.tolist() == [3, 3, 0, 3, 3] and policy._fresh.tolist() == [i == 2 for i in range(5)]
    queue, buffer = policy._queue.clone(), policy._buffer.clone()
    action = policy.act({"policy": torch.randn(5, 3)})  # only environment 2 plans
    assert torch.equal(action[others], queue[others, 1])
    assert torch.equal(policy._buffer[others], buffer[others]) and not torch.equal(policy._buffer[2], buffer[2])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s["name"])
def test_a_batch_under_random_resets_is_each_environment_alone(sampler, seed, monkeypatch):
    """Histories, queues and the samplers' buffers; without noise, so that there is one right answer."""
    monkeypatch.setattr(samplers, "_noise", lambda like, generator: torch.zeros_like(like))
    chance, n = random.Random(seed), 4
    together = diffusion(chunk_spec(8, 4), sampler).eval()
    alone = [diffusion(chunk_spec(8, 4), sampler).eval() for _ in range(n)]
    for one in alone:
        one.load_state_dict(together.state_dict())
    for _ in range(25):
        seen = torch.randn(n, 3)
        expected = torch.cat([one.act({"policy": seen[i : i + 1]}) for i, one in enumerate(alone)])
        torch.testing.assert_close(together.act({"policy": seen}), expected, rtol=0, atol=5e-3)
        done = torch.tensor([chance.random() < 0.2 for _ in range(n)])
        together.reset(done)
        for one, over in zip(alone, done, strict=True):
            one.reset(over[None])


def test_a_history_is_a_copy_of_what_was_seen():
    """Simulators write the next observation into the same tensor."""
    policy, seen = Teller(chunk_spec(8, 1), {"observation_steps": 2}), torch.zeros(3, 3)
    policy.act({"policy": seen})
    seen += 100.0
    torch.testing.assert_close(policy.act({"policy": seen}), torch.tensor([[0.0, 0.1]] * 3))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s["name"])
def test_calls_of_the_network_a_chunk(sampler):
    policy = diffusion(chunk_spec(8, 4), sampler).eval()
    calls = []
    policy.network.register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for _ in range(12):
        policy.act({"policy": torch.randn(5, 3)})
        counts.append(len(calls))
        calls.clear()
    each = policy.sampler.calls
    start = 4 if sampler["name"] == "streaming" else 0  # an episode's first buffer
    assert counts == [each + start, 0, 0, 0, each, 0, 0, 0, each, 0, 0, 0]
    assert each == {"ddpm": 20, "ddim": 4, "streaming": 2, "flow": 3}[sampler["name"]]


def test_same_generator_same_actions_and_another_number_of_environments():
    policy = diffusion(chunk_spec(8, 4), {"name": "streaming", "steps": 4}).eval()
    obs = [{"policy": torch.randn(5, 3)} for _ in range(9)]

    def rollout() -> Tensor:
        policy.generator = torch.Generator().manual_seed(3)
        policy.reset(EVERYBODY)
        return torch.stack([policy.act(o) for o in obs])

    assert torch.equal(rollout(), rollout())
    assert policy.act({"policy": torch.zeros(2, 3)}).shape == (2, 2)
    policy.reset(torch.ones(7, dtype=torch.bool))
    with torch.inference_mode():
        assert policy.act({"policy": torch.zeros(7, 3)}).shape == (7, 2)
    policy.reset(torch.arange(7) < 3)  # outside of it again
    assert policy.act({"policy": torch.zeros(7, 3)}).abs().max() <= 1.0


def test_a_chunk_beside_the_control_loop_leaves_the_queue():
    policy = gaussian(chunk_spec(8, 4)).eval()
    policy.act({"policy": torch.randn(5, 3)})
    queue, left = policy._queue.clone(), policy._left.clone()
    policy.observe({"policy": torch.randn(5, 3)})
    chunk = policy.chunk(torch.tensor([1, 3]))
    assert chunk.shape == (2, 8, 2) and not chunk.requires_grad
    assert torch.equal(policy._queue, queue) and torch.equal(policy._left, left)


# --- bundles -----------------------------------------------------------------------------------------------------


def fitted(policy: ChunkedPolicy) -> ChunkedPolicy:
    data = InMemory(observation__policy=4 * torch.randn(50, 2, 3) + 1, action=torch.rand(50, 8, 2) - 0.7)
    policy.fit_normalizers(data.statistics())
    return policy.eval()


@pytest.mark.parametrize("camera", [False, True])
@pytest.mark.parametrize("sampler", [None, *SAMPLERS], ids=lambda s: s["name"] if s else "gaussian")
def test_bundle_round_trip(tmp_path, sampler, camera):
    spec, encoder = chunk_spec(8, 4, camera=camera), SMALL_CAMERA if camera else {}
    original = fitted(diffusion(spec, sampler, encoder) if sampler else gaussian(spec, encoder))
    packed = Bundle(original, FRANKA, {"seed": 3})
    loaded = bundle.load(bundle.save(tmp_path / "b.zip", packed)).policy
    assert loaded.spec == spec and (loaded.horizon, loaded.execute, loaded.steps) == (8, 4, 2)
    for policy in (original, loaded):
        policy.generator = torch.Generator().manual_seed(1)
        policy.reset(EVERYBODY)
    for _ in range(9):
        obs = {"policy": torch.randn(5, 3)}
        if camera:
            obs["policy/wrist"] = torch.randint(256, (5, 24, 24, 3), dtype=torch.uint8)
        assert torch.equal(loaded.act(obs), original.act(obs))


def test_a_robot_needs_no_diffusers(tmp_path):
    path = bundle.save(tmp_path / "b", Bundle(fitted(diffusion(chunk_spec(8, 4), SAMPLERS[1])), FRANKA))
    code = f"""
import sys
sys.modules["diffusers"] = None
import torch
from pathlib import Path
from robolearn import bundle
print(tuple(bundle.load(Path({str(path)!r})).policy.act({{"policy": torch.zeros(1, 3)}}).shape))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "(1, 2)", done.stderr


class World:
    """As much of an environment as a policy is compared with."""

    def policy_spec(self):
        return step_spec()


def test_a_world_that_takes_single_actions_takes_chunks_too(tmp_path):
    policy = gaussian(chunk_spec(8, 4))
    require_fit(policy, World())
    Bundle(policy, FRANKA).require(FRANKA, step_spec())
    with pytest.raises(ConfigError, match=r"observation.groups.policy.0.field.shape"):
        require_fit(gaussian(chunk_spec(8, 4, state=4)), World())
    with pytest.raises(BundleError, match=r"spec.action.scale"):
        Bundle(policy, FRANKA).require(FRANKA, step_spec(action=1))


# --- settings ----------------------------------------------------------------------------------------------------


def test_one_network_serves_the_samplers_it_was_trained_for():
    policy = diffusion(chunk_spec(8, 4), {"name": "streaming", "steps": 4}).eval()
    policy.act({"policy": torch.zeros(5, 3)})
    policy.use_sampler(name="ddim", steps=2)
    policy.use_sampler(name="streaming", steps=2)
    assert policy.act({"policy": torch.zeros(5, 3)}).shape == (5, 2)
    with pytest.raises(ConfigError, match="trained for the sampler streaming; flow cannot use it"):
        policy.use_sampler(name="flow")
    with pytest.raises(ConfigError, match="trained for the sampler ddpm; streaming cannot"):
        diffusion(chunk_spec(8, 4), {"name": "ddpm"}).use_sampler(name="streaming", steps=4)


def test_what_was_trained_survives_another_sampler_and_a_bundle(tmp_path):
    policy = diffusion(chunk_spec(8, 4), {"name": "streaming", "steps": 4})
    policy.use_sampler(name="ddim", steps=2)
    loaded = bundle.load(bundle.save(tmp_path / "b", Bundle(fitted(policy), FRANKA))).policy
    assert loaded.sampler.kind == "ddim"
    loaded.use_sampler(name="streaming", steps=4)


@pytest.mark.parametrize(("horizon", "execute"), [(4, 8), (8, 0)])
def test_more_actions_than_the_chunk_has(horizon, execute):
    with pytest.raises(ConfigError, match="1 <= execute <= horizon"):
        gaussian(chunk_spec(horizon, execute))


def test_actions_in_standard_deviations_are_not_clipped():
    policy = diffusion(chunk_spec(8, 4), {"name": "ddim", "steps": 4})
    with pytest.raises(ConfigError, match=r"clip 1 would cut actions .* set clip to 0"):
        build("diffusion", policy.spec, policy.config | {"action_normalizer": "deviation"})
    build("diffusion", policy.spec, policy.config | {"action_normalizer": "deviation", "clip": 0.0})


def test_windows_that_do_not_fit_are_named():
    policy = fitted(gaussian(chunk_spec(8, 4)))
    good = {"observation.policy": torch.zeros(6, 2, 3), "action": torch.zeros(6, 8, 2)}
    policy.loss(good)
    with pytest.raises(ConfigError, match=r"observation.policy \(3, 3\), not \(2, 3\); action \(7, 2\), not \(8, 2\)"):
        policy.loss({"observation.policy": torch.zeros(6, 3, 3), "action": torch.zeros(6, 7, 2)})
    with pytest.raises(ConfigError, match=r"observation.policy None"):
        policy.loss({"action": good["action"]})
    with pytest.raises(ConfigError, match=r"no statistics of observation.policy; they have action"):
        policy.fit_normalizers(InMemory(action=good["action"]).statistics())


@pytest.mark.parametrize("make", [gaussian, lambda s: diffusion(s, {"name": "ddim", "steps": 4})])
def test_masked_actions_do_not_count(make):
    policy = fitted(make(chunk_spec(8, 4)))
    windows = {"observation.policy": torch.zeros(6, 2, 3), "action": torch.rand(6, 8, 2)}
    mask = torch.ones(6, 8, dtype=torch.bool)
    whole = policy.loss(windows | {"mask": mask}, torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole, policy.loss(windows, torch.Generator().manual_seed(0)))
    mask[:, 5:] = False
    windows["action"].requires_grad_()
    (grad,) = torch.autograd.grad(policy.loss(windows | {"mask": mask}), windows["action"])
    if policy.kind == "gaussian_chunk":
        assert (grad[:, 5:] == 0).all() and (grad[:, :5] != 0).all()
    else:  # the network may see masked actions, but what it says of them does not count
        policy.network.register_forward_hook(lambda _, given, out: given[0] + 0.0 * out)
        (grad,) = torch.autograd.grad(policy.loss(windows | {"mask": mask}), windows["action"])
        assert (grad[:, 5:] == 0).all() and (grad[:, :5] != 0).all()
    none = policy.loss(windows | {"mask": torch.zeros(6, 8, dtype=torch.bool)})
    assert float(none.detach()) == 0.0
