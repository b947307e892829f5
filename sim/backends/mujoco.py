"""MuJoCo C: the default on a CPU. A state row per environment, stepped in C++ threads.

Stepping is MuJoCo's `rollout`: its threads set a row's state, run the sub-steps with that row's controls and
write state and sensors back, so Python holds no lock and copies nothing per environment. Against a persistent
MjData per environment in Python threads it is as fast or faster (`benchmarks/throughput.py` prints both) and
the whole state of the world is one array. What MjData would have kept besides, the solver's warm start, is
carried along.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.config import ConfigError, register
from robolearn.loops.threads import usable_cores
from robolearn.optional import lazy
from sim.backends.base import BackendCfg, Capabilities
from sim.backends.looks import Painter
from sim.backends.mjcf import compile_scene
from sim.backends.mjcontrol import Targets, gain_param, gain_scale, owner, refuse_unstable, slots_of
from sim.backends.mjlooks import MjLooks
from sim.backends.mjstate import EXPLODED, MujocoState
from sim.backends.mjstudio import Studio
from sim.looks import KINDS
from sim.scene import Param, SceneCfg, unchanged

mujoco = lazy("mujoco", extra="mujoco")
rollout = lazy("mujoco.rollout", extra="mujoco")
RIGID = 0.9995  # impedance of dry friction: MuJoCo's own 0.9 to 0.95 lets a loaded joint slip visibly


@dataclass
class MujocoCfg(BackendCfg):
    name: str = "mujoco"
    threads: int = 0
    """Stepping threads; 0 is one a core, which is also the most."""
    picture_threads: int = 0
    """Threads that draw what policies see, likewise."""

    def __post_init__(self) -> None:
        for name in ("threads", "picture_threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 (one a core) or more, got {getattr(self, name)}")


@register("backend", "mujoco", MujocoCfg)
class Mujoco(MujocoState):
    capabilities = Capabilities(
        cameras=True,
        contact_sensors=True,
        randomized=frozenset(
            {"mass", "inertia", "friction", "kp", "kd", "effort_limit", "joint_damping", "joint_friction"}
        ),
        looks=KINDS,
    )

    def __init__(self, cfg: MujocoCfg, scene: SceneCfg, num_envs: int, device: torch.device, seed: int):
        super().__init__(scene, num_envs, device, seed)
        self.model = compile_scene(scene)
        refuse_unstable(self.model, scene)
        self.threads = min(cfg.threads or usable_cores(), usable_cores())
        self._picture_threads = min(cfg.picture_threads or usable_cores(), usable_cores())
        self._models = [self.model] * num_envs
        self._params = {f"{a}.{p}": torch.full((num_envs,), unchanged(p)) for a, p in scene.randomized}
        if scene.randomized:
            self._models = [copy.copy(self.model) for _ in range(num_envs)]
        self._pool = rollout.Rollout(nthread=self.threads if self.threads > 1 else 0)
        self._data = [mujoco.MjData(self.model) for _ in range(self.threads)]
        self._allocate()
        self._slots = slots_of(self.model, scene, device)
        self._remember_fixed()
        self._markers: dict[str, Tensor] = {}
        self._drawn_by: Painter | None = None
        self._drawn_small_by: Studio | None = None

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
        self._targets = Targets(m, self.scene, b, torch.float64, self.device)
        self._wrench: Tensor | None = None
        self._gain_scale: Tensor | None = None
        self._outputs: dict[int, tuple[np.ndarray, np.ndarray, Tensor]] = {}
        self._sensors = torch.zeros(b, m.nsensordata, dtype=torch.float64)

    # --- reading --------------------------------------------------------------------------------------------

    def joint_effort(self, asset: str) -> Tensor:
        return self._sensors[:, self._slots[asset].effort].float()

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
        return -self._sensors[:, at : at + 3].float()  # the sensor tells what the body does to the others

    def finite(self) -> Tensor:
        return (self._moving.abs() < EXPLODED).all(dim=1)

    # --- stepping -------------------------------------------------------------------------------------------

    def write_targets(self, asset: str, position: Tensor | None = None, velocity: Tensor | None = None,
                      effort: Tensor | None = None) -> None:  # fmt: skip
        self._targets.write(asset, position, velocity, effort, self._params.get(f"{asset}.kd"))

    def apply_wrench(self, asset: str, link: str | None, wrench: Tensor) -> None:
        self._wrenches()[:, self.model.body(f"{asset}/{link}" if link else asset).id] = wrench.double()

    def _wrenches(self) -> Tensor:
        """(B, bodies, 6), made at the first use: most tasks never push, and a wrench a body costs time."""
        if self._wrench is None:
            self._wrench = torch.zeros(self.num_envs, self.model.nbody, 6, dtype=torch.float64)
            self._control |= int(mujoco.mjtState.mjSTATE_XFRC_APPLIED)
            self._outputs.clear()
        return self._wrench

    def step(self, n: int) -> None:
        state, sensors, control = self._buffers(n)
        nu = self.model.nu
        self._targets.sub_steps(_ramp(n), self._gain_scale, control[..., :nu])
        if self._wrench is not None:
            control[..., nu:] = self._wrench.flatten(1)[:, None]
        before = self._qvel.numpy().copy() if n == 1 else None
        self.roll(n)
        np.copyto(self._state, state[:, -1])
        last = state[:, -2, self._velocity_columns] if before is None else before
        np.subtract(self._qvel.numpy(), last, out=self._warmstart)
        self._warmstart /= self.scene.physics_dt_s
        self._sensors.copy_(torch.from_numpy(sensors[:, -1]))
        self._targets.arrive()
        self.time_s = self._time.float()

    def roll(self, n: int) -> None:
        """The engine's own call on the arrays as they are, which `step` is measured against."""
        state, sensors, control = self._buffers(n)
        self._pool.rollout(
            self._models, self._data, self._state, control.numpy(), control_spec=self._control,
            skip_checks=True, nstep=n, initial_warmstart=self._warmstart, state=state, sensordata=sensors,
            chunk_size=max(1, self.num_envs // (8 * self.threads)),
        )  # fmt: skip

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

    # --- writing --------------------------------------------------------------------------------------------

    def _cold_start(self, mask: Tensor) -> None:
        self._warmstart[mask.numpy()] = 0.0
        self._sensors[mask] = 0.0

    def _parts(self) -> list[Tensor]:
        targets = self._targets
        parts = [
            self._rows,
            torch.from_numpy(self._warmstart),
            self._sensors,
            targets.start,
            targets.end,
            targets.feed,
        ]
        return parts if self._wrench is None else [*parts, self._wrench.flatten(1)]

    def get_state(self) -> Tensor:
        return torch.cat(self._parts(), dim=1)

    def set_state(self, state: Tensor, mask: Tensor | None = None) -> None:
        everyone = torch.ones(self.num_envs, dtype=torch.bool)
        new = torch.where((everyone if mask is None else mask)[:, None], self._conform(state), self.get_state())
        parts = self._parts()
        for part, value in zip(parts, new.split([p.shape[1] for p in parts], dim=1), strict=True):
            part.copy_(value)
        self._targets.feeding = True
        self.time_s = self._time.float()

    def _conform(self, state: Tensor) -> Tensor:
        """Wrenches are in a state only once one was applied; either side may lack them."""
        wrenches, width = self.model.nbody * 6, sum(p.shape[1] for p in self._parts())
        if self._wrench is None and state.shape[1] == width + wrenches:
            self._wrenches()
        elif self._wrench is not None and state.shape[1] == width - wrenches:
            state = torch.cat((state, state.new_zeros(len(state), wrenches)), dim=1)
        if state.shape != (self.num_envs, sum(p.shape[1] for p in self._parts())):
            raise ValueError(
                f"a state of shape {tuple(state.shape)} is not of this scene's {self.num_envs} environments"
            )
        return state

    def set_param(self, asset: str, param: Param, scale: Tensor, mask: Tensor) -> None:
        current = self._params[f"{asset}.{param}"]
        self._params[f"{asset}.{param}"] = torch.where(mask, scale, current)
        self._gain_scale = gain_scale(self.model, self._params, self._targets.end)
        change = getattr(self, f"_scale_{'body' if param in ('mass', 'inertia') else param}")
        for i in mask.nonzero().flatten().tolist():  # MuJoCo keeps one model an environment
            change(self._models[i], asset, param, float(scale[i]))

    def _bodies(self, asset: str) -> list[int]:
        return [b for b in range(1, self.model.nbody) if owner(self.model.body(b).name) == asset]

    def _actuators(self, asset: str) -> list[int]:
        return [a for a in range(self.model.nu) if owner(self.model.actuator(a).name) == asset]

    def _scale_body(self, model: Any, asset: str, param: Param, scale: float) -> None:
        base, bodies = self.model, self._bodies(asset)
        name = "body_mass" if param == "mass" else "body_inertia"
        getattr(model, name)[bodies] = getattr(base, name)[bodies] * scale
        if param == "mass":  # the controller's gravity feed-forward knows the nominal masses
            model.body_gravcomp[bodies] = base.body_gravcomp[bodies] / scale
        mujoco.mj_setConst(model, self._data[0])

    def _scale_friction(self, model: Any, asset: str, param: Param, scale: float) -> None:
        base, bodies = self.model, self._bodies(asset)
        geoms = [g for g in range(base.ngeom) if base.geom_bodyid[g] in bodies]
        model.geom_friction[geoms, 0] = base.geom_friction[geoms, 0] * scale

    def _scale_kp(self, model: Any, asset: str, param: Param, scale: float) -> None:
        base, ids = self.model, self._actuators(asset)
        bias = 1 if param == "kp" else 2
        model.actuator_biasprm[ids, bias] = base.actuator_biasprm[ids, bias] * scale
        gains = [a for a in ids if gain_param(base, a) == param]  # or the set-point would move
        model.actuator_gainprm[gains, 0] = base.actuator_gainprm[gains, 0] * scale

    _scale_kd = _scale_kp

    def _scale_effort_limit(self, model: Any, asset: str, param: Param, scale: float) -> None:
        base, joints = self.model, self.model.actuator_trnid[self._actuators(asset), 0]
        model.jnt_actfrcrange[joints] = base.jnt_actfrcrange[joints] * scale

    def _scale_joint_damping(self, model: Any, asset: str, param: Param, added: float) -> None:
        ids, name = self._arm_dofs(asset), "dof_damping" if param == "joint_damping" else "dof_frictionloss"
        getattr(model, name)[ids] = getattr(self.model, name)[ids] + added
        model.dof_solimp[ids, :2] = RIGID  # or a joint would creep within its dry friction

    _scale_joint_friction = _scale_joint_damping

    def _arm_dofs(self, asset: str) -> list[int]:
        joints = self.scene.robots[asset].spec.arm_joints
        return [int(self.model.joint(f"{asset}/{name}").dofadr[0]) for name in joints]

    def params(self) -> dict[str, Tensor]:
        return dict(self._params)

    # --- pictures -------------------------------------------------------------------------------------------

    def set_marker(self, marker: str, pose: Tensor) -> None:
        self._markers[marker] = pose

    def render(self, camera: str, env_ids: Sequence[int], film: tuple[int, int] | None = None) -> np.ndarray:
        self._require(camera)
        if film is None:
            return self.studio.pictures([camera], self.physics_state, env_ids)[camera]
        return np.stack([self._dressed(i).picture(camera, self._state[i], self.goals(i), film) for i in env_ids])

    def images(self, cameras: Sequence[str], env_ids: Sequence[int]) -> dict[str, Tensor]:
        for camera in cameras:
            self._require(camera)
        pictures = self.studio.pictures(cameras, self.physics_state, env_ids)
        return {name: torch.from_numpy(taken) for name, taken in pictures.items()}

    def depth(self, camera: str, env_ids: Sequence[int]) -> np.ndarray:
        self._require(camera)
        return np.stack([self._dressed(i).depth(camera, self._state[i]) for i in env_ids])

    def _require(self, camera: str) -> None:
        if camera not in self.scene.cameras:
            raise ValueError(f"no camera '{camera}'; the scene has {', '.join(self.scene.cameras) or 'none'}")

    def _dressed(self, env: int) -> Painter:
        """The painter, with one environment's looks."""
        self.studio.looks.dress(self.painter.model, env)
        return self.painter

    def set_look(self, name: str, values: Tensor, mask: Tensor) -> None:
        self.studio.looks.put(name, values, mask)

    def looks(self) -> dict[str, Tensor]:
        return {} if self._drawn_small_by is None else dict(self.studio.looks.table.values)

    @property
    def studio(self) -> Studio:
        """Of the small pictures; made at its first use, as the painter is."""
        if self._drawn_small_by is None:
            looks = MjLooks(self.painter.model, self.scene, self.num_envs)
            self._drawn_small_by = Studio(looks, self.scene, self._picture_threads)
        return self._drawn_small_by

    @property
    def painter(self) -> Painter:
        """Compiled at its first use: only pictures need it."""
        if self._drawn_by is None:
            self._drawn_by = Painter(compile_scene(self.scene, visual=True), self.scene)
        return self._drawn_by

    def physics_state(self, env: int) -> np.ndarray:
        """One environment's row, as `Painter.put` takes it; a view."""
        return self._state[env]

    def goals(self, env: int) -> dict[str, list[float]]:
        """Where one environment's markers are, position + xyzw."""
        return {name: pose[env].tolist() for name, pose in self._markers.items()}

    def close(self) -> None:
        for artist in (self._drawn_by, self._drawn_small_by):
            if artist is not None:
                artist.close()
        self._pool.close()


@functools.cache
def _ramp(n: int) -> Tensor:
    """(n, 1): how far towards its new target each sub-step is."""
    return torch.linspace(1.0 / n, 1.0, n, dtype=torch.float64)[:, None]
