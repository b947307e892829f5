"""The only publisher on the robot's command topics: what policy, teleoperation and learners propose reaches the driver
through here, or not at all. The rules are in real/safety/guard.py.

Topics below the robot's namespace: `guard/proposals/SOURCE` (trajectory_msgs/JointTrajectory, stamped with the state
that it was computed from), `guard/state` and `guard/owner` (std_msgs/String, latched), `guard/target`
(sensor_msgs/JointState: what was sent), `/diagnostics`. Services (std_srvs/Trigger): `guard/take/SOURCE`,
`guard/release/SOURCE`, `guard/reset`, `guard/estop`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from real import ros
from real.connection import LATCHED, NEWEST, JointReader, seconds, stamp_of
from real.nodes.run import run
from real.safety.guard import Decision, Guard
from real.safety.proposals import LONGEST_CHUNK, Proposal
from real.site import Site, parameter, read_site

SOURCES = ("teleop", "env", "policy")
"""By falling priority: a person first."""
REPORT_S = 1.0
LAST_S = 2.0
"""The longest that it brakes when it is told to end."""

JointState = ros.interface("sensor_msgs/msg/JointState")
JointTrajectory = ros.interface("trajectory_msgs/msg/JointTrajectory")
Point = ros.interface("trajectory_msgs/msg/JointTrajectoryPoint")
String = ros.interface("std_msgs/msg/String")
Trigger = ros.interface("std_srvs/srv/Trigger")
DiagnosticArray = ros.interface("diagnostic_msgs/msg/DiagnosticArray")
DiagnosticStatus = ros.interface("diagnostic_msgs/msg/DiagnosticStatus")
KeyValue = ros.interface("diagnostic_msgs/msg/KeyValue")
LEVELS = {"idle": 0, "active": 0, "holding": 1, "stopped": 1, "fault": 2}


class GuardNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("guard")
        self.site = read_site(self)
        sources = tuple(parameter(self, "sources", SOURCES))
        profile = self.site.profile
        self.dt = 1.0 / profile.command_rate_hz
        self.guard = Guard(profile.limits, self.site.robot, sources, self.dt)
        self.reader = JointReader(
            dict(zip(self.site.robot.arm_joints, profile.joint_names, strict=True)), self.site.robot
        )
        self._arm = self.reader.columns(self.site.robot.arm_joints)
        self._connect(sources)
        self._said: tuple[str, str] = ("", "")
        self.create_subscription(JointState, profile.state_topic, self._on_state, NEWEST)
        if profile.wrench_topic:
            wrench = ros.interface("geometry_msgs/msg/WrenchStamped")
            self.create_subscription(wrench, profile.wrench_topic, self._on_wrench, NEWEST)
        self.create_timer(self.dt, self._tick)
        self.create_timer(REPORT_S, self._report)
        self._announce_state(Decision(None, None, "idle", ()))

    def _connect(self, sources: tuple[str, ...]) -> None:
        profile = self.site.profile
        self._command = Commands(self, self.site)
        self._state = self.create_publisher(String, "guard/state", LATCHED)
        self._owner = self.create_publisher(String, "guard/owner", LATCHED)
        self._target = self.create_publisher(JointState, "guard/target", NEWEST)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        for source in sources:
            self.create_subscription(
                JointTrajectory, f"guard/proposals/{source}", partial(self._on_proposal, source), NEWEST
            )
            self._service(f"guard/take/{source}", partial(self.guard.take, source))
            self._service(f"guard/release/{source}", partial(self.guard.release, source))
        self._service("guard/reset", self.guard.reset)
        self._service("guard/estop", self.guard.estop)
        self.get_logger().info(f"guards {profile.robot}: commands on {self._command.topic} at {1 / self.dt:.0f} Hz")

    def _service(self, name: str, call: Callable[[], Any]) -> None:
        def answer(request: Any, response: Any) -> Any:
            response.success, response.message = call()
            self.get_logger().info(f"{name}: {response.message}")
            return response

        self.create_service(Trigger, name, answer)

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    # --- what comes in --------------------------------------------------------------------------------------

    def _on_state(self, message: Any) -> None:
        now_s = self.now_s()
        if self.reader(message, now_s):
            latest = self.reader.latest
            self.guard.observe(now_s, latest.position[self._arm], latest.velocity[self._arm], latest.stamp_s)

    def _on_wrench(self, message: Any) -> None:
        f, t = message.wrench.force, message.wrench.torque
        self.guard.observe_wrench(self.now_s(), (f.x, f.y, f.z, t.x, t.y, t.z), seconds(message.header.stamp))

    def _on_proposal(self, source: str, message: Any) -> None:
        points = message.points[: LONGEST_CHUNK + 1]  # one too many is refused; a million would cost periods
        times = [seconds(p.time_from_start) for p in points]
        period = times[0] if times else 0.0
        if not np.allclose(times, period * np.arange(1, len(times) + 1), atol=1e-6):
            period = 0.0  # not evenly spaced: refused as a malformed period
        targets = [list(p.positions) for p in points]
        proposal = Proposal(tuple(message.joint_names), targets, seconds(message.header.stamp), period)
        self.guard.propose(source, self.now_s(), proposal)

    # --- what goes out --------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = self.now_s()
        decision = self.guard.command(now_s)
        self._send(decision, now_s)
        self._announce_state(decision)

    def _send(self, decision: Decision, now_s: float) -> None:
        if decision.target is None:
            return
        self._command(decision)
        names, header = list(self.site.profile.joint_names), self._command.header(now_s)
        self._target.publish(
            JointState(header=header, name=names, position=decision.target, velocity=decision.velocity)
        )

    def _announce_state(self, decision: Decision) -> None:
        said = decision.state, self.guard.owner or ""
        if said != self._said:
            self._state.publish(String(data=said[0]))
            self._owner.publish(String(data=said[1]))
            self._said = said
            self._report(decision.reasons)

    def _report(self, reasons: Sequence[str] = ()) -> None:
        """Diagnostics; and a second publisher on the command topic, or of the owner's proposals, is an emergency."""
        found = self.get_publishers_info_by_topic(self._command.topic)
        mine = next((e for e in found if self._is_mine(e)), None)
        others = [e for e in found if e is not mine]  # a second guard has this one's name
        if others:
            self.guard.estop(
                f"{', '.join(sorted({e.node_name for e in others}))} publishes on {self._command.topic} too"
            )
        owner = self.guard.owner
        if owner and self.count_publishers(f"guard/proposals/{owner}") > 1:
            self.guard.estop(f"{owner} has authority, and more than one node proposes as {owner}")
        counts = [
            KeyValue(key=k, value=f"{c.count}" + (f" (last: {c.last})" if c.last else ""))
            for k, c in self.guard.clips.items()
        ]
        counts += [KeyValue(key=f"joint state: {k}", value=str(n)) for k, n in self.reader.refused.items()]
        state = self.guard.state
        status = DiagnosticStatus(
            level=bytes([LEVELS[state]]), name=self.get_fully_qualified_name(), hardware_id=self.site.profile.robot,
            message=state + (f": {reasons[0]}" if reasons else ""), values=counts,
        )  # fmt: skip
        self._diagnostics.publish(DiagnosticArray(header=self._command.header(self.now_s()), status=[status]))

    def close(self) -> None:
        """Bring the arm to rest before the commands end."""
        self.guard.estop("the guard ends")
        until = time.monotonic() + LAST_S
        while time.monotonic() < until:
            now_s = self.now_s()
            decision = self.guard.command(now_s)
            self._send(decision, now_s)
            if decision.velocity is None or not decision.velocity.any():
                return
            time.sleep(self.dt)

    def _is_mine(self, endpoint: Any) -> bool:
        return (endpoint.node_name, endpoint.node_namespace) == (self.get_name(), self.get_namespace())


class Commands:
    """A decision's target as the driver's message."""

    def __init__(self, node: GuardNode, site: Site):
        self.node, self.profile = node, site.profile
        self.topic = site.profile.command.topic
        self._type = ros.interface(site.profile.command.type)
        self._publisher = node.create_publisher(self._type, self.topic, NEWEST)
        self._make = {
            "forward_position": self._array, "joint_trajectory": self._trajectory, "cartesian_pose": self._pose,
        }[site.profile.command_interface]  # fmt: skip

    def __call__(self, decision: Decision) -> None:
        self._publisher.publish(self._make(decision))

    def header(self, now_s: float, frame: str = "") -> Any:
        return ros.interface("std_msgs/msg/Header")(stamp=stamp_of(now_s), frame_id=frame)

    def _array(self, decision: Decision) -> Any:
        return self._type(data=decision.target)

    def _trajectory(self, decision: Decision) -> Any:
        ahead = ros.interface("builtin_interfaces/msg/Duration")(sec=0, nanosec=round(1e9 * self.node.dt))
        point = Point(positions=decision.target, velocities=decision.velocity, time_from_start=ahead)
        return self._type(joint_names=list(self.profile.joint_names), points=[point])

    def _pose(self, decision: Decision) -> Any:
        message = self._type(header=self.header(self.node.now_s(), self.profile.base_frame))
        pose = self.node.guard.tool_pose(decision.target)  # type: ignore[arg-type]
        for part, names, values in (
            (message.pose.position, "xyz", pose[:3]),
            (message.pose.orientation, "xyzw", pose[3:]),
        ):
            for name, value in zip(names, values.tolist(), strict=True):
                setattr(part, name, value)
        return message


def main(args: Sequence[str] | None = None) -> int:
    return run(GuardNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
