"""The twin's quadrotor on an engine, with a model of its firmware's commander, a battery, and what can go wrong. No
ROS."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from robolearn import config
from robolearn.errors import ConfigError
from robolearn.rotations import quat_apply, quat_conjugate
from robolearn.spec import RobotSpec
from sim.scene import RobotCfg, SceneCfg
from sim.vehicles.commander import FOOT_M, Commander, State

Floats = NDArray[np.float64]
ROBOT = "robot"
FULL_V, FLYING_V_PER_S, LOAD_V = 4.1, 0.002, 0.35
"""Of the battery: when it is full, what it loses in flight, and while the motors turn."""
AT_ONCE = 5
"""Periods of the attitude loop for one of the commander, at most: where the machine is late."""
TUMBLED_RAD, TUMBLED_S = 1.9, 0.3


class Drone:
    """One quadrotor that stands on the ground at the beginning."""

    def __init__(self, robot: RobotSpec, engine: str):
        """Raises ConfigError for an engine that does not fly."""
        if robot.quadrotor is None or robot.quadrotor.firmware is None:
            raise ConfigError(f"{robot.name} is no quadrotor whose firmware is known")
        config.discover(("sim.backends",))
        made = config.entry("backend", engine).config
        if made is None:
            raise ConfigError(f"engine {engine} has no configuration")
        self.vehicle, self.dt = robot.quadrotor, 1.0 / robot.quadrotor.firmware.rate_hz
        scene = SceneCfg({ROBOT: RobotCfg(robot, (0.0, 0.0, self.vehicle.foot_m, 0.0, 0.0, 0.0, 1.0))},
                         physics_dt_s=self.dt)  # fmt: skip
        cfg = made()
        if hasattr(cfg, "alone"):
            cfg.alone = True
        self.backend = config.build(cfg, scene=scene, num_envs=1, device=torch.device("cpu"), seed=0)
        self.commander = Commander(self.vehicle)
        self.battery_v, self.tumbled = FULL_V, False
        self._leans_s, self._time_s, self._everyone = 0.0, 0.0, torch.ones(1, dtype=torch.bool)
        self.place(np.zeros(3), 0.0)

    def place(self, position: Floats, yaw: float) -> None:
        """At rest on the ground below; a new battery, and its firmware restarted."""
        x, y, _ = position.tolist()
        turn = [0.0, 0.0, math.sin(0.5 * yaw), math.cos(0.5 * yaw)]
        pose = torch.tensor([[x, y, self.vehicle.foot_m, *turn]], dtype=torch.float32)
        self.backend.write_pose(ROBOT, pose, torch.zeros(1, 6), self._everyone)
        self.backend.write_joints(ROBOT, torch.zeros(1, 4), torch.zeros(1, 4), self._everyone)
        self.backend.forward()
        self.commander, self.battery_v, self.tumbled, self._leans_s = Commander(self.vehicle), FULL_V, False, 0.0

    def advance(self, steps: int) -> None:
        """So many periods of the firmware."""
        while steps > 0:
            n = min(steps, AT_ONCE)
            steps, dt = steps - n, n * self.dt
            self._time_s += dt
            command = self.commander.command(self.state(), self._time_s, dt)
            if self.tumbled:
                command = np.zeros(4)
            self.backend.write_attitude(ROBOT, torch.tensor(command[None], dtype=torch.float32))
            self.backend.step(n)
            self._age(command[3] > 0.0, dt)

    def _age(self, turning: bool, dt: float) -> None:
        self.battery_v -= FLYING_V_PER_S * dt * turning
        x, y, _, _ = self.backend.pose(ROBOT)[0, 3:].tolist()
        leans = 1.0 - 2.0 * (x * x + y * y) < math.cos(TUMBLED_RAD)
        self._leans_s = self._leans_s + dt if leans else 0.0
        self.tumbled = self.tumbled or self._leans_s > TUMBLED_S

    @property
    def now_s(self) -> float:
        """Of its own clock."""
        return self._time_s

    def state(self) -> State:
        pose, velocity = self.backend.pose(ROBOT)[0].numpy(), self.backend.velocity(ROBOT)[0].numpy()
        x, y, z, w = pose[3:].tolist()
        yaw = math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
        return State(pose[:3].astype(np.float64), velocity[:3].astype(np.float64), yaw)

    def measured(self) -> tuple[Floats, Floats, Floats]:
        """Pose (7,), velocity (3,) in the world, body rates (3,)."""
        pose, velocity = self.backend.pose(ROBOT), self.backend.velocity(ROBOT)
        rates = quat_apply(quat_conjugate(pose[:, 3:]), velocity[:, 3:])
        return tuple(v[0].double().numpy() for v in (pose, velocity[:, :3], rates))  # type: ignore[return-value]

    def voltage(self) -> float:
        return self.battery_v - (LOAD_V if self.commander.flies() else 0.0)

    # --- its services ---------------------------------------------------------------------------------------

    def takeoff(self, height_m: float, duration_s: float) -> bool:
        at = self.state()
        return self._go(np.array([*at.position[:2], height_m]), at.yaw, duration_s)

    def land(self, height_m: float, duration_s: float) -> bool:
        at = self.state()
        goal = np.array([*at.position[:2], max(height_m, FOOT_M)])
        return self._go(goal, at.yaw, duration_s, off=True)

    def go_to(self, goal: Floats, yaw: float, duration_s: float, relative: bool) -> bool:
        at = self.state()
        return self._go(at.position + goal if relative else goal, at.yaw + yaw if relative else yaw, duration_s)

    def _go(self, goal: Floats, yaw: float, duration_s: float, off: bool = False) -> bool:
        return self.commander.go(self.state(), goal, yaw, duration_s, self._time_s, off)
