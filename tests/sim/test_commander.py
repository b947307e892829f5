"""The model of a Crazyflie's commander: who is followed, the watchdogs, the lock, and plans; no engine."""

import math

import numpy as np
import pytest

from robolearn.robots.crazyflie import CRAZYFLIE
from sim.vehicles.commander import Commander, Plan, State

WEIGHT = 0.027 * 9.81
STANDS = State(np.array([0.0, 0.0, 0.02]), np.zeros(3), 0.0)
FLIES = State(np.array([0.5, -0.5, 1.0]), np.zeros(3), 0.3)
TILT = np.array([0.1, -0.1, 0.2, 0.3])


@pytest.fixture
def commander():
    made = Commander(CRAZYFLIE.quadrotor)
    made.arm(True)
    return made


def unlocked(commander, now_s=0.0):
    commander.setpoint("attitude", np.zeros(4), now_s)


def test_nothing_turns_before_it_is_armed():
    commander = Commander(CRAZYFLIE.quadrotor)
    unlocked(commander)
    commander.setpoint("attitude", TILT, 0.0)
    assert not commander.command(STANDS, 0.01, 0.01).any()
    assert not commander.go(STANDS, FLIES.position, 0.0, 2.0, 0.0)


def test_thrust_is_locked_until_a_set_point_without_thrust(commander):
    commander.setpoint("attitude", TILT, 0.0)
    assert not commander.command(STANDS, 0.01, 0.01).any()
    unlocked(commander, 0.02)
    commander.setpoint("attitude", TILT, 0.03)
    assert commander.command(STANDS, 0.04, 0.01) == pytest.approx(TILT)


def test_the_watchdog_levels_then_cuts_and_locks(commander):
    unlocked(commander)
    commander.setpoint("attitude", TILT, 0.0)
    assert commander.command(FLIES, 0.49, 0.01) == pytest.approx(TILT)
    assert commander.command(FLIES, 0.51, 0.01) == pytest.approx([0.0, 0.0, 0.0, 0.3])
    commander.setpoint("attitude", TILT, 0.6)  # too late: the thrust is locked again
    assert not commander.command(FLIES, 0.61, 0.01).any()
    assert not commander.command(FLIES, 2.7, 0.01).any() and not commander.flies()


@pytest.mark.parametrize("told", [True, False])
def test_what_the_watchdog_has_levelled_obeys_orders_again(commander, told):
    unlocked(commander)
    commander.setpoint("attitude", TILT, 0.0)
    commander.command(FLIES, 0.6, 0.01)
    if told:
        commander.notify_stop(0.7)
    assert commander.go(FLIES, FLIES.position, 0.3, 2.0, 0.7)
    for now_s in (0.8, 2.5):
        assert commander.command(FLIES, now_s, 0.01)[3] == pytest.approx(WEIGHT, rel=1e-2)
    commander.setpoint("attitude", TILT, 2.6)  # the thrust is not locked by that
    assert commander.command(FLIES, 2.61, 0.01) == pytest.approx(TILT)


def test_orders_are_ignored_until_set_points_are_said_to_stop(commander):
    unlocked(commander)
    commander.setpoint("attitude", TILT, 0.0)
    assert not commander.go(FLIES, np.zeros(3), 0.0, 2.0, 0.1, off=True)
    commander.notify_stop(0.1)
    assert commander.go(FLIES, FLIES.position, 0.3, 2.0, 0.1)
    held = commander.command(FLIES, 0.12, 0.02)
    assert held[3] == pytest.approx(WEIGHT, rel=1e-3) and abs(held[:2]).max() < 1e-3


def test_set_points_in_flight_are_followed_at_once_where_they_were_unlocked_before(commander):
    unlocked(commander)
    commander.notify_stop(0.1)
    commander.go(STANDS, FLIES.position, 0.0, 2.0, 0.2)
    commander.setpoint("attitude", TILT, 1.0)
    assert commander.command(FLIES, 1.01, 0.01) == pytest.approx(TILT)


def test_between_set_points_and_orders_it_stays_level(commander):
    unlocked(commander)
    commander.setpoint("attitude", TILT, 0.0)
    commander.notify_stop(0.1)
    assert commander.command(FLIES, 0.2, 0.01) == pytest.approx([0.0, 0.0, 0.0, WEIGHT])


def test_an_emergency_is_for_good(commander):
    commander.go(STANDS, FLIES.position, 0.0, 2.0, 0.0)
    commander.emergency()
    commander.arm(True)
    assert not commander.command(FLIES, 0.1, 0.01).any() and commander.locked


def test_a_landing_ends_with_the_motors_off(commander):
    commander.go(FLIES, np.array([0.5, -0.5, 0.03]), 0.0, 2.0, 0.0, off=True)
    assert commander.command(FLIES, 1.0, 0.01)[3] > 0.0
    assert not commander.command(STANDS, 2.01, 0.01).any()


def test_a_plan_begins_where_and_as_fast_as_it_is_and_ends_at_rest():
    moving = State(np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]), 3.0)
    plan = Plan(moving, np.array([2.0, 1.0, 1.0]), -3.0, 2.0)
    place, speed, push, yaw = plan.at(0.0)
    assert place == pytest.approx(moving.position) and speed == pytest.approx(moving.velocity)
    assert push == pytest.approx(np.zeros(3)) and yaw == pytest.approx(3.0)
    place, speed, _, yaw = plan.at(1.999999)
    assert place == pytest.approx([2.0, 1.0, 1.0], abs=1e-5) and speed == pytest.approx(np.zeros(3), abs=1e-4)
    assert math.cos(yaw) == pytest.approx(math.cos(-3.0)) and yaw == pytest.approx(2 * math.pi - 3.0, abs=1e-4)
    middle = (plan.at(1.0 + 1e-5)[0] - plan.at(1.0 - 1e-5)[0]) / 2e-5
    assert plan.at(1.0)[1] == pytest.approx(middle, abs=1e-6)


def test_velocities_and_places_ask_for_the_right_tilt(commander):
    commander.setpoint("velocity_world", np.array([0.5, 0.0, 0.0, 0.4]), 0.0)
    command = commander.command(State(FLIES.position, np.zeros(3), 0.0), 0.01, 0.01)
    assert command[1] > 0.1 and abs(command[0]) < 1e-9 and command[2] == pytest.approx(0.4)  # nose down: forward
    row = np.array([0.5, -0.3, 1.0, *[0.0] * 7])
    commander.setpoint("full_state", row, 0.02)
    command = commander.command(State(FLIES.position, np.zeros(3), 0.0), 0.03, 0.01)
    assert command[0] < -0.05 and abs(command[1]) < 1e-9  # the left side down: to the left
