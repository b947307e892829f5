"""What an actor tells of each step, as it makes it, and what the learner makes of that: real ends over a connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from robolearn import config
from robolearn.cli import _world, hil

pytest.importorskip("grpc", reason="grpc is not installed (extra distributed)")
from robolearn.distributed.actor import ActorLink
from robolearn.distributed.learner import LearnerServer
from robolearn.distributed.records import Record
from robolearn.hil import steps
from robolearn.hil.actor import Actor
from robolearn.hil.learner import Learner

_world.discover()
WORDS = [
    "task=cartpole",
    "algo=td3",
    "algo.hidden=[16]",
    "algo.labels=hg_dagger",
    "algo.gamma=0.9",
    "backend.threads=1",
]
WAIT_S = 60.0


@contextmanager
def ends(folder: Path, length_s: float) -> Iterator[tuple[Actor, LearnerServer, Any]]:
    """An actor without noise, and the learner's side; the last is another algorithm of the same spec."""
    cfg = config.load(hil.HilCfg, [*WORDS, f"task.episode_length_s={length_s}", f"run_dir={folder}"])
    env = _world.make_env(cfg.task, cfg.backend, 1, "cpu", 0)
    algo, learns = (hil._algo(cfg, env.policy_spec(), 1, capacity=n) for n in (3, 100))
    about = steps.about("here", env.policy_spec(), algo.policy)
    with (
        LearnerServer("127.0.0.1:0", about, folder / "journals", fsync="never") as server,
        ActorLink(server.address, about, folder / "sent", fsync="never") as link,
    ):
        yield Actor(env, algo, link, speed=0.0), server, learns
    env.close()


def test_each_step_is_told_when_it_is_made_and_new_weights_act_from_the_next_one_on(tmp_path: Path) -> None:
    """Within an episode: three steps by the untrained policy, which does nothing, then weights that say tanh(2)."""
    with ends(tmp_path, 2.0) as (actor, server, learns):
        obs = actor._begin()
        for k in range(3):
            obs = actor.step(obs)  # type: ignore[arg-type]
            assert actor.link.state().last == k + 2  # and the episode's first frame
        learns.policy.net[-1].weight.data.zero_()
        learns.policy.net[-1].bias.data.fill_(2.0)
        server.publish(7, learns.policy.state_dict(), 0)
        until = time.monotonic() + WAIT_S
        while actor.link.newest_weights() is None and time.monotonic() < until:
            time.sleep(0.01)
        actor.step(obs)  # type: ignore[arg-type]
        assert actor.link.wait_acknowledged(WAIT_S)
        first, *told = server.read()
    assert first.first and not any(r.first for r in told)
    assert [r.numbers["weights"] for r in told] == [0.0, 0.0, 0.0, 7.0]
    said = [float(r.tensors["proposed"][0]) for r in told]
    assert max(map(abs, said[:3])) < 0.1 and said[3] == pytest.approx(0.9640, abs=1e-4)


def test_what_follows_a_time_limit_is_bootstrapped_from_the_episodes_own_last_frame(tmp_path: Path) -> None:
    """Two short episodes: the last transition of each counts its next value by gamma, and leads to the frame before the
    reset."""
    with ends(tmp_path, 0.06) as (actor, server, learns):
        last, begun, made = [], [actor._begin()["policy"]], actor.env.step  # type: ignore[index]

        def step(action: torch.Tensor) -> Any:
            obs, reward, terminated, truncated, extras = made(action)
            if truncated:
                last.append(extras["final_obs"]["policy"].clone())
                begun.append(obs["policy"].clone())
            return obs, reward, terminated, truncated, extras

        actor.env.step = step  # type: ignore[method-assign]
        obs, length = {"policy": begun[0]}, actor.env.max_episode_length
        for _ in range(2 * length):
            obs = actor.step(obs)  # type: ignore[assignment]
        assert actor.link.wait_acknowledged(WAIT_S)
        learner = Learner(server, learns, 100, tmp_path)
        for record in server.read():
            learner.take(record)
    rows = learns.replay.acted.nonzero().flatten()
    batch = learns.replay.gather(rows, 1, 0.9)
    assert len(rows) == 2 * length and len(last) == 2 and not torch.equal(last[0], begun[1])
    assert batch["discount"].tolist() == [pytest.approx(0.9)] * (2 * length)
    ended, started = batch["next/policy"][length - 1 :: length], batch["obs/policy"][::length]
    assert torch.equal(ended, torch.cat(last)) and torch.equal(started, torch.cat(begun[:2]))


def test_weights_that_a_kill_took_from_the_learner_are_not_ahead_of_it(tmp_path: Path) -> None:
    """It was at version 40 when its checkpoint was written, its actor at 60 when it died."""
    with ends(tmp_path, 2.0) as (actor, server, learns):
        actor.step(actor._begin())  # type: ignore[arg-type]
        assert actor.link.wait_acknowledged(WAIT_S)
        learner = Learner(server, learns, 100, tmp_path)
        learner.counters.version = 40
        first, step = server.read()
        learner.take(first)
        learner.take(Record(step.tensors, {**step.numbers, "weights": 60.0}, actor=step.actor, sequence=2))
        assert learner.shown()["stale"] == 0.0
        learner.take(Record(step.tensors, {**step.numbers, "weights": 37.0}, actor=step.actor, sequence=3))
        assert learner.shown()["stale"] == 1.5
