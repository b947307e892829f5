"""A quadrotor's guard and reader against a model of the vehicle and its firmware, with random faults, delays, proposals
and calls: what must hold whatever happens. Every seed is a flight of its own, and always the same."""

import math
from collections import Counter
from types import SimpleNamespace as Bag

import numpy as np
import pytest

from real.flight.reading import FlightReader
from real.robots.crazyflie import LIMITS
from real.safety.flight import UNLOCK_S, FlightGuard
from real.safety.flight_view import Health
from real.safety.proposals import Proposal
from robolearn.robots.crazyflie import CRAZYFLIE
from sim.vehicles.commander import FOOT_M, Commander, State

DT, POSE_EVERY, STATUS_EVERY, LAG_S = 0.01, 2, 50, 0.1
G, MASS, FOOT = 9.81, CRAZYFLIE.quadrotor.mass_kg, CRAZYFLIE.quadrotor.foot_m
NAMES, SOURCES = ("roll", "pitch", "yaw_rate", "thrust"), ("teleop", "env", "policy")
SITE = LIMITS.tightened({"fence_lower_m": [-2.0, -1.5, 0.1], "fence_upper_m": [2.0, 1.5, 2.0], "tilt_rate_radps": 20.0})
FAULTS = ("freeze", "jump", "fall", "nan", "frame", "silent", "axes")


class Vehicle:
    """A point that leans, after `LAG_S`, as its firmware wants."""

    def __init__(self):
        self.firmware = Commander(CRAZYFLIE.quadrotor)
        self.position, self.velocity, self.yaw = np.array([0.3, -0.1, FOOT]), np.zeros(3), 0.0
        self.roll = self.pitch = 0.0

    def state(self):
        return State(self.position, self.velocity, self.yaw)

    def advance(self, now_s):
        roll, pitch, turn, thrust = self.firmware.command(self.state(), now_s, DT)
        self.roll, self.pitch = (v + (to - v) * DT / LAG_S for v, to in ((self.roll, roll), (self.pitch, pitch)))
        self.yaw += turn * DT
        cr, sr, cp, sp = math.cos(self.roll), math.sin(self.roll), math.cos(self.pitch), math.sin(self.pitch)
        cy, sy = math.cos(self.yaw), math.sin(self.yaw)
        up = np.array([cy * sp * cr + sy * sr, sy * sp * cr - cy * sr, cp * cr])
        self.velocity = self.velocity + DT * (thrust / MASS * up - [0.0, 0.0, G] - 0.3 * self.velocity)
        self.position = self.position + DT * self.velocity
        if self.position[2] <= FOOT:
            self.position, self.velocity = np.array([*self.position[:2], FOOT]), np.zeros(3)

    def turn(self):
        x, y, z = 0.5 * self.roll, 0.5 * self.pitch, 0.5 * self.yaw
        (a, d), (b, e), (c, f) = ((math.sin(v), math.cos(v)) for v in (x, y, z))
        return np.array([a * e * f - d * b * c, d * b * f + a * e * c, d * e * c - a * b * f, d * e * f + a * b * c])

    def obey(self, order, now_s):
        commander, goal = self.firmware, np.array(order.goal_m)
        if order.service in ("arm", "disarm"):
            commander.arm(order.service == "arm")
        elif order.service == "notify_setpoints_stop":
            commander.notify_stop(now_s)
        elif order.service == "emergency":
            commander.emergency()
        elif order.service == "go_to":
            commander.go(self.state(), goal, order.yaw_rad, order.duration_s, now_s)
        else:
            off = order.service == "land"
            goal = np.array([*self.position[:2], max(goal[2], FOOT_M) if off else goal[2]])
            commander.go(self.state(), goal, self.yaw, order.duration_s, now_s, off)


class Trial:
    """`now_s` is the clock of guard and stamps, `time_s` that of the world: the first may be set."""

    def __init__(self, seed, wild=True):
        """`wild`: anything may happen; else somebody flies it to the middle."""
        self.wild = wild
        self.random = np.random.default_rng(seed)
        self.guard = FlightGuard(SITE, CRAZYFLIE, SOURCES, DT, 0.5)
        self.reader = FlightReader("world", SITE.future_s, SITE.frozen_s)
        self.vehicle, self.time_s, self.offset_s, self.step = Vehicle(), 0.0, 1e6, 0
        self.fault, self.battery_v, self.status, self.frozen = "", 4.0, True, None
        self.taken_s, self.taken_of, self.broke_s, self.clock_s = -math.inf, "", None, -math.inf
        self.services, self.answer_after = [], lambda: 0.02
        self.talks, self.last, self.owner, self.streamed, self.unlocking_s = True, None, None, False, -math.inf
        self.seen = Counter()

    @property
    def now_s(self):
        return self.time_s + self.offset_s

    # --- the world ---

    def tell(self):
        where, turn, velocity = self.vehicle.position.copy(), self.vehicle.turn(), self.vehicle.velocity.copy()
        where += self.random.normal(0.0, 0.001, 3)
        if self.broke_s is None:
            self.broke_s, self.gap_s = self.time_s, self.time_s - self.taken_s
        if self.fault == "freeze":
            self.frozen = (where, turn, velocity) if self.frozen is None else self.frozen
            where, turn, velocity = self.frozen
        elif self.fault == "axes":
            where, velocity = where[[1, 0, 2]], velocity[[1, 0, 2]]
        where = where + {"jump": [1.5, 0.0, 0.0], "fall": [0.0, 0.0, -1.0]}.get(self.fault, [0.0] * 3)
        if self.fault == "nan":
            turn = np.full(4, math.nan)
        if self.fault == "silent":
            return
        frame = "map" if self.fault == "frame" else "world"
        sec = math.floor(self.now_s)
        header = Bag(frame_id=frame, stamp=Bag(sec=sec, nanosec=int((self.now_s - sec) * 1e9)))
        p, q, v = (Bag(**dict(zip("xyzw", values, strict=False))) for values in (where, turn, velocity))
        self.reader.odom(Bag(header=header, twist=Bag(twist=Bag(linear=v))), self.now_s)
        taken = self.reader.pose(Bag(header=header, pose=Bag(position=p, orientation=q)), self.now_s)
        self.check_taken(taken)

    def hear(self):
        firmware = self.vehicle.firmware
        self.guard.hear(self.now_s, Health(self.now_s, self.battery_v, firmware.flies(), False, firmware.locked))

    def propose(self):
        kind, rng = self.random.random() if self.wild else 0.0, self.random
        at = self.reader.latest
        row = [*rng.normal(0.0, 0.5, 2), rng.normal(0.0, 2.0), rng.normal(0.27, 0.1)]
        if kind < 0.7 and at is not None:  # a sane one: towards the middle
            to = np.clip(0.3 * ([0.0, 0.0, 1.0] - at.position) - 0.3 * at.velocity, -0.2, 0.2)
            row = [-to[1], to[0], 0.0, MASS * (G + 10.0 * to[2])]
        elif kind < 0.72:
            row[rng.integers(4)] = math.nan
        rows = [row] * int(rng.integers(1, 4))
        source = self.guard.owner if self.guard.owner and rng.random() < 0.95 else str(rng.choice(SOURCES))
        stamp = at.stamp_s if at is not None and kind < 0.95 else self.now_s - rng.normal(0.0, 0.5)
        names = NAMES if kind < 0.98 else NAMES[::-1][:3]
        self.guard.propose(source, self.now_s, Proposal(names, rows, float(stamp), 0.02))

    def happen(self):
        """Something that may come at any time."""
        rng, guard = self.random, self.guard
        calls = (guard.takeoff, lambda: guard.take(str(rng.choice(SOURCES))), lambda: guard.take("policy"),
                 lambda: guard.release(str(rng.choice(SOURCES))), guard.land, guard.reset)  # fmt: skip
        if guard.state == "grounded" and rng.random() < 0.05:
            guard.takeoff()
        if guard.state == "flying" and guard.owner is None and rng.random() < 0.1:
            guard.take("policy")
        if rng.random() < 0.002:
            calls[rng.integers(len(calls))]()
        if rng.random() < (0.012 if self.fault else 0.002):
            self.break_down("" if self.fault else str(rng.choice(FAULTS)))
        if rng.random() < (0.001 if self.talks else 0.02):
            self.talks = not self.talks
        if rng.random() < (0.001 if self.battery_v == 4.0 else 0.003):
            self.battery_v = float(rng.choice([4.0, 3.1, math.nan])) if self.battery_v == 4.0 else 4.0
        if rng.random() < 0.001:
            slow = float(rng.choice([0.02, 0.3, 1.0]))
            self.answer_after = lambda: slow * rng.random()
        if rng.random() < 0.0003:
            self.offset_s += float(rng.choice([-30.0, -0.5, -0.05, 0.3, 30.0]))
            self.clock_s = self.time_s
        if rng.random() < 0.0002:
            guard.estop()
        if guard.state == "emergency" and rng.random() < 0.02:
            if self.vehicle.firmware.locked:  # it has fallen, and is restarted
                self.vehicle.firmware = Commander(CRAZYFLIE.quadrotor)
            guard.reset()

    def fly_to_the_middle(self):
        for _ in range(60):
            self.advance()
        assert self.guard.takeoff().ok
        while self.guard.state != "flying":
            self.advance()
        assert self.guard.take("policy").ok
        for _ in range(500):
            self.advance()
        assert self.guard.owner == "policy" and np.abs(self.vehicle.position - [0.0, 0.0, 1.0]).max() < 0.02

    def break_down(self, fault):
        self.fault, self.frozen, self.broke_s = fault, None, None  # from the next pose on
        self.seen[fault] += 1

    def serve(self):
        """One call at a time; answered late, or not within the time."""
        while self.services:
            order, asked_s, answer_s = self.services[0]
            if asked_s is None:
                self.services[0] = order, self.time_s, self.time_s + self.answer_after()
                if order.service == "disarm":
                    self.check_disarm()
                last = (
                    len(self.services) == 1 and self.guard.owner is None
                )  # a place to hover that is out of date is not
                if order.service in ("land", "takeoff") or (order.service == "go_to" and last):
                    assert not self.streamed, f"{order.service} while set-points are in force would be ignored"
                self.streamed &= order.service != "notify_setpoints_stop"
                self.vehicle.obey(order, self.time_s)
            elif self.time_s >= min(answer_s, asked_s + SITE.service_timeout_s):
                self.services.pop(0)
                self.guard.answered(order, answer_s <= asked_s + SITE.service_timeout_s)
            else:
                return

    # --- what must hold ---

    def advance(self):
        self.step += 1
        stall = int(self.random.integers(20, 80)) if self.wild and self.random.random() < 0.0005 else 1
        self.clock_s = self.time_s + stall * DT if stall > 1 else self.clock_s
        for _ in range(stall):
            self.time_s += DT
            self.vehicle.advance(self.time_s)
        if self.wild:
            self.happen()
        if self.step % POSE_EVERY == 0:
            self.tell()
        if self.step % STATUS_EVERY == 0:
            self.hear()
        if self.talks and self.step % 2:
            self.propose()
        self.act(stall)

    def act(self, stall=1):
        latest, guard = self.reader.latest, self.guard
        if latest is not None and latest is not guard.view.measured:
            guard.observe(self.now_s, latest)
        decision = guard.command(self.now_s)
        self.seen[decision.state] += 1
        if decision.setpoint is None:
            self.last = None
        else:
            self.check_setpoint(decision)
            self.vehicle.firmware.setpoint("attitude", decision.setpoint, self.time_s)
            assert not (decision.setpoint[3] and self.vehicle.firmware.thrust_locked), "its thrust is locked: it falls"
            self.last, self.owner, self.streamed = decision.setpoint, self.guard.owner, True
        if any(order.service == "emergency" for order in decision.orders):
            self.services = []
        self.services += [(order, None, None) for order in decision.orders]
        self.serve()
        self.check_pose(stall)

    def check_setpoint(self, decision):
        row = decision.setpoint
        assert np.isfinite(row).all()
        if decision.state == "taking_off":
            self.unlocking_s = self.time_s if self.unlocking_s < self.time_s - 2.0 * UNLOCK_S else self.unlocking_s
            assert not row.any()
            return
        assert decision.state == "flying" and self.guard.owner is not None
        self.seen["set-points"] += 1
        assert math.hypot(*row[:2]) <= SITE.tilt_rad + 1e-6 and abs(row[2]) <= SITE.yaw_rate_radps + 1e-9
        assert SITE.thrust_lower_n <= row[3] <= SITE.thrust_upper_n
        if self.last is not None and self.last[3] and self.guard.owner == self.owner:  # a source's first is free
            assert math.hypot(*(row - self.last)[:2]) <= SITE.tilt_rate_radps * 2.0 * DT + 1e-6

    def check_taken(self, taken):
        """Of a faulty pose, whether the reader believes it."""
        since, new_clock = self.time_s - self.taken_s, self.time_s - self.clock_s < 1.0  # or a gap of all poses
        if taken and self.fault in ("nan", "frame"):
            raise AssertionError(f"{self.fault} was believed")
        if taken and self.fault == "freeze":
            assert self.time_s - self.broke_s < SITE.frozen_s + 3 * DT or new_clock, "frozen poses are believed"
        if taken and self.fault in ("jump", "fall") and self.taken_of == "" and since < 0.9 and self.gap_s < 0.1:
            assert new_clock, "a jump was believed"
        if taken:
            self.taken_s, self.taken_of = self.time_s, self.fault

    def check_pose(self, stall):
        """Without a pose for its time nobody is followed, and it does not fly on."""
        since = self.time_s - max(self.taken_s, self.clock_s)
        if since > SITE.state_timeout_s + (3 + stall) * DT:
            self.seen[f"{self.fault} in time"] += 1
            assert self.guard.owner is None and self.last is None
            assert self.guard.state in ("grounded", "landing", "emergency")

    def check_disarm(self):
        assert self.vehicle.position[2] < 0.15, f"disarmed at {self.vehicle.position[2]:.2f} m"


@pytest.mark.parametrize("seed", [k for k in range(13) if k != 5])  # in 5 nobody is followed
def test_whatever_happens(seed):
    trial = Trial(seed)
    for _ in range(2500):
        trial.advance()
    trial.break_down("")
    trial.talks, trial.battery_v, trial.answer_after = False, 4.0, lambda: 0.02
    trial.guard.land()
    for _ in range(1200):
        trial.step += 1
        trial.time_s += DT
        trial.vehicle.advance(trial.time_s)
        if trial.step % POSE_EVERY == 0:
            trial.tell()
        if trial.step % STATUS_EVERY == 0:
            trial.hear()
        trial.act()
    assert trial.guard.state in ("grounded", "emergency") and trial.vehicle.position[2] < 0.1
    assert trial.seen["set-points"] > 100 and trial.seen["flying"] and trial.seen["landing"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_pose_fault_under_a_source_ends_within_the_fence(fault):
    """Axes that are swapped in the middle, where nothing jumps, are noticed by where that leads."""
    trial = Trial(0, wild=False)
    trial.fly_to_the_middle()
    trial.break_down(fault)
    for _ in range(800):
        trial.advance()
        place = trial.vehicle.position
        assert (np.abs(place[:2]) < 2.0).all() and place[2] < 2.0
        assert math.hypot(trial.vehicle.roll, trial.vehicle.pitch) < 1.0
    assert trial.guard.owner is None and (fault == "axes" or trial.guard.state == "grounded")
