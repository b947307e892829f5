"""What flight tasks share: the scene, the start, the observation of a quadrotor, and what went wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robolearn.config import ConfigError
from robolearn.env import Env
from robolearn.rotations import from_rotation_vector, quat_apply
from robolearn.spec import ActionSpec, Field, ObservationSpec, QuadrotorSpec, TermSpec
from robolearn.state import RobotState, SceneState
from sim.backends.base import Backend, BackendCfg
from sim.randomize import RandomizeCfg, uniform
from sim.scene import CameraCfg, FrameMarker, RobotCfg, SceneCfg
from sim.task import ActionState, Task, TaskCfg


@dataclass
class FlightCfg(TaskCfg):
    episode_length_s: float = 5.0
    robot: str = "crazyflie"
    action: str = "attitude"
    """Or rotor_speed."""
    tilt_max_rad: float = 0.6
    """Attitude actions: what one means; yaw rate and thrust likewise."""
    yaw_rate_max_radps: float = 2.0
    thrust_share: float = 0.8
    """Of the weight, up and down from hovering."""
    action_history: int = 4
    integral_limit_ms: float = 0.0
    """Above 0 the policy sees the integral of its position error, clamped to +-this (m s)."""
    start_position_m: float = 0.2
    """Starts are uniform, each axis, about where the task begins."""
    start_velocity_mps: float = 1.0
    start_rates_radps: float = 1.0
    start_tilt_rad: float = math.pi / 2
    """Rotations are uniform (over SO(3)) among those of at most this angle."""
    level_start: float = 0.0
    """Share of the episodes that start at rest, level, at the origin of the starts."""
    far_m: float = 0.6
    """The episode ends where the error is larger than this, in any axis."""
    steady_s: float = 2.0
    """The steady error is that of the episode's end, this long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action not in ("attitude", "rotor_speed"):
            raise ConfigError(f"task.action must be attitude or rotor_speed, got {self.action}")
        if self.action_history < 1 or not self.far_m > 0.0 or not 0.0 <= self.level_start <= 1.0:
            raise ValueError("task.action_history and far_m must be positive, level_start in [0, 1]")
        shares = ("yaw_rate_max_radps", "thrust_share", "steady_s")
        starts = ("start_position_m", "start_velocity_mps", "start_rates_radps", "integral_limit_ms")
        for name in (*shares, *starts):
            value = getattr(self, name)
            if not (0.0 <= value < math.inf and (value > 0.0 or name in starts)):
                must = "at least 0" if name in starts else "above 0"
                raise ValueError(f"task.{name} must be finite and {must}, got {value}")
        if not 0.0 < self.start_tilt_rad <= math.pi or not 0.0 < self.tilt_max_rad < math.pi / 2:
            raise ValueError("task.start_tilt_rad must be in (0, pi], tilt_max_rad in (0, pi/2)")


class FlightTask(Task):
    """`goal` (B, 9) is where the quadrotor should be, m, its velocity, m/s, and its acceleration, m/s2."""

    cfg: FlightCfg
    fused = False
    """Whether sim/vehicles/period.py does what this very class does. Not inherited: a subclass may change a hook."""

    def __init__(self, cfg: FlightCfg):
        super().__init__(cfg, robot=cfg.robot)
        if self.robot.quadrotor is None:
            raise ConfigError(f"task {cfg.name} needs a quadrotor, {cfg.robot} is none")
        self.vehicle: QuadrotorSpec = self.robot.quadrotor
        self._refuse_slow_link()

    @classmethod
    def fast_env(cls, cfg: TaskCfg, backend: BackendCfg, *args: Any) -> Env | None:
        """The whole period as one kernel, unless the configuration asks for what it does not know."""
        assert isinstance(cfg, FlightCfg)
        if backend.name != "quadrotor" or not vars(cls).get("fused", False):
            return None
        from sim.vehicles.flight import FusedFlight, lacks

        return None if lacks(cfg) else FusedFlight(cfg, backend, *args)

    def _refuse_slow_link(self) -> None:
        firmware, cfg = self.vehicle.firmware, self.cfg
        if cfg.action != "attitude":
            return
        if firmware is None:
            raise ConfigError(f"{self.robot.name} has no firmware for attitude actions; use task.action=rotor_speed")
        if abs(firmware.rate_hz * cfg.physics_dt_s - 1.0) > 1e-6:  # the firmware runs once a sub-step
            raise ConfigError(f"task.physics_dt_s must be {1.0 / firmware.rate_hz:g}, the firmware's period")
        longest = firmware.link_delay_s * cfg.randomize.link_delay[1]
        if longest >= cfg.step_dt_s:
            raise ConfigError(f"a link delay of {longest:.4f} s is not below the control period of {cfg.step_dt_s:.4f} "
                              "s; put whole periods into task.randomize.action_delay")  # fmt: skip

    # --- specifications -------------------------------------------------------------------------------------

    def scene(self) -> SceneCfg:
        x, y, z = self.origin
        robot = RobotCfg(self.robot, (x, y, z, 0.0, 0.0, 0.0, 1.0))
        dx, dy, dz = self.eye
        view = CameraCfg((x + dx, y + dy, z + dz), (x, y, z), fov_deg=40.0, width=320, height=240)
        return SceneCfg({"robot": robot}, cameras={"view": view}, markers={"goal": FrameMarker(0.05)},
                        physics_dt_s=self.cfg.physics_dt_s)  # fmt: skip

    origin = (0.0, 0.0, 1.0)
    """Where the task begins, m."""
    eye = (-0.55, -0.65, 0.7)
    """The camera's place from there, m."""

    def action_spec(self) -> ActionSpec:
        cfg = self.cfg
        if cfg.action == "rotor_speed":
            half = 0.5 * self.vehicle.max_speed_radps
            hover = [self.vehicle.hover_speed_radps / half - 1.0] * 4
            names = self.robot.joint_names
            return ActionSpec("rotor_speed", names, "rad/s", "rotor", (half,) * 4, params={"rest": hover})
        weight = 9.81 * self.vehicle.mass_kg
        scale = (cfg.tilt_max_rad, cfg.tilt_max_rad, cfg.yaw_rate_max_radps, cfg.thrust_share * weight)
        return ActionSpec("attitude", ("roll", "pitch", "yaw_rate", "thrust"), "rad, rad, rad/s, N", "base", scale)

    def observation_spec(self) -> ObservationSpec:
        goal, cfg = {"command": "goal"}, self.cfg
        state = (
            TermSpec(Field("position_error", (3,), "m", "world"), "position_error", goal),
            TermSpec(Field("rotation", (9,), "", "world"), "base_rotation"),
            self._velocity_term(),
            TermSpec(Field("rates", (3,), "rad/s", "base"), "base_rates"),
        )
        policy = list(state)
        if cfg.integral_limit_ms:
            field_ = Field("position_integral", (3,), "m s", "world")
            policy.append(TermSpec(field_, "position_error", goal, integral_limit=cfg.integral_limit_ms))
        policy += self._ahead()
        last = Field("last_action", (self.action_spec().dim,))
        policy.append(TermSpec(last, "last_action", sensed=False, history=cfg.action_history))
        force = 0.05 * 9.81 * self.vehicle.mass_kg
        hidden = (
            TermSpec(Field("disturbance", (6,), "m g / 20 N, m g / 10,000 N m", "world"), "disturbance",
                     {"force": force, "torque": 0.002 * force}, privileged=True),
            TermSpec(Field("rotor_speed", (4,), "full speed", "rotor"), "rotor_speed",
                     {"full": self.vehicle.max_speed_radps}, privileged=True),
        )  # fmt: skip
        return ObservationSpec({"policy": tuple(policy), "critic": (*state, *self._ahead(), *hidden)})

    def _velocity_term(self) -> TermSpec:
        return TermSpec(Field("velocity", (3,), "m/s", "world"), "base_velocity")

    def _ahead(self) -> list[TermSpec]:
        """What is seen of the goal's future."""
        return []

    # --- the episode ----------------------------------------------------------------------------------------

    def setup(self, backend: Backend, generator: torch.Generator) -> None:
        b, device = backend.num_envs, generator.device
        self.goal = torch.tensor([*self.origin, *[0.0] * 6], device=device).repeat(b, 1)
        self.age, self._count = (torch.zeros(b, dtype=torch.long, device=device) for _ in range(2))
        self._square = torch.zeros(b, device=device)
        self._steady_from = round((self.cfg.episode_length_s - self.cfg.steady_s) / self.cfg.step_dt_s)
        hover = torch.full((b, 4), self.vehicle.hover_speed_radps, device=device)
        self._hover = hover, torch.zeros_like(hover)

    def reset(self, backend: Backend, mask: Tensor, generator: torch.Generator) -> None:
        self.age, self._count, self._square = self.age * ~mask, self._count * ~mask, self._square * ~mask
        pose, velocity = self.starts(len(mask), generator)
        pose[:, :3] += self.goal[:, :3]
        velocity[:, :3] += self.goal[:, 3:6]
        backend.write_joints(self.asset, self._hover[1], self._hover[0], mask)
        backend.write_pose(self.asset, pose, velocity, mask)
        self._mark(backend)

    def starts(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Poses (n, 7) about the origin, and velocities (n, 6), world frame; rotors turn at hover speed."""
        cfg, device = self.cfg, generator.device
        turn = from_rotation_vector(random_rotation_vector(n, cfg.start_tilt_rad, generator))
        position = uniform((n, 3), -cfg.start_position_m, cfg.start_position_m, generator)
        linear = uniform((n, 3), -cfg.start_velocity_mps, cfg.start_velocity_mps, generator)
        rates = uniform((n, 3), -cfg.start_rates_radps, cfg.start_rates_radps, generator)
        pose = torch.cat((position, turn), dim=1)
        velocity = torch.cat((linear, quat_apply(turn, rates)), dim=1)
        level = (torch.rand(n, generator=generator, device=device) < cfg.level_start)[:, None]
        at_rest = torch.tensor([0.0] * 6 + [1.0], device=device).expand_as(pose)
        return torch.where(level, at_rest, pose), velocity * ~level

    def advance(self, backend: Backend) -> None:
        self.age = self.age + 1
        self._follow(backend)
        error = backend.pose(self.asset)[:, :3] - self.goal[:, :3]
        steady = self.age > self._steady_from
        self._square = self._square + (error * error).sum(1) * steady
        self._count = self._count + steady

    def _follow(self, backend: Backend) -> None:
        """Move the goal on."""

    def _mark(self, backend: Backend) -> None:
        level = torch.tensor([0.0, 0.0, 0.0, 1.0], device=self.goal.device).expand(len(self.goal), 4)
        backend.set_marker("goal", torch.cat((self.goal[:, :3], level), dim=1))

    def scene_state(self, backend: Backend) -> SceneState:
        return SceneState(commands={"goal": self.goal})

    def rewards(self, robot: RobotState, scene: SceneState, action: ActionState) -> dict[str, Tensor]:
        error, pose, rest = self._error(robot, scene), robot.root_pose, self._rest_action(action)
        squared = (error * error).sum(1)
        change = action.applied - action.previous
        terms = {
            "alive": torch.ones_like(squared),
            "position_squared": squared,
            "position": torch.sqrt(squared + 1e-8),
            "tilt": 1.0 - pose[:, 6] ** 2,
            "velocity": ((robot.root_vel[:, :3] - scene.commands["goal"][:, 3:6]) ** 2).sum(1),
            "action": ((action.applied - rest) ** 2).sum(1),
            "action_change": (change * change).sum(1),
        }
        inside = ~self.terminated(robot, scene)
        return {k: v * inside for k, v in terms.items()}

    def _rest_action(self, action: ActionState) -> Tensor:
        if self.cfg.action == "attitude":
            return torch.zeros_like(action.applied[:1])
        rest = 2.0 * self.vehicle.hover_speed_radps / self.vehicle.max_speed_radps - 1.0
        return torch.full_like(action.applied[:1], rest)

    def _error(self, robot: RobotState, scene: SceneState) -> Tensor:
        return robot.root_pose[:, :3] - scene.commands["goal"][:, :3]

    def terminated(self, robot: RobotState, scene: SceneState) -> Tensor:
        return ~(self._error(robot, scene).abs() <= self.cfg.far_m).all(1)

    def metrics(self, robot: RobotState, scene: SceneState) -> dict[str, Tensor]:
        now = self._error(robot, scene).norm(dim=1)
        steady = torch.where(self._count > 0, torch.sqrt(self._square / self._count.clamp_min(1)), now)
        return {"success": ~self.terminated(robot, scene), "position_error_m": now, "steady_error_m": steady}

    def state_dict(self) -> dict[str, Tensor]:
        return {"goal": self.goal, "age": self.age, "count": self._count, "square": self._square}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.goal, self.age = state["goal"], state["age"]
        self._count, self._square = state["count"], state["square"]


def random_rotation_vector(n: int, largest: float, generator: torch.Generator) -> Tensor:
    """(n, 3) rad: uniform over SO(3) among the rotations of at most `largest`. The angle's density is 1 - cos
    (Miles 1965), inverted by a few Newton steps."""
    device = generator.device
    axis = torch.randn(n, 3, generator=generator, device=device)
    share = torch.rand(n, 1, generator=generator, device=device) * (largest - math.sin(largest))
    angle = (6.0 * share) ** (1.0 / 3.0)  # of angle - sin(angle) = share, for small angles
    for _ in range(4):
        slope = (1.0 - torch.cos(angle)).clamp_min(1e-6)
        angle = (angle - (angle - torch.sin(angle) - share) / slope).clamp(0.0, largest)
    return axis / axis.norm(dim=1, keepdim=True) * angle


def paper_randomization() -> RandomizeCfg:
    """Learning to Fly's noise and disturbance (Eschmann et al. 2023, table 1); neither drag nor sag."""
    weight = 0.027 * 9.81
    return RandomizeCfg(
        drag=(0.0, 0.0), sag=(0.0, 0.0), disturbance_force_n=weight / 20, disturbance_torque_nm=weight / 10_000,
        observation_noise={"position_error": 0.001, "rotation": 0.001, "velocity": 0.002, "rates": 0.002},
    )  # fmt: skip


def published_randomization() -> RandomizeCfg:
    """Scales of the Crazyflie's parameters that cover the published sets (robolearn/robots/crazyflie.py), trim, and the
    paper's noise and disturbance; for policies that are to leave the simulator."""
    return replace(
        paper_randomization(), mass=(1.0, 1.26), inertia=(1.0, 4.3), spin_up=(0.17, 1.0), spin_down=(0.17, 1.66),
        thrust=(0.9, 1.1), drag=(0.0, 1.5), sag=(0.0, 1.0), link_delay=(0.0, 2.0), actuator_trim=0.03,
    )  # fmt: skip
