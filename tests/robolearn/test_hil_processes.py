"""`robolearn hil`: actor and learner as processes, killed and started again; a learner that has to know its actors."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robolearn import config
from robolearn.cli import _world, hil
from robolearn.config import ConfigError
from robolearn.errors import UserError
from robolearn.loops import checkpoint
from robolearn.loops.log import read_metrics

pytest.importorskip("grpc", reason="grpc is not installed (extra distributed)")
from robolearn.distributed.actor import ActorLink
from robolearn.distributed.learner import LearnerServer
from robolearn.distributed.records import Record
from robolearn.hil import steps
from robolearn.hil.learner import Learner

_world.discover()
TASK = ["task=cartpole", "task.episode_length_s=1", "backend.threads=1"]
TINY = [*TASK, "algo=td3", "algo.hidden=[16]", "algo.batch=16", "algo.report_steps=100", "algo.warmup_steps=40",
        "algo.ratio=0.5", "algo.capacity=2000", "eval_episodes=0", "checkpoint_every_s=1", "publish_every=10",
        "person=at_random", "person.delay_s=0", "person.hold_s=0.1"]  # fmt: skip
WAIT_S = 120.0


def state_of(folder: Path) -> dict[str, Any]:
    return checkpoint.read_newest(folder / "checkpoints")


@contextlib.contextmanager
def running(*words: str) -> Any:
    """The command as a process, ended with the context."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robolearn.cli.main", "hil", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60.0)


def children(process: subprocess.Popen[str], role: str) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(p) for p in found if f"role={role}" in Path(f"/proc/{p}/cmdline").read_text()]


def transitions(folder: Path) -> torch.Tensor:
    """(N, observation + action) of the learner's last checkpoint, in the order of their rows."""
    slots = state_of(folder)["algo"]["replay"]["slots"]
    acted = slots["acted"][0]
    return torch.cat((slots["policy"][0][acted], slots["action"][0][acted]), dim=1)


# --- whole ---------------------------------------------------------------------------------------------------


def compared(folder: Path) -> Any:
    """Of what the actor's journal says that it told, what is in the learner's replay."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    try:
        return importlib.import_module("benchmarks.hil_books").compared(folder)
    finally:
        sys.path.pop(0)


def test_a_run_whose_processes_are_killed_ends_with_every_step_once(tmp_path: Path) -> None:
    """As many steps as were asked for, no two alike, and of what the actor told, from its first step on, each."""
    folder = tmp_path / "run"
    with running(*TINY, "total_steps=900", "speed=3", f"run_dir={folder}") as process:
        steps_seen = 0
        for role in ("learner", "actor", "learner"):
            goal, until = steps_seen + 150, time.monotonic() + WAIT_S
            while steps_seen < goal and process.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
                with contextlib.suppress(Exception):  # none yet
                    steps_seen = int(sorted((folder / "checkpoints").glob("*.safetensors"))[-1].stem)
            assert process.poll() is None and steps_seen >= goal
            os.kill(children(process, role)[0], signal.SIGKILL)
        assert process.wait(WAIT_S) == 0
        said = process.stderr.read() if process.stderr else ""
    assert said.count("was killed by signal 9: it is started again") == 3
    state, rows = state_of(folder), transitions(folder)
    counters = state["algo"]["counters"]
    assert counters["env_steps"] == len(rows) == 900 and counters["updates"] == round(0.5 * 861)
    assert len(torch.unique(rows, dim=0)) == 900
    books = compared(folder)
    assert (books.lost, books.doubled, books.uncounted) == (0, 0, 0) and books.records > 900
    slots = {k: v[0] for k, v in state["algo"]["replay"]["slots"].items()}
    assert 0.05 < slots["human"][slots["acted"]].float().mean() < 0.8
    for source in (folder, folder / "bundle"):
        path, cfg, packed = _world.load_run(str(source))
        assert (path, cfg.person.name, packed.policy.kind) == (source, "at_random", "squashed")
    assert {"episode/success", "episode/stale", "learn/value"} <= {k for row in read_metrics(folder) for k in row}


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(*TINY, "total_steps=100000", "speed=3", f"run_dir={folder}") as process:
        until = time.monotonic() + WAIT_S
        while not (folder / "checkpoints").exists() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)  # in the background of a script SIGINT may be ignored
        assert process.wait(WAIT_S) == 130
    before = state_of(folder)["algo"]["counters"]["env_steps"]
    with running(f"resume={folder}", f"total_steps={before + 100}") as process:
        assert process.wait(WAIT_S) == 0
    assert state_of(folder)["algo"]["counters"]["env_steps"] == before + 100
    assert len(torch.unique(transitions(folder), dim=0)) == before + 100


# --- the learner ---------------------------------------------------------------------------------------------


def made(tmp_path: Path, *words: str) -> tuple[hil.HilCfg, Any, Any]:
    cfg = config.load(hil.HilCfg, [*TINY, f"run_dir={tmp_path}", *words])
    spec = _world.spec_of(cfg.task)
    algo = hil._algo(cfg, spec, cfg.actors)
    return cfg, algo, steps.about("here", spec, algo.policy)


def first(number: float) -> Record:
    return Record({"obs/policy": np.full(5, number, np.float32)}, first=True)


def step(number: float, **numbers: float) -> Record:
    tensors = {"obs/policy": np.full(5, number, np.float32), "action": np.full(1, 0.1, np.float32),
               "proposed": np.full(1, 0.2, np.float32)}  # fmt: skip
    return Record(tensors, dict.fromkeys(steps.NUMBERS, 0.0) | numbers)


def test_two_actors_teach_one_learner_each_in_its_own_lane(tmp_path: Path) -> None:
    _, algo, about = made(tmp_path, "actors=2", "total_steps=40", "algo.warmup_steps=1000")
    with LearnerServer("127.0.0.1:0", about, tmp_path / "journals") as server:
        learner = Learner(server, algo, 40, tmp_path)
        links = [ActorLink(server.address, about, tmp_path / n, n) for n in ("left", "right")]
        for k, link in enumerate(links):
            link.send(first(100.0 * k))
            for t in range(20):
                link.send(
                    step(100.0 * k + t + 1, human=float(t % 2), reward=1.0, success=1.0, terminated=float(t == 19))
                )
        thread = threading.Thread(target=learner.run)
        thread.start()
        thread.join(WAIT_S)
        versions = [link.newest_weights().version for link in links if link.wait_acknowledged(WAIT_S)]  # type: ignore[union-attr]
        for link in links:
            link.close()
    assert not thread.is_alive() and len(versions) == 2
    rows = algo.replay.acted.nonzero().flatten()
    batch = algo.replay.gather(rows, 1, 0.9)
    moved = batch["next/policy"][:, 0] - batch["obs/policy"][:, 0]
    assert len(rows) == 40 and moved.tolist() == [1.0] * 40
    assert learner.counters.positions == {"left": 21, "right": 21} and learner.counters.episodes == 2
    assert learner.shown() == {"ratio": 0.0, "success": 1.0, "intervened": 0.5, "cycle_steps": 20.0, "stale": 1.0}


def test_a_learner_that_was_killed_while_it_wrote_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    """With all that the journals hold, of which nothing was dropped yet."""
    cfg, algo, _ = made(tmp_path, "role=learner", "total_steps=2", "algo.warmup_steps=1000")
    about = steps.about(hil._run_name(cfg), _world.spec_of(cfg.task), algo.policy)
    with (
        LearnerServer("127.0.0.1:0", about, tmp_path / "journals") as server,
        ActorLink(server.address, about, tmp_path / "sent") as link,
    ):
        for record in (first(0.0), step(1.0), step(2.0)):
            link.send(record)
        assert link.wait_acknowledged(WAIT_S)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "000000000002.part").write_bytes(b"half of one")
    assert hil._learn(cfg, tmp_path) == 0
    counters = state_of(tmp_path)["counters"]
    assert counters["positions"] == {"actor": 3} and len(transitions(tmp_path)) == 2


def test_an_actor_too_many_is_refused(tmp_path: Path) -> None:
    _, algo, about = made(tmp_path)
    with LearnerServer("127.0.0.1:0", about, tmp_path / "journals") as server:
        learner = Learner(server, algo, 40, tmp_path)
        learner.take(Record(first(0.0).tensors, first=True, actor="one", sequence=1))
        with pytest.raises(UserError, match=r"made for 1 actors, one; two is one too many: .* actors=2"):
            learner.take(Record(first(0.0).tensors, first=True, actor="two", sequence=1))


def test_an_actor_of_another_robot_or_rate_is_refused(tmp_path: Path) -> None:
    from robolearn.distributed.actor import RefusedError

    _, _, about = made(tmp_path)
    _, _, other = made(tmp_path, "task.decimation=8")
    with (
        LearnerServer("127.0.0.1:0", about, tmp_path / "journals") as server,
        ActorLink(server.address, other, tmp_path / "sent") as link,
        pytest.raises(RefusedError, match="rate_hz"),
    ):
        link.wait_connected(WAIT_S)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algo=ppo"], "learns with algo=sac or td3"),
        (["time_limit_s=60"], "time_limit_s: not for robolearn hil, whose length is total_steps"),
        (["role=boss"], "role must be one of both, actor, learner|role .*boss"),
        (["address=0.0.0.0:4000", "role=learner"], "is not on this machine: that needs a token"),
        (["speed=-1"], "speed finite and at least 0"),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else "",
)
def test_what_makes_no_sense_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    given = [w for w in TINY if not w.startswith(("algo", "person"))] + ([] if "algo=ppo" in words else ["algo=td3"])
    with pytest.raises(ConfigError, match=said):
        hil.main([*given, *words, f"run_dir={tmp_path / 'run'}"])
