"""What benchmarks.deploy makes of recorded commands and outcomes: the measuring itself, by hand."""

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
from real.watcher import Motion
from robolearn.limits import JointLimits

ROOT = Path(__file__).parent.parent
DT = 0.001
LIMITS = JointLimits(*(np.array([v]) for v in (-3.0, 3.0, 2.0, 10.0, 5000.0)))


def _load(name: str) -> Any:
    """The measurements are not installed."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(f"benchmarks.{name}")
    finally:
        sys.path.remove(str(ROOT))


stops, launch, latency, success = (_load(f"deploy_{n}") for n in ("stops", "launch", "latency", "success"))


def series(*speeds: float, dt: float = DT) -> list[Motion]:
    """Targets of one joint that moves at these speeds, one a period."""
    places, times = np.cumsum(speeds) * dt, [k * dt for k in range(len(speeds))]
    rows = zip(times, places, speeds, strict=True)
    return [Motion(t, round(t * 1e9), np.array([p]), np.array([v])) for t, p, v in rows]


CRUISE = (0.05,) * 5
HARD = (0.045, 0.035, 0.025, 0.015, 0.005, 0.0, 0.0)
"""By 5000 rad/s3 x 1 ms x 1 ms = 0.005 rad/s at first, then by 10 rad/s2 x 1 ms = 0.01 rad/s."""


def test_braking_begins_with_the_first_command_that_falls_as_fast_as_the_limits_allow():
    assert stops.braking_since(series(*CRUISE, *HARD), LIMITS, DT) == 5


def test_slowing_down_gently_is_not_braking():
    gentle = (0.047, 0.042, 0.037)
    hard = (0.027, 0.017, 0.007, 0.0, 0.0)  # from 5 rad/s2, which 10 more are one period away
    assert stops.braking_since(series(*CRUISE, *gentle, *hard), LIMITS, DT) == 8


def test_an_arm_that_goes_on_has_not_braked_before():
    once_more = (0.01, 0.02, 0.03, 0.03, 0.03, 0.025, 0.015, 0.005, 0.0)
    assert stops.braking_since(series(*CRUISE, *HARD, *once_more), LIMITS, DT) == 5 + 7 + 5


def test_an_arm_that_does_not_come_to_rest_was_not_stopped():
    assert stops.braking_since(series(*CRUISE, *HARD[:-2]), LIMITS, DT) is None


def test_a_period_that_took_twice_as_long_brakes_by_twice_as_much():
    targets = series(*CRUISE, 0.045, 0.035, 0.015, 0.005, 0.0)
    late = [t if k < 7 else t._replace(stamp_ns=t.stamp_ns + 10**6) for k, t in enumerate(targets)]
    assert stops.braking_since(late, LIMITS, DT) == 5
    assert stops.braking_since(targets, LIMITS, DT) == 5  # harder than is asked for is braking too
    slack = [t if k != 7 else t._replace(velocity=np.array([0.02])) for k, t in enumerate(late)]
    assert stops.braking_since(slack, LIMITS, DT) != 5


def test_commands_that_only_repeat_are_no_periods_of_their_own():
    targets = series(0.05, 0.05, 0.05)
    again = [targets[0], targets[1], targets[1]._replace(stamp_ns=targets[1].stamp_ns + 50_000), targets[2]]
    assert stops.ticks(again, DT) == targets


def test_the_interval_of_paired_outcomes_is_agrestis_and_mins():
    low, high = success.paired_interval(10, 5, 500)  # 5.5 and 10.5 of 502: -5 / 502 -+ 1.96 sqrt(16 - 25 / 502) / 502
    assert low == pytest.approx(-0.009960 - 0.015593, abs=1e-5)
    assert high == pytest.approx(-0.009960 + 0.015593, abs=1e-5)


def test_pairs_that_all_agree_are_not_certain():
    low, high = success.paired_interval(0, 0, 500)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(1.959964 / 502, rel=1e-3)  # sqrt(0.5 + 0.5) = 1


def test_a_launch_is_read_from_what_it_prints():
    lines = [
        (100.5, "[launch] [twin] started, process 7\n"),
        (103.0, "[policy] [INFO] [102.25] [policy]: franka, 20 Hz, goals []; start with the service policy/start\n"),
        (103.1, "[guard] [INFO] [103.0] [guard]: guard/take/policy: policy has authority\n"),
        (103.2, "[guard] fault: nothing of this kind\n"),
    ]
    assert launch.events(lines, 100.0) == {"twin started": 0.5, "policy built": 2.25, "authority granted": 3.0}


def test_percentiles_leave_out_the_start_and_the_period_is_told_as_its_error():
    n = round(latency.SETTLE_S * latency.POLICY_HZ)
    late = [1.0] * n + [0.001] * 99 + [0.003] * 2
    found = {"latency": late, "periods": [0.0] * n + [0.0105] * 100, "ages": late, "thinking": late}
    table = latency.table(found, {"guard": 0.25})
    assert "| state stamp -> guarded command | 101 | 1.00 | <= 2 | 3.00 | <= 5 | 3.00 |" in table
    assert "| policy's period, from 10 | 100 | 0.50 |  | 0.50 | <= 1 | 0.50 |" in table
    assert "guard 25 %" in table


def test_a_process_that_computes_has_used_the_processor():
    before, end = latency.cpu_s(os.getpid()), time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert 0.1 < latency.cpu_s(os.getpid()) - before < 1.0
