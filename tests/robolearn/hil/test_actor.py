"""The actor's time: a clock that moves when it is told, in a real world, before a real learner's end of the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from robolearn import config
from robolearn.cli import _world, hil
from robolearn.rewards.base import RewardError

pytest.importorskip("grpc", reason="grpc is not installed (extra distributed)")
from robolearn.distributed.actor import ActorLink
from robolearn.distributed.learner import LearnerServer
from robolearn.hil import steps
from robolearn.hil.actor import AGAIN_S, LATE_S, Actor

_world.discover()
WORDS = ["task=cartpole", "algo=td3", "algo.hidden=[16]", "backend.threads=1"]


class Clock:
    def __init__(self) -> None:
        self.time_s = 100.0

    def __call__(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0.0
        self.time_s += seconds


class Refusing:
    """A world that ends an episode after `length` steps, and then refuses to begin the next one `times`; a step takes
    `lasts_s`."""

    def __init__(self, world: Any, clock: Clock, length: int, times: int, lasts_s: float = 0.0):
        self.world, self.clock, self.length, self.times, self.lasts_s = world, clock, length, times, lasts_s
        self.began: list[float] = []
        """When each step began."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def reset(self) -> Any:
        if self.began and self.times:
            self.times -= 1
            raise RewardError("the classifier sees success already")
        return self.world.reset()

    def step(self, action: torch.Tensor) -> Any:
        self.began.append(self.clock())
        self.clock.time_s += self.lasts_s
        obs, reward, terminated, _, extras = self.world.step(action)
        over = torch.tensor([len(self.began) == self.length])
        return obs, reward, torch.zeros_like(terminated), over, extras | {"awaiting_reset": bool(over)}


@pytest.fixture
def act(tmp_path: Path) -> Any:
    cfg = config.load(hil.HilCfg, WORDS)
    spec = _world.spec_of(cfg.task)
    algo = hil._algo(cfg, spec, 1, capacity=3)
    about = steps.about("test", spec, algo.policy)
    world, clock = _world.make_env(cfg.task, cfg.backend, 1, "cpu", 0), Clock()

    def run(most: int, speed: float = 1.0, **more: Any) -> tuple[Actor, Refusing]:
        env = Refusing(world, clock, **more)
        with (
            LearnerServer("127.0.0.1:0", about, tmp_path / "journals") as server,
            ActorLink(server.address, about, tmp_path / "sent", "actor") as link,
        ):
            actor = Actor(env, algo, link, speed, clock, clock.sleep)
            actor.run(most)
        return actor, env

    yield run
    world.close()


def test_an_episode_that_could_not_begin_makes_no_step_late(act: Any) -> None:
    actor, env = act(5, length=3, times=2)
    dt, again_s = env.step_dt, 2 * AGAIN_S
    since = [t - env.began[0] for t in env.began]
    assert since == pytest.approx([0.0, dt, 2 * dt, 2 * dt + again_s, 3 * dt + again_s])
    assert (actor.steps, actor.late) == (5, 0)


def test_steps_that_take_longer_than_their_period_are_late_and_not_made_up_for(act: Any) -> None:
    lasts_s = 0.5
    actor, env = act(4, length=99, times=0, lasts_s=lasts_s, speed=0.5)
    period_s = 2.0 * env.step_dt
    assert lasts_s > period_s + LATE_S
    assert [b - a for a, b in zip(env.began, env.began[1:], strict=False)] == pytest.approx([lasts_s] * 3)
    assert actor.late == 4
