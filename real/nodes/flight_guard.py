"""The only publisher on a quadrotor's command topic, and the only one who calls its services: what policy and
teleoperation propose reaches the firmware through here, or not at all. The rules are in real/safety/flight.py.

Topics below the vehicle's namespace: `guard/proposals/SOURCE` (trajectory_msgs/JointTrajectory, its names those of the
command interface: roll, pitch, yaw_rate, thrust; stamped with the pose that it was computed from), `guard/state` and
`guard/owner` (std_msgs/String, latched), `guard/target` (sensor_msgs/JointState: the set-point that was sent),
`/diagnostics`. Services (std_srvs/Trigger): `guard/takeoff`, `guard/land`, `guard/take/SOURCE`,
`guard/release/SOURCE`, `guard/estop` (cuts the motors), `guard/reset`.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from real import ros
from real.connection import NEWEST, SENSED, Header, JointState, seconds, stamp_of
from real.flight.listening import listen
from real.flight.services import Services
from real.flight.wire import Wire
from real.nodes.authority import AuthorityNode, read_proposal
from real.nodes.run import run
from real.safety.flight import FlightGuard
from real.safety.flight_view import Health
from real.safety.guard import Answer
from real.site import read_flight_site

Status = ros.interface("crazyflie_interfaces/msg/Status")
LAST_S, SENT_S = 0.5, 0.1
"""For which it tries to have the vehicle land when it is told to end, and waits until that is on its way."""
LAST = ("notify_setpoints_stop", "land", "disarm", "emergency")
"""Orders that are called again then, if nobody has answered them yet."""
LEVELS = {"grounded": 0, "taking_off": 0, "flying": 0, "landing": 1, "emergency": 2}


class FlightGuardNode(AuthorityNode):
    def __init__(self) -> None:
        super().__init__()
        self.site = read_flight_site(self)
        sources = self.read_sources()
        profile, robot = self.site.profile, self.site.robot
        self.dt = 1.0 / profile.command_rate_hz
        self.guard = FlightGuard(
            profile.limits, robot, sources, self.dt, profile.level_after_s, profile.command_interface
        )
        self.reader = listen(self, self.site)
        self._wire = Wire(profile.command_interface, robot, profile.base_frame)
        self._acted_s = -math.inf  # on the steady clock
        self._followed_s: float | None = None  # stamp of the proposal that no command has used yet
        self._command = self.create_publisher(self._wire.type, self._wire.topic, NEWEST)
        self._target = self.create_publisher(JointState, "guard/target", NEWEST)
        self.services = Services(self, profile.limits.service_timeout_s, self.guard.answered)
        self.serve(profile.robot, self._wire.topic, profile.state_topic)
        self.service("guard/takeoff", self._takeoff)
        self.service("guard/land", self.guard.land)
        self.create_subscription(Status, profile.status_topic, self._on_status, SENSED)
        self.create_timer(self.dt, self._tick)
        self.announce("grounded", ())
        self.get_logger().info(f"guards {profile.robot}: commands on {self._wire.topic} at {1 / self.dt:.0f} Hz")

    # --- what comes in --------------------------------------------------------------------------------------

    def _on_status(self, message: Any) -> None:
        info = int(message.supervisor_info)
        bits = (Status.SUPERVISOR_INFO_IS_FLYING, Status.SUPERVISOR_INFO_IS_TUMBLED, Status.SUPERVISOR_INFO_IS_LOCKED)
        now_s, stamp_s = self.now_s(), seconds(message.header.stamp)
        if stamp_s > now_s + self.site.profile.limits.future_s or not stamp_s > self.guard.view.health.stamp_s:
            return
        self.guard.hear(now_s, Health(stamp_s, float(message.battery_voltage), *(bool(info & b) for b in bits)))

    def on_proposal(self, source: str, message: Any) -> None:
        proposal = read_proposal(message, len(self.guard.names))
        if isinstance(proposal, str):
            self.guard.refuse(source, proposal)
        elif self.guard.propose(source, self.now_s(), proposal):
            self._followed_s = proposal.stamp_s
            self._act()

    def _takeoff(self) -> Answer:
        missing = self.services.missing()
        if missing:
            return Answer(False, f"nobody serves {', '.join(missing)}: is the Crazyswarm2 server up?")
        if self.intruders:
            return Answer(False, f"{', '.join(self.intruders)} publishes on {self._wire.topic} too: end it first")
        return self.guard.takeoff()

    def on_intruder(self, reason: str) -> None:
        """To cut the motors would be a crash for sure; what does not land is cut."""
        self.guard.land(reason)

    def on_namesake(self, reason: str) -> None:
        if self.guard.owner:
            self.guard.release(self.guard.owner, reason)

    # --- what goes out --------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if time.monotonic() - self._acted_s > 0.7 * self.dt:  # else a proposal came just now
            self._act()

    def _act(self) -> None:
        now_s, self._acted_s = self.now_s(), time.monotonic()
        latest = self.reader.latest
        if latest is not None and latest is not self.guard.view.measured:
            self.guard.observe(now_s, latest)
        decision = self.guard.command(now_s)
        if decision.setpoint is not None:
            self._send(decision.setpoint, now_s)
        self.services.add(decision.orders)
        self.services.advance()
        self.announce(decision.state, decision.reasons)

    def _send(self, setpoint: np.ndarray, now_s: float) -> None:
        self._command.publish(self._wire.encode(setpoint, now_s))
        header = Header(stamp=stamp_of(now_s), frame_id=self.site.profile.base_frame)
        self._target.publish(JointState(header=header, name=list(self.guard.names), position=setpoint.tolist()))
        if self._followed_s is not None:
            self.latency.add(self.now_s() - self._followed_s)
            self._followed_s = None

    def report(self, reasons: Sequence[str] = ()) -> None:
        state, health = self.guard.state, self.guard.view.health
        figures = {
            **self.figures(),
            **{f"pose: {k}": n for k, n in self.reader.refused.items()},
            **{f"service {k}": n for k, n in self.services.calls.items()},
            "battery, V": f"{health.battery_v:.2f}",
        }
        self._diagnostics(LEVELS[state], state + (f": {reasons[0]}" if reasons else ""), figures)
        self.latency.clear()

    def close(self) -> None:
        """Nobody flies it any more: it lands by itself. Without a guard nothing watches it."""
        for number in (signal.SIGINT, signal.SIGTERM):  # nobody is too impatient for this
            signal.signal(number, signal.SIG_IGN)
        self.guard.land("the guard was told to end")
        self.announce(self.guard.state, ("the guard was told to end",))
        unheard = [order for order in self.services.unanswered() if order.service in LAST]
        until = time.monotonic() + LAST_S
        while (unheard or self.guard.has_orders()) and time.monotonic() < until:  # nothing is heard any more
            for order in (*unheard, *self.guard.command(self.now_s()).orders):
                self.services.send(order)
                time.sleep(self.dt)
            unheard = []
            time.sleep(self.dt)
        time.sleep(SENT_S)


def main(args: Sequence[str] | None = None) -> int:
    return run(FlightGuardNode, args, on_time=True)


if __name__ == "__main__":
    raise SystemExit(main())
