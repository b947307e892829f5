"""A gripper that decides: what it was told, what changes cost, and what is learned of it, by hand arithmetic."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chunk_samples import step_spec
from torch import Tensor

from robolearn import export
from robolearn.actions import Commander
from robolearn.algos.gripper import Gripper, told
from robolearn.algos.off_policy import OffPolicy
from robolearn.algos.sac import SAC, SACCfg
from robolearn.algos.td3 import TD3, TD3Cfg
from robolearn.bundle import Bundle, load, save
from robolearn.errors import ConfigError
from robolearn.loops import checkpoint
from robolearn.loops.threads import one_thread
from robolearn.policies.residual import correction_spec
from robolearn.policies.squashed import CLOSED, OPEN
from robolearn.robots.franka import FINGERS, FRANKA
from robolearn.spec import PolicySpec

BOTH = pytest.mark.parametrize("algo", ["td3", "sac"])
KINDS = {"td3": (TD3, TD3Cfg), "sac": (SAC, SACCfg)}
SMALL = {"hidden": (16,), "batch": 16, "capacity": 200, "warmup_steps": 10**6, "gripper": "discrete"}
HAND = {"gripper": {"joints": list(FINGERS), "closed": [0.0, 0.0], "open": [0.04, 0.04]}}


def spec(arm: int = 2) -> PolicySpec:
    """Three numbers are seen; joints are moved and the hand is."""
    made = step_spec(action=arm)
    names = (*FRANKA.arm_joints[:arm], "gripper")
    return replace(made, action=replace(made.action, names=names, scale=(0.04,) * arm, params=HAND))


def make(algo: str = "td3", seed: int = 0, num_envs: int = 1, **given: Any) -> OffPolicy:
    kind, cfg = KINDS[algo]
    generator = torch.Generator().manual_seed(seed)
    return kind(cfg(**(SMALL | given)), spec(), num_envs, torch.device("cpu"), generator)


def decides(algo: OffPolicy) -> Gripper:
    assert algo.gripper is not None
    return algo.gripper


def live(algo: OffPolicy, *episodes: list[float], reward: float = 0.0, human: bool = False, seed: int = 0) -> None:
    """The hand's number after each step; an episode ends with a time limit."""
    generator = torch.Generator().manual_seed(seed)
    for hands in episodes:
        algo.begin(0, {"policy": torch.randn(1, 3, generator=generator)})
        for k, hand in enumerate(hands):
            ends = torch.tensor([False]), torch.tensor([k == len(hands) - 1])
            obs = {"policy": torch.randn(1, 3, generator=generator)}
            action = torch.tensor([[0.5, 0.5, hand]])
            algo.receive(0, action, torch.tensor([reward]), *ends, obs, torch.tensor([human]))


def known(algo: OffPolicy) -> dict[str, list[float]]:
    """Of all transitions in order."""
    found = decides(algo).of(algo.replay, algo.replay.acted.nonzero().flatten())
    return {k: [round(x, 6) for x in v.tolist()] for k, v in found.items()}


# --- what was decided ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "opened"),
    [(1.0, 0.4, False), (0.4, -1.0, False), (-1.0, -1.0, False), (-0.97, -1.0, False), (-1.0, -0.4, True),
     (-0.4, 0.2, True), (0.75, 1.0, True), (1.0, 1.0, True), (0.5, 0.5, True), (-0.5, -0.5, False)],
)  # fmt: skip
def test_what_fingers_were_told_is_where_they_go_or_stay(before: float, now: float, opened: bool) -> None:
    assert bool(told(torch.tensor([now]), torch.tensor([before]))) == opened


@pytest.mark.parametrize("seed", range(5))
def test_a_franka_at_10_hz_shows_what_its_hand_was_told(seed: int) -> None:
    """Through its limits, whatever was told before; from the posture in which it begins."""
    arm = replace(spec(7).action, scale=(0.04,) * 7)
    commander, steps = Commander(arm, FRANKA, 1, 0.1, "cpu"), 60
    asked = torch.rand(steps, generator=torch.Generator().manual_seed(seed)) < 0.5
    numbers = torch.tensor([OPEN])
    for opened in asked:
        action = torch.cat((torch.zeros(1, 7), torch.full((1, 1), OPEN if opened else CLOSED)), dim=1)
        numbers = torch.cat((numbers, commander(action).applied_action[:, -1]))
    assert float(numbers.abs().min()) < 0.9  # or there would be nothing to find out
    assert torch.equal(told(numbers[1:], numbers[:-1]), asked)


def test_choices_and_what_changes_cost() -> None:
    """Closes on the way, opens, closes again: three changes; the second episode opens a hand that is open, the third
    begins with closing it."""
    algo = make(gripper_penalty=0.25)
    live(algo, [1.0, 0.4, -1.0, -1.0, 0.0, -1.0], [1.0, 1.0], [0.3, -1.0])
    found = known(algo)
    assert found["choice"] == [1, 0, 0, 0, 1, 0, 1, 1, 0, 0]
    assert found["cost"] == [0.0, 0.25, 0.0, 0.0, 0.25, 0.25, 0.0, 0.0, 0.25, 0.0]


def test_costs_add_up_over_the_steps_of_a_return() -> None:
    """Three steps, gamma 0.5, a change at the second and the fourth; not beyond the episode's end."""
    algo = make(gripper_penalty=1.0, gamma=0.5, n_step=3)
    live(algo, [1.0, -1.0, -1.0, 1.0], [-1.0, -1.0])
    assert known(algo)["cost"] == [0.5, 1.25, 0.5, 1.0, 1.0, 0.0]


def test_lanes_whose_steps_come_in_turn_do_not_mix() -> None:
    """As above: the first lane changes at its second and fourth step, the other at its first and third."""
    algo = make(num_envs=2, capacity=40, gripper_penalty=1.0, gamma=0.5, n_step=3)
    hands, no = ([1.0, -1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]), torch.tensor([False])
    for lane in (1, 0):
        algo.begin(lane, {"policy": torch.zeros(1, 3)})
    for t in range(4):
        for lane in [k for k in (0, 1) if t < len(hands[k])]:
            action = torch.tensor([[0.5, 0.5, hands[lane][t]]])
            algo.receive(lane, action, torch.zeros(1), no, no, {"policy": torch.zeros(1, 3)}, no)
    assert known(algo) == {"choice": [1, 0, 0, 1, 0, 0, 1], "cost": [0.5, 1.25, 0.5, 1.0, 1.25, 0.5, 1.0]}


def test_what_was_overwritten_is_not_guessed() -> None:
    """Six slots: of the episode's eight steps the last five are left, the oldest without its predecessor: its number
    alone counts, and it changed nothing."""
    algo = make(gripper_penalty=0.25, capacity=6)
    live(algo, [1.0, 1.0, 1.0, 0.2, -1.0, 1.0, 1.0, -1.0])
    rows = algo.replay.acted.nonzero().flatten()
    rows = rows[algo.replay.t[rows].argsort()]
    found = decides(algo).of(algo.replay, rows)
    assert algo.replay.t[rows].tolist() == [3, 4, 5, 6, 7]
    assert found["choice"].tolist() == [1, 0, 1, 1, 0] and found["cost"].tolist() == [0.0, 0.25, 0.25, 0.0, 0.25]


@BOTH
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_the_penalty_is_learned_from_and_is_not_the_tasks_reward(algo: str, ratio: float) -> None:
    """Each step is a change: 0.02 in every batch, whatever the ratio of updates is."""
    learner = make(algo, ratio=ratio)
    live(learner, [-1.0, 1.0] * 10, reward=0.5)
    learner.learn()
    assert learner.update({}, 0.0)["gripper_cost"] == pytest.approx(0.02)
    assert set(learner.batch()["reward"].tolist()) == {0.5} and set(learner.replay.reward.tolist()) == {0.0, 0.5}


# --- targets -------------------------------------------------------------------------------------------------


def constant(net: Any, closed: float, opened: float) -> None:
    with torch.no_grad():
        net.weights[-1].zero_()
        net.biases[-1][0, 0] = torch.tensor([closed, opened])


def batch_of(algo: OffPolicy, choice: list[int], **given: list[float]) -> dict[str, Tensor]:
    n = len(choice)
    numbers = {"reward": [0.0] * n, "cost": [0.0] * n, "discount": [0.5] * n, "human": [0.0] * n} | given
    return {"choice": torch.tensor(choice)} | {k: torch.tensor(v) for k, v in numbers.items()}


def loss_of(algo: OffPolicy, batch: dict[str, Tensor]) -> float:
    seen = torch.zeros(len(batch["choice"]), algo.policy.dim)
    return float(decides(algo).loss(batch, seen, seen)[0].detach())


def test_the_network_chooses_and_its_target_values() -> None:
    """Open is better by the network (2 of 1), and worth 3 by the target, which would rather close (5). One step that
    closed, reward 1, cost 0.25: 1 - 0.25 + 0.5 * 3 = 2.25, of which 1 was said; one that opened and ended: 1 of 2."""
    algo = make()
    constant(decides(algo).hand, 1.0, 2.0)
    constant(decides(algo).target, 5.0, 3.0)
    first = batch_of(algo, [0], reward=[1.0], cost=[0.25])
    assert loss_of(algo, first) == pytest.approx(1.25**2)
    assert loss_of(algo, batch_of(algo, [1], reward=[1.0], discount=[0.0])) == pytest.approx(1.0)


def test_bounds_of_returns_leave_room_for_costs() -> None:
    """With returns in [0, 1] and gamma 0.5, costs of 0.1 add up to 0.2 at most: -0.3 counts as -0.2, 7 as 1."""
    algo = make(value_low=0.0, value_high=1.0, gamma=0.5, gripper_penalty=0.1)
    constant(decides(algo).hand, 0.0, 0.0)
    constant(decides(algo).target, 14.0, 14.0)
    assert loss_of(algo, batch_of(algo, [0])) == pytest.approx(1.0)
    for cost, expected in ((0.1, 0.01), (0.3, 0.04)):
        assert loss_of(algo, batch_of(algo, [0], cost=[cost], discount=[0.0])) == pytest.approx(expected)


def test_the_target_follows_by_tau() -> None:
    algo = make(tau=0.25)
    live(algo, [1.0, -1.0] * 10)
    before = copy.deepcopy(list(decides(algo).target.parameters()))
    algo.learn()
    pairs = zip(before, decides(algo).hand.parameters(), decides(algo).target.parameters(), strict=True)
    for old, new, now in pairs:
        torch.testing.assert_close(now.detach(), old + 0.25 * (new.detach() - old))
    assert any(not torch.equal(a, b) for a, b in zip(before, decides(algo).target.parameters(), strict=True))


# --- the person ----------------------------------------------------------------------------------------------


def test_a_persons_choice_is_imitated_by_cross_entropy() -> None:
    """Values 0 and 0.1 are logits 0 and 1. Of two persons' steps, one closed: log(1 + e) and log(1 + 1/e)."""
    algo = make(labels="supervised", imitation=2.0)
    constant(decides(algo).hand, 0.0, 0.1)
    batch = batch_of(algo, [0, 1, 0], human=[1.0, 1.0, 0.0])
    seen = torch.zeros(3, algo.policy.dim)
    expected = (1.3132617 + 0.3132617) / 2
    assert float(decides(algo).surprise(batch, seen)) == pytest.approx(expected)
    plain = make()
    constant(decides(plain).hand, 0.0, 0.1)
    constant(decides(algo).target, 0.0, 0.0)
    constant(decides(plain).target, 0.0, 0.0)
    assert loss_of(algo, batch) - loss_of(plain, batch) == pytest.approx(2.0 * expected, rel=1e-5)


@BOTH
def test_hg_dagger_imitates_the_hand_too(algo: str) -> None:
    """A person who closes where the first number is above 0, with numbers in between as a slow hand's; no critic is
    asked."""
    learner = make(algo, labels="hg_dagger", actor_every=1, actor_rate=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        obs = {"policy": torch.randn(1, 3, generator=generator)}
        learner.begin(0, obs)
        hand, no = (0.3 if float(obs["policy"][0, 0]) > 0.0 else 1.0), torch.tensor([False])
        action, over = torch.tensor([[0.5, -0.5, hand]]), torch.tensor([True])
        learner.receive(0, action, torch.zeros(1), over, no, obs, over)
    before = copy.deepcopy(decides(learner).target.state_dict())
    with one_thread():
        for _ in range(200):
            learner.learn()
    probe = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    said = learner.policy.act({"policy": probe})
    assert said[:, 2].tolist() == [CLOSED, OPEN]
    torch.testing.assert_close(said[:, :2], torch.tensor([[0.5, -0.5]] * 2), atol=0.05, rtol=0.0)
    assert all(torch.equal(v, before[k]) for k, v in decides(learner).target.state_dict().items())


# --- acting --------------------------------------------------------------------------------------------------


@BOTH
def test_the_hand_is_told_one_of_two_and_the_arm_is_not_cut(algo: str) -> None:
    learner = make(algo, num_envs=1000, capacity=5000, gripper_epsilon=0.5)
    obs = {"policy": torch.randn(1000, 3)}
    said = learner.act(obs)
    assert said.shape == (1000, 3) and set(said[:, 2].tolist()) == {CLOSED, OPEN}
    assert set(learner.policy.act(obs)[:, 2].tolist()) == {OPEN}  # untrained
    assert 200 < int((said[:, 2] == CLOSED).sum()) < 300  # a half of the half that is drawn
    assert learner.policy.mean(learner.policy.features(obs)).shape == (1000, 2)


def test_without_epsilon_nothing_is_drawn_at_random() -> None:
    learner = make(num_envs=100, capacity=5000, gripper_epsilon=0.0)
    assert set(learner.act({"policy": torch.randn(100, 3)})[:, 2].tolist()) == {OPEN}


@BOTH
def test_critics_value_the_arm_alone(algo: str) -> None:
    learner, obs = make(algo), {"policy": torch.randn(4, 3)}
    action = torch.rand(4, 3)
    other = torch.cat((action[:, :2], -action[:, 2:]), dim=1)
    assert torch.equal(learner.value(obs, action), learner.value(obs, other))
    assert not torch.equal(learner.value(obs, action), learner.value(obs, -action))


HAND_ALONE = replace(spec(), action=replace(spec().action, names=("gripper",), scale=()))


@pytest.mark.parametrize("strange", [step_spec(), correction_spec(spec(), 0.1), HAND_ALONE])
def test_what_has_no_hand_to_decide_for_is_refused(strange: PolicySpec) -> None:
    with pytest.raises(ConfigError, match=r"algo\.gripper=discrete needs .*: leave it continuous"):
        TD3(TD3Cfg(**SMALL), strange, 1, torch.device("cpu"), torch.Generator())


@pytest.mark.parametrize(
    ("name", "value"),
    [("gripper", "discreet"), ("gripper_penalty", -0.1), ("gripper_penalty", float("inf")), ("gripper_epsilon", 1.5)],
)
def test_settings_outside_their_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"algo\..*{name}"):
        TD3Cfg(**{name: value})


# --- the whole -----------------------------------------------------------------------------------------------


@BOTH
def test_the_right_choice_is_learned_from_reward(algo: str) -> None:
    """One step an episode: 1 for closing where the first number is above 0, and for opening elsewhere; but closing
    costs 0.6. So where it pays it is done, with gains of 0.4, and nowhere else."""
    learner = make(algo, gripper_penalty=0.6, critic_rate=3e-3, batch=64, capacity=1000)
    generator = torch.Generator().manual_seed(0)
    over, no = torch.tensor([True]), torch.tensor([False])
    for _ in range(300):
        obs = {"policy": torch.randn(1, 3, generator=generator)}
        closes = bool(torch.rand((), generator=generator) < 0.5)
        right = closes == bool(obs["policy"][0, 0] > 0.0)
        action = torch.tensor([[0.0, 0.0, CLOSED if closes else OPEN]])
        learner.begin(0, obs)
        learner.receive(0, action, torch.tensor([float(right)]), over, no, obs, no)
    with one_thread():
        for _ in range(300):
            learner.learn()
    probe = torch.zeros(2, 3)
    probe[:, 0] = torch.tensor([1.0, -1.0])
    worth = learner.policy.choices(learner.policy.features({"policy": probe}))
    torch.testing.assert_close(worth, torch.tensor([[0.4, 0.0], [-0.6, 1.0]]), atol=0.2, rtol=0.0)
    assert learner.policy.act({"policy": probe})[:, 2].tolist() == [CLOSED, OPEN]


def trained(algo: str) -> OffPolicy:
    learner = make(algo, capacity=400)
    live(learner, [1.0, 0.4, -1.0, 1.0] * 10, [1.0, -1.0] * 20, reward=0.5)
    with one_thread():
        for _ in range(20):
            learner.learn()
    return learner


@BOTH
def test_a_bundle_carries_the_decisions(tmp_path: Path, algo: str) -> None:
    policy = trained(algo).policy.eval()
    save(tmp_path / "bundle", Bundle(policy, FRANKA))
    again, obs = load(tmp_path / "bundle").policy, {"policy": 3.0 * torch.randn(200, 3)}
    said = policy.act(obs)
    assert torch.equal(again.act(obs), said) and set(said[:, 2].tolist()) == {CLOSED, OPEN}


@BOTH
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_export_decides_the_same(tmp_path: Path, algo: str, format: str) -> None:
    pytest.importorskip("onnxruntime" if format == "onnx" else "torch")
    policy = trained(algo).policy
    assert export.export(policy, tmp_path / f"policy{export.SUFFIXES[format]}", format) <= export.TOLERANCE


@BOTH
def test_what_follows_a_checkpoint_is_the_same_to_the_bit(tmp_path: Path, algo: str) -> None:
    one, other = trained(algo), make(algo, seed=1, capacity=400)
    checkpoint.write(tmp_path, 1, one.state_dict())
    other.load_state_dict(checkpoint.read_newest(tmp_path))
    other.generator.set_state(one.generator.get_state())
    with one_thread():
        for learner in (one, other):
            live(learner, [1.0, -1.0, 0.0], seed=3)
            learner.learn()
            learner.propose({"policy": torch.ones(1, 3)})
    a, b = (checkpoint.flatten(learner.state_dict())[0] for learner in (one, other))
    assert a.keys() == b.keys() and [k for k in a if not torch.equal(a[k], b[k])] == []
    assert any(k.startswith("gripper") for k in a)
