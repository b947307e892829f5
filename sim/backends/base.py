"""The interface that every physics engine fulfils, and what each method is in the engines that come behind it.

The mapping was checked against Isaac Lab 3.0 (`Articulation`, `RigidObject`, `ArticulationData` with `.torch` views),
mujoco-warp 4.0 (`Model`, `Data` with a leading world dimension) and PyBullet 3.2 (`p.*`, one client an environment).

| here | Isaac Lab 3 | mujoco-warp | PyBullet |
|---|---|---|---|
| constructor | `InteractiveScene(cfg)`, `sim.reset()` | `put_model`, `put_data(nworld)` | `loadURDF`, `createMultiBody` |
| `joint_pos, joint_vel` | `data.joint_pos.torch`, `.joint_vel.torch` | `wp.to_torch(d.qpos)`, `d.qvel` | `getJointStates` |
| `joint_effort` | `data.applied_torque.torch` | `d.qfrc_actuator` | what we passed to `TORQUE_CONTROL` |
| `pose, velocity` | `data.root_link_pose_w`, `.root_link_vel_w` | `d.qpos[:, a:a+7]` | `getBasePositionAndOrientation` |
| `body_pose` | `data.body_link_pose_w` | `d.xpos`, `d.xquat` | `getLinkStates` |
| `write_targets` | `actuators.target_command.set_position_index` | `d.ctrl` | kept, used by our law |
| `apply_wrench` | `instantaneous_wrench_composer.set_forces_and_torques_index` | `d.xfrc_applied` | `applyExternalForce` |
| `step(n)` | `scene.write_data_to_sim(); sim.step(); scene.update(dt)` | `mjw.step` in a graph | `stepSimulation` |
| `forward` | `sim.forward(); scene.update(0.0)` | `mjw.forward` | implicit |
| `write_joints` | `write_joint_position_to_sim_index`, `.._velocity_..` | masked copy | `resetJointState` |
| `write_pose` | `write_root_pose_to_sim_index`, `write_root_velocity_..` | masked copy | `resetBasePositionAndOrientation` |
| `get_state, set_state` | `scene.get_state`, `scene.reset_to` | copies of qpos, qvel, act | our own arrays |
| `set_param` | `set_masses_index`, `write_joint_stiffness_to_sim_index` | fields expanded per world | `changeDynamics` |
| `contact_force` | `ContactSensor.data.net_normal_forces_w` | contact sensor | `getContactPoints`, summed |
| `jacobian` | `root_view.get_jacobians()` | from the chain (ours) | `calculateJacobian` |
| `render`, `images` | `TiledCamera.data.output` | batch renderer | `getCameraImage` |
| `set_look` | `randomize_visual_color`, USD attributes | fields expanded per world | `changeVisualShape`, arguments |

Masks are (B,) bool tensors; a method that takes one leaves every other environment as it is, bit by bit.
Tensors that are handed out are valid until the next `step` or write.
"""  # noqa: E501 - the table

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robolearn.config import ConfigError
from robolearn.kinematics import Chain
from robolearn.spec import RobotSpec
from sim.scene import Param, SceneCfg


@dataclass
class BackendCfg:
    """What every engine's configuration has."""

    name: str = "???"


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do here; a task that asks for more is refused when it is built."""

    cameras: bool = False
    contact_sensors: bool = False
    randomized: frozenset[str] = frozenset()
    looks: frozenset[str] = frozenset()
    """Kinds of `sim.looks` that `set_look` takes."""
    gpu: bool = False
    quadrotors: bool = False
    deterministic: bool = True
    evaluation_envs: int = 1024
    """Environments that an evaluation asks for; more episodes than that run one after the other in them."""


def refuse_unstable(spec: RobotSpec, inertia: Sequence[float], physics_dt_s: float) -> None:
    """Raise ConfigError unless kd dt < M_jj for every driven joint; `inertia` is M's diagonal at the default
    posture. The damping is evaluated explicitly, once a sub-step, and there is no armature."""
    for name, kd, limit, own in zip(spec.joint_names, spec.kd, spec.effort_limit, inertia, strict=True):
        if limit > 0.0 and kd * physics_dt_s >= own:
            raise ConfigError(
                f"{spec.name}: {name} would be unstable at physics_dt_s = {physics_dt_s:.6f}: "
                f"kd dt = {kd * physics_dt_s:.4f} is not below M_jj = {own:.4f}; "
                f"shorten physics_dt_s below {own / kd:.6f} or lower kd"
            )


class Backend(ABC):
    """B copies of a scene in one engine.

    The law of every actuated joint, evaluated each sub-step, is
    clip(kp (q* - q) + kd (v* - v) + effort* + gravity feed-forward, +-effort_limit); with kp = kd = 0 it is
    clip(effort*). Never an engine's own motor model.
    """

    capabilities: Capabilities = Capabilities()

    def __init__(self, scene: SceneCfg, num_envs: int, device: torch.device, seed: int):
        if device.type != "cpu" and not self.capabilities.gpu:
            name = type(self).__name__.lower()
            raise ConfigError(f"backend {name} runs on the CPU, not on {device}; use backend=mujoco_warp there")
        self.scene, self.num_envs, self.device, self.seed = scene, num_envs, device, seed
        flown = [a for a, r in scene.robots.items() if r.spec.quadrotor is not None]
        if flown and not self.capabilities.quadrotors:
            name = type(self).__name__.lower()
            raise ConfigError(f"backend {name} does not fly {flown[0]}, a quadrotor; use backend=quadrotor or "
                              "backend=pybullet")  # fmt: skip
        self.time_s = torch.zeros(num_envs, device=device)
        self._chains: dict[tuple[str, str], Chain] = {}
        unsupported = {p for _, p in scene.randomized} - self.capabilities.randomized
        if unsupported:
            raise ConfigError(f"{type(self).__name__} cannot randomise {sorted(unsupported)}")
        if scene.contact_sensors and not self.capabilities.contact_sensors:
            raise ConfigError(f"{type(self).__name__} has no contact sensors")

    @abstractmethod
    def joint_pos(self, asset: str) -> Tensor:
        """(B, J) in RobotSpec.joint_names' order, rad or m."""

    @abstractmethod
    def joint_vel(self, asset: str) -> Tensor:
        """(B, J) rad/s or m/s."""

    @abstractmethod
    def joint_effort(self, asset: str) -> Tensor:
        """(B, J) N m or N: what the law above gave in the last sub-step, gravity feed-forward included."""

    @abstractmethod
    def pose(self, asset: str) -> Tensor:
        """(B, 7) of a robot's base or an object's centre, env-local world frame."""

    @abstractmethod
    def velocity(self, asset: str) -> Tensor:
        """(B, 6) linear, angular; world frame."""

    @abstractmethod
    def body_pose(self, asset: str, links: Sequence[str]) -> Tensor:
        """(B, K, 7) from the engine itself. For checks; tasks use `robolearn.kinematics`, as robots do."""

    @abstractmethod
    def write_targets(self, asset: str, position: Tensor | None = None, velocity: Tensor | None = None,
                      effort: Tensor | None = None) -> None:  # fmt: skip
        """Set the targets (B, J) of the next `step`. Positions are reached linearly over its sub-steps
        (first-order hold, as the guard interpolates on hardware), velocities and efforts at once. An absent
        position stays as it was; absent velocities and efforts are zero."""

    def write_attitude(self, asset: str, command: Tensor) -> None:
        """Set roll, pitch (rad), yaw rate (rad/s) and collective thrust (N), (B, 4), for the firmware of a quadrotor.
        Rotor speeds are velocities of `write_targets`; the last of the two that was called is in force."""
        raise ConfigError(f"{type(self).__name__} flies no quadrotors; use backend=quadrotor or backend=pybullet")

    @abstractmethod
    def apply_wrench(self, asset: str, link: str | None, wrench: Tensor) -> None:
        """Force and torque (B, 6), world frame, at the body's centre of mass, until it is set again."""

    @abstractmethod
    def step(self, n: int) -> None:
        """Advance n sub-steps of scene.physics_dt_s."""

    @abstractmethod
    def write_joints(self, asset: str, position: Tensor, velocity: Tensor, mask: Tensor) -> None:
        """Put joints (B, J) of the masked environments somewhere; their position targets follow."""

    @abstractmethod
    def write_pose(self, asset: str, pose: Tensor, velocity: Tensor, mask: Tensor) -> None:
        """Put an object somewhere: (B, 7) and (B, 6)."""

    @abstractmethod
    def get_state(self) -> Tensor:
        """(B, S) float64: all that the next steps depend on, but for parameters. A copy."""

    @abstractmethod
    def set_state(self, state: Tensor, mask: Tensor | None = None) -> None: ...

    @abstractmethod
    def set_param(self, asset: str, param: Param, scale: Tensor, mask: Tensor) -> None:
        """Set a declared parameter to (B,): a factor of the value it was built with, or for those in `scene.ADDED`
        what is added to it (N m s/rad, N m). The gravity feed-forward stays that of the masses as built: a controller
        knows no others."""

    @abstractmethod
    def params(self) -> dict[str, Tensor]:
        """What `set_param` was last given, `asset.param` -> (B,)."""

    @abstractmethod
    def finite(self) -> Tensor:
        """(B,) bool: False where the state holds NaN or has exploded."""

    def forward(self) -> None:  # noqa: B027 - most engines derive what they need when it is asked for
        """Bring derived quantities up to date after a write outside `step`."""

    def contact_force(self, sensor: str) -> Tensor:
        """(B, 3) N, net force on the sensor's body, world frame."""
        raise ValueError(f"{type(self).__name__} has no contact sensors")

    def render(self, camera: str, env_ids: Sequence[int], film: tuple[int, int] | None = None) -> np.ndarray:
        """(n, H, W, 3) uint8: at the camera's size and fast, as a policy sees it; with `film` (height,
        width), as a person does, with the markers and whatever shadows the engine has."""
        raise ValueError(f"{type(self).__name__} has no cameras")

    def images(self, cameras: Sequence[str], env_ids: Sequence[int]) -> dict[str, Tensor]:
        """`render` of several cameras, each (n, H, W, 3) uint8 on `device`; the tensors are the caller's to keep."""
        return {name: torch.from_numpy(self.render(name, env_ids)).to(self.device) for name in cameras}

    def set_look(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Change how the masked environments look in pictures from now on, to numbers (B, n) that `sim.looks` explains
        by name. No physics changes. ValueError for a name that the scene or the engine does not have."""
        raise ConfigError(f"{type(self).__name__} has no looks to change; use backend=mujoco")

    def looks(self) -> dict[str, Tensor]:
        """What `set_look` was last given, name -> (B, n)."""
        return {}

    def depth(self, camera: str, env_ids: Sequence[int]) -> np.ndarray:
        """(n, H, W) float32, metres along the camera's optical axis, infinity where it sees nothing; exact, as no real
        camera is."""
        raise ValueError(f"{type(self).__name__} measures no depth; use backend=mujoco")

    def set_marker(self, marker: str, pose: Tensor) -> None:  # noqa: B027 - not every engine draws
        """Draw a scene marker at (B, 7) from now on."""

    def jacobian(self, asset: str, link: str) -> Tensor:
        """(B, 6, J) of a link, base frame."""
        spec = self.scene.robots[asset].spec
        chain = self._chains.setdefault((asset, link), Chain(spec.urdf, link, spec.joint_names, self.device))
        return chain.pose_and_jacobian(self.joint_pos(asset))[1]

    def close(self) -> None:  # noqa: B027 - nothing to free by default
        """Free what the engine holds."""
