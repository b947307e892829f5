"""A quadrotor's pose off the wire: what is measured, and what is refused."""

import math
import re
from types import SimpleNamespace as Bag

import numpy as np
import pytest

from real.flight.reading import FlightReader, Pace

LEVEL = (0.0, 0.0, 0.0, 1.0)


def header(stamp_s, frame="world"):
    whole = math.floor(stamp_s)
    return Bag(stamp=Bag(sec=whole, nanosec=round((stamp_s - whole) * 1e9)), frame_id=frame)


def pose(stamp_s, position=(0.0, 0.0, 1.0), turn=LEVEL, frame="world"):
    p, q = (Bag(**dict(zip("xyzw", v, strict=False))) for v in (position, turn))
    return Bag(header=header(stamp_s, frame), pose=Bag(position=p, orientation=q))


def odom(stamp_s, velocity):
    return Bag(header=header(stamp_s), twist=Bag(twist=Bag(linear=Bag(**dict(zip("xyz", velocity, strict=True))))))


@pytest.fixture
def reader():
    return FlightReader("world", future_s=0.005, frozen_s=0.5)


def flown(reader, count=5, dt=0.02, speed=1.0, spin=0.5):
    for k in range(count):
        t, half = 10.0 + dt * k, 0.5 * spin * dt * k
        turn = (0.0, 0.0, math.sin(half), math.cos(half))
        assert reader.pose(pose(t, (speed * dt * k, 0.0, 1.0 + 1e-5 * k), turn), t)
    return t


def test_velocity_and_rates_of_poses_alone(reader):
    flown(reader, 12)
    assert reader.latest.velocity == pytest.approx([1.0, 0.0, 0.0], abs=2e-3)
    assert reader.latest.rates == pytest.approx([0.0, 0.0, 0.5], abs=1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_odometry_gives_the_velocity_of_its_moment(reader, first):
    t = flown(reader) + 0.02
    calls = [lambda: reader.odom(odom(t, (0.3, 0.2, 0.1)), t), lambda: reader.pose(pose(t, (0.09, 0.0, 1.01)), t)]
    for call in calls if first else calls[::-1]:
        assert call()
    assert reader.latest.velocity == pytest.approx([0.3, 0.2, 0.1])


def test_a_gyroscope_is_degrees(reader):
    t = flown(reader) + 0.02
    assert reader.gyro(Bag(header=header(t), values=[90.0, 0.0, -180.0]), t)
    assert reader.pose(pose(t, (0.1, 0.0, 1.01)), t)
    assert reader.latest.rates == pytest.approx([math.pi / 2, 0.0, -math.pi])


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (lambda t: pose(t, (math.nan, 0.0, 1.0)), "not finite"),
        (lambda t: pose(t, turn=(math.nan,) * 4), "no rotation|not finite"),
        (lambda t: pose(t, turn=(0.0, 0.0, 0.0, 0.0)), "no rotation"),
        (lambda t: pose(t, frame="map"), "frame"),
        (lambda t: pose(t, (1.5, 0.0, 1.0)), "jumped"),
        (lambda t: pose(t, turn=(1.0, 0.0, 0.0, 0.0)), "jumped"),
        (lambda t: pose(t + 1.0), "future"),
        (lambda t: pose(t - 0.03), "not newer"),
    ],
)
def test_a_pose_that_cannot_be_is_refused_and_the_last_one_stays(reader, message, why):
    t = flown(reader) + 0.02
    before = reader.latest
    assert not reader.pose(message(t), t)
    (reason,) = reader.refused
    assert re.search(why, reason) and reader.latest is before


def test_a_pose_that_is_frozen_while_its_stamps_go_on_is_refused_after_a_while(reader):
    t = flown(reader)
    taken = [reader.pose(pose(t + 0.02 * k, (0.081, 0.0, 1.0)), t + 0.02 * k) for k in range(1, 40)]
    assert all(taken[:25]) and not any(taken[27:])
    assert "it is frozen: bit by bit the same" in reader.refused


def test_it_is_believed_again_where_it_was_put_after_a_second(reader):
    t = flown(reader)
    assert not reader.pose(pose(t + 0.02, (3.0, 0.0, 0.0)), t + 0.02)
    assert reader.pose(pose(t + 1.1, (3.0, 0.1, 0.0)), t + 1.1)


def test_a_jump_is_not_believed_before_that_although_it_stays_and_a_glitch_ends(reader):
    t = flown(reader, 12, speed=0.0)
    assert not any(reader.pose(pose(t + 0.02 * k, (0.4, 0.0, 1.0 + 1e-5 * k)), t + 0.02 * k) for k in range(1, 45))
    other = FlightReader("world", 0.005, 0.5)
    t = flown(other, 12, speed=0.0, spin=0.0)
    assert not any(other.pose(pose(t + 0.02 * k, (0.4, 0.0, 1.0 + 1e-5 * k)), t + 0.02 * k) for k in range(1, 4))
    assert other.pose(pose(t + 0.08, (0.05, 0.0, 1.0)), t + 0.08)


def test_a_clock_that_goes_back_begins_anew(reader):
    t = flown(reader)
    assert reader.pose(pose(t - 5.0, (3.0, 0.0, 0.0)), t - 5.0)
    assert np.allclose(reader.latest.velocity, 0.0)


def test_odometry_that_cannot_be_is_refused(reader):
    assert not reader.odom(odom(1.0, (math.nan, 0.0, 0.0)), 1.0)
    assert not reader.odom(odom(1.0, (50.0, 0.0, 0.0)), 1.0)
    assert not reader.odom(odom(9.0, (0.0, 0.0, 0.0)), 1.0)
    assert not reader.gyro(Bag(header=header(1.0), values=[1.0, 2.0]), 1.0)


def test_two_poses_that_were_held_up_do_not_look_like_a_spin(reader):
    """50 a second; one comes 18 ms late, the next in time."""
    spin, rates = 5.0, []
    for k in range(60):
        t, half = 10.0 + 0.02 * k, 0.5 * spin * 0.02 * k
        late = 0.018 if k in (20, 33, 47) else 0.0
        turn = (0.0, 0.0, math.sin(half), math.cos(half))
        assert reader.pose(pose(t + late, (0.0, 0.0, 1.0 + 1e-5 * k), turn), t + late), reader.refused
        rates.append(reader.latest.rates[2])
    assert max(rates) < 2.0 * spin and rates[-1] == pytest.approx(spin, rel=0.05)


def test_what_is_lost_is_counted_as_time():
    pace = Pace()
    gaps = [pace.interval_s(10.0 + 0.02 * k) for k in range(30) if k not in (12, 20, 21)]
    assert gaps[0] == math.inf and sum(gaps[1:]) == pytest.approx(0.58) and max(gaps[1:]) == pytest.approx(0.06)
