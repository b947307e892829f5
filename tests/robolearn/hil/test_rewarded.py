"""A reward source in a world that runs: a real classifier whose last layer is set by hand to what it shall say."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from robolearn import config
from robolearn.cli import _hil_reward, _world, hil
from robolearn.config import ConfigError
from robolearn.data import labels
from robolearn.data.read import Episodes
from robolearn.env import Env
from robolearn.hil.rewarded import RewardedEnv
from robolearn.rewards import bundle
from robolearn.rewards.base import RewardError
from robolearn.rewards.classifier import Classifier, ClassifierCfg
from robolearn.rewards.time_penalty import TimePenalty, TimePenaltyCfg

_world.discover()
WORDS = ["task=cartpole", "algo=td3", "task.episode_length_s=1", "backend.threads=1"]
SIZE = 5
ACTION = torch.zeros(1, 1)


def classifier(**settings: Any) -> Classifier:
    """Reads the state, sees success with k of n = 2 of 3 steps, and says no until it is told otherwise."""
    torch.manual_seed(0)
    cfg = ClassifierCfg(observed=("policy",), threshold=0.5, k=2, n=3, hidden=8, **settings)
    made = Classifier(cfg, {"policy": (SIZE,)}).eval()
    with torch.no_grad():
        made.head[-1].weight.zero_()
    say(made, False)
    return made


def say(source: Any, success: bool) -> None:
    with torch.no_grad():
        source.head[-1].bias.fill_(10.0 if success else -10.0)


@pytest.fixture
def world() -> Any:
    cfg = config.load(hil.HilCfg, WORDS)
    env = _world.make_env(cfg.task, cfg.backend, 1, "cpu", 0)
    yield env
    env.close()


class Unsuccessful:
    """The simulated world, whose own check sees no success; whatever stands there, a pole that is up is one."""

    def __init__(self, world: Any):
        self.world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def step(self, action: torch.Tensor) -> Any:
        *out, extras = self.world.step(action)
        return *out, extras | {"episode": extras["episode"] | {"success": torch.zeros(1)}}


def test_its_success_ends_the_episode_with_reward_one_after_two_of_three_steps(world: Any) -> None:
    source = classifier(at_start="warn")
    env = RewardedEnv(world, source)
    assert isinstance(env, Env)
    start, _ = env.reset(seed=0)
    told = []
    for k in range(4):
        say(source, k != 1)  # yes, no, yes: success
        obs, reward, terminated, truncated, extras = env.step(ACTION)
        told.append((float(reward), bool(terminated), bool(truncated), float(extras["episode"]["success"])))
        if terminated:
            break
    assert told == [(0.0, False, False, 0.0), (0.0, False, False, 0.0), (1.0, True, False, 1.0)]
    assert int(world.episode_length_buf) == 0 and not torch.equal(obs["policy"], extras["final_obs"]["policy"])
    assert "awaiting_reset" not in extras and obs["policy"].shape == start["policy"].shape


def test_a_success_that_the_simulation_does_not_see_goes_back_with_all_that_was_seen(world: Any) -> None:
    source, kept = classifier(), []
    env = RewardedEnv(Unsuccessful(world), source, on_doubt=kept.append)  # type: ignore[arg-type]
    start, _ = env.reset(seed=0)
    say(source, True)
    env.step(ACTION)
    *_, extras = env.step(ACTION)
    (seen,) = kept
    assert (env.claims, env.doubts, len(seen)) == (1, 1, 3)
    assert torch.equal(seen[0]["policy"], start["policy"])
    assert torch.equal(seen[2]["policy"], extras["final_obs"]["policy"])


def test_success_at_the_first_sight_lets_no_episode_begin(world: Any) -> None:
    source = classifier()
    env = RewardedEnv(world, source)
    say(source, True)
    with pytest.raises(RewardError, match=r"success .* at the first sight"):
        env.reset(seed=0)
    say(source, False)
    env.reset()
    say(source, True)
    env.step(ACTION)
    *_, extras = env.step(ACTION)  # the end, and the next one would begin with success
    assert extras["awaiting_reset"]
    with pytest.raises(RewardError):
        env.reset()


def test_a_time_limit_stays_one(world: Any) -> None:
    env = RewardedEnv(world, classifier())
    env.reset(seed=0)
    for _ in range(world.max_episode_length):
        _, reward, terminated, truncated, extras = env.step(ACTION)
        if terminated | truncated:
            break
    assert (float(reward), float(extras["episode"]["success"])) == (0.0, 0.0)
    assert bool(truncated) == (extras["episode"]["length"] == world.max_episode_length)


def test_a_price_for_every_step_replaces_the_tasks_reward(world: Any) -> None:
    env = RewardedEnv(world, TimePenalty(TimePenaltyCfg(cost=0.25), {}))
    env.reset(seed=0)
    _, reward, terminated, _, extras = env.step(ACTION)
    done = bool(extras["episode"]["success"])
    assert float(reward) == (0.0 if done else -0.25) and bool(terminated) == done


# --- a robot's contract --------------------------------------------------------------------------------------


class Robot:
    """The contract of a robot's world over the simulated one: it never resets itself, and a person ends episodes."""

    def __init__(self, world: Any):
        self.world, self.told, self.pressed, self.held = world, (), "", 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def hold(self) -> None:
        self.held += 1

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        obs, extras = self.world.reset(seed=seed)
        return obs, extras | {"told": self.told}

    def step(self, action: torch.Tensor) -> Any:
        obs, reward, _, _, extras = self.world.step(action)
        over = torch.tensor([bool(self.pressed)])
        episode = {"success": torch.tensor([float(self.pressed == "success")])}
        return obs, reward, over, ~over & False, extras | {"awaiting_reset": bool(over), "episode": episode}


@pytest.mark.parametrize(("says", "pressed", "over"), [
    (False, "success", (1.0, 1.0, True)), (True, "failure", (0.0, 0.0, True)), (False, "failure", (0.0, 0.0, True)),
    (True, "", (1.0, 1.0, True)), (False, "", (0.0, 0.0, False)),
])  # fmt: skip
def test_what_a_person_says_counts_before_what_the_source_sees(world: Any, says: bool, pressed: str, over: Any) -> None:
    source, robot = classifier(), Robot(world)
    env = RewardedEnv(robot, source)  # type: ignore[arg-type]
    env.reset(seed=0)
    say(source, says)
    env.step(ACTION)
    robot.pressed = pressed
    _, reward, terminated, _, extras = env.step(ACTION)
    assert (float(reward), float(extras["episode"]["success"]), bool(terminated)) == over
    assert extras["awaiting_reset"] == over[2]


def test_the_button_for_failure_after_its_success_sends_the_episode_back(world: Any) -> None:
    source, kept, robot = classifier(), [], Robot(world)
    env = RewardedEnv(robot, source, on_doubt=kept.append)  # type: ignore[arg-type]
    for told, doubts in (((), 0), (("failure", "reset"), 1), (("failure",), 1)):
        say(source, False)
        robot.told = told
        env.reset()
        assert len(kept) == env.doubts == doubts
        say(source, True)
        for _ in range(2 if doubts == 0 else 1):  # the second episode has no success to doubt
            env.step(ACTION)


def test_an_episode_begins_before_the_last_one_is_written_as_no_success(world: Any) -> None:
    """Who holds a robot's authority and says nothing loses it; and a full disk stops nobody."""
    source, kept, robot, disk = classifier(), [], Robot(world), threading.Event()

    def keep(seen: list[Any]) -> None:
        assert disk.wait(60.0)
        kept.append(len(seen))
        if len(kept) == 1:
            raise OSError("no space left on device")

    with _hil_reward.aside(keep) as on_doubt:
        env = RewardedEnv(robot, source, on_doubt=on_doubt)  # type: ignore[arg-type]
        for _ in range(2):
            say(source, False)
            robot.told = ()
            env.reset()
            say(source, True)
            for _ in range(2):
                env.step(ACTION)
            say(source, False)
            robot.told = ("failure",)
            env.reset()
        assert env.doubts == 2 and not kept
        disk.set()
    assert kept == [3, 3]


def test_a_robot_holds_when_its_source_will_not_judge(world: Any) -> None:
    source, robot = classifier(), Robot(world)
    env = RewardedEnv(robot, source)  # type: ignore[arg-type]
    say(source, True)
    with pytest.raises(RewardError):
        env.reset()
    assert robot.held == 1


# --- the command ---------------------------------------------------------------------------------------------


def made(world: Any, folder: Path, name: str, *words: str) -> AbstractContextManager[RewardedEnv]:
    cfg = config.load(hil.HilCfg, [*WORDS, f"reward={name}", *words])
    return _hil_reward.rewarded(world, cfg, _world.spec_of(cfg.task), folder)


def test_false_successes_become_a_set_that_the_next_training_reads(world: Any, tmp_path: Path) -> None:
    source = classifier()
    frames = []
    with made(Unsuccessful(world), tmp_path, str(bundle.save(tmp_path / "reward", source))) as env:
        for _ in range(2):
            say(env.source, False)
            frames += [env.reset()[0]["policy"][0].clone()]
            say(env.source, True)
            frames += [env.step(ACTION)[-1]["final_obs"]["policy"][0].clone() for _ in range(2)]
    episodes = Episodes(tmp_path / "no_success_actor")
    assert [episodes.length(e) for e in episodes.ids] == [3, 3]
    _, said = labels.read(episodes.root, "success", labels.versions(episodes.root)["success"][-1])
    assert {e: v.shape[0] for e, v in said.items()} == {0: 3, 1: 3} and not any(v.any() for v in said.values())
    assert torch.equal(torch.as_tensor(episodes.column("observation.state")), torch.stack(frames))


def test_what_does_not_fit_is_refused_before_anything_moves(world: Any, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, RewardError), match="holds no reward"):
        made(world, tmp_path, "sparce").__enter__()
    with pytest.raises(ConfigError, match=r"reward=classifier: .*policy/front"):
        RewardedEnv(world, Classifier(ClassifierCfg(observed=("policy/front",)), {"policy/front": (24, 24, 3)}))
    other = Classifier(ClassifierCfg(observed=("policy",), threshold=0.5), {"policy": (7,)})
    with pytest.raises(ConfigError, match=r"for policy of shape \(7,\), here it is \(5,\)"):
        RewardedEnv(world, other)
    cfg = config.load(hil.HilCfg, ["task=franka_lift", "algo=td3", "task.success_ends=true",
                                   f"reward={bundle.save(tmp_path / 'reward', other)}"])  # fmt: skip
    with pytest.raises(ConfigError, match=r"task\.success_ends=false"):
        _hil_reward.rewarded(world, cfg, _world.spec_of(cfg.task), tmp_path).__enter__()
