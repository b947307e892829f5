"""What a person's steps mean to those who learn from them, on timelines drawn by hand; and worlds with a person."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from chunk_samples import step_spec
from torch import Tensor

from robolearn.algos.off_policy import OffPolicy
from robolearn.algos.sac import SAC, SACCfg
from robolearn.algos.td3 import TD3, TD3Cfg
from robolearn.hil.env import HumanEnv
from robolearn.loops import checkpoint
from robolearn.robots.franka import FINGERS, FRANKA
from robolearn.spec import PolicySpec

SMALL = {"hidden": (8,), "batch": 16, "capacity": 200, "warmup_steps": 10**6, "n_step": 1}
KINDS = {"td3": (TD3, TD3Cfg), "sac": (SAC, SACCfg)}


def deciding_spec() -> PolicySpec:
    """Two joints of an arm, and a hand."""
    made = step_spec()
    names, params = (*FRANKA.arm_joints[:2], "gripper"), {"gripper": {"joints": list(FINGERS)}}
    return replace(made, action=replace(made.action, names=names, scale=(0.04,) * 2, params=params))


def learner(labels: str = "hil_serl", algo: str = "td3", num_envs: int = 1, **given: Any) -> OffPolicy:
    kind, cfg = KINDS[algo]
    settings = cfg(**(SMALL | {"labels": labels} | given))
    return kind(settings, step_spec(), num_envs, torch.device("cpu"), torch.Generator().manual_seed(0))


def live(algo: OffPolicy, timeline: str, reward: float = 0.0) -> None:
    """A step a character: `.` the policy's, `h` the person's; `|` after a step ends its episode by the time limit, `!`
    by its end. Frames are numbered from 1, an episode's first one has another number than the last one before it; a
    person's actions are 0.5, the policy's 0."""
    number, steps = 1.0, [(c, timeline[k + 1 : k + 2]) for k, c in enumerate(timeline) if c in ".h"]

    def frame() -> dict[str, Tensor]:
        nonlocal number
        number += 1.0
        return {"policy": torch.full((1, 3), number - 1.0)}

    obs = frame()
    for who, end in steps:
        algo.act(obs)
        human = torch.tensor([who == "h"])
        final = frame()
        obs = frame() if end in ("|", "!") and end else final
        action = torch.where(human[:, None], 0.5, 0.0).expand(1, 2)
        ends = torch.tensor([end == "!"]), torch.tensor([end == "|"])
        extras = {"final_obs": final, "applied_action": action, "intervened": human}
        algo.observe(obs, torch.tensor([reward]), *ends, extras)


def told(algo: OffPolicy) -> list[tuple[float, bool, float]]:
    """Of the transitions in order: the frame's number, whose action, the reward."""
    rows = algo.replay.acted.nonzero().flatten()
    batch = algo.replay.gather(rows, 1, 0.9)
    numbers, human, reward = batch["obs/policy"][:, 0].tolist(), batch["human"].tolist(), batch["reward"].tolist()
    return list(zip(numbers, human, reward, strict=True))


# --- labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeline", "blamed"),
    [
        ("....", []),
        ("..hh..", [1]),
        ("..hh.h.", [1, 4]),
        ("hh..", []),  # an episode's first action had none before it
        (".|h.", []),  # what ended an episode did not make anybody take over in the next
        (".h|h..h", [0, 4]),  # a person who stays over a reset takes over anew, but nobody is to blame for it
        (".hhh!.h", [0, 4]),
    ],
)
def test_rlif_blames_the_action_before_each_onset_and_nothing_else(timeline: str, blamed: list[int]) -> None:
    algo = learner("rlif")
    live(algo, timeline, reward=1.0)
    assert [k for k, (_, _, reward) in enumerate(told(algo)) if reward == -1.0] == blamed
    assert {reward for *_, reward in told(algo)} <= {0.0, -1.0}


def test_rlif_keeps_every_transition_of_an_intervention_and_of_an_episodes_end() -> None:
    """The original inserts neither."""
    algo = learner("rlif")
    live(algo, ".hh.!hh|")
    assert [human for _, human, _ in told(algo)] == [False, True, True, False, True, True]


@pytest.mark.parametrize("labels", ["hil_serl", "supervised", "hg_dagger"])
def test_others_keep_the_tasks_reward(labels: str) -> None:
    algo = learner(labels)
    live(algo, "..hh.h.", reward=0.25)
    assert {reward for *_, reward in told(algo)} == {0.25}


def demonstrated(algo: OffPolicy, steps: int = 10) -> None:
    demos = algo.new_replay(50, 1)
    ends = torch.arange(steps) == steps - 1
    demos.add_episode({"policy": torch.full((steps, 3), -1.0)}, torch.ones(steps, 2), torch.ones(steps), ends)
    algo.learn_also_from(demos)


def test_a_persons_steps_are_demonstrations_too() -> None:
    """Ten steps of demonstrations and thirty of a person share the demonstrations' half of a batch of 16 as 2 to 6; the
    other half is of everything that was lived through."""
    algo = learner()
    demonstrated(algo)
    live(algo, 30 * "h" + 30 * ".")
    for _ in range(10):
        batch = algo.batch()
        assert (batch["obs/policy"][:, 0] == -1.0).sum() == 2 and batch["human"][8:].all()
    mine = torch.cat([algo.batch()["human"][:8] for _ in range(50)]).float().mean()
    assert 0.4 < float(mine) < 0.6


def test_interventions_alone_are_demonstrations() -> None:
    algo = learner()
    live(algo, 10 * ".")
    assert not algo.batch()["human"].any()
    live(algo, 10 * "h")
    assert algo.batch()["human"][8:].all()


def test_what_was_overwritten_is_no_demonstration() -> None:
    algo = learner(capacity=20)
    live(algo, 10 * "h" + 30 * ".")
    assert not len(algo._persons) and not algo.batch()["human"].any()


def test_rlif_pays_nothing_for_demonstrations() -> None:
    algo = learner("rlif")
    demonstrated(algo)
    live(algo, "...")
    assert float(algo.batch()["reward"].abs().max()) == 0.0


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_hg_dagger_imitates_the_person_and_asks_no_critic(algo: str) -> None:
    """Actions of 0.5 by the person, of 0 by the policy: the first are learned, and acted without noise."""
    imitator = learner("hg_dagger", algo, actor_every=1, actor_rate=1e-2)
    live(imitator, 20 * ".h")
    critics = copy.deepcopy(imitator.critic.state_dict())
    for _ in range(300):
        imitator.learn()
    said = imitator.act({"policy": torch.full((1, 3), 20.0)})
    torch.testing.assert_close(said, torch.full((1, 2), 0.5), atol=0.05, rtol=0.0)
    assert all(torch.equal(v, critics[k]) for k, v in imitator.critic.state_dict().items())


@torch.no_grad()
def test_supervised_adds_the_distance_to_the_persons_actions_alone() -> None:
    """The untrained actor says about 0: (0.5 - 0)^2 from the person's actions, whatever the policy's were."""
    algo = learner("supervised", imitation=100.0)
    live(algo, 20 * "h" + 20 * ".")
    algo._fit()
    batch, noise = algo.batch(), torch.zeros(16, 2)
    said = algo.policy.act({"policy": batch["obs/policy"]})[batch["human"]]
    away = float(((said - 0.5) ** 2).mean())
    assert 0.2 < away < 0.3 and 8 <= len(said) < 16
    added = algo.actors_loss(batch, noise)[0] - algo.actor_loss(batch, noise)[0]
    assert float(added) == pytest.approx(100.0 * away, rel=1e-4)


def test_labels_have_names() -> None:
    with pytest.raises(ValueError, match=r"algo\.labels: .*rlif"):
        TD3Cfg(labels="rlf")


def test_who_acted_survives_a_checkpoint(tmp_path: Any) -> None:
    """The blame too: the person was acting when it was written, so the next step is no onset."""
    first, second = learner("rlif"), learner("rlif")
    live(first, "..hh")
    checkpoint.write(tmp_path, 1, first.state_dict())
    second.load_state_dict(checkpoint.read_newest(tmp_path))
    assert told(first) == told(second) and torch.equal(first._persons, second._persons)
    for algo in (first, second):
        obs = {"policy": torch.zeros(1, 3)}
        no, human = torch.tensor([False]), torch.tensor([True])
        algo.act(obs)
        extras = {"final_obs": obs, "applied_action": torch.zeros(1, 2), "intervened": human}
        algo.observe(obs, torch.zeros(1), no, no, extras)
    assert told(first) == told(second) and [r for *_, r in told(first)] == [0.0, -1.0, 0.0, 0.0, 0.0]


# --- worlds --------------------------------------------------------------------------------------------------


class Counting:
    """A world of three steps an episode, in every second of which the robot does the half of what it is told."""

    device, common_step_counter = torch.device("cpu"), 0

    def __init__(self, num_envs: int = 2):
        self.num_envs, self.action_spec = num_envs, step_spec().action
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)
        self.sent: list[Tensor] = []

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.episode_length_buf.zero_()
        return {"policy": torch.zeros(self.num_envs, 3)}, {}

    def step(self, action: Tensor) -> Any:
        self.sent.append(action.clone())
        self.episode_length_buf = self.episode_length_buf + 1
        over, no = self.episode_length_buf >= 3, torch.zeros(self.num_envs, dtype=torch.bool)
        self.episode_length_buf = self.episode_length_buf * ~over
        obs = {"policy": self.episode_length_buf[:, None].expand(-1, 3).float()}
        return obs, no.float(), no, over, {"final_obs": obs, "applied_action": 0.5 * action, "episode": {}, "log": {}}


class Scripted:
    """Acts by a table (steps, B), always 1."""

    def __init__(self, table: list[list[int]]):
        self.table, self.begun, self.seen = torch.tensor(table, dtype=torch.bool), [], []  # type: ignore[var-annotated]

    def reset(self, mask: Tensor) -> None:
        self.begun.append(mask.tolist())

    def act(self, obs: dict[str, Tensor], proposed: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(obs["policy"][:, 0].tolist())
        return self.table[len(self.seen) - 1], torch.ones_like(proposed)


def test_the_person_acts_where_it_is_in_control_and_both_actions_are_kept() -> None:
    world, person = Counting(), Scripted([[0, 1], [1, 1], [0, 0], [1, 0]])
    env = HumanEnv(world, person)  # type: ignore[arg-type]
    env.reset()
    found = [env.step(torch.full((2, 2), -0.2))[-1] for _ in range(4)]
    assert [e["intervened"].tolist() for e in found] == person.table.tolist()
    assert [s[:, 0].tolist() for s in world.sent] == [[pytest.approx(v) for v in row] for row in
                                                      ([-0.2, 1.0], [1.0, 1.0], [-0.2, -0.2], [1.0, -0.2])]  # fmt: skip
    assert all(torch.equal(e["proposed"], torch.full((2, 2), -0.2)) for e in found)
    assert torch.equal(found[0]["applied_action"], 0.5 * world.sent[0])  # what reached the robot, whoever said it
    assert found[2]["episode"]["intervened"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert found[3]["episode"]["intervened"].tolist() == [1.0, 0.0]  # of the next episode
    assert person.seen[:3] == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]] and person.begun == [[True] * 2] * 2


# --- environments that keep no time with each other ----------------------------------------------------------


def test_lanes_that_come_one_by_one_are_as_those_that_come_together() -> None:
    """Two environments of the same three steps, the second's intervened with; once both at a time, once all of one and
    then all of the other. Episodes are numbered as they begin."""
    together, apart = learner("rlif", num_envs=2), learner("rlif", num_envs=2)
    frames = torch.arange(8.0).reshape(4, 2, 1).expand(4, 2, 3)  # (T, B, 3)
    human = torch.tensor([[False, False], [False, True], [False, True]])
    over = torch.tensor([[False, False], [False, False], [True, True]])
    no, reward = torch.zeros(2, dtype=torch.bool), torch.ones(2)
    for t in range(3):
        together.act({"policy": frames[t]})
        extras = {"final_obs": {"policy": frames[t + 1]}, "applied_action": torch.full((2, 2), 0.1 * t),
                  "intervened": human[t]}  # fmt: skip
        together.observe({"policy": frames[0]}, reward.clone(), over[t], no, extras)
    for lane in (1, 0):
        one = slice(lane, lane + 1)
        apart.begin(lane, {"policy": frames[0, one]})
        for t in range(3):
            apart.receive(lane, torch.full((1, 2), 0.1 * t), reward[one].clone(), over[t, one], no[one],
                          {"policy": frames[t + 1, one]}, human[t, one])  # fmt: skip
    assert told(together) == told(apart)
    assert [r for *_, r in told(apart)] == [0.0, 0.0, 0.0, -1.0, 0.0, 0.0]
    assert apart.env_steps == together.env_steps == 6


def test_a_lane_has_to_begin_again_after_its_episodes_end() -> None:
    algo = learner(num_envs=2)
    step = torch.zeros(1, 2), torch.zeros(1), torch.tensor([True]), torch.tensor([False]), {"policy": torch.zeros(1, 3)}
    algo.begin(0, {"policy": torch.zeros(1, 3)})
    algo.receive(0, *step, torch.tensor([False]))
    with pytest.raises(ValueError, match="a lane's episode has not begun"):
        algo.receive(0, *step, torch.tensor([False]))
    with pytest.raises(ValueError, match="a lane's episode has not begun"):
        algo.receive(1, *step, torch.tensor([False]))


def test_a_first_frame_in_the_middle_of_an_episode_cuts_it() -> None:
    """As after an actor's restart: nothing leads from before to after, and the person who was in control is not."""
    algo = learner("rlif")
    for start in (1.0, 10.0):
        algo.begin(0, {"policy": torch.full((1, 3), start)})
        for t, human in enumerate((False, True)):
            no = torch.tensor([False])
            algo.receive(0, torch.zeros(1, 2), torch.zeros(1), no, no, {"policy": torch.full((1, 3), start + t + 1)},
                         torch.tensor([human]))  # fmt: skip
    rows = algo.replay.acted.nonzero().flatten()
    batch = algo.replay.gather(rows, 5, 0.9)
    assert batch["next/policy"][:, 0].tolist() == [3.0, 3.0, 12.0, 12.0]
    assert [r for *_, r in told(algo)] == [-1.0, 0.0, -1.0, 0.0]


@pytest.mark.gpu
@pytest.mark.parametrize("gripper", ["continuous", "discrete"])
def test_a_gpu_learns_from_what_actors_tell_a_cpu(gripper: str) -> None:
    """Every third step is an onset; the same is stored, and batches are learned from."""
    given = {"labels": "rlif", "warmup_steps": 0, "gripper": gripper, "hidden": (8,), "batch": 16, "capacity": 50}
    spec = step_spec() if gripper == "continuous" else deciding_spec()
    found = []
    for device in ("", "cuda"):
        algo = SAC(SACCfg(**given, device=device), spec, 1, torch.device("cpu"), torch.Generator().manual_seed(0))
        algo.begin(0, {"policy": torch.zeros(1, 3)})
        for k in range(12):
            no, human = torch.tensor([False]), torch.tensor([k % 3 == 2])
            action, frame = torch.full((1, spec.action.dim), 0.1 * k), {"policy": torch.full((1, 3), k + 1.0)}
            algo.receive(0, action, torch.ones(1), no, no, frame, human)
        assert algo.catch_up() == 12
        found.append(told(algo))
    assert found[0] == found[1] and [r for *_, r in found[0]].count(-1.0) == 4


@pytest.mark.parametrize("most", [1, 3, 100])
def test_updates_that_are_owed_are_made_up_for_and_no_more(most: int) -> None:
    algo = learner(warmup_steps=2, ratio=0.5)
    algo.begin(0, {"policy": torch.zeros(1, 3)})
    no = torch.tensor([False])
    for _ in range(12):  # the second is the first that counts: 11 steps, 5 updates
        algo.receive(0, torch.zeros(1, 2), torch.zeros(1), no, no, {"policy": torch.zeros(1, 3)}, no)
    assert algo.catch_up(most) == min(most, 5) and algo.updates == min(most, 5)
    assert algo.catch_up() == max(0, 5 - most)
