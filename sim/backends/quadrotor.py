"""Quadrotors alone, thousands at once: a Warp kernel on the CPU or the GPU over torch tensors, nothing copied.

The dynamics are in sim/vehicles/dynamics.py. There are no other bodies here than the ground; pictures are drawn by
MuJoCo, where it is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.config import ConfigError, register
from robolearn.optional import lazy
from robolearn.rotations import quat_apply, quat_conjugate
from sim.backends.base import Backend, BackendCfg, Capabilities
from sim.scene import Param, SceneCfg

warp = lazy("warp", extra="flight")
SUPPORTED: frozenset[Param] = frozenset(
    {"mass", "inertia", "thrust", "reaction_torque", "spin_up", "spin_down", "drag", "sag", "link_delay"}
)
FASTEST = 1e3  # m, m/s or rad/s: no quadrotor of this size is there


@dataclass
class QuadrotorCfg(BackendCfg):
    name: str = "quadrotor"


@register("backend", "quadrotor", QuadrotorCfg)
class Quadrotor(Backend):
    capabilities = Capabilities(cameras=True, randomized=SUPPORTED, gpu=True, quadrotors=True)

    def __init__(self, cfg: QuadrotorCfg, scene: SceneCfg, num_envs: int, device: torch.device, seed: int):
        super().__init__(scene, num_envs, device, seed)
        self.asset, self.vehicle = _only_quadrotor(scene)
        warp.config.log_level = warp.LOG_WARNING  # it reports every kernel that it loads
        warp.init()
        from sim.vehicles import constants, dynamics

        self.kernels = dynamics
        self.body = constants.body(self.vehicle, scene)
        self.firmware = constants.firmware(self.vehicle)
        self._nominal = torch.tensor(constants.params(self.vehicle, scene.physics_dt_s), device=device)
        self._allocate()
        self._launches: dict[tuple[int, bool], Any] = {}
        self._params = {f"{a}.{p}": torch.ones(num_envs, device=device) for a, p in scene.randomized}
        self._markers: dict[str, Tensor] = {}
        self._painter: Any = None

    def _allocate(self) -> None:
        def rows(n: int) -> Tensor:
            return torch.zeros(self.num_envs, n, device=self.device)

        d = self.kernels
        self.state, self.memory, self.wrench, self.command = rows(d.STATE), rows(d.FIRMWARE), rows(6), rows(4)
        self.before = rows(4)
        self.state[:, :7] = torch.tensor(self.scene.robots[self.asset].pose, device=self.device)
        self.params_of = self._nominal.repeat(self.num_envs, 1)
        self._attitude = False

    # --- reading --------------------------------------------------------------------------------------------

    def joint_pos(self, asset: str) -> Tensor:
        """Zero: nobody knows a rotor's angle."""
        return torch.zeros(self.num_envs, 4, device=self.device)

    def joint_vel(self, asset: str) -> Tensor:
        return self.state[:, self.kernels.ROTORS : self.kernels.CLOCK]

    def joint_effort(self, asset: str) -> Tensor:
        return torch.zeros(self.num_envs, 4, device=self.device)

    def pose(self, asset: str) -> Tensor:
        return self.state[:, : self.kernels.VELOCITY]

    def velocity(self, asset: str) -> Tensor:
        s, d = self.state, self.kernels
        turned = quat_apply(s[:, d.ROTATION : d.VELOCITY], s[:, d.RATES : d.ROTORS])
        return torch.cat((s[:, d.VELOCITY : d.RATES], turned), dim=1)

    def body_pose(self, asset: str, links: Sequence[str]) -> Tensor:
        base = self.scene.robots[asset].spec.base_link
        if set(links) - {base}:
            raise ValueError(f"a quadrotor here has one body, {base}; asked for {list(links)}")
        return self.pose(asset)[:, None].expand(-1, len(links), 7)

    def finite(self) -> Tensor:
        return (self.state[:, : self.kernels.ROTORS].abs() < FASTEST).all(dim=1)

    # --- stepping -------------------------------------------------------------------------------------------

    def write_targets(self, asset: str, position: Tensor | None = None, velocity: Tensor | None = None,
                      effort: Tensor | None = None) -> None:  # fmt: skip
        if position is not None or effort is not None or velocity is None:
            raise ValueError(f"{asset}'s rotors take velocities (rad/s), not positions or efforts")
        self.command.copy_(velocity)
        self._attitude = False

    def write_attitude(self, asset: str, command: Tensor) -> None:
        if self.firmware is None:
            raise ConfigError(f"{self.scene.robots[asset].spec.name} has no firmware specified; command rotor_speed")
        self.command.copy_(command)
        self._attitude = True

    def apply_wrench(self, asset: str, link: str | None, wrench: Tensor) -> None:
        self.wrench.copy_(wrench)

    def step(self, n: int) -> None:
        self.roll(n)
        self.time_s = self.time_s + n * self.scene.physics_dt_s

    def roll(self, n: int) -> None:
        """The kernel's own launch, which `step` is measured against."""
        key = (n, self._attitude)
        if key not in self._launches:
            self._launches[key] = self._record(n, self._attitude)
        self._launches[key].launch(self.stream())

    def stream(self) -> Any:
        """Torch's present one, so that kernels and torch see each other's writes in order; None on the CPU. A recorded
        launch remembers none."""
        if self.device.type == "cpu":
            return None
        return warp.stream_from_torch(torch.cuda.current_stream(self.device))

    def _record(self, n: int, attitude: bool) -> Any:
        d, dt = self.kernels, self.scene.physics_dt_s
        shared = [self.state, self.params_of, self.wrench, self.command]
        own = [self.before, self.memory] if attitude else []
        kinds = [d.Row, d.Parameters, d.Wrench, warp.vec4, warp.vec4, d.Memory]
        arrays = [warp.from_torch(t, dtype=k) for t, k in zip(shared + own, kinds, strict=False)]
        inputs = [*arrays, self.body, *([self.firmware] if attitude else []), dt, n]
        kernel = d.step_attitude if attitude else d.step_rotors
        device = warp.device_from_torch(self.device)
        return warp.launch(kernel, self.num_envs, inputs=inputs, device=device, record_cmd=True)

    # --- writing --------------------------------------------------------------------------------------------

    def write_joints(self, asset: str, position: Tensor, velocity: Tensor, mask: Tensor) -> None:
        """Rotor speeds; the firmware starts anew, and its set-point is to hover."""
        d, row = self.kernels, mask[:, None]
        rotors = self.state[:, d.ROTORS : d.CLOCK]
        rotors.copy_(torch.where(row, velocity, rotors))
        self.state[:, d.CLOCK] *= ~mask
        self.memory *= ~row
        hover = torch.tensor([0.0, 0.0, 0.0, self.vehicle.mass_kg * 9.81], device=self.device)
        self.before.copy_(torch.where(row, hover, self.before))

    def write_pose(self, asset: str, pose: Tensor, velocity: Tensor, mask: Tensor) -> None:
        d = self.kernels
        body_rates = quat_apply(quat_conjugate(pose[:, 3:]), velocity[:, 3:])
        moved = torch.cat((pose, velocity[:, :3], body_rates), dim=1)
        kept = self.state[:, : d.ROTORS]
        kept.copy_(torch.where(mask[:, None], moved, kept))
        rates = slice(5, 8)  # no kick by the derivative of the first step
        degrees = torch.rad2deg(body_rates)
        self.memory[:, rates] = torch.where(mask[:, None], degrees, self.memory[:, rates])

    def _parts(self) -> list[Tensor]:
        return [self.state, self.memory, self.wrench, self.command, self.before, self.time_s[:, None]]

    def get_state(self) -> Tensor:
        return torch.cat(self._parts(), dim=1).double()

    def set_state(self, state: Tensor, mask: Tensor | None = None) -> None:
        parts = self._parts()
        if state.shape != (self.num_envs, sum(p.shape[1] for p in parts)):
            raise ValueError(f"a state of shape {tuple(state.shape)} is not of {self.num_envs} quadrotors")
        row = torch.ones(self.num_envs, 1, dtype=torch.bool, device=self.device) if mask is None else mask[:, None]
        new = torch.where(row, state.to(self.device, torch.float32), torch.cat(parts, dim=1))
        for part, value in zip(parts, new.split([p.shape[1] for p in parts], dim=1), strict=True):
            part.copy_(value)

    def set_param(self, asset: str, param: Param, scale: Tensor, mask: Tensor) -> None:
        key = f"{asset}.{param}"
        self._params[key] = torch.where(mask, scale, self._params[key])
        d, now, nominal = self.kernels, self.params_of, self._nominal
        by = self._params[key][:, None]
        if param in ("spin_up", "spin_down"):
            column = d.UP if param == "spin_up" else d.DOWN
            now[:, column] = nominal[column] ** (1.0 / by[:, 0])  # exp(-h / (tau scale))
            return
        first, count = {
            "mass": (d.MASS, 1), "inertia": (d.INERTIA, 3), "thrust": (d.THRUST, 1), "reaction_torque": (d.TORQUE, 1),
            "drag": (d.DRAG, 2), "sag": (d.SAG, 1), "link_delay": (d.DELAY, 1),
        }[param]  # fmt: skip
        now[:, first : first + count] = nominal[first : first + count] * by
        if param == "inertia":
            now[:, d.INVERSE : d.INVERSE + 3] = nominal[d.INVERSE : d.INVERSE + 3] / by

    def params(self) -> dict[str, Tensor]:
        return dict(self._params)

    # --- pictures -------------------------------------------------------------------------------------------

    def set_marker(self, marker: str, pose: Tensor) -> None:
        self._markers[marker] = pose

    def render(self, camera: str, env_ids: Sequence[int], film: tuple[int, int] | None = None) -> np.ndarray:
        if camera not in self.scene.cameras:
            raise ValueError(f"no camera '{camera}'; the scene has {', '.join(self.scene.cameras) or 'none'}")
        return np.stack([self.painter.picture(camera, self.physics_state(i), self.goals(i), film) for i in env_ids])

    @property
    def painter(self) -> Any:
        """MuJoCo's, made at its first use."""
        if self._painter is None:
            from sim.backends.looks import Painter
            from sim.backends.mjcf import compile_scene

            self._painter = Painter(compile_scene(self.scene, visual=True), self.scene)
        return self._painter

    def physics_state(self, env: int) -> np.ndarray:
        """One environment as `Painter.put` takes it: time, position, quaternion wxyz, velocities."""
        pose = self.pose(self.asset)[env].double().cpu().numpy()
        return np.concatenate(([0.0], pose[:3], pose[6:], pose[3:6], np.zeros(6)))

    def goals(self, env: int) -> dict[str, list[float]]:
        """Where one environment's markers are, position + xyzw."""
        return {name: pose[env].tolist() for name, pose in self._markers.items()}

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()


def _only_quadrotor(scene: SceneCfg) -> tuple[str, Any]:
    """Name and specification of the scene's only body. ConfigError if there are others."""
    if len(scene.robots) != 1 or scene.objects or scene.contact_sensors:
        raise ConfigError("backend quadrotor flies one quadrotor without objects; use backend=pybullet for more")
    ((asset, robot),) = scene.robots.items()
    if robot.spec.quadrotor is None:
        raise ConfigError(f"{robot.spec.name} is no quadrotor; use backend=mujoco")
    return asset, robot.spec.quadrotor
