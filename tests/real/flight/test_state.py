"""A quadrotor's state, and where it will be: against numbers computed by hand."""

import math

import numpy as np
import pytest

from real.flight.state import Flight, rotation_between, unit

ZERO = np.zeros(3)
LEVEL = np.array([0.0, 0.0, 0.0, 1.0])


def flight(position=ZERO, turn=LEVEL, velocity=ZERO, rates=ZERO):
    return Flight(5.0, *(np.array(v, dtype=np.float64) for v in (position, turn, velocity, rates)))


def test_tilt_and_yaw_of_a_quaternion():
    half = math.sqrt(0.5)
    assert flight(turn=[0.0, 0.0, half, half]).yaw_rad == pytest.approx(math.pi / 2)
    assert flight(turn=[0.0, 0.0, half, half]).tilt_rad == pytest.approx(0.0, abs=1e-6)
    assert flight(turn=[half, 0.0, 0.0, half]).tilt_rad == pytest.approx(math.pi / 2)
    rolled = flight(turn=[math.sin(0.1), 0.0, 0.0, math.cos(0.1)])  # 0.2 rad about x: its axis leans to -y
    assert rolled.up == pytest.approx([0.0, -math.sin(0.2), math.cos(0.2)])


def test_ahead_without_thrust_is_a_straight_line_and_a_constant_spin():
    later = flight([1.0, 2.0, 3.0], velocity=[1.0, -2.0, 0.5], rates=[0.0, 0.0, 2.0]).ahead(0.1)
    assert later.position == pytest.approx([1.1, 1.8, 3.05])
    assert later.velocity == pytest.approx([1.0, -2.0, 0.5])
    assert later.yaw_rad == pytest.approx(0.2) and later.stamp_s == pytest.approx(5.1)


def test_ahead_falls_without_lift_and_hovers_with_the_weight():
    assert flight().ahead(0.2, 0.0).position == pytest.approx([0.0, 0.0, -0.5 * 9.81 * 0.04])
    assert flight().ahead(0.2, 9.81).velocity == pytest.approx(ZERO, abs=1e-12)


def test_ahead_pushes_along_the_axis_of_the_middle_of_the_time():
    spinning = flight(rates=[0.0, 1.0, 0.0]).ahead(0.2, 9.81)  # 0.1 rad of pitch in the middle: forward
    assert spinning.velocity[0] == pytest.approx(9.81 * math.sin(0.1) * 0.2)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rotation_between_is_the_short_way_in_the_body_axes(sign):
    yaw = np.array([0.0, 0.0, math.sin(0.5), math.cos(0.5)])
    both = np.array([math.sin(0.15) * math.cos(0.5), math.sin(0.15) * math.sin(0.5),
                     math.cos(0.15) * math.sin(0.5), math.cos(0.15) * math.cos(0.5)])  # fmt: skip
    assert rotation_between(LEVEL, sign * yaw) == pytest.approx([0.0, 0.0, 1.0])
    assert rotation_between(yaw, sign * both) == pytest.approx([0.3, 0.0, 0.0])  # a roll after a yaw of 1 rad
    assert rotation_between(yaw, sign * yaw) == pytest.approx(ZERO)


def test_what_is_no_rotation_is_none():
    assert unit(np.array([0.0, 0.0, 0.0, 0.0])) is None and unit(np.full(4, math.nan)) is None
    assert unit(np.array([0.0, 0.0, 0.0, 1.004])) == pytest.approx(LEVEL)
