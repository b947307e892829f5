"""A simulated quadrotor behind Crazyswarm2's topics and services, in real time: for trying everything out before it
flies. Below its namespace: `cmd_vel_legacy`, `cmd_velocity_world`, `cmd_full_state` in; `pose`, `odom`, `gyro`,
`status` out; the services `arm`, `takeoff`, `land`, `go_to`, `notify_setpoints_stop`, `emergency`.

As on the real one, a stamp is the time at which the server had the message, set-points come before the high-level
commander until they are said to stop, thrust is locked at first, and the firmware's watchdogs level it and cut the
motors. Parameters: `rate_hz` of the pose (1 to 250), `noise_m`, `noise_rad`, `noise_mps`, `noise_radps`; `delay_s`,
`jitter_s` and `loss` of set-points and of what is measured (orders wait in the same queue, and are repeated until they
are heard).

Simulation alone has `twin/truth` (nav_msgs/Odometry: where it is, without noise, delay or loss), `twin/place`
(geometry_msgs/PoseStamped: it stands on the ground there, restarted, with a new battery) and `twin/fault`
(std_msgs/String: freeze, jump, nan, frame, axes (x and y are swapped), silent or sag; empty: none).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from real import ros
from real.connection import NEWEST, Header, String, seconds, shown, stamp_of
from real.flight.services import TYPES
from real.flight.state import SETPOINTS, Floats
from real.flight.wire import Wire
from real.nodes.line import Line
from real.nodes.report import OK, WARN, Report
from real.nodes.run import run
from real.nodes.twin_drone import Drone
from real.site import parameter, read_flight_site
from robolearn.errors import ConfigError

PoseStamped = ros.interface("geometry_msgs/msg/PoseStamped")
Odometry = ros.interface("nav_msgs/msg/Odometry")
Status = ros.interface("crazyflie_interfaces/msg/Status")
LogData = ros.interface("crazyflie_interfaces/msg/LogDataGeneric")
TICK_S, REPORT_S = 0.004, 1.0
BEHIND = 25
"""Periods of the firmware that are made up for at once; what is later than that is lost."""
NOISE = (("noise_m", 0.001), ("noise_rad", 0.002), ("noise_mps", 0.01), ("noise_radps", 0.02))
FAULTS = ("", "freeze", "jump", "nan", "frame", "axes", "silent", "sag")
JUMP_M, SAG_V = 1.5, 0.9


class FlightTwinNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("twin")
        self.site = read_flight_site(self)
        profile = self.site.profile
        self.drone = Drone(self.site.robot, parameter(self, "backend", "pybullet"))
        rate_hz = parameter(self, "rate_hz", profile.state_rate_hz)
        if not 1.0 <= rate_hz <= 1.0 / TICK_S:
            raise ConfigError(f"rate_hz must be within 1 and {1 / TICK_S:g}, got {rate_hz}")
        self._noise = [parameter(self, n, v) for n, v in NOISE]
        faults = {n: parameter(self, n, 0.0) for n in ("delay_s", "jitter_s", "loss")}
        self.lines = Line(**faults, seed=0, ordered=True), Line(**faults, seed=1, ordered=True)  # to it, and from it
        self._random, self.fault, self._frozen = np.random.default_rng(0), "", np.zeros(13)
        self.refused = {"set-points": 0, "orders": 0}
        self._pose = self.create_publisher(PoseStamped, profile.state_topic, 10)
        self._odom = self.create_publisher(Odometry, profile.odom_topic, 10) if profile.odom_topic else None
        self._gyro = self.create_publisher(LogData, profile.gyro_topic, 10) if profile.gyro_topic else None
        self._status = self.create_publisher(Status, profile.status_topic, 10)
        self._truth = self.create_publisher(Odometry, "twin/truth", 10)
        self._report = Report(self, profile.robot)
        for interface in SETPOINTS:
            wire = Wire(interface, self.site.robot, profile.base_frame)
            self.create_subscription(wire.type, wire.topic, partial(self._on_setpoint, interface, wire), NEWEST)
        self._serve()
        self.create_subscription(PoseStamped, "twin/place", self._on_place, NEWEST)
        self.create_subscription(String, "twin/fault", self._on_fault, NEWEST)
        self._at_s = time.monotonic()  # the simulated vehicle's time, on the steady clock
        self._period_s, self._tell_s = 1.0 / rate_hz, self._at_s
        self.create_timer(TICK_S, self._tick)
        self.create_timer(REPORT_S, self._say)
        self.get_logger().info(f"a simulated {profile.robot} on {profile.state_topic}")

    def _serve(self) -> None:
        answers: dict[str, Callable[[Any], bool]] = {
            "arm": self._arm,
            "notify_setpoints_stop": self._notify,
            "takeoff": lambda r: self.drone.takeoff(r.height, seconds(r.duration)),
            "land": lambda r: self.drone.land(r.height, seconds(r.duration)),
            "go_to": lambda r: self.drone.go_to(
                np.array([r.goal.x, r.goal.y, r.goal.z]), r.yaw, seconds(r.duration), r.relative
            ),
            "emergency": self._emergency,
        }
        for name, call in answers.items():
            self.create_service(ros.interface(TYPES[name]), name, partial(self._answer, name, call))

    def _answer(self, name: str, call: Callable[[Any], bool], request: Any, response: Any) -> Any:
        """At once, and the same whether the vehicle will do it or not: it is put into the radio's queue."""
        self.lines[0].send(time.monotonic(), lambda: self._do(name, call, request), repeated=True)
        return response

    def _do(self, name: str, call: Callable[[Any], bool], request: Any) -> None:
        done = call(request)
        self.refused["orders"] += not done
        self.get_logger().info(name if done else f"{name}: ignored")

    def _arm(self, request: Any) -> bool:
        self.drone.commander.arm(request.arm)
        return True

    def _notify(self, request: Any) -> bool:
        self.drone.commander.notify_stop(self.drone.now_s)
        return True

    def _emergency(self, request: Any) -> bool:
        self.drone.commander.emergency()
        return True

    # --- what it hears --------------------------------------------------------------------------------------

    def _on_setpoint(self, interface: str, wire: Wire, message: Any) -> None:
        row = wire.decode(message)
        if not np.isfinite(row).all():
            self.refused["set-points"] += 1
            return
        self.lines[0].send(time.monotonic(), lambda: self.drone.commander.setpoint(interface, row, self.drone.now_s))

    def _on_place(self, message: Any) -> None:
        p, q = message.pose.position, message.pose.orientation
        place = np.array([p.x, p.y, p.z])
        if np.isfinite([*place, q.z, q.w]).all() and abs(place).max() < 100.0:
            self.drone.place(place, 2.0 * float(np.arctan2(q.z, q.w)))

    def _on_fault(self, message: Any) -> None:
        if message.data not in FAULTS:
            self.get_logger().warning(f"no fault {shown(message.data)}; there are {', '.join(FAULTS[1:])}")
        else:
            self.fault, self._frozen = message.data, self._measured()
            self.drone.battery_v -= SAG_V * (self.fault == "sag")

    # --- what it does and says ------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Simulate up to now, what comes and what is measured each at its own time."""
        now, dt = time.monotonic(), self.drone.dt
        self._at_s = max(self._at_s, now - BEHIND * dt)
        while (left := int((now - self._at_s) / dt)) > 0:
            self.lines[0].deliver(self._at_s)
            if self._at_s >= self._tell_s:
                self._tell_s = max(self._tell_s + self._period_s, self._at_s)
                self._tell()
            due_s = min(self.lines[0].next_s, self._tell_s)
            steps = min(left, max(1, math.ceil((due_s - self._at_s) / dt))) if due_s < math.inf else left
            self.drone.advance(steps)
            self._at_s += steps * dt
        self.lines[1].deliver(now)

    def _measured(self) -> Floats:
        """Position, quaternion, velocity, body rates (13,), with noise."""
        pose, velocity, rates = self.drone.measured()
        metres, radians, speed, spin = (self._random.normal(0.0, s, 3) for s in self._noise)
        x, y, z, w = pose[3:]
        a, b, c = 0.5 * radians
        turn = pose[3:] + np.array([w * a + y * c - z * b, w * b - x * c + z * a, w * c + x * b - y * a,
                                    -x * a - y * b - z * c])  # fmt: skip
        return np.concatenate((pose[:3] + metres, turn / np.linalg.norm(turn), velocity + speed, rates + spin))

    def _stamped(self, at_s: float, frame: str) -> Any:
        """A header of a time on the steady clock."""
        return Header(stamp=stamp_of(self.now_s() + at_s - time.monotonic()), frame_id=frame)

    def _tell_truth(self, pose: Floats, velocity: Floats) -> None:
        message = Odometry(header=self._stamped(self._at_s, self.site.profile.base_frame))
        fill(message.pose.pose.position, pose[:3])
        fill(message.pose.pose.orientation, pose[3:])
        fill(message.twist.twist.linear, velocity)
        self._truth.publish(message)

    def _tell(self) -> None:
        pose, velocity, _ = self.drone.measured()
        self._tell_truth(pose, velocity)
        if self.fault == "silent":
            return
        row = self._frozen if self.fault == "freeze" else self._measured()
        if self.fault == "jump":
            row[0] += JUMP_M
        elif self.fault == "nan":
            row[3:7] = np.nan
        elif self.fault == "axes":  # of a motion-capture system with one marker: the attitude is the estimator's
            row[[0, 1, 7, 8]] = row[[1, 0, 8, 7]]
        self.lines[1].send(self._at_s, partial(self._publish, row))

    def _publish(self, row: Floats) -> None:
        frame = "map" if self.fault == "frame" else self.site.profile.base_frame
        header = self._stamped(self.lines[1].due_s, frame)
        pose, odom = PoseStamped(header=header), Odometry(header=header)
        for part in (pose.pose, odom.pose.pose):
            fill(part.position, row[:3])
            fill(part.orientation, row[3:7])
        fill(odom.twist.twist.linear, row[7:10])
        if self._gyro:
            self._gyro.publish(LogData(header=header, values=np.degrees(row[10:]).astype(np.float32)))
        if self._odom:
            self._odom.publish(odom)
        self._pose.publish(pose)

    def _say(self) -> None:
        drone, info = self.drone, 0
        for bit, holds in (
            (Status.SUPERVISOR_INFO_CAN_BE_ARMED, not drone.commander.locked),
            (Status.SUPERVISOR_INFO_IS_ARMED, drone.commander.armed),
            (Status.SUPERVISOR_INFO_CAN_FLY, drone.commander.armed and not drone.tumbled),
            (Status.SUPERVISOR_INFO_IS_FLYING, drone.commander.flies()),
            (Status.SUPERVISOR_INFO_IS_TUMBLED, drone.tumbled),
            (Status.SUPERVISOR_INFO_IS_LOCKED, drone.commander.locked),
        ):
            info |= bit * holds
        message = Status(header=Header(stamp=stamp_of(self.now_s())), supervisor_info=info)
        message.battery_voltage = float(np.float32(drone.voltage()))
        self._status.publish(message)
        figures: dict[str, object] = {f"{k} refused": n for k, n in self.refused.items()}
        bad = drone.commander.locked or drone.tumbled
        self._report(
            WARN if bad else OK, "locked" if bad else "flies" if drone.commander.flies() else "stands", figures
        )

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def close(self) -> None:
        self.drone.backend.close()


def fill(part: Any, values: Floats) -> None:
    for letter, value in zip("xyzw", values.tolist(), strict=False):
        setattr(part, letter, value)


def main(args: Sequence[str] | None = None) -> int:
    return run(FlightTwinNode, args, on_time=True)


if __name__ == "__main__":
    raise SystemExit(main())
