"""A DDS domain per test, and peers in processes of their own."""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DOMAINS = 100  # 1 to 100: their ports lie below those that systems give out


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test of this machine uses meanwhile; the search starts at the xdist worker's."""
    first = 13 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for k in range(DOMAINS):
        number = 1 + (first + k) % DOMAINS
        with open(Path(tempfile.gettempdir()) / f"robolearn-test-domain-{number}", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
            for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS", "CYCLONEDDS_URI"):
                monkeypatch.delenv(name, raising=False)
            yield number
            return
    pytest.fail(f"all of {DOMAINS} domains are in use")


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """spawn(file, word, ...) -> the process, stdout in a pipe, stderr in the file `errors`; killed with the test."""
    running: list[subprocess.Popen] = []

    def start(file: Path, *words: object) -> subprocess.Popen:
        command = [sys.executable, str(file), *map(str, words)]
        errors = (tmp_path / f"stderr{len(running)}").open("w+")  # a pipe that nobody empties would stop its writer
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        process.errors = errors
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def until() -> Callable[..., None]:
    """until(condition, step=...) calls `step` until the condition holds; fails after `timeout_s`."""

    def wait(
        condition: Callable[[], object], step: Callable[[], object] | None = None, timeout_s: float = 15.0
    ) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"not within {timeout_s} s"
            step() if step else time.sleep(0.01)

    return wait
