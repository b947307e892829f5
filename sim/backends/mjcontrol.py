"""Where a scene's numbers lie in a MuJoCo model, and its controls, for every engine that runs one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.optional import lazy
from robolearn.spec import RobotSpec
from sim.backends import base
from sim.backends.mjcf import control_gain
from sim.scene import SceneCfg

mujoco = lazy("mujoco", extra="mujoco")


@dataclass(frozen=True)
class Slots:
    """Where an asset's numbers lie in qpos, qvel and sensordata."""

    qpos: Any
    qvel: Any
    effort: Any = None


def slots_of(model: Any, scene: SceneCfg, device: torch.device) -> dict[str, Slots]:
    """Slots of every robot and every free object."""
    free = {name for name, thing in scene.objects.items() if not thing.fixed}
    return {n: _robot_slots(model, n, r.spec, device) for n, r in scene.robots.items()} | {
        n: _object_slots(model, n) for n in free
    }


def _robot_slots(model: Any, asset: str, spec: RobotSpec, device: torch.device) -> Slots:
    joints = [model.joint(f"{asset}/{n}") for n in spec.joint_names]
    return Slots(
        qpos=indices([j.qposadr[0] for j in joints], device),
        qvel=indices([j.dofadr[0] for j in joints], device),
        effort=indices([model.sensor(f"{asset}/effort/{n}").adr[0] for n in spec.joint_names], device),
    )


def _object_slots(model: Any, asset: str) -> Slots:
    joint = model.joint(asset)
    q, v = int(joint.qposadr[0]), int(joint.dofadr[0])
    return Slots(qpos=slice(q, q + 7), qvel=slice(v, v + 6))


def indices(values: list[int], device: torch.device) -> Any:
    """A slice where the indices are contiguous (a view, no copy), else a tensor."""
    values = [int(v) for v in values]
    if values and values == list(range(values[0], values[0] + len(values))):
        return slice(values[0], values[0] + len(values))
    return torch.tensor(values, dtype=torch.long, device=device)


def owner(name: str) -> str:
    """The asset of a body or actuator called `asset/name`."""
    return name.partition("/")[0]


def refuse_unstable(model: Any, scene: SceneCfg) -> None:
    """Raise ConfigError for gains that are too high for the time step."""
    data = mujoco.MjData(model)
    for asset, robot in scene.robots.items():
        for name, value in zip(robot.spec.joint_names, robot.spec.default_joint_pos, strict=True):
            data.qpos[model.joint(f"{asset}/{name}").qposadr[0]] = value
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    for asset, robot in scene.robots.items():
        dofs = [int(model.joint(f"{asset}/{name}").dofadr[0]) for name in robot.spec.joint_names]
        base.refuse_unstable(robot.spec, inertia[dofs, dofs].tolist(), scene.physics_dt_s)


class Targets:
    """The `ctrl` of B worlds. Positions move linearly over a step's sub-steps, the rest counts at once.

    Actuators are affine: force = gain ctrl - kp q - kd qd. `start` and `end` (B, nu) are the position part of
    ctrl, `feed` (B, nu) the rest, kd v* + effort*, in N m or N.
    """

    def __init__(self, model: Any, scene: SceneCfg, num_envs: int, dtype: torch.dtype, device: torch.device):
        shape = (num_envs, model.nu)
        self.end = torch.zeros(shape, dtype=dtype, device=device)
        self.start, self.feed = self.end.clone(), self.end.clone()
        self.feeding = False
        self._gain = torch.tensor(model.actuator_gainprm[:, 0], dtype=dtype, device=device)
        self._robots = {n: _Wiring(model, n, r.spec, device) for n, r in scene.robots.items()}

    def write(self, asset: str, position: Tensor | None, velocity: Tensor | None, effort: Tensor | None,
              kd_scale: Tensor | None) -> None:  # fmt: skip
        """Targets (B, J): an absent position stays as it was, the others become zero. `kd_scale` (B,)."""
        wires = self._robots[asset]
        if position is not None:
            self.end[:, wires.held_ctrl] = position[:, wires.held].to(self.end.dtype)
        if velocity is None and effort is None and not self.feeding:
            return
        self.feeding = True
        feed = torch.zeros_like(wires.kd) if effort is None else effort
        if velocity is not None:
            feed = feed + velocity * (wires.kd if kd_scale is None else wires.kd * kd_scale[:, None])
        self.feed[:, wires.ctrl] = feed.expand(len(self.end), -1)[:, wires.driven].to(self.end.dtype)

    def rest(self, asset: str, position: Tensor, mask: Tensor) -> None:
        """In the masked worlds the robot's targets are where it stands."""
        wires, row = self._robots[asset], mask[:, None]
        for part in (self.start, self.end):
            part[:, wires.held_ctrl] = torch.where(
                row, position[:, wires.held].to(part.dtype), part[:, wires.held_ctrl]
            )
        if self.feeding:
            self.feed[:, wires.ctrl] = self.feed[:, wires.ctrl] * ~row

    def sub_steps(self, ramp: Tensor, gain_scale: Tensor | None, out: Tensor) -> None:
        """Fill out (B, n, nu) with the controls of n sub-steps, ramp (n, 1) of the way to the new targets;
        `gain_scale` (B, nu) is what randomisation multiplied the gains by."""
        torch.lerp(self.start[:, None], self.end[:, None], ramp, out=out)
        if self.feeding:
            gain = self._gain if gain_scale is None else self._gain * gain_scale
            out += (self.feed / gain)[:, None]

    def arrive(self) -> None:
        """The step is over: the next ramp starts here."""
        self.start.copy_(self.end)


class _Wiring:
    """Which of a robot's joints (J) drive which columns of ctrl: all driven ones, and those with kp > 0."""

    def __init__(self, model: Any, asset: str, spec: RobotSpec, device: torch.device):
        ids = [_actuator(model, f"{asset}/{n}") for n in spec.joint_names]
        driven = [i for i, a in enumerate(ids) if a >= 0]
        held = [i for i in driven if spec.kp[i] > 0.0]
        self.driven, self.ctrl = indices(driven, device), indices([ids[i] for i in driven], device)
        self.held, self.held_ctrl = indices(held, device), indices([ids[i] for i in held], device)
        self.kd = torch.tensor(spec.kd, device=device)


def _actuator(model: Any, name: str) -> int:
    return int(mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_ACTUATOR, name))


def gain_scale(model: Any, params: dict[str, Tensor], like: Tensor) -> Tensor | None:
    """What the randomised `asset.kp` and `asset.kd` (B,) multiply each actuator's gain by, (B, nu); None
    where neither is randomised. A gain is kp, or kd where kp = 0, or one."""
    if not any(name.endswith((".kp", ".kd")) for name in params):
        return None
    scale = torch.ones_like(like)
    for i in range(model.nu):
        factor = gain_param(model, i)
        key = f"{owner(model.actuator(i).name)}.{factor}"
        if factor and key in params:
            scale[:, i] = params[key]
    return scale


def gain_param(model: Any, actuator: int) -> str:
    """The parameter that is this actuator's gain: `kp`, `kd`, or none."""
    kp, kd = -model.actuator_biasprm[actuator, 1], -model.actuator_biasprm[actuator, 2]
    assert math.isclose(model.actuator_gainprm[actuator, 0], control_gain(kp, kd))
    return "kp" if kp else "kd" if kd else ""
