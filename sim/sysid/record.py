"""Logs of simulated robots whose parameters are known: to try the whole way without hardware, and to test it.

The motion is what a real robot should be logged with: every joint, or every axis, at several frequencies at once, the
joints reversing often (or dry friction cannot be told from a trim), a quadrotor in closed loop about a point.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import torch
from torch import Tensor

from robolearn import config
from robolearn.errors import ConfigError, unknown
from robolearn.spec import QuadrotorSpec, RobotSpec
from sim.backends.base import Backend, BackendCfg
from sim.randomize import ABSENT_AT_ZERO
from sim.scene import ADDED
from sim.sysid import arm, flight
from sim.sysid.log import Log


class NotFlying(ConfigError):
    """The firmware cannot fly such a vehicle."""


FREQUENCIES_HZ = (0.31, 0.67, 1.13, 1.9)
GRAVITY = 9.81


def record(spec: RobotSpec, backend: BackendCfg, seconds: float, rate_hz: float, truth: dict[str, float], seed: int = 0,
           command: str = "") -> Log:  # fmt: skip
    """A log without noise. `truth`: parameters by the names that the fit gives them; those left out are nominal, and
    there is no delay. `command`: a quadrotor's, attitude_command (default) or rotor_command."""
    if spec.quadrotor is None:
        if command:
            raise ConfigError(f"command is for quadrotors; {spec.name} is none")
        return record_arm(spec, backend, seconds, rate_hz, truth, seed)
    return record_flight(spec, backend, seconds, rate_hz, truth, seed, command or "attitude_command")


def _demand_possible(truth: dict[str, float], known: list[str]) -> None:
    for name, value in truth.items():
        if name not in known:
            raise ConfigError(unknown("parameter", name, known))
        zero = name in ("delay_s", *ADDED, *ABSENT_AT_ZERO)
        least = -math.inf if name.startswith("trim.") else 0.0
        if not least < value < math.inf and not (zero and value == 0.0):
            limit = ("", " above 0", " of at least 0")[(least == 0.0) + zero]
            raise ConfigError(f"the true {name} must be a finite number{limit}, got {value:g}")


def waves(count: int, seconds: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(T, count) multi-sines of unit amplitude that begin at zero: each signal has its own frequencies and phases."""
    phase = generator.uniform(0.0, math.tau, (len(FREQUENCIES_HZ), 1, count))
    pace = np.array(FREQUENCIES_HZ)[:, None, None] * generator.uniform(0.85, 1.15, (len(FREQUENCIES_HZ), 1, count))
    angle = math.tau * pace * seconds[None, :, None] + phase
    return (np.sin(angle) / FREQUENCIES_HZ_SPREAD).sum(0) * np.minimum(1.0, seconds / 0.5)[:, None]


FREQUENCIES_HZ_SPREAD = (2.0 * np.array(FREQUENCIES_HZ) ** 0.7)[:, None, None]
"""Slow waves are larger than fast ones."""


# --- arms ------------------------------------------------------------------------------------------------


def excitation(spec: RobotSpec, seconds: float, rate_hz: float, seed: int, share: float = 0.5) -> np.ndarray:
    """Commands (T, n) for the arm's joints about its default posture, within `share` of velocity and acceleration
    limits, and inside the joints' limits."""
    time = np.arange(round(seconds * rate_hz) + 1) / rate_hz
    low, high, rest, fastest, hardest = (
        np.array(spec.of(n, spec.arm_joints))
        for n in ("lower", "upper", "default_joint_pos", "velocity_limit", "acceleration_limit")
    )
    wave = waves(len(low), time, np.random.default_rng(seed))
    speed = np.gradient(wave, time, axis=0)
    push = np.gradient(speed, time, axis=0)
    size = np.minimum(share * fastest / np.abs(speed).max(0), share * hardest / np.abs(push).max(0)) * 0.9
    room = np.where(np.isfinite(high - low), 0.35 * (high - low), 1.0)
    size = np.minimum(np.minimum(size, room / np.abs(wave).max(0)), 0.6)
    reach = size * np.abs(wave).max(0) + 0.05
    begin = np.minimum(np.maximum(rest, low + reach), high - reach)
    moved = begin + size * wave
    return moved + (rest - begin) * np.maximum(0.0, 1.0 - time / 1.0)[:, None] ** 2


def record_arm(spec: RobotSpec, backend: BackendCfg, seconds: float, rate_hz: float, truth: dict[str, float],
               seed: int) -> Log:  # fmt: skip
    nominal = {p.name: 0.0 for p in arm.parameters(spec)} | {"kp": 1.0, "kd": 1.0}
    _demand_possible(truth, list(nominal))
    values = {n: torch.tensor([v]) for n, v in (nominal | truth).items()}
    commands = torch.from_numpy(excitation(spec, seconds, rate_hz, seed))
    engine = _engine(backend, arm.scene(spec, 1.0 / rate_hz, 1.0 / 600.0))
    trim = torch.tensor([[values[f"trim.{n}"].item() for n in spec.arm_joints]])
    arm.put(engine, spec, values, torch.cat((commands[:1], torch.zeros_like(commands[:1])), dim=1))
    sub_steps, rows = round(1.0 / rate_hz / engine.scene.physics_dt_s), []
    try:
        for k in range(len(commands)):
            rows.append([getattr(engine, n)("robot")[0].clone() for n in ("joint_pos", "joint_vel", "joint_effort")])
            for j in range(1, sub_steps + 1):
                at = torch.tensor([k + (j - 0.5) / sub_steps - values["delay_s"].item() * rate_hz], dtype=torch.float64)
                arm.command(engine, spec, arm.set_point(commands, at) + trim)
                engine.step(1)
    finally:
        engine.close()
    ids = list(spec.arm_ids)
    measured = [torch.stack(c)[:, ids].double().numpy() for c in zip(*rows, strict=True)]
    columns = dict(zip(("joint_pos", "joint_vel", "joint_effort"), measured, strict=True))
    time = np.arange(len(commands)) / rate_hz
    return Log(spec.name, spec.arm_joints, time, {"joint_target": commands.numpy(), **columns})


def _engine(backend: BackendCfg, scene: arm.SceneCfg) -> Backend:
    return config.build(backend, scene=scene, num_envs=1, device=torch.device("cpu"), seed=0)


# --- quadrotors ------------------------------------------------------------------------------------------


def record_flight(spec: RobotSpec, backend: BackendCfg, seconds: float, rate_hz: float, truth: dict[str, float],
                  seed: int, command: str) -> Log:  # fmt: skip
    if command not in ("attitude_command", "rotor_command"):
        raise ConfigError(unknown("command", command, ["attitude_command", "rotor_command"]))
    known = ["delay_s", *(p for p in flight.ENGINE if p != "link_delay"), "trim.roll", "trim.pitch"]
    _demand_possible(truth, known)
    vehicle, attitude = spec.quadrotor, command == "attitude_command"
    assert vehicle is not None
    engine = _engine(backend, flight.scene(spec, 1.0 / rate_hz))
    flight.put(engine, {**dict.fromkeys(flight.ENGINE, 1.0), **truth, "link_delay": 0.0})
    trim = flight.trims({n: torch.tensor([v]) for n, v in truth.items() if n.startswith("trim.")}, 1)
    pilot = Pilot(vehicle, seconds, rate_hz, seed, attitude)
    _hover(engine, vehicle)
    sub_steps = round(1.0 / rate_hz / engine.scene.physics_dt_s)
    late = deque([pilot.rest] * (round(truth.get("delay_s", 0.0) / engine.scene.physics_dt_s) + 1))
    rows = []
    try:
        for k in range(round(seconds * rate_hz) + 1):
            state = [t[0].double().numpy().copy() for t in _state(engine)]
            sent = pilot(k, *state)
            rows.append([sent, *state])
            for _ in range(sub_steps):
                late.append(sent)
                late.popleft()
                flight.command(engine, attitude, torch.from_numpy(late[0])[None] + trim)
                engine.step(1)
    finally:
        engine.close()
    columns = dict(zip((command, *flight.MEASURED), map(np.stack, zip(*rows, strict=True)), strict=True))
    if not np.isfinite(columns["position"]).all() or np.abs(columns["position"]).max() > 20.0:
        raise NotFlying("the simulated vehicle did not stay in the air with these parameters; choose others")
    return Log(spec.name, spec.joint_names, np.arange(len(rows)) / rate_hz, columns)


def _hover(engine: Backend, vehicle: QuadrotorSpec) -> None:
    everyone, rest = torch.ones(1, dtype=torch.bool), torch.zeros(1, 6)
    speed = torch.full((1, 4), vehicle.hover_speed_radps)
    engine.write_joints("robot", torch.zeros(1, 4), speed, everyone)
    engine.write_pose("robot", torch.tensor([[0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0]]), rest, everyone)


def _state(engine: Backend) -> tuple[Tensor, ...]:
    """Position, rotation, velocity and body rates."""
    pose, velocity = engine.pose("robot"), engine.velocity("robot")
    rates = flight.quat_apply(flight.quat_conjugate(pose[:, 3:]), velocity[:, 3:])
    return pose[:, :3], pose[:, 3:], velocity[:, :3], rates


class Pilot:
    """Holds a point loosely, and shakes the command; good enough to stay in the air, no better."""

    def __init__(self, vehicle: QuadrotorSpec, seconds: float, rate_hz: float, seed: int, attitude: bool):
        time = np.arange(round(seconds * rate_hz) + 2) / rate_hz
        wave = waves(7, time, np.random.default_rng(seed))
        self.place, self.shake = wave[:, :3] * (0.7, 0.7, 0.4), wave[:, 3:]
        self.vehicle, self.attitude, self.weight = vehicle, attitude, GRAVITY * vehicle.mass_kg
        hover = vehicle.hover_speed_radps
        self.rest = np.array([0.0, 0.0, 0.0, self.weight]) if attitude else np.full(4, hover)
        arms = np.array(vehicle.rotor_xy_m)
        yaw = vehicle.torque_per_thrust_m * np.array(vehicle.rotor_spin)
        self.mix = np.linalg.inv(np.stack((np.ones(4), arms[:, 1], -arms[:, 0], yaw)))

    def __call__(self, k: int, position: np.ndarray, rotation: np.ndarray, velocity: np.ndarray,
                 rates: np.ndarray) -> np.ndarray:  # fmt: skip
        """The command of row k."""
        roll, pitch, yaw = _euler(rotation)
        stiff, calm = (2.0, 2.2) if self.attitude else (0.8, 1.4)
        pull = np.clip(stiff * (self.place[k] + (0.0, 0.0, 2.0) - position) - calm * velocity, -4.0, 4.0)
        ahead = pull[0] * math.cos(yaw) + pull[1] * math.sin(yaw)
        left = -pull[0] * math.sin(yaw) + pull[1] * math.cos(yaw)
        aim = np.array([-left / GRAVITY, ahead / GRAVITY])
        lift = self.weight * (1.0 + pull[2] / GRAVITY)
        if self.attitude:
            shaken = aim + 0.25 * self.shake[k, :2]
            return np.array([*shaken.clip(-0.5, 0.5), 1.8 * self.shake[k, 2], lift * (1.0 + 0.25 * self.shake[k, 3])])
        aim = aim + 0.2 * self.shake[k, :2]
        accel = np.array([*(7.0 * (aim - (roll, pitch)) - 4.0 * rates[:2]), 2.0 * (self.shake[k, 2] - rates[2])])
        torque = np.array(self.vehicle.inertia_kgm2) * accel
        each = self.mix @ np.array([lift * (1.0 + 0.2 * self.shake[k, 3]), *torque])
        return np.array([self.vehicle.speed_radps(max(0.05 * self.weight, f)) for f in each])


def _euler(q: np.ndarray) -> tuple[float, float, float]:
    x, y, z, w = q
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    return roll, pitch, math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
