"""A log of an arm, replayed in an engine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn import config
from robolearn.spec import RobotSpec
from sim.backends.base import Backend, BackendCfg
from sim.scene import Param, RobotCfg, SceneCfg
from sim.sysid.fit import Parameter
from sim.sysid.log import Log

ENGINE: tuple[Param, ...] = ("kp", "kd", "joint_damping", "joint_friction")
LONGEST_STEP_S = 1.0 / 240.0


def parameters(spec: RobotSpec) -> tuple[Parameter, ...]:
    driven = [limit for limit in spec.of("effort_limit", spec.arm_joints) if limit > 0.0]
    weakest = min(driven)
    return (
        Parameter("delay_s", "s", 0.01, 0.0, 0.08, 0.002),
        Parameter("kp", "x specified", 1.0, 0.4, 2.5, 0.04, log=True),
        Parameter("kd", "x specified", 1.0, 0.4, 2.5, 0.04, log=True),
        Parameter("joint_damping", "N m s/rad", 0.02 * weakest, 0.0, 0.8 * weakest, 0.02 * weakest),
        Parameter("joint_friction", "N m", 0.02 * weakest, 0.0, 0.4 * weakest, 0.01 * weakest),
        *(Parameter(f"trim.{joint}", "rad", 0.0, -0.1, 0.1, 0.005) for joint in spec.arm_joints),
    )


def scene(spec: RobotSpec, period_s: float, longest_s: float = LONGEST_STEP_S) -> SceneCfg:
    """The arm alone; steps divide the log's period."""
    step = period_s / math.ceil(period_s / longest_s - 1e-6)
    declared = tuple(("robot", p) for p in ENGINE)
    return SceneCfg({"robot": RobotCfg(spec)}, physics_dt_s=step, ground=False, randomized=declared)


def set_point(command: Tensor, at: Tensor) -> Tensor:
    """(B, J) at `at` (B,) periods from the first row of command (T, J): a row is reached one period after it."""
    place = (at - 1.0).clamp(0.0, len(command) - 1.0)
    row = place.floor().long().clamp_max(len(command) - 2)
    return torch.lerp(command[row], command[row + 1], (place - row)[:, None])


class ArmReplay:
    """Fulfils `fit.Replay`: positions, and velocities and efforts where the log has them. A start is positions and
    velocities of the arm's joints."""

    tries = 1  # the response to a set-point is close to linear in the parameters

    def __init__(self, log: Log, spec: RobotSpec, backend: BackendCfg, window_s: float = 0.5):
        self.spec, self.backend, self.period_s = spec, backend, log.period_s
        self.parameters = parameters(spec)
        at, self.rows = log.windows(window_s)
        self.first = torch.from_numpy(at)
        order = [log.joints.index(n) for n in spec.arm_joints]
        names = [n for n in ("joint_pos", "joint_vel", "joint_effort") if n in log.columns]
        columns = {n: torch.from_numpy(v[:, order]) for n, v in log.columns.items()}
        self.command = columns["joint_target"]
        measured = torch.cat([columns[n] for n in names], dim=1)
        self.signal = torch.stack([measured[i : i + self.rows] for i in at])
        self.channels = tuple(f"{n}.{joint}" for n in names for joint in spec.arm_joints)
        self.counted = torch.ones(self.rows, measured.shape[1], dtype=torch.bool)
        if "joint_effort" in names:
            self.counted[0, names.index("joint_effort") * len(order) :] = False  # a start has no effort yet
        speed = columns.get(
            "joint_vel", torch.from_numpy(np.gradient(columns["joint_pos"].numpy(), self.period_s, axis=0))
        )
        self.start = torch.cat((columns["joint_pos"][self.first], speed[self.first]), dim=1)
        n = len(order)
        self.start_step = torch.tensor([0.01] * n + [0.05] * n)
        self.start_spread = torch.tensor([0.5] * n + [3.0] * n)
        self.names, self._engines = names, dict[int, Backend]()

    def _engine(self, num_envs: int) -> Backend:
        if num_envs not in self._engines:
            made = scene(self.spec, self.period_s)
            self._engines[num_envs] = config.build(
                self.backend, scene=made, num_envs=num_envs, device=torch.device("cpu"), seed=0
            )
        return self._engines[num_envs]

    def errors(self, theta: Tensor, offset: Tensor) -> Tensor:
        c, w = offset.shape[:2]
        engine = self._engine(c * w)
        values = {p.name: v.repeat_interleave(w) for p, v in zip(self.parameters, theta.unbind(1), strict=True)}
        put(engine, self.spec, values, (self.start + offset).flatten(0, 1))
        sub_steps = round(self.period_s / engine.scene.physics_dt_s)
        delay, first = values["delay_s"] / self.period_s, self.first.repeat(c)
        trim = torch.stack([values[f"trim.{n}"] for n in self.spec.arm_joints], dim=1)
        seen = [self._seen(engine)]
        for k in range(self.rows - 1):
            for j in range(1, sub_steps + 1):
                aim = set_point(self.command, first + (k + (j - 0.5) / sub_steps) - delay) + trim
                command(engine, self.spec, aim)
                engine.step(1)
            seen.append(self._seen(engine))
        return torch.stack(seen, dim=1).unflatten(0, (c, w)) - self.signal

    def _seen(self, engine: Backend) -> Tensor:
        """(B, M)."""
        return torch.cat([getattr(engine, n)("robot")[:, list(self.spec.arm_ids)] for n in self.names], dim=1)

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()


def put(engine: Backend, spec: RobotSpec, values: dict[str, Any], start: Tensor) -> None:
    """Parameters (B,) by name, and joints (B, 2 n) of the arm; a gripper stays where it rests."""
    everyone = torch.ones(engine.num_envs, dtype=torch.bool)
    for param in ENGINE:
        engine.set_param("robot", param, values[param].float(), everyone)
    arm = list(spec.arm_ids)
    position = torch.tensor(spec.default_joint_pos).repeat(engine.num_envs, 1)
    velocity = torch.zeros_like(position)
    position[:, arm], velocity[:, arm] = start.float().chunk(2, dim=1)
    engine.write_joints("robot", position, velocity, everyone)


def command(engine: Backend, spec: RobotSpec, aim: Tensor) -> None:
    """Set-points (B, n) of the arm's joints for the next sub-step."""
    target = torch.tensor(spec.default_joint_pos).repeat(engine.num_envs, 1)
    target[:, list(spec.arm_ids)] = aim.float()
    engine.write_targets("robot", position=target)
