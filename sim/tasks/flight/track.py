"""Follow a trajectory with a quadrotor."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robolearn import trajectories
from robolearn.config import ConfigError, register
from robolearn.spec import Field, TermSpec
from robolearn.state import SceneState
from robolearn.trajectories import Harmonics
from sim.backends.base import Backend
from sim.randomize import RandomizeCfg
from sim.tasks.flight.base import FlightCfg, FlightTask, published_randomization

KINDS = ("circle", "figure_eight", "random")


@dataclass
class CrazyflieTrackCfg(FlightCfg):
    name: str = "crazyflie_track"
    physics_dt_s: float = 0.002
    decimation: int = 5
    episode_length_s: float = 7.5
    steady_s: float = 5.5
    integral_limit_ms: float = 0.3
    start_position_m: float = 0.1
    start_velocity_mps: float = 0.3
    start_rates_radps: float = 0.5
    start_tilt_rad: float = 0.3
    trajectory: str = "mixed"
    """circle, figure_eight, random, or mixed: a third of each."""
    speed_mps: float = 1.8
    """Of circles, and the most of random trajectories in an axis."""
    size_m: float = 1.0
    """Half the length of figures; the radius of circles is half of it."""
    period_s: float = 5.5
    """Of a figure-eight."""
    preview: int = 5
    """Positions ahead that the policy sees, `preview_step_s` apart."""
    preview_step_s: float = 0.1
    variants: int = 384
    """Trajectories in the table, with phases (and random ones with shapes) of their own."""
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "alive": 2.0, "position_squared": -5.0, "position": -2.0, "tilt": 0.0, "velocity": 0.0,
            "action": -0.005, "action_change": -0.02,
        }
    )  # fmt: skip
    randomize: RandomizeCfg = field(default_factory=published_randomization)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trajectory not in (*KINDS, "mixed"):
            raise ConfigError(f"task.trajectory must be mixed, {', '.join(KINDS)}; got {self.trajectory}")
        for name in ("speed_mps", "size_m", "period_s", "preview_step_s", "preview", "variants"):
            if not getattr(self, name) > 0:
                raise ValueError(f"task.{name} must be positive, got {getattr(self, name)}")


@register("task", "crazyflie_track", CrazyflieTrackCfg)
class CrazyflieTrack(FlightTask):
    """## Description
    A Crazyflie follows a circle, a lying figure-eight (2 x 1 m in 5.5 s) or a random smooth trajectory, by roll, pitch,
    yaw rate and thrust at 100 Hz through a model of its firmware (500 Hz) and its radio link. The policy sees its
    errors of position (and their integral) and velocity, the trajectory's acceleration and its next half second, its
    rotation, rates and last four actions.

    ## Randomisation
    Trajectory and phase; starts near it (0.1 m, 0.3 m/s, 0.3 rad); the vehicle, disturbances, trim and noise as in
    `crazyflie_hover`.

    ## Success
    Never further than 0.6 m away, each axis. `steady_error_m` is the RMS distance over the last 5.5 s.
    """

    cfg: CrazyflieTrackCfg
    fused = True
    eye = (-1.2, -1.7, 1.5)

    def _velocity_term(self) -> TermSpec:
        return TermSpec(Field("velocity", (3,), "m/s", "world"), "velocity_error", {"command": "goal"})

    def _ahead(self) -> list[TermSpec]:
        ahead = {"command": "ahead", "step_s": self.cfg.preview_step_s}
        return [
            TermSpec(Field("acceleration", (3,), "m/s2", "world"), "acceleration", {"command": "goal"}, sensed=False),
            TermSpec(Field("ahead", (3 * self.cfg.preview,), "m", "world"), "preview", ahead),
        ]

    def setup(self, backend: Backend, generator: torch.Generator) -> None:
        super().setup(backend, generator)
        cfg, device = self.cfg, generator.device
        self.stride = max(1, round(cfg.preview_step_s / cfg.step_dt_s))
        steps = round(cfg.episode_length_s / cfg.step_dt_s) + cfg.preview * self.stride + 2
        rows = torch.stack([self._row(i, steps) for i in range(cfg.variants)])
        self.table = rows.to(device)
        self.variant = torch.zeros(backend.num_envs, dtype=torch.long, device=device)
        self._offsets = self.stride * torch.arange(1, cfg.preview + 1, device=device)
        self._look()

    def _row(self, i: int, steps: int) -> Tensor:
        cfg = self.cfg
        kind = cfg.trajectory if cfg.trajectory != "mixed" else KINDS[i % len(KINDS)]
        row = trajectories.table(self._trajectory(kind, i), steps, cfg.step_dt_s)
        trajectories.require_feasible(row, self.vehicle, cfg.tilt_max_rad, kind)
        return row

    def _trajectory(self, kind: str, i: int) -> Harmonics:
        cfg, generator = self.cfg, torch.Generator().manual_seed(i)
        phase, sign = (torch.rand(2, generator=generator) * torch.tensor([math.tau, 2.0])).tolist()
        centre, size = torch.tensor(self.origin), cfg.size_m
        sign = 1.0 if sign < 1.0 else -1.0
        if kind == "circle":
            return trajectories.circle(centre, size / 2, sign * math.pi * size / cfg.speed_mps, phase)
        if kind == "figure_eight":
            return trajectories.figure_eight(centre, 2 * size, size, sign * cfg.period_s, phase)
        box = (size, size, 0.3 * size)
        return trajectories.random_smooth(centre, box, cfg.speed_mps, generator)

    def reset(self, backend: Backend, mask: Tensor, generator: torch.Generator) -> None:
        drawn = torch.randint(len(self.table), self.variant.shape, generator=generator, device=mask.device)
        self.variant = torch.where(mask, drawn, self.variant)
        self.age = self.age * ~mask
        self._look()
        super().reset(backend, mask, generator)

    def _follow(self, backend: Backend) -> None:
        self._look()
        self._mark(backend)

    def _look(self) -> None:
        """The goal (B, 9) now, and the positions ahead (B, 3 preview)."""
        self.goal = self.table[self.variant, self.age]
        later = (self.age[:, None] + self._offsets).clamp_max(self.table.shape[1] - 1)
        self.ahead = self.table[self.variant[:, None], later, :3].flatten(1)

    def scene_state(self, backend: Backend) -> SceneState:
        return SceneState(commands={"goal": self.goal, "ahead": self.ahead})

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | {"variant": self.variant}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.variant = state["variant"]
        self._look()
