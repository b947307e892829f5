"""`robolearn call` beside a running node."""

import subprocess
import sys

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")


def call(*words):
    return subprocess.run(
        [sys.executable, "-m", "robolearn.cli.main", "call", *words], capture_output=True, text=True, timeout=60
    )


def test_answers_are_told_and_a_no_is_an_exit_code(stack):
    stack.start("guard")
    stack.wait(lambda: stack.heard["guard/state"])
    yes = call("guard/reset", "guard/estop")
    assert yes.returncode == 0 and yes.stdout.splitlines()[0] == "guard/reset: nothing to reset: idle"
    no = call("guard/take/policy", "guard/reset")
    assert no.returncode == 1 and "fault" in no.stdout and "guard/reset" not in no.stdout


def test_what_nobody_serves_is_one_line(domain):
    missing = call("guard/reset", "timeout_s=1")
    assert missing.returncode == 2 and "guard/reset" in missing.stderr and "Traceback" not in missing.stderr
    assert call().returncode == 2 and call("a", "b=1").returncode == 2 and call("a", "timeout_s=x").returncode == 2
