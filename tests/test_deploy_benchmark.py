"""What benchmarks.deploy makes of recorded commands and outcomes: the measuring itself, by hand."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
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


stops = _load("deploy_stops")


def series(*speeds: float, dt: float = DT) -> list[Any]:
    """Targets of one joint that moves at these speeds, one a period."""
    places, times = np.cumsum(speeds) * dt, [k * dt for k in range(len(speeds))]
    rows = zip(times, places, speeds, strict=True)
    return [(t, round(t * 1e9), np.array([p]), np.array([v])) for t, p, v in rows]


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
    late = [t if k < 7 else (t[0] + DT, t[1] + 10**6, *t[2:]) for k, t in enumerate(targets)]
    assert stops.braking_since(late, LIMITS, DT) == 5
    assert stops.braking_since(targets, LIMITS, DT) == 5  # harder than is asked for is braking too
    slack = [t if k != 7 else (t[0], t[1], t[2], np.array([0.03])) for k, t in enumerate(late)]
    assert stops.braking_since(slack, LIMITS, DT) != 5


def test_commands_that_only_repeat_are_no_periods_of_their_own():
    targets = series(0.05, 0.05, 0.05)
    again = [targets[0], targets[1], (0.00105, targets[1][1] + 50_000, *targets[1][2:]), targets[2]]
    assert stops.ticks(again, DT) == targets
