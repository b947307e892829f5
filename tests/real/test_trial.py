"""What a trial makes of what was heard on the wire, by hand; and the domain that it runs in."""

import os

import numpy as np
import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
from real.domain import own_domain
from real.listener import latencies
from real.trial import on_its_way, stop_of
from real.watcher import Heard, Motion, Stamp
from robolearn.errors import ConfigError

CLOCK_S = 1000.0
"""The stamps' clock less the steady one."""


def motion(at_s: float, stamp_s: float, *speeds: float) -> Motion:
    return Motion(at_s, round(1e9 * stamp_s), np.zeros(len(speeds)), np.array(speeds))


def test_latency_ends_with_the_first_target_that_the_guard_computed_after_the_proposal_was_there():
    proposals = [Stamp(at_s=5.010, stamp_ns=round(1005.006 * 1e9))]
    targets = [motion(5.0105, 1005.0098, 0.0), motion(5.0115, 1005.0108, 0.0), motion(5.0125, 1005.0118, 0.0)]
    assert latencies(Heard(targets, [], proposals), CLOCK_S) == [pytest.approx(5.0115 - 5.006)]


def test_a_proposal_that_no_target_follows_has_no_latency():
    assert latencies(Heard([motion(5.0, 1005.0, 0.0)], [], [Stamp(5.1, round(1005.09 * 1e9))]), CLOCK_S) == []


def test_a_stop_is_told_by_the_stamps_and_the_fastest_joint():
    heard = Heard([motion(9.9, 7.5, 0.1, -0.4), motion(9.9, 7.7, 0.2, 0.0), motion(9.9, 8.6, 9.0, 9.0)],
                  [motion(9.9, 7.0, 9.0, 9.0), motion(9.9, 7.6, 0.0, -0.3)])  # fmt: skip
    stop = stop_of(heard, fault_s=7.55)
    assert stop.commanded == [(pytest.approx(-0.05), 0.4), (pytest.approx(0.15), 0.2)]
    assert stop.measured == [(pytest.approx(0.05), 0.3)]


def test_an_arm_is_on_its_way_when_it_is_fast_and_not_slowing_down():
    rising = [motion(0.01 * k, 0.0, 0.02 * k, -0.01) for k in range(40)]  # 0.3 rad/s is passed at 0.15 s
    assert on_its_way(rising) and on_its_way(rising[:26])
    assert not on_its_way(rising[:25]) and not on_its_way([])  # what is shown before the fault is 0.25 s
    falling = [*rising, motion(0.40, 0.0, 0.7, 0.0)]
    assert not on_its_way(falling)
    assert on_its_way([*falling, *(motion(0.41 + 0.01 * k, 0.0, 0.7, 0.0) for k in range(5))])
    assert not on_its_way([motion(0.01 * k, 0.0, 0.29) for k in range(40)])


def test_a_domain_is_ones_own_and_of_this_machine_until_it_is_given_back(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.setenv("CYCLONEDDS_URI", "file:///lab.xml")
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    with own_domain() as first, own_domain() as second:
        assert first != second
        assert os.environ["ROS_DOMAIN_ID"] == str(second)
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST" and "CYCLONEDDS_URI" not in os.environ
        with pytest.raises(ConfigError, match=f"no free ROS 2 domain among {first} to {first}"), own_domain(first):
            pass
        assert os.environ["ROS_DOMAIN_ID"] == str(second)
    assert os.environ["ROS_DOMAIN_ID"] == "7" and os.environ["CYCLONEDDS_URI"] == "file:///lab.xml"
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE" not in os.environ
