"""A simulated robot behind the real one's topics, in real time: for trying everything out before it moves.

It hears the profile's command topic, serves its gripper's action and publishes its state, with the driver's habits:
without commands the last one holds, or, where the driver has a watchdog, the arm stops after its time and stays so
until `twin/recover` (std_srvs/Trigger), as after a driver's error. Poses are followed by inverse kinematics. A force
sensor, where the profile names one, tells contact forces at the tool, no torque.

With `scene`, the name of a task, that task's objects stand around the robot, and `objects/NAME`
(geometry_msgs/PoseStamped) says where they are, as cameras would. Parameters `delay_s`, `jitter_s` and `loss` are of
both directions. Simulation alone has `twin/place` (sensor_msgs/JointState) and `twin/place/NAME`
(geometry_msgs/PoseStamped, base frame): the arm, or the object, stands there at once, at rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from real import ros
from real.connection import (
    NEWEST,
    Header,
    JointState,
    PoseStamped,
    Trigger,
    WrenchStamped,
    stamp_of,
)
from real.goals import pose_of
from real.nodes.line import Line
from real.nodes.report import OK, WARN, Report
from real.nodes.run import run
from real.nodes.twin_arm import Arm
from real.nodes.twin_gripper import GripperServer
from real.site import parameter, read_site
from robolearn.errors import ConfigError

BEHIND = 8
"""Periods that are made up for at once; what is later than that is lost."""
SEES_HZ, REPORT_S = 60.0, 1.0
FARTHEST_M = 10.0
"""From the robot's base that an object can be put."""


class TwinNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("twin")
        self.site = read_site(self)
        profile = self.site.profile
        rate_hz = parameter(self, "rate_hz", 240.0)
        if not 0.0 < rate_hz < float("inf"):
            raise ConfigError(f"rate_hz must be above 0, got {rate_hz}")
        self.dt = 1.0 / rate_hz
        engine, scene, feels = parameter(self, "backend", "mujoco"), parameter(self, "scene", ""), profile.wrench_topic
        self.arm = Arm(self.site.robot, engine, self.dt, profile.watchdog_s, scene, feels is not None)
        faults = {n: parameter(self, n, 0.0) for n in ("delay_s", "jitter_s", "loss")}
        self.lines = Line(**faults, seed=0), Line(**faults, seed=1)  # of commands, and of what is measured
        self.refused = {"commands": 0, "places": 0}
        self._report = Report(self, profile.robot)
        self._joints()
        read = {
            "forward_position": self._of_array,
            "joint_trajectory": self._of_trajectory,
            "cartesian_pose": self._of_pose,
        }
        self._read: Callable[[Any], Any] = read[profile.command_interface]
        self.create_subscription(ros.interface(profile.command.type), profile.command.topic, self._on_command, NEWEST)
        self.create_subscription(JointState, "twin/place", self._on_place, NEWEST)
        self.create_service(Trigger, "twin/recover", self._on_recover)
        self._gripper = GripperServer(self, profile.gripper, self.site.robot, self.arm) if profile.gripper else None
        self._wrench = self.create_publisher(WrenchStamped, feels, NEWEST) if feels else None
        self._seen = {n: self.create_publisher(PoseStamped, f"objects/{n}", NEWEST) for n in self.arm.objects}
        for name in self.arm.objects:
            self.create_subscription(PoseStamped, f"twin/place/{name}", partial(self._on_put, name), NEWEST)
        if self._seen:
            self.create_timer(1.0 / SEES_HZ, self._see)
        self._began, self._steps, self._was_stopped = time.monotonic(), 0, False
        self.create_timer(self.dt, self._tick)
        self.create_timer(REPORT_S, self._say)
        self.get_logger().info(f"a simulated {profile.robot} on {profile.state_topic} and {profile.command.topic}")

    def _joints(self) -> None:
        """Topics of joint states, each with the names and columns that it tells and its rate, 0 for every period."""
        profile, robot, wire = self.site.profile, self.site.robot, self.site.wire_names()
        gripper, told = profile.gripper, [n for n in robot.joint_names if n in wire]
        self._states: list[tuple[Any, list[str], list[int]]] = []
        apart = [n for n in told if gripper and gripper.state_topic and n in robot.gripper_joints]
        for topic, joints in ((profile.state_topic, [n for n in told if n not in apart]),
                              (gripper.state_topic if gripper else "", apart)):  # fmt: skip
            if joints:
                out = self.create_publisher(JointState, topic, NEWEST)
                columns = [robot.joint_names.index(n) for n in joints]
                self._states.append((out, [wire[n] for n in joints], columns))
        self._places = {wire.get(n, n): k for k, n in enumerate(robot.joint_names)}
        if apart and gripper:
            self.create_timer(1.0 / gripper.state_rate_hz, lambda: self._tell(*self._states[1]))

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def _on_command(self, message: Any) -> None:
        target = self._read(message)
        values = torch.tensor([] if target is None else target, dtype=torch.float32)
        if len(values) != len(self.site.robot.arm_joints) or not values.isfinite().all():
            self.refused["commands"] += 1
            return
        self.lines[0].send(time.monotonic(), lambda: self.arm.command(values, time.monotonic()))

    def _on_place(self, message: Any) -> None:
        """What is not named stands as at the start; other robots' joints are left out."""
        named, at = dict(zip(message.name, message.position, strict=False)), np.array(self.site.robot.default_joint_pos)
        mine = [n for n in named if n in self._places]
        for name in mine:
            at[self._places[name]] = named[name]
        position = torch.tensor(at, dtype=torch.float32)
        whole = len(named) == len(message.name) == len(message.position)
        if not (mine and whole and self.arm.can_stand(position)):
            self.refused["places"] += 1
            return
        self.arm.place(position)
        self.arm.recover()

    def _on_put(self, name: str, message: Any) -> None:
        pose = pose_of(message)
        if pose is None or not pose[0, :3].norm() < FARTHEST_M:
            self.refused["places"] += 1
            return
        self.arm.put(name, pose[0])

    def _on_recover(self, request: Any, response: Any) -> Any:
        self.arm.recover()
        response.success, response.message = True, "it listens"
        return response

    def _tick(self) -> None:
        now = time.monotonic()
        due = int((now - self._began) / self.dt) - self._steps
        self._steps += due
        for line in self.lines:
            line.deliver(now)
        self.arm.advance(now, min(due, BEHIND))
        if self.arm.stopped != self._was_stopped:
            self._was_stopped = self.arm.stopped
            self.get_logger().warning(
                "the driver's watchdog stopped the arm" if self.arm.stopped else "it listens again"
            )
        self._tell(*self._states[0])
        if self._wrench:
            self._feel(self._wrench)
        if self._gripper:
            self._gripper.tick(self.dt)

    def _say(self) -> None:
        figures: dict[str, object] = {f"{k} refused": n for k, n in self.refused.items()}
        self._report(
            WARN if self.arm.stopped else OK, "stopped by its watchdog" if self.arm.stopped else "listens", figures
        )

    def _tell(self, out: Any, names: list[str], columns: list[int]) -> None:
        position, velocity, effort = (v[columns] for v in self.arm.joints())
        state = JointState(name=names, position=position, velocity=velocity, effort=effort)
        state.header.stamp = stamp_of(self.now_s())
        self.lines[1].send(time.monotonic(), lambda: out.publish(state))

    def _feel(self, out: Any) -> None:
        message = WrenchStamped(header=Header(stamp=stamp_of(self.now_s()), frame_id=self.site.profile.tool_frame))
        force = message.wrench.force
        force.x, force.y, force.z = self.arm.force().tolist()
        self.lines[1].send(time.monotonic(), lambda: out.publish(message))

    def _see(self) -> None:
        header = Header(stamp=stamp_of(self.now_s()), frame_id=self.site.profile.base_frame)
        for name, out in self._seen.items():
            message, pose = PoseStamped(header=header), self.arm.pose_of(name).tolist()
            for part, letters, values in ((message.pose.position, "xyz", pose[:3]),
                                          (message.pose.orientation, "xyzw", pose[3:])):  # fmt: skip
                for letter, value in zip(letters, values, strict=True):
                    setattr(part, letter, value)
            self.lines[1].send(time.monotonic(), partial(out.publish, message))

    def close(self) -> None:
        self.arm.backend.close()

    # --- what a command says: set-points of the arm's joints, or None ------------------------------------------

    def _of_array(self, message: Any) -> Any:
        return np.asarray(message.data, dtype=np.float64)

    def _of_trajectory(self, message: Any) -> Any:
        """The last point's positions, in the profile's order."""
        names = self.site.profile.joint_names
        if sorted(message.joint_names) != sorted(names) or not message.points:
            return None
        positions = message.points[-1].positions
        if len(positions) != len(names):
            return None
        place = dict(zip(message.joint_names, positions, strict=True))
        return np.array([place[n] for n in names], dtype=np.float64)

    def _of_pose(self, message: Any) -> Any:
        pose = pose_of(message)
        return None if pose is None else self.arm.inverse(pose[0]).numpy()


def main(args: Sequence[str] | None = None) -> int:
    return run(TwinNode, args, on_time=True)


if __name__ == "__main__":
    raise SystemExit(main())
