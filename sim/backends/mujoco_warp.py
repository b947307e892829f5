"""MuJoCo-Warp: the engine for NVIDIA GPUs, from the same model as MuJoCo C; on a CPU it runs for tests only.

State, controls and sensors are torch views of Warp's arrays: nothing is copied to step. On a GPU one sub-step
is captured as a CUDA graph and replayed. That path (graph, stream, device memory) is written against the
installed API and has not been run: it is unverified on a GPU. The first step compiles kernels, about half a
minute to two on a CPU, and keeps them in Warp's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robolearn.config import ConfigError, register
from robolearn.errors import UserError
from robolearn.optional import lazy
from sim.backends.base import BackendCfg, Capabilities
from sim.backends.mjcf import compile_scene
from sim.backends.mjcontrol import Targets, gain_param, gain_scale, owner, refuse_unstable, slots_of
from sim.backends.mjstate import EXPLODED, MujocoState
from sim.scene import Param, SceneCfg

mujoco = lazy("mujoco", extra="warp")
warp = lazy("warp", extra="warp")
mjw = lazy("mujoco_warp", extra="warp")
FIELDS = {
    "mass": (
        "body_mass",
        "body_subtreemass",
        "body_gravcomp",
        "body_invweight0",
        "dof_invweight0",
        "actuator_acc0",
    ),
    "inertia": ("body_inertia", "body_invweight0", "dof_invweight0", "actuator_acc0"),
    "friction": ("geom_friction",),
    "kp": ("actuator_gainprm", "actuator_biasprm"),
    "kd": ("actuator_gainprm", "actuator_biasprm"),
    "effort_limit": ("jnt_actfrcrange",),
}
"""Model fields that a parameter changes; each environment gets its own before anything is captured."""


class CapacityError(UserError):
    """More contacts or constraints than were allocated: what was stepped since is wrong."""


@dataclass
class MujocoWarpCfg(BackendCfg):
    name: str = "mujoco_warp"
    contacts_per_env: int = 48
    """Room for contacts (nconmax), shared: the average over the environments may not exceed it."""
    constraints_per_env: int = 256
    """Room for constraint rows (njmax) in each environment: four a contact, one a joint at its limit."""
    cuda_graph: bool = True
    """Replay a captured sub-step; only on a GPU."""
    check_every: int = 32
    """Steps between looks at the overflow flags: on a GPU each look waits for it."""

    def __post_init__(self) -> None:
        for name in ("contacts_per_env", "constraints_per_env", "check_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"backend.{name} must be at least 1, got {getattr(self, name)}")


@register("backend", "mujoco_warp", MujocoWarpCfg)
class MujocoWarp(MujocoState):
    capabilities = Capabilities(contact_sensors=True, randomized=frozenset(FIELDS), gpu=True)

    def __init__(self, cfg: MujocoWarpCfg, scene: SceneCfg, num_envs: int, device: torch.device, seed: int):
        super().__init__(scene, num_envs, device, seed)
        self.cfg, self.model = cfg, compile_scene(scene)
        refuse_unstable(self.model, scene)
        self.model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)  # it has no such thing to disable
        warp.config.log_level = warp.LOG_WARNING  # it reports every kernel that it loads
        warp.init()
        self._at = warp.device_from_torch(device)
        fields = {f for _, p in scene.randomized for f in FIELDS[p]}
        with warp.ScopedDevice(self._at):
            self._m = mjw.put_model(self.model, batch_sizes=dict.fromkeys(fields, num_envs))
            self._d = mjw.put_data(
                self.model, mujoco.MjData(self.model), nworld=num_envs,
                nconmax=cfg.contacts_per_env, njmax=cfg.constraints_per_env,
            )  # fmt: skip
        self._m.opt.warn_overflow = 0  # we raise
        self._base = {f: warp.to_torch(getattr(self._m, f)).clone() for f in fields}
        self._params = {f"{a}.{p}": torch.ones(num_envs, device=device) for a, p in scene.randomized}
        self._views()
        self._slots = slots_of(self.model, scene, device)
        self._remember_fixed()
        self._targets = Targets(self.model, scene, num_envs, torch.float32, device)
        self._gain_scale: Tensor | None = None
        self._graph: Any = None
        self._steps = 0

    def _views(self) -> None:
        d, view = self._d, warp.to_torch
        self._qpos, self._qvel, self._ctrl = view(d.qpos), view(d.qvel), view(d.ctrl)
        self._time, self._warmstart, self._wrench = view(d.time), view(d.qacc_warmstart), view(d.xfrc_applied)
        self._sensors, self._overflow = view(d.sensordata), view(d.overflow)
        self.time_s = self._time

    # --- reading --------------------------------------------------------------------------------------------

    def joint_effort(self, asset: str) -> Tensor:
        return self._sensors[:, self._slots[asset].effort]

    def body_pose(self, asset: str, links: Sequence[str]) -> Tensor:
        with warp.ScopedDevice(self._at):
            mjw.kinematics(self._m, self._d)
        ids = [self.model.body(f"{asset}/{link}").id for link in links]
        place, turn = warp.to_torch(self._d.xpos)[:, ids], warp.to_torch(self._d.xquat)[:, ids]
        return torch.cat((place, turn[..., 1:], turn[..., :1]), dim=-1)

    def contact_force(self, sensor: str) -> Tensor:
        at = int(self.model.sensor(f"contact/{sensor}").adr[0])
        return -self._sensors[:, at : at + 3]  # the sensor tells what the body does to the others

    def finite(self) -> Tensor:
        return (self._qpos.abs() < EXPLODED).all(dim=1) & (self._qvel.abs() < EXPLODED).all(dim=1)

    # --- stepping -------------------------------------------------------------------------------------------

    def write_targets(self, asset: str, position: Tensor | None = None, velocity: Tensor | None = None,
                      effort: Tensor | None = None) -> None:  # fmt: skip
        self._targets.write(asset, position, velocity, effort, self._params.get(f"{asset}.kd"))

    def apply_wrench(self, asset: str, link: str | None, wrench: Tensor) -> None:
        self._wrench[:, self.model.body(f"{asset}/{link}" if link else asset).id] = wrench

    def step(self, n: int) -> None:
        controls = torch.empty(self.num_envs, n, self.model.nu, device=self.device)
        ramp = torch.linspace(1.0 / n, 1.0, n, device=self.device)[:, None]
        self._targets.sub_steps(ramp, self._gain_scale, controls)
        if self.cfg.cuda_graph and self._at.is_cuda and self._graph is None:
            self._capture()
        with self._scope():
            for control in controls.unbind(1):
                self._ctrl.copy_(control)
                self._sub_step()
        self._targets.arrive()
        self._steps += 1
        if self._steps % self.cfg.check_every == 0:
            self.check()

    def _scope(self) -> Any:
        """Warp launches on torch's stream, so that both see each other's writes in order."""
        if not self._at.is_cuda:
            return warp.ScopedDevice(self._at)
        return warp.ScopedStream(warp.stream_from_torch(torch.cuda.current_stream(self.device)))

    def _sub_step(self) -> None:
        if self._graph is None:
            mjw.step(self._m, self._d)
        else:
            warp.capture_launch(self._graph, stream=warp.get_stream(self._at))

    def _capture(self) -> None:
        """Record one sub-step, on Warp's stream: torch's default one cannot be recorded."""
        before = self.get_state()
        with self._scope():
            mjw.step(self._m, self._d)  # compiles and allocates, which a recording may not
        self.set_state(before)
        warp.synchronize_device(self._at)
        with warp.ScopedDevice(self._at), warp.ScopedCapture() as capture:
            mjw.step(self._m, self._d)
        self._graph = capture.graph

    def check(self) -> None:
        """Raise CapacityError if the allocated contacts or constraints were exceeded since the build."""
        kind = mjw.OverflowType
        rows, flags = int(kind.NEFC | kind.NJMAX_NNZ), int(kind.BROADPHASE | kind.NARROWPHASE | kind.CCD)
        if bool((self._overflow & rows).any()):
            self._refuse("constraints_per_env", self.cfg.constraints_per_env)
        if bool((self._overflow & flags).any()):
            self._refuse("contacts_per_env", self.cfg.contacts_per_env)

    def _refuse(self, name: str, size: int) -> None:
        raise CapacityError(f"mujoco_warp ran out of {name} = {size}; set backend.{name}={2 * size}")

    # --- writing --------------------------------------------------------------------------------------------

    def _cold_start(self, mask: Tensor) -> None:
        for part in (self._warmstart, self._sensors):
            part.copy_(torch.where(mask[:, None], torch.zeros_like(part), part))

    def _parts(self) -> list[Tensor]:
        """Views (B, n) of all that the next steps depend on."""
        t = self._targets
        return [
            self._qpos, self._qvel, self._time[:, None], self._warmstart, self._sensors,
            t.start, t.end, t.feed, self._wrench.flatten(1),
        ]  # fmt: skip

    def get_state(self) -> Tensor:
        return torch.cat(self._parts(), dim=1).double()

    def set_state(self, state: Tensor, mask: Tensor | None = None) -> None:
        parts = self._parts()
        if state.shape != (self.num_envs, sum(p.shape[1] for p in parts)):
            raise ValueError(f"a state of shape {tuple(state.shape)} is not of this scene's {self.num_envs} worlds")
        for part, value in zip(parts, state.split([p.shape[1] for p in parts], dim=1), strict=True):
            part.copy_(value if mask is None else torch.where(mask[:, None], value, part))
        self._targets.feeding = True

    def set_param(self, asset: str, param: Param, scale: Tensor, mask: Tensor) -> None:
        key = f"{asset}.{param}"
        self._params[key] = torch.where(mask, scale, self._params[key])
        self._gain_scale = gain_scale(self.model, self._params, self._targets.end)
        for field, rows, columns, power in self._changes(asset, param):
            view = warp.to_torch(getattr(self._m, field))
            value = self._params[key] ** power
            at = (slice(None), rows) if columns is None else (slice(None), rows, columns)
            base = self._base[field][at]
            view[at] = base * value.reshape(-1, *[1] * (base.dim() - 1))
        if param in ("mass", "inertia"):
            with self._scope():
                mjw.set_const(self._m, self._d)

    def _changes(self, asset: str, param: Param) -> list[tuple[str, list[int], int | None, int]]:
        """Field, rows, column (None: all), and the power of the scale that it is multiplied by."""
        m = self.model
        bodies = [b for b in range(1, m.nbody) if owner(m.body(b).name) == asset]
        actuators = [a for a in range(m.nu) if owner(m.actuator(a).name) == asset]
        gains = [a for a in actuators if gain_param(m, a) == param]
        changes: dict[str, list[tuple[str, list[int], int | None, int]]] = {
            "mass": [("body_mass", bodies, None, 1), ("body_gravcomp", bodies, None, -1)],
            "inertia": [("body_inertia", bodies, None, 1)],
            "friction": [("geom_friction", [g for g in range(m.ngeom) if m.geom_bodyid[g] in bodies], 0, 1)],
            "kp": [("actuator_biasprm", actuators, 1, 1), ("actuator_gainprm", gains, 0, 1)],
            "kd": [("actuator_biasprm", actuators, 2, 1), ("actuator_gainprm", gains, 0, 1)],
            "effort_limit": [("jnt_actfrcrange", m.actuator_trnid[actuators, 0].tolist(), None, 1)],
        }  # fmt: skip
        return changes[param]

    def params(self) -> dict[str, Tensor]:
        return dict(self._params)

    def close(self) -> None:
        self.check()
