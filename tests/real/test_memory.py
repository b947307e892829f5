"""Locked memory, in processes of their own: a lock would stay with the tests'."""

import importlib
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

from real import memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mlockall is of Linux")
BEGIN = "import mmap, os, resource, threading; from real import memory"
SAY = """
later = mmap.mmap(-1, 1 << 24)  # beyond the limit
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
print(reason)
print(next(line for line in open("/proc/self/status") if line.startswith("VmLck:")).split()[1])
"""
NOBODY = """
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.geteuid() == 0:
    os.setuid(65534)
"""


def child(words: str) -> tuple[str, int]:
    """What `lock` said in a process that ran these words before, and how many KiB are locked a mapping and a thread
    later."""
    script = f"{BEGIN}\n{words}\nreason = memory.lock()\n{SAY}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert not done.stderr, done.stderr
    reason, locked = done.stdout.splitlines()
    return reason, int(locked)


def test_all_memory_is_locked_and_what_comes_later():
    reason, locked = child("")
    if reason:
        pytest.skip(f"not permitted here: {reason}")
    assert locked > 16 * 1024


def test_with_a_limit_and_no_privilege_nothing_is_locked_and_the_process_goes_on():
    reason, locked = child(NOBODY)
    assert "CAP_IPC_LOCK" in reason and "ulimit -l" in reason
    assert locked == 0


@pytest.mark.parametrize(
    ("limit", "held", "may"), [(65536, "4000", True), (65536, "1ffffbfff", False), (-1, "0", True)]
)
def test_a_limit_binds_those_without_the_capability(monkeypatch, limit, held, may):
    monkeypatch.setattr("resource.getrlimit", lambda which: (limit, -1))
    monkeypatch.setattr(memory.Path, "read_text", lambda path: f"CapPrm:\tffffffff\nCapEff:\t{held}\nCapBnd:\t0\n")
    assert memory.may_lock() == may


def test_what_the_system_says_is_the_reason(monkeypatch):
    monkeypatch.setattr(memory, "may_lock", lambda: True)
    monkeypatch.setattr(memory, "FUTURE", 1 << 20)  # a flag that there is not
    assert memory.lock() == "Invalid argument"


@pytest.mark.parametrize("reason", ["", "no disk to page to"])
def test_a_node_that_is_to_be_on_time_is_locked_and_says_so(monkeypatch, caplog, reason):
    pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
    from real.nodes import run

    fake = SimpleNamespace(init=lambda args: None, spin=lambda node: None, shutdown=lambda: None)
    monkeypatch.setattr(run, "ros", fake)
    monkeypatch.setattr(run.memory, "lock", lambda: reason)
    node = SimpleNamespace(undeclared_parameters=list, get_logger=lambda: logging.getLogger("node"))
    with caplog.at_level(logging.INFO):
        assert run.run(lambda: node) == 0
        assert caplog.records == []
        assert run.run(lambda: node, on_time=True) == 0
    (said,) = caplog.records
    assert (said.levelname, reason in said.message) == ("WARNING" if reason else "INFO", True)


@pytest.mark.parametrize("name", ["guard", "flight_guard", "policy", "twin", "flight_twin"])
def test_who_keeps_time_asks_for_it(monkeypatch, name):
    pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
    node = importlib.import_module(f"real.nodes.{name}")
    monkeypatch.setattr(node, "run", lambda make, args, on_time=False: 7 if on_time else 0)
    assert node.main([]) == 7
