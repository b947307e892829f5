"""MuJoCo C: the default on a CPU. A state row per environment, stepped in C++ threads.

Stepping is MuJoCo's `rollout`: its threads set a row's state, run the sub-steps with that row's controls and write
state and sensors back, so Python holds no lock and copies nothing per environment. Against a persistent MjData per
environment in Python threads it is as fast or faster (`benchmarks/throughput.py` prints both) and the whole state of
the world is one array. What MjData would have kept besides, the solver's warm start, is carried along.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.config import register
from robolearn.optional import lazy
from robolearn.rotations import quat_apply, quat_conjugate
from robolearn.spec import RobotSpec
from sim.backends.base import Backend, BackendCfg, Capabilities
from sim.backends.looks import Painter
from sim.backends.mjcf import compile_scene, control_gain
from sim.scene import Param, SceneCfg

mujoco = lazy("mujoco", extra="mujoco")
rollout = lazy("mujoco.rollout", extra="mujoco")
EXPLODED = 1e6  # rad, m or their rates: no robot moves so


@dataclass
class MujocoCfg(BackendCfg):
    name: str = "mujoco"
    threads: int = 0
    """Stepping threads; 0 is one a core."""


@dataclass(frozen=True)
class _Slots:
    """Where an asset's numbers lie in qpos, qvel, ctrl and sensordata."""

    qpos: Any
    qvel: Any
    ctrl: Any = None
    driven: Any = None
    effort: Any = None


@register("backend", "mujoco", MujocoCfg)
class Mujoco(Backend):
    capabilities = Capabilities(
        cameras=True,
        contact_sensors=True,
        randomized=frozenset({"mass", "inertia", "friction", "kp", "kd", "effort_limit"}),
    )

    def __init__(self, cfg: MujocoCfg, scene: SceneCfg, num_envs: int, device: torch.device, seed: int):
        super().__init__(scene, num_envs, device, seed)
        if device.type != "cpu":
            raise ValueError(f"backend mujoco runs on the CPU, not on {device}; use backend=mujoco_warp there")
        self.model = compile_scene(scene)
        self.threads = cfg.threads or os.cpu_count() or 1
        self._models = [self.model] * num_envs
        self._params = {f"{a}.{p}": torch.ones(num_envs) for a, p in scene.randomized}
        if scene.randomized:
            self._models = [copy.copy(self.model) for _ in range(num_envs)]
        self._pool = rollout.Rollout(nthread=self.threads if self.threads > 1 else 0)
        self._data = [mujoco.MjData(self.model) for _ in range(self.threads)]
        self._allocate()
        self._slots = {n: self._robot_slots(n) for n in scene.robots} | {
            n: self._object_slots(n) for n, o in scene.objects.items() if not o.fixed
        }
        fixed = {**scene.robots, **scene.objects}
        self._fixed = {n: torch.tensor(thing.pose).expand(num_envs, 7) for n, thing in fixed.items()}
        self._still = torch.zeros(num_envs, 6)
        self._worth = {n: _control_worth(r.spec) for n, r in scene.robots.items()}
        self._markers: dict[str, Tensor] = {}
        self._drawn_by: Painter | None = None

    def _allocate(self) -> None:
        m, b, state = self.model, self.num_envs, mujoco.mjtState
        self._full, self._control = int(state.mjSTATE_FULLPHYSICS), int(state.mjSTATE_CTRL)
        self._state = np.zeros((b, mujoco.mj_stateSize(m, self._full)))
        mujoco.mj_getState(m, self._data[0], self._state[0], self._full)
        self._state[:] = self._state[0]
        rows = torch.from_numpy(self._state)
        at = mujoco.mj_stateSize(m, int(state.mjSTATE_TIME))
        self._qpos, self._qvel = rows[:, at : at + m.nq], rows[:, at + m.nq : at + m.nq + m.nv]
        self._time, self._rows, self._moving = rows[:, 0], rows, rows[:, at : at + m.nq + m.nv]
        self._velocity_columns = slice(at + m.nq, at + m.nq + m.nv)
        self._warmstart = np.zeros((b, m.nv))
        self._ctrl = torch.zeros(b, m.nu, dtype=torch.float64)
        self._ctrl_from = self._ctrl.clone()
        self._wrench: Tensor | None = None
        self._outputs: dict[int, tuple[np.ndarray, np.ndarray, Tensor]] = {}
        self._sensors = torch.zeros(b, m.nsensordata, dtype=torch.float64)

    def _robot_slots(self, asset: str) -> _Slots:
        m, names = self.model, self.scene.robots[asset].spec.joint_names
        joints = [m.joint(f"{asset}/{n}") for n in names]
        driven = [i for i, j in enumerate(joints) if self._actuator(j.name) >= 0]
        return _Slots(
            qpos=_indices([j.qposadr[0] for j in joints]),
            qvel=_indices([j.dofadr[0] for j in joints]),
            ctrl=_indices([self._actuator(joints[i].name) for i in driven]),
            driven=_indices(driven),
            effort=_indices([m.sensor(f"{asset}/effort/{n}").adr[0] for n in names]),
        )

    def _actuator(self, name: str) -> int:
        return int(mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_ACTUATOR, name))

    def _object_slots(self, asset: str) -> _Slots:
        joint = self.model.joint(asset)
        q, v = int(joint.qposadr[0]), int(joint.dofadr[0])
        return _Slots(qpos=slice(q, q + 7), qvel=slice(v, v + 6))

    # --- reading ---------------------------------------------------------------------------------------------------

    def joint_pos(self, asset: str) -> Tensor:
        return self._qpos[:, self._slots[asset].qpos].float()

    def joint_vel(self, asset: str) -> Tensor:
        return self._qvel[:, self._slots[asset].qvel].float()

    def joint_effort(self, asset: str) -> Tensor:
        return self._sensors[:, self._slots[asset].effort].float()

    def pose(self, asset: str) -> Tensor:
        if asset not in self._slots or asset in self.scene.robots:
            return self._fixed[asset]
        q = self._qpos[:, self._slots[asset].qpos].float()
        return torch.cat((q[:, :3], q[:, 4:], q[:, 3:4]), dim=1)

    def velocity(self, asset: str) -> Tensor:
        if asset not in self._slots or asset in self.scene.robots:
            return self._still
        v = self._qvel[:, self._slots[asset].qvel].float()  # MuJoCo: linear in the world, angular in the body
        return torch.cat((v[:, :3], quat_apply(self.pose(asset)[:, 3:], v[:, 3:])), dim=1)

    def body_pose(self, asset: str, links: Sequence[str]) -> Tensor:
        ids = [self.model.body(f"{asset}/{link}").id for link in links]
        out = np.empty((self.num_envs, len(ids), 7))
        for i in range(self.num_envs):
            data = self._at(i)
            out[i, :, :3], quats = data.xpos[ids], data.xquat[ids]
            out[i, :, 3:6], out[i, :, 6] = quats[:, 1:], quats[:, 0]
        return torch.from_numpy(out).float()

    def _at(self, env: int) -> Any:
        """A scratch MjData at one environment's state, kinematics done."""
        mujoco.mj_setState(self._models[env], self._data[0], self._state[env], self._full)
        mujoco.mj_kinematics(self._models[env], self._data[0])
        mujoco.mj_camlight(self._models[env], self._data[0])
        return self._data[0]

    def contact_force(self, sensor: str) -> Tensor:
        """As of the last sub-step's start (sensors are evaluated with the forces)."""
        at = int(self.model.sensor(f"contact/{sensor}").adr[0])
        return self._sensors[:, at : at + 3].float()

    def finite(self) -> Tensor:
        return (self._moving.abs() < EXPLODED).all(dim=1)

    # --- stepping --------------------------------------------------------------------------------------------------

    def write_targets(self, asset: str, position: Tensor | None = None, velocity: Tensor | None = None,
                      effort: Tensor | None = None) -> None:  # fmt: skip
        slots, ctrl = self._slots[asset], torch.zeros(self.num_envs, self.scene.robots[asset].spec.dof)
        for value, worth in zip((position, velocity, effort), self._worth[asset], strict=True):
            if value is not None:
                ctrl = ctrl + value * worth
        self._ctrl[:, slots.ctrl] = ctrl[:, slots.driven].double()

    def apply_wrench(self, asset: str, link: str | None, wrench: Tensor) -> None:
        if self._wrench is None:
            self._wrench = torch.zeros(self.num_envs, self.model.nbody, 6, dtype=torch.float64)
            self._control |= int(mujoco.mjtState.mjSTATE_XFRC_APPLIED)
            self._outputs.clear()
        self._wrench[:, self.model.body(f"{asset}/{link}" if link else asset).id] = wrench.double()

    def step(self, n: int) -> None:
        state, sensors, control = self._buffers(n)
        nu = self.model.nu
        torch.lerp(self._ctrl_from[:, None], self._ctrl[:, None], _ramp(n), out=control[..., :nu])
        if self._wrench is not None:
            control[..., nu:] = self._wrench.flatten(1)[:, None]
        before = self._qvel.numpy().copy() if n == 1 else None
        self._pool.rollout(
            self._models, self._data, self._state, control.numpy(), control_spec=self._control, skip_checks=True,
            nstep=n, initial_warmstart=self._warmstart, state=state, sensordata=sensors,
            chunk_size=max(1, self.num_envs // (8 * self.threads)),
        )  # fmt: skip
        np.copyto(self._state, state[:, -1])
        last = state[:, -2, self._velocity_columns] if before is None else before
        np.subtract(self._qvel.numpy(), last, out=self._warmstart)
        self._warmstart /= self.scene.physics_dt_s
        self._sensors.copy_(torch.from_numpy(sensors[:, -1]))
        self._ctrl_from.copy_(self._ctrl)
        self.time_s = self._time.float()

    def _buffers(self, n: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
        if n not in self._outputs:
            b = self.num_envs
            width = mujoco.mj_stateSize(self.model, self._control)
            self._outputs[n] = (
                np.zeros((b, n, self._state.shape[1])),
                np.zeros((b, n, self.model.nsensordata)),
                torch.zeros(b, n, width, dtype=torch.float64),
            )
        return self._outputs[n]

    # --- writing ---------------------------------------------------------------------------------------------------

    def write_joints(self, asset: str, position: Tensor, velocity: Tensor, mask: Tensor) -> None:
        slots = self._slots[asset]
        _put(self._qpos, slots.qpos, position, mask)
        _put(self._qvel, slots.qvel, velocity, mask)
        kept = self._ctrl.clone()
        self.write_targets(asset, position=position)
        self._ctrl.copy_(torch.where(mask[:, None], self._ctrl, kept))
        self._ctrl_from.copy_(torch.where(mask[:, None], self._ctrl, self._ctrl_from))
        self._cold_start(mask)

    def write_pose(self, asset: str, pose: Tensor, velocity: Tensor, mask: Tensor) -> None:
        slots = self._slots[asset]
        _put(self._qpos, slots.qpos, torch.cat((pose[:, :3], pose[:, 6:], pose[:, 3:6]), dim=1), mask)
        angular = quat_apply(quat_conjugate(pose[:, 3:]), velocity[:, 3:])
        _put(self._qvel, slots.qvel, torch.cat((velocity[:, :3], angular), dim=1), mask)
        self._cold_start(mask)

    def _cold_start(self, mask: Tensor) -> None:
        self._warmstart *= ~mask.numpy()[:, None]

    def _parts(self) -> list[Tensor]:
        parts = [self._rows, torch.from_numpy(self._warmstart), self._ctrl, self._ctrl_from, self._sensors]
        return parts if self._wrench is None else [*parts, self._wrench.flatten(1)]

    def get_state(self) -> Tensor:
        return torch.cat(self._parts(), dim=1)

    def set_state(self, state: Tensor, mask: Tensor | None = None) -> None:
        keep = torch.ones(self.num_envs, dtype=torch.bool) if mask is None else mask
        new = torch.where(keep[:, None], state, self.get_state())
        parts = self._parts()
        for part, value in zip(parts, new.split([p.shape[1] for p in parts], dim=1), strict=True):
            part.copy_(value)

    def set_param(self, asset: str, param: Param, scale: Tensor, mask: Tensor) -> None:
        current = self._params[f"{asset}.{param}"]
        self._params[f"{asset}.{param}"] = torch.where(mask, scale, current)
        for i in mask.nonzero().flatten().tolist():  # MuJoCo keeps one model an environment
            self._scale(self._models[i], asset, param, float(scale[i]))

    def _scale(self, model: Any, asset: str, param: Param, scale: float) -> None:
        base = self.model
        if param in ("mass", "inertia", "friction"):
            bodies = [b for b in range(1, base.nbody) if _owner(base.body(b).name) == asset]
            if param == "friction":
                geoms = [g for g in range(base.ngeom) if base.geom_bodyid[g] in bodies]
                model.geom_friction[geoms, 0] = base.geom_friction[geoms, 0] * scale
                return
            name = "body_mass" if param == "mass" else "body_inertia"
            getattr(model, name)[bodies] = getattr(base, name)[bodies] * scale
            mujoco.mj_setConst(model, mujoco.MjData(model))
            return
        ids = [a for a in range(base.nu) if _owner(base.actuator(a).name) == asset]
        if param == "kp":  # the gain and the position bias go together, or the set-point would move
            model.actuator_gainprm[ids, 0] = base.actuator_gainprm[ids, 0] * scale
            model.actuator_biasprm[ids, 1] = base.actuator_biasprm[ids, 1] * scale
        elif param == "kd":
            model.actuator_biasprm[ids, 2] = base.actuator_biasprm[ids, 2] * scale
        else:
            joints = base.actuator_trnid[ids, 0]
            model.jnt_actfrcrange[joints] = base.jnt_actfrcrange[joints] * scale

    def params(self) -> dict[str, Tensor]:
        return dict(self._params)

    # --- pictures --------------------------------------------------------------------------------------------------

    def set_marker(self, marker: str, pose: Tensor) -> None:
        self._markers[marker] = pose

    def render(self, camera: str, env_ids: Sequence[int], film: tuple[int, int] | None = None) -> np.ndarray:
        if camera not in self.scene.cameras:
            raise ValueError(f"no camera '{camera}'; the scene has {', '.join(self.scene.cameras) or 'none'}")
        return np.stack([self.painter.picture(camera, self._state[i], self.goals(i), film) for i in env_ids])

    @property
    def painter(self) -> Painter:
        """Compiled at its first use: only pictures need it."""
        if self._drawn_by is None:
            self._drawn_by = Painter(compile_scene(self.scene, visual=True), self.scene)
        return self._drawn_by

    def goals(self, env: int) -> dict[str, list[float]]:
        """Where one environment's markers are, position + xyzw."""
        return {name: pose[env].tolist() for name, pose in self._markers.items()}

    def close(self) -> None:
        if self._drawn_by is not None:
            self._drawn_by.close()
        self._pool.close()


def _indices(values: list[int]) -> Any:
    """A slice where the indices are contiguous (a view, no copy), else a tensor."""
    values = [int(v) for v in values]
    if values and values == list(range(values[0], values[0] + len(values))):
        return slice(values[0], values[0] + len(values))
    return torch.tensor(values, dtype=torch.long)


def _control_worth(spec: RobotSpec) -> Tensor:
    """(3, J): what a unit of position, velocity and effort target adds to each joint's `ctrl`."""
    kp, kd = torch.tensor(spec.kp), torch.tensor(spec.kd)
    gain = torch.tensor([control_gain(p, d) for p, d in zip(spec.kp, spec.kd, strict=True)])
    return torch.stack((kp, kd, torch.ones_like(kp))) / gain


def _put(rows: Tensor, columns: Any, value: Tensor, mask: Tensor) -> None:
    rows[:, columns] = torch.where(mask[:, None], value.double(), rows[:, columns])


def _owner(name: str) -> str:
    return name.partition("/")[0]


@functools.cache
def _ramp(n: int) -> Tensor:
    """(n, 1): how far towards its new target each sub-step is."""
    return torch.linspace(1.0 / n, 1.0, n, dtype=torch.float64)[:, None]
