"""Actor and learner as processes that are killed with -9, again and again: nothing is lost, doubled or out of order."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wire_samples as samples

from robolearn.distributed.actor import ActorLink
from robolearn.distributed.journal import Cursor, Journal
from robolearn.distributed.records import decode

RECORDS = 2000
KILLED = ("learner", "learner", "actor", "learner", "actor learner", "actor", "learner", "learner actor")
"""In each turn, while its share of the records is on its way."""

ACTOR = """
import sys, time
from pathlib import Path
import wire_samples as samples
from robolearn.distributed.actor import ActorLink
with ActorLink(sys.argv[1], samples.ABOUT, Path(sys.argv[2]) / "left", actor="left", segment_mb=0.02) as link:
    print("up", flush=True)
    for line in sys.stdin:  # how far it may go
        while link.state().last < int(line):
            link.send(samples.step(link.state().last + 1.0))  # each says its own number
            time.sleep(0.0005)
    assert link.wait_acknowledged(1000.0)
"""

LEARNER = """
import sys
from pathlib import Path
import wire_samples as samples
from robolearn.distributed.learner import LearnerServer
address, folder = sys.argv[1], Path(sys.argv[2])
checkpoint = folder / "position"
position = int(checkpoint.read_text()) if checkpoint.exists() else 0
with LearnerServer(address, samples.ABOUT, folder / "learner", segment_mb=0.05, fsync="never") as server:
    print("up", flush=True)
    while True:
        for record in server.read({"left": position} if position else {}, timeout_s=1000.0):
            assert record.sequence == position + 1, (record.sequence, position)
            assert record.tensors["obs/policy"][0] == record.sequence, record
            position = record.sequence
            if position % 50 == 0:  # a checkpoint is whole or absent
                (folder / "part").write_text(str(position))
                (folder / "part").replace(checkpoint)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdout is not None
    if process.stdout.readline() != "up\n":
        end(process)
        raise AssertionError("a process did not start")
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_position(folder: Path) -> int:
    path = folder / "position"
    return int(path.read_text()) if path.exists() else 0


def allow(actor: subprocess.Popen, until: int) -> None:
    assert actor.stdin is not None
    actor.stdin.write(f"{until}\n")
    actor.stdin.flush()


@pytest.mark.parametrize("seed", [0])
def test_each_record_is_there_once_and_in_order_whoever_is_killed(tmp_path, seed):
    chance, address = random.Random(seed), f"127.0.0.1:{free_port()}"
    commands = {"actor": (ACTOR, address, tmp_path), "learner": (LEARNER, address, tmp_path)}
    running = {name: start(*command) for name, command in commands.items()}
    try:
        for turn, names in enumerate(KILLED, 1):
            allow(running["actor"], turn * RECORDS // len(KILLED))
            time.sleep(chance.uniform(0.0, 0.15))
            for name in names.split():
                assert running[name].poll() is None
                end(running[name])
                running[name] = start(*commands[name])
        allow(running["actor"], RECORDS)
        running["actor"].communicate(timeout=100.0)
        assert running["actor"].returncode == 0
        end_s = time.monotonic() + 30.0
        while read_position(tmp_path) < RECORDS:  # what was read, checked and is in the checkpoint
            assert running["learner"].poll() is None and time.monotonic() < end_s
            time.sleep(0.05)
    finally:
        for process in running.values():
            end(process)
    with Journal(tmp_path / "learner/actors/left") as journal:
        held = [(n, decode(data, samples.ABOUT)) for n, data in iter(Cursor(journal, 0).read, None)]
    said = [(n, r.sequence, int(r.tensors["obs/policy"][0])) for n, r in held]
    assert said == [(n, n, n) for n in range(1, RECORDS + 1)]


def test_a_stopped_learner_does_not_stop_the_actor(tmp_path):
    """SIGSTOP: its connections stay open and it answers nothing."""
    address = f"127.0.0.1:{free_port()}"
    process = start(LEARNER, address, tmp_path)
    try:
        with ActorLink(address, samples.ABOUT, tmp_path / "left", actor="left", deadline_s=0.5) as link:
            link.send(samples.step(1.0))
            assert link.wait_acknowledged(30.0)
            process.send_signal(signal.SIGSTOP)
            for number in range(2, 400):
                assert link.send(samples.step(number)) == number
            end_s = time.monotonic() + 30.0
            while "has not answered for 0.5 s" not in link.state().problem:
                assert time.monotonic() < end_s
                time.sleep(0.01)
            assert link.state().unacknowledged > 0
            process.send_signal(signal.SIGCONT)
            assert link.wait_acknowledged(30.0)
            assert link.state().problem == ""
    finally:
        end(process)
    with Journal(tmp_path / "learner/actors/left") as journal:
        assert journal.last == 399
