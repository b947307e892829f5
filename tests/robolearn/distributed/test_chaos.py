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

from robolearn.distributed.journal import Cursor, Journal

RECORDS, KILLS = 2000, 10
END_S = 100.0
"""Of a busy machine; it takes a tenth."""

ACTOR = """
import sys, time
from pathlib import Path
import wire_samples as samples
from robolearn.distributed.actor import ActorLink
address, folder, records = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
with ActorLink(address, samples.ABOUT, folder / "left", actor="left", segment_mb=0.02) as link:
    print("up", flush=True)
    number = 0
    while number < records:
        value = link._journal.last + 1.0  # what the next record is to say: its own number
        number = link.send(samples.step(value)) if value <= records else records
        time.sleep(0.002)
    assert link.wait_acknowledged(1000.0)
print("done", flush=True)
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
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def is_up(process: subprocess.Popen) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "up\n"


@pytest.mark.parametrize("seed", [0])
def test_each_record_is_there_once_and_in_order_whoever_is_killed(tmp_path, seed):
    chance, address = random.Random(seed), f"127.0.0.1:{free_port()}"
    commands = {"actor": (ACTOR, address, tmp_path, RECORDS), "learner": (LEARNER, address, tmp_path)}
    running = {name: start(*command) for name, command in commands.items()}
    began_s, killed = time.monotonic(), []
    try:
        assert all(map(is_up, running.values()))
        while len(killed) < KILLS and running["actor"].poll() is None:
            time.sleep(chance.uniform(0.0, 0.3))
            for name in {0: ["actor"], 1: ["actor", "learner"]}.get(chance.randrange(5), ["learner"]):
                if running[name].poll() is None:
                    killed.append(name)
                assert running[name].poll() in (None, 0)  # neither has ended by itself, but an actor that is done
                end(running[name])
                running[name] = start(*commands[name])
                assert is_up(running[name])
        assert running["actor"].wait(max(1.0, END_S - (time.monotonic() - began_s))) == 0
        assert running["learner"].poll() is None
    finally:
        for process in running.values():
            end(process)
    assert {"actor", "learner"} <= set(killed) and len(killed) >= 5
    position = int((tmp_path / "position").read_text())
    assert RECORDS - 50 <= position <= RECORDS
    with Journal(tmp_path / "learner/actors/left") as journal:
        cursor = Cursor(journal, 0)
        assert [n for n, _ in iter(cursor.read, None)] == list(range(1, RECORDS + 1))


def test_a_stopped_learner_does_not_stop_the_actor(tmp_path):
    """SIGSTOP: its connections stay open and it answers nothing."""
    import wire_samples as samples

    from robolearn.distributed.actor import ActorLink

    address = f"127.0.0.1:{free_port()}"
    process = start(LEARNER, address, tmp_path)
    try:
        assert is_up(process)
        with ActorLink(address, samples.ABOUT, tmp_path / "left", actor="left", deadline_s=0.5) as link:
            link.send(samples.step(1.0))
            assert link.wait_acknowledged(30.0)
            process.send_signal(signal.SIGSTOP)
            for number in range(2, 400):
                assert link.send(samples.step(number)) == number
            assert not link.wait_acknowledged(1.0)
            assert link.state().unacknowledged > 0 and "has not answered for 0.5 s" in link.state().problem
            process.send_signal(signal.SIGCONT)
            assert link.wait_acknowledged(30.0)
            assert link.state().problem == ""
    finally:
        end(process)
    with Journal(tmp_path / "learner/actors/left") as journal:
        assert journal.last == 399
