"""The rules between what is proposed for a quadrotor and what its firmware is told: plain Python, no ROS.

The vehicle has a high-level commander of its own, which takes off, lands and goes to places, and takes low-level
set-points, which come before it until it is told that they stop (Crazyswarm2). The guard passes on the set-points of
the one source that has authority, within the limits. Whenever that source cannot be followed any more (its proposals
stay away, it would leave the fence, the vehicle tilts or spins too much) authority ends, and the vehicle hovers by its
own commander, where the pose is fresh; it lands where that is lost, the battery is low or the fence has been left; the
motors are cut where it has tumbled or does not land.

| state | leaves it for |
|---|---|
| `grounded` | `taking_off`, when somebody asks and all is well; `flying`, if the vehicle says that it flies |
| `taking_off` | `flying` at its height; `landing`, if it does not rise or something is wrong |
| `flying` | `landing`, asked or not |
| `landing` | `grounded` |
| `emergency` | `grounded`, by `reset` |

Everything leads to `emergency` where the motors have to be cut. Only in `flying` has a source authority.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from real.flight.state import SETPOINTS, Flight, Floats, G
from real.safety.clips import Clip
from real.safety.flight_limits import FlightLimits
from real.safety.flight_states import TRANSITIONS, Event, FlightDecision, Order, State
from real.safety.flight_view import MARGIN_M, STILL_MPS, Health, View
from real.safety.guard import Answer
from real.safety.proposals import Proposal, read_targets
from real.safety.setpoints import LIMITERS, Moment
from robolearn.errors import ConfigError
from robolearn.spec import RobotSpec

log = logging.getLogger(__name__)

UNLOCK_S = 0.3
"""For which no thrust is commanded before the take-off, which unlocks it for attitude set-points."""
NEAR_M, DOWN_M = 0.1, 0.08
"""Of the height that was to be reached; above its start it counts as down, if it does not sink any more."""
GAP = 0.8
"""Of the time after which the firmware levels it: after a longer gap in what is sent no attitude is, as the thrust may
be locked."""
PAUSE_S = 0.03
"""After the last set-point before an order: one that came late would be followed by nothing, and orders be ignored."""
PATIENCE_S = 4.0
"""Beyond the time that take-off and landing should take."""
AGAIN = 3
"""Times that a call is repeated."""


class FlightGuard:
    """Call `command` at its rate, `observe`, `hear` and `propose` when something comes, `answered` for every order."""

    def __init__(self, limits: FlightLimits, spec: RobotSpec, sources: tuple[str, ...], command_dt_s: float,
                 level_after_s: float, interface: str = "attitude"):  # fmt: skip
        """`sources` by falling priority; `level_after_s`: without a set-point for so long the firmware levels the
        vehicle, and locks the thrust of attitude set-points. Raises ConfigError."""
        if spec.quadrotor is None:
            raise ConfigError(f"{spec.name} is no quadrotor")
        if not sources or len(set(sources)) != len(sources):
            raise ConfigError(f"the guard needs sources with different names, got {sources}")
        if not 0.0 < command_dt_s < limits.hold_after_s:
            raise ConfigError(f"command_dt_s = {command_dt_s} must lie between 0 and {limits.hold_after_s}")
        if not limits.hold_after_s < GAP * level_after_s:
            raise ConfigError(f"hold_after_s = {limits.hold_after_s} must be below {GAP * level_after_s:g}, {GAP:g} of "
                              "the time after which the firmware levels the vehicle")  # fmt: skip
        weight = spec.quadrotor.mass_kg * G
        if not limits.thrust_lower_n < weight < limits.thrust_upper_n <= spec.quadrotor.full_thrust_n:
            raise ConfigError(
                f"guard limits of thrust, {limits.thrust_lower_n} to {limits.thrust_upper_n} N, must hold "
                f"{spec.name}'s weight of {weight:.3g} N and not exceed its {spec.quadrotor.full_thrust_n:.3g} N"
            )
        self.limits, self.sources, self.dt, self.interface = limits, sources, command_dt_s, interface
        self.names, self._limit, self._gap_s = SETPOINTS[interface], LIMITERS[interface], GAP * level_after_s
        self.state: State = "grounded"
        self.owner: str | None = None
        self.view = View(limits)
        self.clips = self.view.clips
        self._reason, self._since_s = "", -math.inf
        self._ground_m, self._lands_in_s = 0.0, 0.0
        self._lands_s = math.inf  # since the vehicle has answered to land
        self._sent_s = -math.inf  # a set-point
        self._streams = False  # low-level set-points may be in force: the vehicle has not heard that they stop
        self._unlocked = interface != "attitude"  # the firmware obeys their thrust
        self._last: Floats | None = None
        self._rows: Floats | None = None
        self._period_s = self._rows_s = self._heard_s = self._proposed_s = -math.inf
        self._orders: list[Order] = []
        self._failed: dict[str, int] = {}

    # --- what comes in --------------------------------------------------------------------------------------

    def observe(self, now_s: float, flight: Flight) -> None:
        """A measurement that the reader has found plausible."""
        self._tick(now_s)
        self.view.measured = flight

    def hear(self, now_s: float, health: Health) -> None:
        """The vehicle's status."""
        self._tick(now_s)
        self.view.hear(health)
        if health.flies and self.state == "grounded" and self._since_s == -math.inf:
            self._go("found_flying", "the vehicle flies already")
            self._streams = True  # maybe: whoever flew it may not have said that they stop

    def propose(self, source: str, now_s: float, proposal: Proposal) -> bool:
        """Whether it is followed from now on; its rows are set-points of consecutive periods from now."""
        self._tick(now_s)
        if source != self.owner:
            return self._refuse("unauthorised", source, 0.0, 1.0)
        rows = read_targets(proposal, self.names, self.limits.hold_after_s)
        if isinstance(rows, str):
            return self._refuse("malformed", f"{source}: {rows}", 0.0, 1.0)
        age = now_s - proposal.stamp_s
        if not age <= self.limits.proposal_timeout_s:
            return self._refuse("stale", source, age, self.limits.proposal_timeout_s)
        if age < -self.limits.future_s:
            return self._refuse("future", source, -age, self.limits.future_s)
        if proposal.stamp_s < self._proposed_s:  # two may come from one measurement
            return self._refuse("repeated", source, proposal.stamp_s, self._proposed_s)
        self._rows, self._period_s, self._rows_s = rows, float(proposal.period_s), now_s
        self._proposed_s, self._heard_s = proposal.stamp_s, now_s
        return True

    def refuse(self, source: str, why: str) -> bool:
        """Of a proposal that cannot even be read."""
        if source != self.owner:
            return self._refuse("unauthorised", source, 0.0, 1.0)
        return self._refuse("malformed", f"{source}: {why}", 0.0, 1.0)

    def answered(self, order: Order, ok: bool) -> None:
        """An order was answered, or not within the time."""
        if ok:
            self._failed.pop(order.service, None)
            if order.service == "land":
                self._lands_s = self.view.now_s
            elif order.service == "notify_setpoints_stop" and self._last is None:
                self._streams = False
            return
        count = self._failed[order.service] = self._failed.get(order.service, 0) + 1
        if order.service == "emergency" or (order.service == "disarm" and count < AGAIN):
            self._orders.append(order)  # until it is heard
        elif order.service == "land":
            if count < AGAIN:
                self._orders.append(order)
            else:
                self._cut("the vehicle does not answer to land")
        elif self.state in ("taking_off", "flying"):
            self._land(f"the vehicle does not answer to {order.service}")

    # --- authority and flight -------------------------------------------------------------------------------

    def takeoff(self) -> Answer:
        """From the ground to `takeoff_m` above it."""
        reason = self.view.unfit() if self.state == "grounded" else f"it is not on the ground: {self._told()}"
        if reason:
            return Answer(False, reason)
        assert self.view.measured is not None
        limits = self.limits
        self._ground_m = float(self.view.measured.position[2])
        self._go("takeoff", "asked to")
        duration = max(1.0, limits.takeoff_m / limits.climb_mps)
        self._orders = [
            Order("notify_setpoints_stop"), Order("arm"),
            Order("takeoff", (0.0, 0.0, self._ground_m + limits.takeoff_m), duration_s=duration),
        ]  # fmt: skip
        return Answer(True, "taking off")

    def land(self, reason: str = "asked to") -> Answer:
        """From wherever it flies."""
        if self.state not in ("taking_off", "flying"):
            return Answer(self.state in ("grounded", "landing"), f"nothing to land: {self.state}")
        self._land(reason)
        return Answer(True, "landing")

    def take(self, source: str) -> Answer:
        """Give authority to a source, from its next proposal on."""
        if source not in self.sources:
            return Answer(False, f"no source '{source}'; there are {', '.join(self.sources)}")
        if self.state != "flying":
            return Answer(False, f"{self._told()}: it has to fly first")
        if self.owner == source:
            return Answer(True, f"{source} has authority already")
        if self.owner is not None and self.sources.index(self.owner) < self.sources.index(source):
            return Answer(False, f"{self.owner} has authority, and priority over {source}")
        if not self._unlocked:
            return Answer(False, "its thrust may be locked, as this guard has not had it take off: land it first")
        danger = self.view.lost() or self.view.danger()
        if danger:
            return Answer(False, f"not now: {danger}")
        if self._streams:  # until the new source speaks up
            self._hover(f"{source} takes over")
        self.owner, self._rows, self._last = source, None, None
        self._heard_s, self._proposed_s = self.view.now_s, -math.inf
        self._say(f"waits for {source}")
        return Answer(True, f"{source} has authority")

    def release(self, source: str, reason: str = "") -> Answer:
        """Give authority back; the vehicle hovers."""
        if source != self.owner:
            return Answer(False, f"{source} has no authority; {self.owner or 'nobody'} has")
        self._hover(reason or f"{source} released it")
        return Answer(True, "hovers")

    def estop(self, reason: str = "emergency stop") -> Answer:
        """Cut the motors. From every state."""
        self._cut(reason)
        return Answer(True, reason)

    def reset(self) -> Answer:
        """Leave `emergency`, when the vehicle lies still."""
        if self.state != "emergency":
            return Answer(True, f"nothing to reset: {self.state}")
        if self.view.health.locked or self.view.health.flies:
            return Answer(
                False, "the vehicle is locked: restart it" if self.view.health.locked else "the vehicle flies"
            )
        self._go("reset", f"reset after: {self._reason}")
        return Answer(True, "grounded")

    # --- what goes out --------------------------------------------------------------------------------------

    def command(self, now_s: float) -> FlightDecision:
        """To be called every `command_dt_s`, or sooner, when a proposal has come."""
        self._tick(now_s)
        self._supervise(now_s)
        setpoint, clips = self._setpoint(now_s)
        orders = self._due_orders(now_s)
        reasons = (self._reason, *map(str, clips)) if self._reason else tuple(map(str, clips))
        return FlightDecision(setpoint, orders, self.state, reasons)

    def _setpoint(self, now_s: float) -> tuple[Floats | None, list[Clip]]:
        if self._unlocks(now_s):
            self._sent_s, self._unlocked, self._streams = now_s, True, True
            return np.zeros(4), []
        if self.owner is None or self._rows is None or self.view.measured is None:
            return None, []
        dt = min(max(now_s - self._sent_s, 0.1 * self.dt), 2.0 * self.dt)
        since = max(0.0, now_s - self._rows_s)  # the clock may have gone back
        k = min(int(since / self._period_s + 1e-6), len(self._rows) - 1)
        setpoint, clips = self._limit(self._rows[k], Moment(dt, self._last, self.view.measured, self.limits))
        for clip in clips:
            self.view.count(clip)
        self._last, self._streams, self._sent_s = setpoint, True, now_s
        return setpoint, clips

    def has_orders(self) -> bool:
        """That `command` has not given out yet."""
        return bool(self._orders)

    def _unlocks(self, now_s: float) -> bool:
        return self.state == "taking_off" and self.interface == "attitude" and now_s - self._since_s < UNLOCK_S

    def _due_orders(self, now_s: float) -> tuple[Order, ...]:
        waits = self._unlocks(now_s) or now_s - self._sent_s < PAUSE_S
        if waits and self.state != "emergency":
            return ()
        due, self._orders = tuple(self._orders), []
        return due

    # --- supervision ----------------------------------------------------------------------------------------

    def _supervise(self, now_s: float) -> None:
        if self.state in ("grounded", "emergency"):
            return
        if self.view.tumbled():
            self._cut("it has tumbled")
            return
        watches = {"taking_off": self._watch_takeoff, "flying": self._watch_flight, "landing": self._watch_landing}
        watches[self.state](now_s)

    def _watch_takeoff(self, now_s: float) -> None:
        limits, rise = self.limits, max(1.0, self.limits.takeoff_m / self.limits.climb_mps)
        wrong = self.view.lost() or self.view.must_land(flying=False)
        if wrong:
            self._land(wrong)
        elif self.view.measured and self.view.measured.position[2] > self._ground_m + limits.takeoff_m - NEAR_M:
            self._go("risen", "it has risen")
            x, y, _ = self.view.measured.position
            self._orders.append(self._order_to(np.array([x, y, self._ground_m + limits.takeoff_m]), 0.0))
        elif now_s - self._since_s > UNLOCK_S + rise + PATIENCE_S:
            self._land("it did not rise")

    def _watch_flight(self, now_s: float) -> None:
        wrong = self.view.lost() or self.view.must_land(flying=True)
        if wrong:
            self._land(wrong)
        elif self.owner is not None:
            silent = now_s - self._heard_s
            if silent > self.limits.hold_after_s and (self._rows is not None or silent > 1.0):
                self._hover(f"no proposal of {self.owner} for {silent:.2g} s")
            elif self._rows is not None and self._streams and now_s - self._sent_s > self._gap_s:
                self._hover(f"the guard itself was held up for {now_s - self._sent_s:.2g} s")
            elif danger := self.view.danger():
                self._hover(danger)

    def _watch_landing(self, now_s: float) -> None:
        """Until its time is over it is not down, whatever the pose says: that may have jumped."""
        at, health, over_s = self.view.measured, self.view.health, self._lands_s + self._lands_in_s
        low = at is not None and not self.view.lost() and at.position[2] < self._ground_m + DOWN_M
        down = low and at is not None and abs(at.velocity[2]) < STILL_MPS and now_s > over_s
        says_so = self.view.known() and health.stamp_s > over_s and not health.flies
        if down or says_so:
            self._go("landed", "it has landed")
            self._orders.append(Order("disarm"))
        elif now_s > min(over_s, self._since_s + AGAIN * self.limits.service_timeout_s + self._lands_in_s) + PATIENCE_S:
            self._cut("it does not land")

    # --- what it does ---------------------------------------------------------------------------------------

    def _hover(self, reason: str) -> None:
        """Nobody has authority any more; it comes to rest within the fence, by its own commander."""
        if self.view.lost():
            self._land(reason)
            return
        lower, upper = np.array(self.limits.fence_lower_m), np.array(self.limits.fence_upper_m)
        goal = self.view.stop().clip(lower + MARGIN_M, upper - MARGIN_M)
        assert self.view.measured is not None
        yaw = self.view.measured.yaw_rad
        self._end_streaming()
        self._orders.append(self._order_to(goal, yaw))
        log.warning("hovers: %s", reason)
        self._say(reason)

    def _order_to(self, goal: Floats, yaw_rad: float) -> Order:
        assert self.view.measured is not None
        far = float(np.linalg.norm(goal - self.view.measured.position))
        turn = abs(math.remainder(yaw_rad - self.view.measured.yaw_rad, math.tau))
        x, y, z = goal.tolist()
        return Order("go_to", (x, y, z), yaw_rad, max(1.0, far / self.limits.climb_mps, turn / 1.0))

    def _land(self, reason: str) -> None:
        """By the vehicle's own commander, wherever it is."""
        self._end_streaming()
        height = (
            self.limits.takeoff_m
            if self.view.measured is None
            else float(self.view.measured.position[2]) - self._ground_m
        )
        self._lands_in_s, self._lands_s = max(1.5, height / self.limits.climb_mps), math.inf
        self._go("land", reason)
        self._orders.append(Order("land", (0.0, 0.0, self._ground_m), duration_s=self._lands_in_s))

    def _end_streaming(self) -> None:
        self.owner, self._rows, self._last, self._orders = None, None, None, []
        if self._streams:
            self._orders.append(Order("notify_setpoints_stop"))

    def _cut(self, reason: str) -> None:
        if self.state == "emergency":
            return
        self.owner, self._rows, self._last, self._streams = None, None, None, False
        self._go("cut", reason)
        self._orders = [Order("emergency")]

    def _go(self, event: Event, reason: str) -> None:
        """Raises KeyError for what cannot happen in this state."""
        state = TRANSITIONS[self.state, event]
        log.log(logging.WARNING if state in ("landing", "emergency") else logging.INFO, "%s: %s", state, reason)
        self.state, self._reason, self._since_s = state, reason, self.view.now_s
        self._failed.clear()

    def _say(self, reason: str) -> None:
        self._reason = reason

    def _told(self) -> str:
        return f"{self.state} ({self._reason})" if self._reason else self.state

    def _tick(self, now_s: float) -> None:
        if not self.view.tick(now_s):  # what runs has a second to show again
            self._since_s = self._heard_s = self._sent_s = now_s
            self._lands_s = now_s if math.isfinite(self._lands_s) else math.inf
            self._proposed_s = -math.inf

    def _refuse(self, kind: str, what: str, value: float, limit: float) -> bool:
        self.view.count(Clip(kind, what, value, limit))
        return False
