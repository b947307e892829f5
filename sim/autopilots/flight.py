"""One of our quadrotors, flown by Betaflight: attitude commands become stick positions, motors turn our rotors.

The rigid body and its rotors are those of sim/vehicles, a millisecond a step; an electronic speed controller is taken
to make a rotor's speed its motor's share of the full one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from robolearn.config import ConfigError
from robolearn.spec import QuadrotorSpec, RobotSpec
from robolearn.state import RobotState
from sim.autopilots.betaflight import ANGLE_LIMIT_DEG, YAW_RATE_DPS, Betaflight, BetaflightError
from sim.autopilots.packets import HIGH, LOW, MIDDLE, Sensed
from sim.backends.quadrotor import Quadrotor, QuadrotorCfg
from sim.scene import RobotCfg, SceneCfg

ASSET = "robot"
STEP_S = 0.001
G = 9.81
IDLE = 0.055
"""Betaflight's share of a motor that is armed and has no throttle."""
THROTTLE_LOW = 1050
"""Microseconds at which its throttle begins."""
READY_S, LOOK_S, SPIN_UP_S = 30.0, 0.5, 1.0
"""The most that it takes to be ready (its gyroscope is calibrated by the turns of its loop); how often it is asked; and
what arming takes."""


class Sticks:
    """A vehicle's attitude command (roll, pitch in rad, yaw rate in rad/s, thrust in N; body FLU) as channels. Beyond
    `ANGLE_LIMIT_DEG` and `YAW_RATE_DPS` sticks are at their ends. Raises ValueError for what is not finite."""

    def __init__(self, vehicle: QuadrotorSpec):
        self.vehicle = vehicle

    def __call__(self, command: Tensor) -> list[int]:
        roll, pitch, turn, thrust = command.flatten().tolist()
        if not math.isfinite(roll + pitch + turn + thrust):
            raise ValueError(f"an attitude command must be finite, got {command.flatten().tolist()}")
        limit = math.radians(ANGLE_LIMIT_DEG)
        right, forward = (self._deflected(angle / limit) for angle in (roll, pitch))
        return [right, forward, self.throttle(thrust), self._deflected(-turn / math.radians(YAW_RATE_DPS)), HIGH, HIGH]

    def throttle(self, thrust_n: float) -> int:
        """At which four motors give that thrust, as long as nothing has to be turned."""
        share = self.vehicle.speed_radps(0.25 * thrust_n) / self.vehicle.max_speed_radps
        over = min(1.0, max(0.0, (share - IDLE) / (1.0 - IDLE)))
        return round(THROTTLE_LOW + (HIGH - THROTTLE_LOW) * over)

    @staticmethod
    def _deflected(share: float) -> int:
        return round(MIDDLE + (HIGH - MIDDLE) * max(-1.0, min(1.0, share)))


class BetaflightQuadrotor:
    """Stands on the ground at the origin until it is armed. `speed` is how fast simulated time may go, 1 is as real."""

    def __init__(self, robot: RobotSpec, autopilot: Betaflight, speed: float = 1.0):
        """Raises ConfigError if the robot is no quadrotor."""
        if robot.quadrotor is None:
            raise ConfigError(f"Betaflight flies quadrotors; {robot.name} is none")
        if not 0.0 < speed < math.inf:
            raise ValueError(f"speed must be finite and above 0, got {speed}")
        self.robot, self.vehicle, self.autopilot, self.speed = robot, robot.quadrotor, autopilot, speed
        self.sticks = Sticks(robot.quadrotor)
        standing = (0.0, 0.0, robot.quadrotor.foot_m, 0.0, 0.0, 0.0, 1.0)
        scene = SceneCfg({ASSET: RobotCfg(robot, standing)}, physics_dt_s=STEP_S)
        self.engine = Quadrotor(QuadrotorCfg(), scene, 1, torch.device("cpu"), 0)
        self._row = self.engine.state[0].numpy()  # a view: always the present state
        self._steps = 0
        self._force = np.array([0.0, 0.0, G])
        self._sent_s = time.monotonic()
        self.shares = np.zeros(4, dtype=np.float32)
        """What the motors were last told."""

    @property
    def time_s(self) -> float:
        return self._steps * STEP_S

    def arm(self) -> None:
        """When it is ready; the throttle stays low. Raises BetaflightError, naming the reasons, if it refuses."""
        idle = [MIDDLE, MIDDLE, LOW, MIDDLE]
        for _ in range(round(READY_S / LOOK_S)):
            self._run([*idle, LOW, HIGH], LOOK_S)
            if not self.autopilot.refusals():
                break
        self._run([*idle, HIGH, HIGH], SPIN_UP_S, lambda: self._turning)
        if not self._turning:
            reasons = ", ".join(self.autopilot.refusals()) or "no reason given"
            raise BetaflightError(f"Betaflight does not arm: {reasons}")

    @property
    def _turning(self) -> bool:
        return bool((self.shares > 0.5 * IDLE).all())

    def fly(self, command: Tensor, seconds: float) -> None:
        """The command (4,), rad, rad, rad/s, N, for so long. Raises BetaflightError if it has stopped the motors."""
        self._run(self.sticks(command), seconds)
        if not self._turning:
            reasons = ", ".join(self.autopilot.refusals()) or "it is not armed"
            raise BetaflightError(f"Betaflight does not fly: {reasons}")

    def state(self) -> RobotState:
        """Of now, as an engine gives it."""
        engine = self.engine
        return RobotState(
            torch.tensor([self.time_s], dtype=torch.float64), engine.joint_pos(ASSET), engine.joint_vel(ASSET).clone(),
            engine.joint_effort(ASSET), torch.zeros(1, 4), engine.pose(ASSET).clone(), engine.velocity(ASSET), None,
        )  # fmt: skip

    def _run(self, channels: list[int], seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        self.autopilot.stick(channels)
        for _ in range(round(seconds / STEP_S)):
            self._step()
            if done():
                return

    def _step(self) -> None:
        d, row = self.engine.kernels, self._row
        sensed = Sensed(
            row[d.POSITION : d.ROTATION], row[d.ROTATION : d.VELOCITY], row[d.VELOCITY : d.RATES],
            row[d.RATES : d.ROTORS], self._force,
        )  # fmt: skip
        self._pace()
        self.shares = self.autopilot.exchange(sensed, STEP_S)
        before = row[d.VELOCITY : d.RATES].copy()
        self.engine.write_targets(ASSET, velocity=self.vehicle.max_speed_radps * torch.from_numpy(self.shares)[None])
        self.engine.step(1)
        self._steps += 1
        pull = (row[d.VELOCITY : d.RATES] - before) / STEP_S + np.array([0.0, 0.0, G])
        self._force = turned_back(row[d.ROTATION : d.VELOCITY], pull)

    def _pace(self) -> None:
        """Wait until a step's time has passed since the last one: none is hurried to make up for a slow one."""
        wait_s = self._sent_s + STEP_S / self.speed - time.monotonic()
        if wait_s > 0.0:
            time.sleep(wait_s)
        self._sent_s = time.monotonic()


def turned_back(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A vector of the world in the axes of the body with attitude xyzw."""
    u, w = -quat[:3], quat[3]
    twice = 2.0 * np.cross(u, vector)
    out: np.ndarray = vector + w * twice + np.cross(u, twice)
    return out
