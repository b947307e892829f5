"""What differs from robot to robot and from episode to episode: parameters of the world, and an imperfect
sensor and actuator between it and the policy. All draws are for the whole batch and then masked, so that an
environment's reset never changes another's random numbers, and nothing waits for the host."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor

from robolearn.errors import ConfigError, unknown
from robolearn.spec import ObservationSpec
from sim.backends.base import Backend
from sim.scene import ADDED, Param, unchanged

Range = tuple[float, float]
PARAMS: tuple[Param, ...] = get_args(Param)
ABSENT_AT_ZERO = ("drag", "sag", "link_delay")
"""A quadrotor flies without these; a scale of zero is then allowed."""


@dataclass
class RandomizeCfg:
    """Ranges are uniform and drawn anew at each reset; the defaults change nothing. Those of parameters are scales of
    the robot's specification, where nothing else is said."""

    mass: Range = (1.0, 1.0)
    """Scale of the masses of all links of the robot."""
    inertia: Range = (1.0, 1.0)
    friction: Range = (1.0, 1.0)
    """Of the robot's surfaces against the ground; where it touches an object, the object's friction counts."""
    kp: Range = (1.0, 1.0)
    """Gains and trim have no effect on joints that are controlled by effort."""
    kd: Range = (1.0, 1.0)
    effort_limit: Range = (1.0, 1.0)
    joint_damping: Range = (0.0, 0.0)
    """Not a scale: viscous friction in N m s/rad, added to every joint of the arm."""
    joint_friction: Range = (0.0, 0.0)
    """Not a scale: Coulomb friction in N m, added to every joint of the arm."""
    thrust: Range = (1.0, 1.0)
    """Of a quadrotor's rotors at the same speed; what follows is likewise a quadrotor's."""
    reaction_torque: Range = (1.0, 1.0)
    spin_up: Range = (1.0, 1.0)
    """Time constant of the rotors."""
    spin_down: Range = (1.0, 1.0)
    drag: Range = (1.0, 1.0)
    sag: Range = (1.0, 1.0)
    link_delay: Range = (1.0, 1.0)
    disturbance_force_n: float = 0.0
    """Standard deviation, each axis, of a force on the base (world frame) that stays for a whole episode."""
    disturbance_torque_nm: float = 0.0
    initial_joint_pos: float = 0.0
    """Each joint starts at most this far from its default, rad or m."""
    initial_joint_vel: float = 0.0
    actuator_trim: float = 0.0
    """Standard deviation of a constant offset between commanded and reached set-point, rad or m; of roll and pitch for
    a quadrotor."""
    action_delay: tuple[int, int] = (0, 0)
    """Control periods, both ends included."""
    observation_delay: tuple[int, int] = (0, 0)
    observation_dropout: float = 0.0
    """Probability that a period's measurement does not arrive and the last one is seen again."""
    observation_noise: dict[str, float] = field(default_factory=dict)
    """Standard deviation by term name, in the term's unit."""
    push_force_n: float = 0.0
    """Standard deviation, each axis, of a force on the end effector."""
    push_probability: float = 0.02
    """Chance a period that a push begins; it lasts `push_periods`."""
    push_periods: int = 5

    def __post_init__(self) -> None:
        for param in PARAMS:
            low, high = getattr(self, param)
            zero = param in (*ABSENT_AT_ZERO, *ADDED)
            must = f"0 {'<=' if zero else '<'} low <= high"
            _demand((0.0 if zero else 1e-6) <= low <= high < math.inf, param, must, f"{low}, {high}")
        for delay in ("action_delay", "observation_delay"):
            low, high = getattr(self, delay)
            _demand(0 <= low <= high, delay, "0 <= low <= high", f"{low}, {high}")
        sizes = {f"observation_noise.{k}": v for k, v in self.observation_noise.items()}
        sized = ("initial_joint_pos", "initial_joint_vel", "actuator_trim", "push_force_n")
        for size in (*sized, "disturbance_force_n", "disturbance_torque_nm"):
            sizes[size] = getattr(self, size)
        for name, value in sizes.items():
            _demand(0.0 <= value < math.inf, name, "at least 0", value)
        dropout, pushed = self.observation_dropout, self.push_probability
        _demand(0.0 <= dropout < 1.0, "observation_dropout", "in [0, 1)", dropout)
        _demand(0.0 <= pushed <= 1.0, "push_probability", "in [0, 1]", pushed)
        _demand(self.push_periods >= 1, "push_periods", "at least 1", self.push_periods)

    @property
    def disturbed(self) -> bool:
        return self.disturbance_force_n > 0.0 or self.disturbance_torque_nm > 0.0

    @property
    def params(self) -> tuple[Param, ...]:
        """The parameters that vary."""
        return tuple(p for p in PARAMS if tuple(getattr(self, p)) != (unchanged(p),) * 2)


def _demand(holds: bool, name: str, must: str, got: object) -> None:
    if not holds:
        raise ValueError(f"randomize.{name} must be {must}, got {got}")


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draws from [low, high); none are made where there is nothing to choose."""
    if low == high:
        return torch.full(shape, low, device=generator.device)
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def draw_params(backend: Backend, asset: str, cfg: RandomizeCfg, mask: Tensor, generator: torch.Generator) -> None:
    """New parameters for the masked environments."""
    for param in cfg.params:
        low, high = getattr(cfg, param)
        backend.set_param(asset, param, uniform((backend.num_envs,), low, high, generator), mask)


class Delay:
    """Hands out what was put in d periods ago, d drawn for each environment at its reset."""

    def __init__(self, limits: tuple[int, int], num_envs: int, dim: int, device: torch.device):
        self.low, self.high = limits
        self.steps = torch.zeros(num_envs, dtype=torch.long, device=device)
        self.line = torch.zeros(num_envs, self.high + 1, dim, device=device)
        self.fresh = torch.ones(num_envs, dtype=torch.bool, device=device)

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        if self.high:
            drawn = torch.randint(
                self.low, self.high + 1, self.steps.shape, generator=generator, device=self.steps.device
            )
            self.steps = torch.where(mask, drawn, self.steps)
            self.fresh = self.fresh | mask

    def __call__(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Put in value (B, n), get the delayed one; an environment outside mask neither takes nor ages."""
        if not self.high:
            return value
        moved = torch.cat((value[:, None], self.line[:, :-1]), dim=1)
        moved = torch.where(self.fresh[:, None, None], value[:, None].expand_as(moved), moved)
        self.line = moved if mask is None else torch.where(mask[:, None, None], moved, self.line)
        self.fresh = torch.zeros_like(self.fresh) if mask is None else self.fresh & ~mask
        return self.line.gather(1, self.steps[:, None, None].expand(-1, 1, value.shape[1])).squeeze(1)


class Sensor:
    """Noise, delay and drop-outs on the sensed terms of the `policy` group; privileged groups stay true."""

    group = "policy"

    def __init__(self, spec: ObservationSpec, cfg: RandomizeCfg, num_envs: int, generator: torch.Generator):
        device, terms = generator.device, spec.terms(self.group)
        self.generator, self.dropout = generator, cfg.observation_dropout
        names = [t.field.name for t in terms]
        for name in cfg.observation_noise:
            if name not in names:
                raise ConfigError("randomize.observation_noise: " + unknown("term", name, names))
        vectors = [t for t in terms if t.field.kind == "vector"]
        std = [cfg.observation_noise.get(t.field.name, 0.0) for t in vectors for _ in range(t.field.size)]
        sensed = [t.sensed for t in vectors for _ in range(t.field.size)]
        self.std, self.sensed = torch.tensor(std, device=device), torch.tensor(sensed, device=device)
        self.noisy = any(std)
        self.delay = Delay(cfg.observation_delay, num_envs, len(std), device)
        self.last = torch.zeros(num_envs, len(std), device=device)
        self.fresh = torch.ones(num_envs, dtype=torch.bool, device=device)
        self.active = self.noisy or self.delay.high > 0 or self.dropout > 0.0

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        self.delay.reset(mask, generator)
        self.fresh = self.fresh | mask

    def __call__(self, frames: dict[str, Tensor], mask: Tensor | None = None,
                 generator: torch.Generator | None = None) -> dict[str, Tensor]:  # fmt: skip
        """What the policy gets to see of this period's frames; masked as in `Delay`. `generator` stands in
        for the sensor's own, which must draw once a period and no more."""
        if not self.active:
            return frames
        true, generator = frames[self.group], generator or self.generator
        seen = true + self.std * torch.randn(true.shape, generator=generator, device=true.device)
        seen = self.delay(seen, mask)
        if self.dropout:
            draw = torch.rand(len(true), generator=generator, device=true.device)
            lost = (draw < self.dropout) & ~self.fresh
            seen = torch.where(lost[:, None], self.last, seen)
            self.last = seen if mask is None else torch.where(mask[:, None], seen, self.last)
            self.fresh = torch.zeros_like(self.fresh) if mask is None else self.fresh & ~mask
        return frames | {self.group: torch.where(self.sensed, seen, true)}


class Pushes:
    """Random forces on one link that begin by chance and last a few periods."""

    def __init__(self, cfg: RandomizeCfg, num_envs: int, generator: torch.Generator):
        self.cfg, self.generator = cfg, generator
        self.left = torch.zeros(num_envs, dtype=torch.long, device=generator.device)
        self.wrench = torch.zeros(num_envs, 6, device=generator.device)

    def reset(self, mask: Tensor) -> None:
        if self.cfg.push_force_n:
            self.left, self.wrench = self.left * ~mask, self.wrench * ~mask[:, None]

    def __call__(self) -> Tensor:
        """This period's wrench (B, 6)."""
        device = self.left.device
        starts = torch.rand(self.left.shape, generator=self.generator, device=device) < self.cfg.push_probability
        force = torch.randn(self.wrench.shape, generator=self.generator, device=device) * self.cfg.push_force_n
        force[:, 3:] = 0.0
        starts &= self.left == 0
        self.wrench = torch.where(starts[:, None], force, self.wrench) * (starts | (self.left > 0))[:, None]
        self.left = torch.where(starts, self.cfg.push_periods - 1, (self.left - 1).clamp_min(0))
        return self.wrench


def draw_disturbance(cfg: RandomizeCfg, num_envs: int, generator: torch.Generator) -> Tensor:
    """Forces and torques (B, 6) for an episode."""
    size = torch.tensor([cfg.disturbance_force_n] * 3 + [cfg.disturbance_torque_nm] * 3, device=generator.device)
    return size * torch.randn(num_envs, 6, generator=generator, device=generator.device)
