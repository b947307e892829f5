"""A simulated robot behind the real one's topics, in real time: for trying everything out before it moves.

It hears the profile's command topic and publishes its state topic, with the driver's habits: without commands the last
one holds, or, where the driver has a watchdog, the arm stops after its time and stays so until `twin/recover`
(std_srvs/Trigger), as after a driver's error. Parameters `delay_s`, `jitter_s` and `loss` are of both directions.
Simulation alone has `twin/place` (sensor_msgs/JointState): the arm stands there at once, at rest.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from real import ros
from real.connection import NEWEST, stamp_of
from real.nodes.run import run
from real.robots.base import ArmProfile
from real.site import parameter, read_site
from robolearn import config
from robolearn.errors import ConfigError
from robolearn.spec import RobotSpec
from sim.scene import RobotCfg, SceneCfg

JointState = ros.interface("sensor_msgs/msg/JointState")
Trigger = ros.interface("std_srvs/srv/Trigger")
BEHIND = 8
"""Periods that are made up for at once; what is later than that is lost."""


class Arm:
    """One robot on an engine, with its driver's watchdog."""

    def __init__(self, robot: RobotSpec, engine: str, dt: float, watchdog_s: float | None):
        config.discover(("sim.backends",))
        scene = SceneCfg({"robot": RobotCfg(robot)}, physics_dt_s=dt)
        made = config.entry("backend", engine).config
        if made is None:
            raise ConfigError(f"engine {engine} has no configuration")
        cfg = made()
        self.backend = config.build(cfg, scene=scene, num_envs=1, device=torch.device("cpu"), seed=0)
        self.robot, self.watchdog_s = robot, watchdog_s
        self._arm = [robot.joint_names.index(n) for n in robot.arm_joints]
        self._ends = [torch.tensor(robot.of(n, robot.arm_joints)) for n in ("lower", "upper")]
        self.target = torch.tensor([robot.default_joint_pos])
        self.stopped, self._heard_s = False, float("-inf")
        self.place(self.target[0])

    def place(self, position: Tensor) -> None:
        """At rest at joints (J,), whatever it did before."""
        everyone = torch.ones(1, dtype=torch.bool)
        self.target = position[None].clone()
        self.backend.write_joints("robot", self.target, torch.zeros_like(self.target), everyone)
        self.backend.forward()

    def command(self, arm: Tensor, now_s: float) -> None:
        """Set-points (n,) for the arm's joints, cut off at the ends of these."""
        self._heard_s = now_s
        if not self.stopped:
            self.target[0, self._arm] = arm.clamp(*self._ends)

    def recover(self) -> None:
        """After the watchdog: it stands where it is, and listens again."""
        self.stopped, self._heard_s = False, float("-inf")

    def advance(self, now_s: float, steps: int) -> None:
        """Physics of so many periods. Commands that stay away for too long stop it where it is."""
        late = self.watchdog_s is not None and self._heard_s > float("-inf") and now_s - self._heard_s > self.watchdog_s
        if late and not self.stopped:
            self.stopped = True
            self.target[0, self._arm] = self.backend.joint_pos("robot")[0, self._arm]
        for _ in range(steps):
            self.backend.write_targets("robot", position=self.target)
            self.backend.step(1)

    def joints(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position, velocity, effort, each (J,)."""
        b = self.backend
        position, velocity, effort = (f("robot")[0].numpy() for f in (b.joint_pos, b.joint_vel, b.joint_effort))
        return position, velocity, effort


class Line:
    """A connection that delays by `delay_s` and up to `jitter_s` more, and loses a share; order may change."""

    def __init__(self, delay_s: float, jitter_s: float, loss: float, seed: int):
        if not (delay_s >= 0.0 and jitter_s >= 0.0 and 0.0 <= loss < 1.0):
            raise ConfigError(
                f"delay_s and jitter_s must be at least 0, loss in [0, 1), got {delay_s}, {jitter_s}, {loss}"
            )
        self.delay_s, self.jitter_s, self.loss = delay_s, jitter_s, loss
        self._random, self._order = random.Random(seed), itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []

    def send(self, now_s: float, deliver: Callable[[], object]) -> None:
        if self._random.random() < self.loss:
            return
        if not (self.delay_s or self.jitter_s):
            deliver()
            return
        due = now_s + self.delay_s + self.jitter_s * self._random.random()
        heapq.heappush(self._waiting, (due, next(self._order), deliver))

    def deliver(self, now_s: float) -> None:
        while self._waiting and self._waiting[0][0] <= now_s:
            heapq.heappop(self._waiting)[2]()


class TwinNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("twin")
        self.site = read_site(self)
        profile = self.site.profile
        rate_hz = parameter(self, "rate_hz", 240.0)
        if not 0.0 < rate_hz < float("inf"):
            raise ConfigError(f"rate_hz must be above 0, got {rate_hz}")
        self.dt = 1.0 / rate_hz
        self.arm = Arm(self.site.robot, parameter(self, "backend", "mujoco"), self.dt, profile.watchdog_s)
        faults = {n: parameter(self, n, 0.0) for n in ("delay_s", "jitter_s", "loss")}
        self.lines = Line(**faults, seed=0), Line(**faults, seed=1)  # of commands, and of states
        self.refused = 0
        wire = dict(zip(self.site.robot.arm_joints, profile.joint_names, strict=True))
        gripper = profile.gripper
        if gripper:
            wire |= dict(zip(self.site.robot.gripper_joints, gripper.joint_names, strict=True))
        self._names = [wire.get(n, n) for n in self.site.robot.joint_names]
        self._state = self.create_publisher(JointState, profile.state_topic, NEWEST)
        kind = ros.interface(profile.command.type)
        read = READ.get(profile.command_interface)
        if read is None:
            raise ConfigError(f"the twin has no {profile.command_interface} controller; it has {', '.join(READ)}")
        self._read = read
        self.create_subscription(kind, profile.command.topic, self._on_command, NEWEST)
        self.create_subscription(JointState, "twin/place", self._on_place, NEWEST)
        self.create_service(Trigger, "twin/recover", self._on_recover)
        self._began, self._steps, self._was_stopped = time.monotonic(), 0, False
        self.create_timer(self.dt, self._tick)
        self.get_logger().info(f"a simulated {profile.robot} on {profile.state_topic} and {profile.command.topic}")

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def _on_command(self, message: Any) -> None:
        target = self._read(message, self.site.profile)
        values = torch.tensor([] if target is None else target, dtype=torch.float32)
        if len(values) != len(self.site.robot.arm_joints) or not values.isfinite().all():
            self.refused += 1
            return
        self.lines[0].send(time.monotonic(), lambda: self.arm.command(values, time.monotonic()))

    def _on_place(self, message: Any) -> None:
        at = torch.tensor(self.site.robot.default_joint_pos)
        for name, value in zip(message.name, message.position, strict=False):
            if name in self._names:
                at[self._names.index(name)] = float(value)
        if at.isfinite().all():
            self.arm.place(at)
            self.arm.recover()

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
        position, velocity, effort = self.arm.joints()
        state = JointState(name=self._names, position=position, velocity=velocity, effort=effort)
        state.header.stamp = stamp_of(self.now_s())
        self.lines[1].send(now, lambda: self._state.publish(state))

    def close(self) -> None:
        self.arm.backend.close()


def _of_array(message: Any, profile: ArmProfile) -> Any:
    return np.asarray(message.data, dtype=np.float64)


def _of_trajectory(message: Any, profile: ArmProfile) -> Any:
    """The last point's positions, in the profile's order."""
    if set(message.joint_names) != set(profile.joint_names) or not message.points:
        return None
    place = dict(zip(message.joint_names, message.points[-1].positions, strict=False))
    return np.array([place.get(n, np.nan) for n in profile.joint_names], dtype=np.float64)


READ: dict[str, Callable[[Any, ArmProfile], Any]] = {"forward_position": _of_array, "joint_trajectory": _of_trajectory}


def main(args: Sequence[str] | None = None) -> int:
    return run(TwinNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
