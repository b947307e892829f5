"""The guard as a machine of states, and its output as a property of wild inputs."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from real.safety.checks import STEP_CHECKS, Situation, Step
from real.safety.guard import Guard
from real.safety.proposals import Proposal
from robolearn import config
from robolearn.errors import ConfigError
from robolearn.limits import JointLimits, TargetState, tool_speed

config.discover(["robolearn.robots", "real.robots"])
PROFILE = config.entry("profile", "franka").value
FRANKA = config.entry("robot", "franka").value
LIMITS = PROFILE.limits
REST = np.array(FRANKA.of("default_joint_pos", FRANKA.arm_joints))
DT, PERIOD = 0.002, 0.01


class Arm:
    """A guard and an arm that does what it is told, at times of its own."""

    def __init__(self, dt=DT, sources=("teleop", "policy"), changes=None, name="franka", people=()):
        self.profile = config.entry("profile", name).value
        self.spec = config.entry("robot", self.profile.robot).value
        self.limits = self.profile.limits.tightened(changes or {})
        self.guard = Guard(self.limits, self.spec, sources, dt, people=people)
        self.q = np.array(self.spec.of("default_joint_pos", self.spec.arm_joints))
        self.dt, self.now, self.path, self.states, self.observes = dt, 10.0, [self.q], [], True
        self.observe()

    def observe(self, q=None, stamp=None, **more):
        return self.guard.observe(self.now, self.q if q is None else q, 0 * self.q, stamp or self.now, **more)

    def propose(self, targets, source="policy", stamp=None, period=PERIOD, names=None):
        targets = np.atleast_2d(targets) if isinstance(targets, np.ndarray) else targets
        stamp = self.now if stamp is None else stamp
        return self.guard.propose(source, self.now, Proposal(names or self.spec.arm_joints, targets, stamp, period))

    def tick(self):
        self.now += self.dt
        if self.observes:
            self.observe()
        decision = self.guard.command(self.now)
        if decision.target is not None:
            self.q = decision.target
            self.path.append(self.q)
        self.states.append(decision.state)
        return decision

    def run(self, seconds, goal=None, source="policy"):
        """`goal(t)` (J,), proposed for the end of the next period, at the policy's rate."""
        for k in range(round(seconds / self.dt)):
            if goal is not None and k % round(PERIOD / self.dt) == 0:
                self.propose(goal(self.now + PERIOD), source)
            decision = self.tick()
        return decision

    def moving(self, speed=0.5, seconds=0.3):
        """Joint 1 turns."""
        assert self.guard.take("policy").ok
        start, t0 = self.q.copy(), self.now
        return self.run(seconds, lambda t: start + np.eye(7)[0] * speed * (t - t0))


# --- states --------------------------------------------------------------------------------------------------


def test_it_says_nothing_before_somebody_takes_authority():
    arm = Arm()
    assert not arm.propose(REST + 0.1)
    decision = arm.run(0.1)
    assert (decision.target, decision.state) == (None, "idle")
    assert arm.guard.clips["unauthorised"].count == 1


def test_it_needs_a_fresh_measurement_to_start():
    arm = Arm()
    arm.observes = False
    arm.run(0.2)
    assert "0.2 s old, limit 0.08 s" in arm.guard.take("policy").message
    assert not arm.guard.take("nobody").ok
    arm.observe()
    assert arm.guard.take("policy").ok


def test_it_follows_proposals_and_arrives():
    arm = Arm()
    arm.guard.take("policy")
    goal = REST + np.array([0.1, -0.1, 0.1, 0.1, -0.1, 0.1, 0.2])
    decision = arm.run(1.5, lambda t: goal)
    assert decision.state == "active"
    np.testing.assert_allclose(decision.target, goal, atol=1e-9)
    np.testing.assert_allclose(decision.velocity, 0.0, atol=1e-9)


def test_a_smooth_path_is_followed_closely_and_without_clips():
    arm = Arm(dt=0.001)
    arm.guard.take("policy")
    t0 = arm.now

    def goal(t):
        return REST + 0.1 * (1.0 - math.cos(2.0 * (t - t0)))  # 0.2 rad/s, 0.4 rad/s2

    worst = 0.0
    for k in range(2000):
        if k % 10 == 0:
            arm.propose(goal(arm.now + PERIOD))
        worst = max(worst, np.abs(arm.tick().target - goal(arm.now)).max())
    assert worst < 2e-4
    assert not sum(count.count for count in arm.guard.clips.values())


def test_without_proposals_it_holds_then_stops_and_takes_an_explicit_start():
    arm = Arm()
    arm.moving()
    last_s = arm.now - PERIOD
    while arm.tick().state == "active":
        pass
    assert LIMITS.hold_after_s < arm.now - last_s < LIMITS.hold_after_s + 2 * PERIOD < 0.1 + PERIOD
    assert arm.guard.owner == "policy"
    held = arm.run(0.3)
    assert held.state == "holding" and not held.velocity.any()
    assert arm.propose(arm.q) and arm.tick().state == "active"  # a short loss heals
    stopped = arm.run(LIMITS.stop_after_s + 0.1)
    assert stopped.state == "stopped" and arm.guard.owner is None
    assert "no proposal of policy for 0.5 s" in stopped.reasons[0]
    assert not arm.propose(arm.q + 0.1) and arm.tick().state == "stopped"
    assert arm.guard.take("policy").ok and arm.propose(arm.q) and arm.tick().state == "active"


@pytest.mark.parametrize("how", ["release", "estop", "stale", "silence"])
def test_however_it_ends_it_brakes_within_the_limits(how):
    arm = Arm(dt=0.001)
    speed = arm.moving(speed=1.0, seconds=0.5).velocity[0]
    arm.path = arm.path[-3:]
    if how == "stale":
        arm.observes = False
    elif how != "silence":
        getattr(arm.guard, how)(*(["policy"] if how == "release" else []))
    decision = arm.run(0.4)
    velocity = np.diff(np.array(arm.path)[:, 0]) / arm.dt
    acceleration = np.diff(velocity) / arm.dt
    assert speed == pytest.approx(1.0, abs=0.01)
    assert abs(velocity[-1]) < 1e-9 if how == "stale" else not decision.velocity.any()  # to whom it does not hear ...
    assert (decision.target is None) == (how == "stale")  # ... it says no more, once that is at rest
    assert acceleration.min() >= -10.0 * (1 + 1e-6) and np.diff(acceleration).min() >= -5000.0 * arm.dt * (1 + 1e-6)
    assert acceleration.min() == pytest.approx(-10.0, rel=1e-3)  # as hard as is allowed


def test_a_stopped_state_topic_stops_the_arm():
    arm = Arm()
    arm.moving()
    arm.observes = False
    t0 = arm.now
    while (decision := arm.tick()).state == "active":
        arm.propose(arm.q)
    assert arm.now - t0 <= LIMITS.state_timeout_s + 2 * DT
    assert decision.state == "stopped" and "joint state" in decision.reasons[0]
    arm.observes = True
    assert arm.run(0.1).state == "stopped"  # coming back is not a start


def test_estop_latches_until_reset():
    arm = Arm()
    arm.moving()
    arm.guard.estop()
    assert arm.run(0.5).state == "fault"
    assert arm.guard.take("policy") == (False, "fault (emergency stop): reset first")
    assert not arm.propose(arm.q)
    assert arm.guard.reset().ok and arm.tick().state == "idle"
    assert arm.guard.take("policy").ok


@pytest.mark.parametrize(("wrench", "what"), [([30, 30, 0, 0, 0, 0], "N 42.4264, limit 40"),
                                              ([0, 0, 0, 0, 13, 0], "N m 13, limit 12")])  # fmt: skip
def test_too_much_force_is_a_fault(wrench, what):
    arm = Arm()
    arm.moving()
    arm.observe(stamp=arm.now + 1e-4, wrench=wrench)
    decision = arm.tick()
    assert decision.state == "fault" and what in decision.reasons[0]
    assert arm.guard.clips["force_torque"].count == 1


def test_a_wrench_that_stays_away_stops_the_arm_and_one_that_is_no_number_is_none():
    arm = Arm()
    arm.moving()
    assert arm.guard.observe_wrench(arm.now, np.zeros(6), arm.now)
    assert not arm.guard.observe_wrench(arm.now, [math.nan] * 6, arm.now + 1e-4)
    for _ in range(60):
        arm.propose(arm.q)
        decision = arm.tick()
    assert decision.state == "stopped" and "wrench" in decision.reasons[0]


def test_a_wrench_that_is_expected_and_never_came_refuses_authority():
    arm = Arm()
    arm.guard = Guard(arm.limits, arm.spec, ("policy",), DT, expects_wrench=True)
    arm.observe()
    answer = arm.guard.take("policy")
    assert not answer.ok and "the wrench is inf s old" in answer.message
    arm.observe(stamp=arm.now + 0.001, wrench=[0.0] * 6)
    assert arm.guard.take("policy").ok


# --- authority -----------------------------------------------------------------------------------------------


def test_priority_decides_who_may_take_it_from_whom():
    arm = Arm()
    assert arm.guard.take("policy").ok and arm.guard.take("teleop").ok
    assert arm.guard.take("policy") == (False, "teleop has authority, and priority over policy")
    assert not arm.guard.release("policy").ok and arm.guard.release("teleop").ok
    assert arm.guard.take("policy").ok


def test_a_person_hands_back_to_whom_they_took_it_from_without_a_jump():
    arm = Arm(dt=0.001)
    arm.moving(speed=0.5)
    assert arm.guard.take("teleop").ok
    arm.run(0.2, lambda t: arm.q + 0.01, "teleop")
    assert arm.guard.hand_back("teleop") == (True, "policy has authority again")
    assert arm.guard.owner == "policy" and not arm.propose(arm.q, "teleop")
    arm.path, goal = arm.path[-3:], arm.q - 0.05
    arm.run(0.5, lambda t: goal, "policy")
    acceleration = np.diff(np.array(arm.path), n=2, axis=0) / arm.dt**2
    assert np.abs(acceleration).max() <= 10.0 * (1 + 1e-6)
    np.testing.assert_allclose(arm.q, goal, atol=1e-6)
    assert arm.guard.hand_back("policy") == (True, "idle")  # and not to the person


def test_handed_back_to_one_that_is_silent_the_arm_is_stopped():
    arm = Arm()
    arm.moving()
    assert arm.guard.take("teleop").ok and arm.guard.hand_back("teleop").ok
    arm.run(0.6)
    assert arm.states[-1] == "stopped" and arm.guard.owner is None


@pytest.mark.parametrize("how", ["release", "withdraw", "estop", "stale", "silence", "from nobody"])
def test_authority_that_ended_otherwise_is_handed_back_to_nobody(how):
    arm = Arm()
    if how == "from nobody":
        arm.tick()
    else:
        arm.moving()
    assert arm.guard.take("teleop").ok
    if how == "estop":
        arm.guard.estop()
        assert arm.guard.waiting is None
        assert arm.guard.reset().ok and arm.guard.take("teleop").ok
    elif how == "withdraw":
        assert not arm.guard.release("policy").ok  # it has none, and wants it back no more
    elif how in ("stale", "silence"):
        arm.observes = how == "silence"
        arm.run(0.7)
        arm.observes = True
        arm.run(0.1)
        assert arm.guard.state == "stopped" and not arm.guard.hand_back("teleop").ok
        assert arm.guard.take("teleop").ok
    elif how == "release":
        assert arm.guard.release("teleop").ok and arm.guard.take("teleop").ok
    assert arm.guard.hand_back("teleop") == (True, "idle") and arm.guard.owner is None


def test_nobody_hands_back_what_they_do_not_have():
    arm = Arm()
    arm.moving()
    assert arm.guard.take("teleop").ok
    assert arm.guard.hand_back("policy") == (False, "policy has no authority; teleop has")
    assert arm.guard.owner == "teleop"


def test_of_two_people_the_first_keeps_the_arm():
    arm = Arm(sources=("teleop", "page", "policy"), people=("teleop", "page"))
    assert arm.guard.take("policy").ok and arm.guard.take("page").ok
    answer = arm.guard.take("teleop")  # of higher priority
    assert answer == (False, "page has authority, a person as teleop is: they must let go first")
    assert arm.guard.owner == "page" and arm.guard.hand_back("page").ok and arm.guard.owner == "policy"
    assert arm.guard.take("teleop").ok


def test_a_take_over_is_bumpless():
    arm = Arm(dt=0.001)
    arm.moving(speed=0.5)
    assert arm.guard.take("teleop").ok
    arm.path = arm.path[-3:]
    goal = arm.q - 0.05
    arm.run(0.5, lambda t: goal, "teleop")
    assert not arm.propose(arm.q, "policy")
    acceleration = np.diff(np.array(arm.path), n=2, axis=0) / arm.dt**2
    assert np.abs(acceleration).max() <= 10.0 * (1 + 1e-6)
    np.testing.assert_allclose(arm.q, goal, atol=1e-6)


def test_a_start_far_from_the_last_command_starts_at_the_measured_position():
    arm = Arm()
    arm.moving()
    arm.guard.release("policy")
    arm.run(0.5)
    arm.q = REST + np.array([0.0, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0])  # moved by somebody else
    assert arm.tick().target is None
    assert arm.guard.take("policy").ok
    np.testing.assert_array_equal(arm.tick().target, arm.q)


def test_a_driver_that_starts_again_hears_nothing_that_it_could_leap_to():
    arm = Arm()
    arm.moving()
    arm.observes = False
    arm.run(1.0)
    assert arm.guard.state == "stopped" and arm.tick().target is None  # it has braked, and hears nothing
    arm.observes = True
    there, arm.q = arm.q, arm.q + 0.1
    assert all(arm.tick().target is None for _ in range(100))
    assert arm.guard.take("policy").ok
    np.testing.assert_array_equal(arm.tick().target, there + 0.1)


def test_an_arm_that_is_heard_again_where_it_was_is_commanded_on():
    """For a driver's watchdog."""
    arm = Arm()
    arm.moving()
    arm.guard.release("policy")
    arm.run(0.5)
    arm.observes, there = False, arm.q
    arm.run(0.5)
    assert arm.tick().target is None
    arm.observes, arm.q = True, there + 0.01
    np.testing.assert_array_equal(arm.tick().target, there)


# --- measurements --------------------------------------------------------------------------------------------


def test_an_arm_that_is_held_does_not_wind_up():
    arm = Arm(changes={"reference_error_rad": 0.05})
    arm.guard.take("policy")
    for k in range(300):
        if k % 5 == 0:
            arm.guard.propose("policy", arm.now, Proposal(arm.spec.arm_joints, [REST + 0.3], arm.now, PERIOD))
        arm.now += DT
        arm.guard.observe(arm.now, REST, 0 * REST, arm.now)
        decision = arm.guard.command(arm.now)
        assert np.abs(decision.target - REST).max() <= 0.05 + 1e-9
    assert decision.state == "active" and arm.guard.clips["reference_error"].count > 0


def test_a_measurement_that_jumps_stops_and_is_not_followed():
    arm = Arm()
    arm.moving()
    before = arm.q.copy()
    arm.now += DT
    arm.guard.observe(arm.now, np.zeros(7), np.zeros(7), arm.now)
    decision = arm.guard.command(arm.now)
    assert decision.state == "stopped" and "rad from its target" in decision.reasons[0]
    assert np.abs(decision.target - before).max() < 0.01


@pytest.mark.parametrize("bad", [[0.0] * 6, [math.nan] + [0.0] * 6, "seven", None, [[0.0] * 7], [math.inf] * 7,
                                 [10**400] + [0] * 6])  # fmt: skip
def test_malformed_measurements_are_counted_and_nothing_else(bad):
    arm = Arm()
    assert not arm.guard.observe(arm.now, bad, REST, arm.now + 1e-4)
    assert not arm.guard.observe(arm.now, REST, bad, arm.now + 1e-4)
    assert arm.guard.clips["malformed"].count == 2


@pytest.mark.parametrize("absurd", [1e300, -1e30, 3.3])
def test_an_arm_that_is_where_none_can_be_is_not_believed(absurd):
    """The first command would be there."""
    arm = Arm()
    where = REST.copy()
    where[0] = absurd
    arm.now += DT
    assert not arm.observe(where) and arm.guard.clips["malformed"].count == 1
    assert str(absurd)[:3] in str(arm.guard.clips["malformed"].last)
    where[0] = 3.2  # 0.3 rad beyond the end: bent, or badly calibrated, but an arm
    assert arm.observe(where)
    assert arm.guard.take("policy").ok and arm.guard.command(arm.now + DT).target[0] == pytest.approx(3.2, abs=0.02)


def test_old_future_and_repeated_measurements_are_refused():
    arm = Arm()
    for stamp, kind in (
        (arm.now - 0.2, "stale"),
        (arm.now + 0.1, "future"),
        (arm.now, "repeated"),
        (math.nan, "stale"),
    ):
        before = arm.guard.clips[kind].count
        assert not arm.observe(stamp=stamp)
        assert arm.guard.clips[kind].count == before + 1


# --- proposals -----------------------------------------------------------------------------------------------

JOINTS = FRANKA.arm_joints
BAD = {
    "nan": ([[math.nan] * 7], JOINTS, 0.0, PERIOD, "malformed"),
    "infinite": ([[math.inf] * 7], JOINTS, 0.0, PERIOD, "malformed"),
    "one nan in a chunk": ([[0.0] * 7, [0.0] * 6 + [math.nan]], JOINTS, 0.0, PERIOD, "malformed"),
    "ragged": ([[0.0] * 7, [0.0] * 6], JOINTS, 0.0, PERIOD, "malformed"),
    "flat": ([0.0] * 7, JOINTS, 0.0, PERIOD, "malformed"),
    "empty": (np.zeros((0, 7)), JOINTS, 0.0, PERIOD, "malformed"),
    "endless": (np.zeros((5000, 7)), JOINTS, 0.0, PERIOD, "malformed"),
    "too few": ([[0.0] * 6], JOINTS, 0.0, PERIOD, "malformed"),
    "text": ("targets", JOINTS, 0.0, PERIOD, "malformed"),
    "nothing": (None, JOINTS, 0.0, PERIOD, "malformed"),
    "other joints": ([[0.0] * 7], tuple("abcdefg"), 0.0, PERIOD, "malformed"),
    "a joint twice": ([[0.0] * 7], (JOINTS[0], *JOINTS[:6]), 0.0, PERIOD, "malformed"),
    "names that are none": ([[0.0] * 7], ([], {}, 1, 2, 3, 4, 5), 0.0, PERIOD, "malformed"),
    "no period": ([[0.0] * 7], JOINTS, 0.0, 0.0, "malformed"),
    "period nan": ([[0.0] * 7], JOINTS, 0.0, math.nan, "malformed"),
    "longer than a hold": ([[0.0] * 7], JOINTS, 0.0, 1.0, "malformed"),
    "stamp nan": ([[0.0] * 7], JOINTS, math.nan, PERIOD, "malformed"),
    "old": ([[0.0] * 7], JOINTS, -1.0, PERIOD, "stale"),
    "from the future": ([[0.0] * 7], JOINTS, 1.0, PERIOD, "future"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_proposal_is_as_if_never_sent(name):
    targets, names, shift, period, kind = BAD[name]
    arm, undisturbed = Arm(), Arm()
    for one in (arm, undisturbed):
        one.moving()
    assert not arm.propose(targets, stamp=arm.now + shift, period=period, names=names)
    assert arm.guard.clips[kind].count == 1
    for _ in range(100):
        mine, theirs = arm.tick(), undisturbed.tick()
        assert mine.state == theirs.state
        np.testing.assert_array_equal(mine.target, theirs.target)


def test_a_proposal_of_the_same_measurement_is_not_followed_twice():
    arm = Arm()
    arm.guard.take("policy")
    assert arm.propose(REST) and not arm.propose(REST + 0.1)
    assert arm.guard.clips["repeated"].count == 1


def test_joints_in_another_order_are_put_in_order():
    arm = Arm()
    arm.guard.take("policy")
    goal = REST + 0.01 * np.arange(7)
    for _ in range(100):
        arm.propose(goal[::-1].copy(), names=JOINTS[::-1])
        decision = arm.run(PERIOD)
    np.testing.assert_allclose(decision.target, goal, atol=1e-9)


def test_a_chunk_is_walked_through_in_time_and_does_not_outlive_the_hold():
    arm = Arm(dt=0.001)
    arm.guard.take("policy")
    rows = REST + np.outer(np.arange(1, 31), np.eye(7)[0]) * 0.002  # 0.2 rad/s for 0.3 s
    t0, start = arm.now, arm.q[0]
    arm.propose(rows)
    places = {}
    while (decision := arm.tick()).state == "active":
        places[round(arm.now - t0, 3)] = decision.target[0] - start
    assert places[0.05] == pytest.approx(0.01, abs=1e-3)
    assert places[0.07] == pytest.approx(0.014, abs=1e-3)
    assert max(places) <= LIMITS.hold_after_s + 1e-9
    assert arm.run(0.4).target[0] - start < 0.03  # of 0.06


def test_a_late_chunk_skips_the_targets_whose_time_has_passed():
    arm = Arm(dt=0.001)
    arm.guard.take("policy")
    arm.run(0.05)
    rows = REST + np.outer(np.arange(1, 8), np.eye(7)[0]) * 0.001
    arm.propose(rows, stamp=arm.now - 0.035)
    assert arm.guard._timeline.times[1] == pytest.approx(arm.now + 0.005)  # the fourth
    assert arm.guard._timeline.places[1][0] == pytest.approx(REST[0] + 0.004)


# --- time ----------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_stops_and_recovers_on_an_explicit_start():
    arm = Arm()
    arm.moving()
    arm.now -= 5.0
    decision = arm.tick()
    assert decision.state == "stopped" and "s backwards" in decision.reasons[0]
    assert arm.run(0.3).state == "stopped"
    assert arm.guard.take("policy").ok and arm.propose(arm.q) and arm.tick().state == "active"


def test_after_a_long_pause_the_target_rests_where_it_is():
    arm = Arm()
    moving = arm.moving(speed=1.0)
    arm.now += 0.07
    arm.propose(arm.q + 0.5)
    after = arm.tick()
    assert arm.guard.clips["gap"].count == 1
    assert abs(after.velocity[0]) <= 10.0 * DT * (1 + 1e-9) < moving.velocity[0]


def test_called_too_early_it_repeats_itself():
    arm = Arm()
    decision = arm.moving()
    np.testing.assert_array_equal(arm.guard.command(arm.now).target, decision.target)
    np.testing.assert_array_equal(arm.guard.command(arm.now + 1e-5).target, decision.target)


def test_limits_hold_over_the_time_that_passed_not_the_time_that_was_planned():
    arm = Arm(dt=0.002)
    arm.guard.take("policy")
    generator, last, times = np.random.default_rng(0), arm.q, []
    for k in range(2000):
        if k % 5 == 0:
            arm.propose(REST + 2.0 * np.sin(k + np.arange(7)))
        arm.dt = float(generator.uniform(0.0003, 0.006))
        target = arm.tick().target
        times.append((np.abs(target - last) / arm.dt / LIMITS.joints().velocity).max())
        last = target
    assert 0.5 < max(times) <= 1.0 + 1e-9


# --- properties ----------------------------------------------------------------------------------------------


def wild(arm, seconds, kind, seed):
    """Targets that try hard; positions (T, J)."""
    rng, goal = np.random.default_rng(seed), arm.q
    low, high = np.array(arm.limits.joint_lower_rad), np.array(arm.limits.joint_upper_rad)
    assert arm.guard.take("policy").ok
    for k in range(round(seconds / arm.dt)):
        if k % max(1, round(0.02 / arm.dt)) == 0:
            if kind == "wild" or (kind == "far" and rng.random() < 0.2):
                goal = rng.uniform(low - 1.0, high + 1.0)
            elif kind == "near":
                goal = arm.q + 0.03 * rng.normal(size=len(low))
            noise = rng.random()
            arm.propose(goal * (math.nan if noise < 0.05 else 1.0), period=0.02)
        arm.tick()
    return np.array(arm.path)


SMALL = {"tool_speed_mps": 0.25, "tool_rotation_radps": 0.5, "box_lower_m": [0.2, -0.3, 0.2],
         "box_upper_m": [0.6, 0.3, 0.7]}  # fmt: skip


@pytest.mark.parametrize("dt", [0.001, 0.004, 0.01])
@pytest.mark.parametrize("kind", ["far", "near", "wild"])
@pytest.mark.parametrize(("name", "changes"), [("franka", {}), ("franka", SMALL), ("ur5e", {})])
def test_the_output_never_exceeds_a_limit(name, changes, kind, dt):
    arm = Arm(dt=dt, changes=changes, name=name)
    position = wild(arm, 400 * dt, kind, seed=round(1000 * dt))
    velocity = np.diff(position, axis=0) / dt
    limits, body = arm.limits.joints(), arm.guard.body
    assert set(arm.states) <= {"active", "holding"} and np.abs(velocity).max() > 0.1
    assert (position <= limits.upper + 1e-9).all() and (position >= limits.lower - 1e-9).all()
    assert (np.abs(velocity) <= limits.velocity * (1 + 1e-6)).all()
    frames = body.tool(position)
    speed, rotation = tool_speed(frames[:-1], frames[1:], dt)
    assert speed.max() <= arm.limits.tool_speed_mps and rotation.max() <= arm.limits.tool_rotation_radps
    assert body.room(position).metres.min() >= 0.0
    acceleration = np.abs(np.diff(velocity, axis=0)) / dt / limits.acceleration
    assert (acceleration.max(1) <= 1 + 1e-6).mean() > 0.95  # only a tool that braking speeds up takes more


@pytest.mark.parametrize("kind", ["far", "wild"])
def test_filtering_a_filtered_step_changes_nothing(kind):
    arm = Arm(dt=0.004)
    guard, rng = arm.guard, np.random.default_rng(4)
    positions = wild(arm, 2.0, kind, seed=4)[::7]
    limits = JointLimits(*(getattr(guard._joint_limits, f.name) for f in dataclasses.fields(JointLimits)))
    for before, here in itertools.pairwise(positions):
        last = TargetState(here[None], np.clip((here - before)[None] / 0.1, -1.0, 1.0), np.zeros((1, 7)))
        wanted, measured = rng.normal(size=(1, 7)) * 3.0, here[None] + 0.02

        def filtered(velocity, last=last, measured=measured):
            now = Situation(0.004, last, limits, guard.body, measured, guard._error, JOINTS, None)
            step = Step(velocity, np.zeros((1, 7)))
            for check in STEP_CHECKS:
                step, _ = check(step, now)
            return step.velocity

        once = filtered(wanted)
        np.testing.assert_allclose(filtered(once.copy()), once, atol=2e-3)


def test_outside_the_box_it_can_only_come_back():
    arm = Arm()
    arm.guard.take("policy")
    far = {"box_lower_m": [0.6, -0.3, 0.2], "box_upper_m": [0.9, 0.3, 0.9]}  # in front of where it starts
    arm = Arm(changes=far)
    assert arm.guard.body.room(REST[None]).metres[0, :6].min() < -0.1
    arm.guard.take("policy")
    worst = [arm.guard.body.room(arm.q[None]).metres[0, :6].min()]
    reach = REST + np.array([0.0, 0.5, 0.0, 0.6, 0.0, 0.0, 0.0])
    for goal in (REST - np.array([0.0, 0.3, 0, 0, 0, 0, 0]), reach):
        for _ in range(150):
            arm.propose(goal)
            arm.run(PERIOD)
            worst.append(arm.guard.body.room(arm.q[None]).metres[0, :6].min())
    assert (np.diff(np.minimum(worst, 0.0)) >= -2e-4).all()  # what it loses while it brakes on a curve
    assert min(worst) == worst[0] and worst[-1] > worst[0] + 0.1


def test_a_guard_with_limits_looser_than_the_robots_is_refused():
    loose = dataclasses.replace(LIMITS, joint_velocity_radps=(3.0,) * 7)
    with pytest.raises(ConfigError, match=r"joint_velocity_radps\[0\] = 3.0 is looser than franka's 2.175"):
        Guard(loose, FRANKA, ("policy",), DT)
    with pytest.raises(ConfigError, match="has 7 values, ur5e needs 6"):
        Guard(LIMITS, config.entry("robot", "ur5e").value, ("policy",), DT)
    with pytest.raises(ConfigError, match="sources with different names"):
        Guard(LIMITS, FRANKA, ("policy", "policy"), DT)
    with pytest.raises(ConfigError, match=r"command_dt_s = 1.0 must lie between 0 and 0.08"):
        Guard(LIMITS, FRANKA, ("policy",), 1.0)
