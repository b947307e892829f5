"""A quadrotor's guard: its states as a table, who has authority, what is cut off, and what ends a flight."""

import dataclasses
import math
import re

import numpy as np
import pytest

from real.flight.state import Flight
from real.robots.crazyflie import LIMITS
from real.safety.flight import FlightGuard
from real.safety.flight_states import STATES, TRANSITIONS, Order
from real.safety.flight_view import Health
from real.safety.proposals import Proposal
from robolearn.errors import ConfigError
from robolearn.robots.crazyflie import CRAZYFLIE

DT, LEVEL_S = 0.01, 0.5
NAMES = ("roll", "pitch", "yaw_rate", "thrust")
HOVER = (0.0, 0.0, 0.0, 0.265)
SITE = LIMITS.tightened({"fence_lower_m": [-2.0, -2.0, 0.1], "fence_upper_m": [2.0, 2.0, 2.0]})


class Bench:
    """A guard, a clock, and a vehicle that is wherever it is put; every order is answered at once, if
    `answers`, or fails at once; None: it is not answered yet."""

    def __init__(self, interface="attitude", limits=SITE):
        self.guard = FlightGuard(limits, CRAZYFLIE, ("teleop", "env", "policy"), DT, LEVEL_S, interface)
        self.now, self.orders, self.sent = 100.0, [], []
        self.position, self.velocity = np.array([0.0, 0.0, 0.02]), np.zeros(3)
        self.turn, self.rates = np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(3)
        self.battery, self.flies, self.tumbled, self.locked = 4.0, False, False, False
        self.answers, self.seen, self.told, self.propose_row = True, True, True, None

    def run(self, seconds):
        for _ in range(round(seconds / DT)):
            self.now += DT
            if self.seen:
                self.guard.observe(
                    self.now, Flight(self.now, self.position.copy(), self.turn, self.velocity.copy(), self.rates)
                )
            if self.told:
                self.guard.hear(self.now, Health(self.now, self.battery, self.flies, self.tumbled, self.locked))
            if self.propose_row is not None:
                self.propose(self.propose_row)
            decision = self.guard.command(self.now)
            self.sent.append(decision.setpoint)
            for order in decision.orders:
                self.orders.append(order)
                if self.answers is not None:
                    self.guard.answered(order, self.answers)
        return self

    def propose(self, row, names=NAMES, age=0.0, period=0.01, source="policy"):
        rows = row if isinstance(row, list) else [row]
        return self.guard.propose(source, self.now, Proposal(names, rows, self.now - age, period))

    def fly(self):
        """To `flying`, with nothing ordered yet."""
        self.run(0.1)
        assert self.guard.takeoff().ok
        self.run(0.5)
        self.position[2], self.flies = 1.0, True
        self.run(0.05)
        assert self.guard.state == "flying"
        self.orders, self.sent = [], []
        return self

    def active(self):
        self.fly()
        assert self.guard.take("policy").ok
        self.propose_row = HOVER
        return self.run(0.1)

    def called(self):
        return [order.service for order in self.orders]


@pytest.fixture
def bench():
    return Bench()


# --- the table ----------------------------------------------------------------------------------------------


def test_the_table_is_what_the_documentation_says():
    reach = {s: {t for (a, _), t in TRANSITIONS.items() if a == s} - {"emergency"} for s in STATES}
    assert reach == {
        "grounded": {"taking_off", "flying"}, "taking_off": {"flying", "landing"}, "flying": {"landing"},
        "landing": {"grounded"}, "emergency": {"grounded"},
    }  # fmt: skip
    assert all(TRANSITIONS[s, "cut"] == "emergency" for s in STATES)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", ["takeoff", "found_flying", "risen", "land", "landed", "cut", "reset"])
def test_what_is_not_in_the_table_does_not_happen(bench, state, event):
    bench.guard.state = state
    if (state, event) in TRANSITIONS:
        bench.guard._go(event, "")
        assert bench.guard.state == TRANSITIONS[state, event]
    else:
        with pytest.raises(KeyError):
            bench.guard._go(event, "")


def test_a_whole_flight(bench):
    bench.run(0.1)
    assert bench.guard.takeoff().ok and bench.guard.state == "taking_off"
    bench.run(0.29)
    assert bench.orders == [] and all(not row.any() for row in bench.sent[-25:])  # unlocks the thrust
    bench.run(0.1)
    assert bench.sent[-1] is None and bench.called() == ["notify_setpoints_stop", "arm", "takeoff"]
    assert bench.orders[-1] == Order("takeoff", (0.0, 0.0, 1.02), duration_s=2.0)
    bench.position[2] = 1.0
    bench.run(0.02)
    assert bench.guard.state == "flying" and bench.orders[-1].service == "go_to"
    assert bench.guard.take("policy").ok
    bench.propose_row = HOVER
    bench.run(0.1)
    assert bench.sent[-1] == pytest.approx(HOVER)
    assert bench.guard.release("policy").ok
    bench.propose_row = None
    bench.run(0.02)
    assert bench.called()[-1] == "go_to"  # of the take-off: what was sent last is to be there first
    bench.run(0.03)
    assert bench.called()[-2:] == ["notify_setpoints_stop", "go_to"] and bench.sent[-1] is None
    assert bench.guard.land().ok and bench.guard.state == "landing"
    bench.run(0.1)
    assert bench.orders[-1] == Order("land", (0.0, 0.0, pytest.approx(0.02)), duration_s=pytest.approx(1.96))
    bench.position[2] = 0.05
    bench.run(1.95)
    assert bench.guard.state == "grounded" and bench.called()[-1] == "disarm"


# --- take-off -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda b: setattr(b, "seen", False), "no pose|fresh pose"),
        (lambda b: setattr(b, "told", False), "status"),
        (lambda b: setattr(b, "battery", 3.5), "battery has 3.50 V"),
        (lambda b: setattr(b, "battery", math.nan), "battery"),
        (lambda b: setattr(b, "tumbled", True), "back"),
        (lambda b: setattr(b, "locked", True), "locked"),
        (lambda b: setattr(b, "velocity", np.array([0.5, 0.0, 0.0])), "moves"),
        (lambda b: setattr(b, "position", np.array([1.95, 0.0, 0.02])), "geofence"),
        (lambda b: setattr(b, "position", np.array([0.0, 0.0, 1.2])), "geofence"),
    ],
)
def test_it_does_not_take_off_where_something_is_wrong(bench, spoil, why):
    spoil(bench)
    bench.run(0.1)
    answer = bench.guard.takeoff()
    assert not answer.ok and re.search(why, answer.message) and bench.guard.state == "grounded"


def test_what_does_not_rise_lands(bench):
    bench.run(0.1)
    bench.guard.takeoff()
    bench.run(8.0)
    assert "land" in bench.called() and bench.guard.state == "grounded"


def test_an_order_that_nobody_answers_ends_the_take_off(bench):
    bench.run(0.1)
    bench.guard.takeoff()
    bench.answers = False
    bench.run(0.4)
    assert bench.guard.state in ("landing", "emergency")


def test_a_guard_that_comes_up_while_the_vehicle_flies_knows_it(bench):
    bench.flies, bench.position[2] = True, 1.0
    bench.run(0.1)
    assert bench.guard.state == "flying" and bench.orders == []
    assert "thrust may be locked" in bench.guard.take("policy").message  # of attitudes: it would fall
    assert bench.guard.land().ok
    bench.run(0.05)
    assert bench.called() == ["notify_setpoints_stop", "land"]  # who flew it before may have streamed set-points


def test_what_flies_does_not_take_off(bench):
    bench.fly().guard.land()
    bench.position[2] = 0.02
    bench.run(3.0)
    assert bench.guard.state == "grounded" and "says that it flies" in bench.guard.takeoff().message
    bench.flies = False
    bench.run(0.1)
    assert bench.guard.takeoff().ok


# --- authority ----------------------------------------------------------------------------------------------


def test_nobody_has_authority_on_the_ground(bench):
    bench.run(0.1)
    assert not bench.guard.take("policy").ok and not bench.propose(HOVER)


def test_a_source_of_higher_priority_takes_over(bench):
    bench.active()
    assert bench.guard.take("teleop").ok and bench.guard.owner == "teleop"
    assert not bench.guard.take("policy").ok and not bench.propose(HOVER)
    assert not bench.guard.take("nobody").ok


def test_between_two_sources_it_hovers(bench):
    bench.active()
    assert bench.guard.take("teleop").ok
    bench.run(0.1)
    assert bench.sent[-1] is None and bench.called() == ["notify_setpoints_stop", "go_to"]
    bench.propose_row = None
    bench.run(0.4)
    assert bench.guard.owner == "teleop"
    bench.propose(HOVER, source="teleop")
    bench.run(0.02)
    assert bench.sent[-1] == pytest.approx(HOVER)


def test_a_guard_that_was_held_up_does_not_go_on_with_attitudes_whose_thrust_is_locked(bench):
    bench.active()
    bench.now += 0.3
    bench.run(0.02)
    assert bench.guard.owner == "policy"
    bench.now += 0.45
    bench.sent = []
    bench.run(0.1)
    assert bench.guard.owner is None and bench.guard.state == "flying" and set(map(type, bench.sent)) == {type(None)}
    assert bench.called() == ["notify_setpoints_stop", "go_to"]


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"row": (math.nan, 0.0, 0.0, 0.27)}, "malformed"),
        ({"row": (0.0, 0.0, 0.0)}, "malformed"),
        ({"row": HOVER, "names": ("x", "y", "z", "thrust")}, "malformed"),
        ({"row": HOVER, "period": 1.0}, "malformed"),
        ({"row": HOVER, "age": 0.3}, "stale"),
        ({"row": HOVER, "age": -0.1}, "future"),
        ({"row": HOVER, "age": math.nan}, "malformed"),
        ({"row": HOVER, "source": "env"}, "unauthorised"),
    ],
)
def test_a_bad_proposal_is_refused_and_counted(bench, how, kind):
    bench.active()
    assert not bench.propose(**how)
    assert bench.guard.clips[kind].count == 1


def test_a_chunk_is_flown_row_by_row_and_then_held(bench):
    bench.active()
    bench.propose_row = None
    bench.propose([(0.0, 0.0, 0.0, 0.2), (0.0, 0.0, 0.0, 0.25), (0.0, 0.0, 0.0, 0.3)], period=0.03)
    bench.sent = []
    bench.run(0.12)
    assert [round(float(row[3]), 3) for row in bench.sent] == [0.2] * 2 + [0.25] * 3 + [0.3] * 7


# --- what is cut off ----------------------------------------------------------------------------------------


def test_tilt_its_rate_yaw_rate_and_thrust_are_cut_off(bench):
    bench = Bench(limits=SITE.tightened({"tilt_rad": 0.3, "tilt_rate_radps": 10.0, "yaw_rate_radps": 1.0}))
    bench.active()
    bench.sent, bench.propose_row = [], (0.4, 0.3, 3.0, 0.9)
    bench.run(0.02)
    first, second = bench.sent
    assert first == pytest.approx([0.08, 0.06, 1.0, 0.5]) and np.hypot(*second[:2]) == pytest.approx(0.2)
    bench.run(0.1)
    assert bench.sent[-1] == pytest.approx([0.24, 0.18, 1.0, 0.5])
    assert all(bench.guard.clips[k].count > 0 for k in ("tilt", "tilt_rate", "yaw_rate", "thrust"))


def test_a_velocity_is_slow_enough_to_stop_before_the_fence():
    bench = Bench("velocity_world")
    bench.fly()
    bench.guard.take("policy")
    bench.position[0] = 1.875
    bench.run(0.02)
    names = ("vx", "vy", "vz", "yaw_rate")
    bench.propose((2.0, 4.0, 0.0, 5.0), names)
    bench.run(0.01)
    sent = bench.sent[-1]
    assert sent[0] == pytest.approx(math.sqrt(2 * 4.0 * 0.125))  # 1.0 of the 1.34 that the speed limit leaves
    assert sent[1] == pytest.approx(3.0 * 2.0 / math.sqrt(5.0)) and sent[3] == 2.0
    assert not any(order.service == "takeoff" for order in bench.orders)


def test_a_full_state_stays_within_the_fence():
    bench = Bench("full_state")
    bench.fly()
    bench.guard.take("policy")
    names = ("x", "y", "z", "vx", "vy", "vz", "ax", "ay", "az", "yaw")
    bench.propose((5.0, 0.0, 0.0, 6.0, 0.0, 8.0, 0.0, 16.0, 0.0, 0.5), names)
    bench.run(0.01)
    assert bench.sent[-1] == pytest.approx([2.0, 0.0, 0.1, 1.8, 0.0, 2.4, 0.0, 8.0, 0.0, 0.5])


# --- what ends a flight -------------------------------------------------------------------------------------


def test_who_gives_authority_back_without_a_pose_makes_it_land(bench):
    bench.active()
    bench.seen, bench.propose_row = False, None
    bench.now += 0.3
    assert bench.guard.release("policy").ok
    bench.run(0.05)
    assert bench.guard.state == "landing" and bench.called()[-1] == "land"


def test_without_proposals_it_hovers_where_it_comes_to_rest(bench):
    bench.active()
    bench.velocity[0], bench.propose_row = 1.0, None
    bench.run(0.3)
    assert bench.guard.owner is None and bench.guard.state == "flying"
    stop, order = bench.orders[-2:]
    assert stop.service == "notify_setpoints_stop" and order.service == "go_to"
    assert order.goal_m == pytest.approx((0.2 + 1.0 / 8.0, 0.0, 1.0))


def test_what_would_leave_the_fence_loses_authority_before(bench):
    bench.active()
    bench.position[0], bench.velocity[0] = 1.4, 1.0
    bench.run(0.05)
    assert bench.guard.owner == "policy"
    bench.velocity[0] = 1.8  # it would stop at 1.4 + 0.36 + 0.405
    bench.run(0.05)
    assert bench.guard.owner is None and bench.guard.state == "flying"
    assert bench.orders[-1].goal_m[0] == pytest.approx(1.9)  # inside
    assert not bench.guard.take("policy").ok
    bench.velocity[0] = 0.0
    bench.run(0.02)
    assert bench.guard.take("policy").ok


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: setattr(b, "turn", np.array([math.sin(0.65), 0.0, 0.0, math.cos(0.65)])),
        lambda b: setattr(b, "rates", np.array([0.0, 25.0, 0.0])),
        lambda b: setattr(b, "velocity", np.array([0.0, 0.0, 7.0])),
    ],
)
def test_a_vehicle_that_leans_spins_or_races_is_taken_from_its_source(bench, spoil):
    bench.active()
    spoil(bench)
    bench.run(0.05)
    assert bench.guard.owner is None and bench.guard.state == "flying" and bench.called()[-1] == "go_to"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: setattr(b, "seen", False),
        lambda b: setattr(b, "position", np.array([2.1, 0.0, 1.0])),
        lambda b: setattr(b, "battery", 3.0),
        lambda b: setattr(b, "battery", math.nan),
    ],
)
@pytest.mark.parametrize("owned", [True, False])
def test_it_lands_without_a_pose_outside_the_fence_and_with_a_low_battery(bench, spoil, owned):
    (bench.active if owned else bench.fly)()
    spoil(bench)
    bench.run(2.7)
    assert bench.guard.state in ("landing", "grounded") and "land" in bench.called() and bench.guard.owner is None
    assert ("notify_setpoints_stop" in bench.called()) == owned


def test_a_battery_that_sags_for_a_moment_does_not_end_the_flight(bench):
    bench.active()
    for _ in range(3):
        bench.battery = 3.0
        bench.run(2.0)
        bench.battery = 3.6
        bench.run(0.1)
    assert bench.guard.owner == "policy"


def test_it_lands_where_the_vehicle_does_not_tell_its_status_any_more(bench):
    bench.active()
    bench.told = False
    bench.run(4.8)
    assert bench.guard.state == "flying"
    bench.run(0.3)
    assert bench.guard.state == "landing" and bench.called()[-1] == "land"


def test_the_motors_are_cut_when_it_has_tumbled(bench):
    bench.active()
    bench.turn = np.array([1.0, 0.0, 0.0, 0.0])
    bench.run(0.02)
    assert bench.guard.state == "emergency" and bench.called()[-1] == "emergency" and bench.sent[-1] is None


def test_the_motors_are_cut_where_it_does_not_land(bench):
    bench.active()
    bench.guard.land()
    bench.run(7.0)
    assert bench.guard.state == "emergency"


def test_the_motors_are_cut_where_nobody_answers_to_land(bench):
    bench.active()
    bench.answers = False
    bench.guard.land()
    bench.run(0.1)
    assert bench.guard.state == "emergency" and bench.called().count("land") == 3
    assert bench.called().count("emergency") > 3  # until it is heard


def test_what_lands_just_after_it_was_to_hover_is_told_that_set_points_stop(bench):
    bench.active()
    bench.guard.release("policy")
    bench.run(0.01)
    assert bench.orders == [] and bench.guard.land().ok
    bench.run(0.05)
    assert bench.called() == ["notify_setpoints_stop", "land"]


def test_a_vehicle_that_is_low_but_sinks_or_has_not_been_heard_to_land_is_not_down(bench):
    bench.fly().guard.land()
    bench.position[2], bench.velocity[2] = 0.05, -0.6
    bench.run(2.5)
    assert bench.guard.state == "landing"
    bench.velocity[2] = -0.1
    bench.run(0.02)
    assert bench.guard.state == "grounded"


def test_a_pose_that_jumps_to_the_ground_does_not_end_a_landing(bench):
    bench.fly().guard.land()
    bench.run(0.5)
    bench.position[2] = 0.05
    bench.run(1.3)
    assert bench.guard.state == "landing" and "disarm" not in bench.called()


def test_a_landing_begins_when_the_vehicle_has_answered(bench):
    bench.fly()
    bench.position[2], bench.answers = 0.05, None
    bench.guard.land()
    bench.run(2.5)
    assert bench.guard.state == "landing"
    bench.guard.answered(bench.orders[-1], True)
    bench.run(2.0)
    assert bench.guard.state == "grounded"


def test_a_landing_without_a_pose_ends_when_the_vehicle_says_that_it_stands(bench):
    bench.active()
    bench.seen = False
    bench.run(0.4)
    assert bench.guard.state == "landing"
    bench.flies = False
    bench.run(2.5)
    assert bench.guard.state == "grounded"


def test_an_emergency_stop_is_left_by_a_reset_on_the_ground(bench):
    bench.active()
    assert bench.guard.estop().ok and bench.guard.state == "emergency"
    bench.propose_row = None
    bench.run(0.05)
    assert not bench.guard.reset().ok  # it still says that it flies
    bench.flies = False
    bench.run(0.05)
    assert bench.guard.reset().ok and bench.guard.state == "grounded"


def test_a_clock_that_goes_back_ends_authority(bench):
    bench.active()
    bench.now -= 60.0
    bench.seen = bench.told = False
    bench.propose_row = None
    bench.run(0.5)
    assert bench.guard.owner is None and bench.guard.state == "landing"


@pytest.mark.parametrize("back_s", [0.05, 0.5, 60.0])
def test_a_clock_that_goes_back_while_all_goes_on_does_not_matter(bench, back_s):
    bench.active()
    bench.now -= back_s
    bench.seen = back_s > 0.1  # by less, poses are not newer than the last at first
    bench.propose_row, bench.told = None, False  # its status comes every second
    bench.run(0.01)  # the last proposal is of the old clock
    bench.seen, bench.propose_row = True, HOVER
    bench.run(0.5)
    assert bench.guard.owner == "policy" and bench.sent[-1] == pytest.approx(HOVER)


def test_a_pose_of_the_future_is_none(bench):
    """The clock went back, and the reader still has the pose of before."""
    bench.active()
    old = bench.guard.view.measured
    bench.now -= 0.5
    bench.seen, bench.propose_row = False, None
    bench.guard.observe(bench.now, old)
    bench.run(0.02)
    assert bench.guard.state == "landing"


# --- limits -------------------------------------------------------------------------------------------------


def test_limits_can_only_be_tightened():
    with pytest.raises(ConfigError, match=r"fence_upper_m\[0\] = 9.0 is looser"):
        LIMITS.tightened({"fence_upper_m": [9.0, 1.0, 2.0]})
    with pytest.raises(ConfigError, match=r"fence_lower_m\[2\] = 0.0 is looser"):
        LIMITS.tightened({"fence_lower_m": [-1.0, -1.0, 0.0]})
    with pytest.raises(ConfigError, match=r"battery_land_v = 3\.0 is looser"):
        LIMITS.tightened({"battery_land_v": 3.0})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tilt_rad": 1.3}, "ordered"),
        ({"takeoff_m": 5.0}, "does not fit"),
        ({"speed_mps": math.nan}, "speed_mps"),
        ({"fence_lower_m": (6.0, 0.0, 0.1)}, "must be below"),
        ({"battery_takeoff_v": 3.0}, "battery"),
    ],
)
def test_limits_that_make_no_sense_are_refused(change, what):
    with pytest.raises(ConfigError, match=what):
        dataclasses.replace(LIMITS, **change)


def test_a_source_must_be_given_up_before_the_firmware_does():
    with pytest.raises(ConfigError, match=r"hold_after_s = 0\.15 must be below 0\.08"):
        FlightGuard(LIMITS, CRAZYFLIE, ("policy",), DT, 0.1)


def test_thrust_limits_must_hold_the_weight():
    with pytest.raises(ConfigError, match="weight"):
        FlightGuard(dataclasses.replace(LIMITS, thrust_upper_n=0.2), CRAZYFLIE, ("policy",), DT, LEVEL_S)
