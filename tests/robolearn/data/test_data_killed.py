"""A writer that is really killed, at every kind of moment."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from episode_samples import FEATURES, FPS, LOSSLESS, record
from test_data_write import assert_whole

from robolearn.data import check
from robolearn.data.read import Episodes
from robolearn.data.write import Writer

pytest.importorskip("pyarrow")
pytest.importorskip("av")

CHILD = """
import os, signal, sys
from pathlib import Path
from episode_samples import FEATURES, FPS, LOSSLESS, record
from robolearn.data.write import Writer

root, first, count, events = Path(sys.argv[1]), *map(int, sys.argv[2:])
writer = Writer(root, FPS, FEATURES, video=LOSSLESS)
print("open", flush=True)

def audit(event, arguments):
    global events
    if event in ("os.rename", "os.remove", "os.rmdir") or event == "open" and str(root) in str(arguments[0]):
        events -= 1
        if events == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audit)
for episode in range(first, first + count):
    record(writer, episode)
    print(episode, flush=True)
writer.close()
print("closed", flush=True)
"""


def child(root: Path, first: int, count: int, events: int) -> subprocess.Popen[str]:
    """Records episodes; kills itself before its `events`-th change of a file's name (0: never)."""
    command = [sys.executable, "-c", CHILD, str(root), str(first), str(count), str(events)]
    paths = {"PYTHONPATH": ":".join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=paths)


def assert_good(root: Path, said: list[str], first: int) -> int:
    """All that was said to be there is there, and at most one episode more; the set takes another one."""
    ended = first + len([line for line in said if line.isdigit()])
    count = len(Episodes(root))
    assert ended <= count <= ended + 1
    assert_whole(root, count)
    with Writer(root, FPS, FEATURES, video=LOSSLESS) as writer:
        record(writer, count)
    assert_whole(root, count + 1)
    assert check.check(root) == []
    return count + 1


def test_killed_before_any_change_of_a_file(tmp_path: Path) -> None:
    """One kill after the other, each one change later, until the writer gets to its end."""
    killed = 0
    for events in range(1, 200, 3):
        root = tmp_path / f"set{events}"
        process = child(root, 0, 2, events)
        said = process.communicate()[0].split()
        if said[-1] == "closed":
            break
        assert process.returncode == -signal.SIGKILL
        assert_good(root, said, 0)
        killed += 1
    assert killed > 8


def test_killed_at_random_times_again_and_again(tmp_path: Path) -> None:
    rng, root, count = random.Random(0), tmp_path / "set", 0
    for episodes in (1, 0, 2, 3, 0):
        process = child(root, count, 1000, 0)
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(1 + episodes)]  # that it is open, and these
        time.sleep(rng.uniform(0.0, 0.1))
        process.kill()
        said += process.communicate()[0].split()
        count = assert_good(root, said, count)
    assert count >= 5 + 6  # those, and one after each kill


def test_the_episode_being_written_is_what_is_lost(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "set", FPS, FEATURES, video=LOSSLESS)
    record(writer, 0)
    writer.begin()
    assert_whole(tmp_path / "set", 1)  # a reader beside it
    writer.close()
