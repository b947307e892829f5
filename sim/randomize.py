"""What differs from robot to robot and from episode to episode: parameters of the world, and an imperfect
sensor and actuator between it and the policy. All draws are for the whole batch and then masked, so that an
environment's reset never changes another's random numbers, and nothing waits for the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_args

import torch
from torch import Tensor

from robolearn.errors import ConfigError, unknown
from robolearn.spec import ObservationSpec
from sim.backends.base import Backend
from sim.looks import GROUND, PATTERNS, names
from sim.scene import ADDED, Param, unchanged

Range = tuple[float, float]
PARAMS: tuple[Param, ...] = get_args(Param)
ABSENT_AT_ZERO = ("drag", "sag", "link_delay")
"""A quadrotor flies without these; a scale of zero is then allowed."""


@dataclass
class LooksCfg:
    """How much the pictures of one environment differ from another's; drawn at each reset, and the defaults change
    nothing. Patterns cost some 5 to 15 % of a picture's time without a GPU, the others next to nothing."""

    light_turn_rad: float = 0.0
    """The light comes from a direction at most this far from its own, about each axis."""
    light_intensity: Range = (1.0, 1.0)
    light_colour: float = 0.0
    """Red, green and blue of the light differ by at most this share, each on its own."""
    object_colour: float = 0.0
    """Share of a random colour in every object's own; 1 leaves nothing of it. Tables are objects."""
    robot_colour: float = 0.0
    ground_colour: float = 0.0
    patterns: float = 0.0
    """Probability that an object, or the ground, has checks, a gradient or specks on it."""
    camera_position_m: float = 0.0
    """Cameras that are observed are shifted by at most this along each axis."""
    camera_turn_rad: float = 0.0
    """They are turned by at most this about each axis."""
    camera_fov_deg: float = 0.0

    def __post_init__(self) -> None:
        most = {"light_turn_rad": 1.0, "camera_turn_rad": math.pi, "camera_fov_deg": 30.0, "camera_position_m": 1e3}
        for name in (f.name for f in fields(self) if f.name != "light_intensity"):
            size = getattr(self, name)
            _demand(0.0 <= size <= most.get(name, 1.0), f"looks.{name}", f"in [0, {most.get(name, 1.0):g}]", size)
        low, high = self.light_intensity
        _demand(0.0 <= low <= high < math.inf, "looks.light_intensity", "0 <= low <= high", f"{low}, {high}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of `sim.looks`, what varies."""
        light = self.light_turn_rad or self.light_colour or self.light_intensity != (1.0, 1.0)
        tint = self.object_colour or self.robot_colour or self.ground_colour
        camera = self.camera_position_m or self.camera_turn_rad or self.camera_fov_deg
        varies = {"light": light, "tint": tint, "pattern": self.patterns, "camera": camera}
        return tuple(kind for kind, on in varies.items() if on)


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
    looks: LooksCfg = field(default_factory=LooksCfg)

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


def refuse_looks(backend: Backend, cfg: LooksCfg, cameras: Sequence[str]) -> None:
    """ConfigError where these looks ask for more than the engine can draw, or than these cameras can take."""
    missing = sorted(set(cfg.kinds) - backend.capabilities.looks)
    if missing:
        engine = type(backend).__name__.lower()
        raise ConfigError(f"backend {engine} does not vary {', '.join(missing)} (randomize.looks); use backend=mujoco")
    for name in cameras:
        fov = backend.scene.cameras[name].fov_deg
        most = min(fov, 180.0 - fov)
        if not cfg.camera_fov_deg < most:
            raise ConfigError(f"randomize.looks.camera_fov_deg must be below {most:g} for camera '{name}', whose "
                              f"fov_deg is {fov:g}, got {cfg.camera_fov_deg:g}")  # fmt: skip


def draw_looks(backend: Backend, cfg: LooksCfg, cameras: Sequence[str], mask: Tensor,
               generator: torch.Generator) -> None:  # fmt: skip
    """New looks for the masked environments, of all assets and of these cameras."""
    for kind in cfg.kinds:
        for name in names(backend.scene)[kind]:
            of = name.partition(".")[2]
            if kind != "camera" or of in cameras:
                draw = torch.rand(backend.num_envs, 7, generator=generator, device=generator.device)
                backend.set_look(name, _look(kind, of, draw, cfg, backend), mask)


def _look(kind: str, of: str, draw: Tensor, cfg: LooksCfg, backend: Backend) -> Tensor:
    """Numbers of a look from draws (B, 7) in [0, 1)."""
    spread = 2.0 * draw - 1.0
    if kind == "light":
        low, high = cfg.light_intensity
        colour = (low + (high - low) * draw[:, 3:4]) * (1.0 + cfg.light_colour * spread[:, 4:7])
        return torch.cat((cfg.light_turn_rad * spread[:, :3], colour), dim=1)
    if kind == "tint":
        own = cfg.robot_colour if of in backend.scene.robots else cfg.object_colour
        share = cfg.ground_colour if of == GROUND else own
        return torch.cat((draw[:, :3], torch.full_like(draw[:, :1], share)), dim=1)
    if kind == "pattern":
        printed = 1 + (draw[:, :1] * (len(PATTERNS) - 1)).long()
        return torch.where(draw[:, 1:2] < cfg.patterns, printed, 0)
    size = [cfg.camera_position_m] * 3 + [cfg.camera_turn_rad] * 3 + [cfg.camera_fov_deg]
    return spread * torch.tensor(size, device=draw.device)


class Delay:
    """Hands out what was put in d periods ago, d drawn for each environment at its reset."""

    def __init__(self, limits: tuple[int, int], num_envs: int, dim: int, device: torch.device,
                 dtype: torch.dtype = torch.float32):  # fmt: skip
        self.low, self.high = limits
        self.steps = torch.zeros(num_envs, dtype=torch.long, device=device)
        self.line = torch.zeros(num_envs, self.high + 1, dim if self.high else 0, dtype=dtype, device=device)
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
    """Noise, delay and drop-outs on the sensed terms of the `policy` group; privileged groups stay true. Pictures come
    as late as the vector, and are lost with it; noise is for vectors."""

    group = "policy"

    def __init__(self, spec: ObservationSpec, cfg: RandomizeCfg, num_envs: int, generator: torch.Generator):
        device, terms = generator.device, spec.terms(self.group)
        self.generator, self.dropout = generator, cfg.observation_dropout
        vectors = [t for t in terms if t.field.kind == "vector"]
        names = [t.field.name for t in vectors]
        for name in cfg.observation_noise:
            if name not in names:
                raise ConfigError("randomize.observation_noise: " + unknown("term", name, names))
        std = [cfg.observation_noise.get(t.field.name, 0.0) for t in vectors for _ in range(t.field.size)]
        sensed = [t.sensed for t in vectors for _ in range(t.field.size)]
        self.std, self.sensed = torch.tensor(std, device=device), torch.tensor(sensed, device=device, dtype=torch.bool)
        self.noisy = any(std)
        self.delay = Delay(cfg.observation_delay, num_envs, len(std), device)
        self.last = torch.zeros(num_envs, len(std), device=device)
        self.fresh = torch.ones(num_envs, dtype=torch.bool, device=device)
        self.active = self.noisy or self.delay.high > 0 or self.dropout > 0.0
        late = [t.field for t in terms if t.field.kind == "image" and t.sensed and (self.delay.high or self.dropout)]
        self.pictures = {f"{self.group}/{f.name}": Shutter(cfg, num_envs, f.size, device) for f in late}

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        self.delay.reset(mask, generator)
        self.fresh = self.fresh | mask
        for picture in self.pictures.values():
            picture.delay.steps, picture.delay.fresh = self.delay.steps, picture.delay.fresh | mask

    def __call__(self, frames: dict[str, Tensor], mask: Tensor | None = None,
                 generator: torch.Generator | None = None) -> dict[str, Tensor]:  # fmt: skip
        """What the policy gets to see of this period's frames; masked as in `Delay`. `generator` stands in
        for the sensor's own, which must draw once a period and no more."""
        if not self.active:
            return frames
        generator, count = generator or self.generator, len(self.fresh)
        true = frames.get(self.group, self.last)  # without a vector, one of no numbers
        seen = true + self.std * torch.randn(true.shape, generator=generator, device=true.device)
        seen = self.delay(seen, mask)
        lost = torch.zeros_like(self.fresh)
        if self.dropout:
            draw = torch.rand(count, generator=generator, device=true.device)
            lost = (draw < self.dropout) & ~self.fresh
            seen = torch.where(lost[:, None], self.last, seen)
            self.last = seen if mask is None else torch.where(mask[:, None], seen, self.last)
            self.fresh = torch.zeros_like(self.fresh) if mask is None else self.fresh & ~mask
        out = {key: picture(frames[key], lost, mask) for key, picture in self.pictures.items()}
        if self.group in frames:
            out[self.group] = torch.where(self.sensed, seen, true)
        return frames | out

    def parts(self) -> dict[str, Any]:
        """What holds tensors of pictures, for a checkpoint."""
        held = {key.replace("/", "."): picture for key, picture in self.pictures.items()}
        return {f"picture.{k}": p for k, p in held.items()} | {f"picture_delay.{k}": p.delay for k, p in held.items()}


class Shutter:
    """Delay and drop-outs of one picture, `size` numbers; the delays and what is lost are given."""

    def __init__(self, cfg: RandomizeCfg, num_envs: int, size: int, device: torch.device):
        self.delay = Delay(cfg.observation_delay, num_envs, size, device, torch.uint8)
        kept = size if cfg.observation_dropout else 0
        self.last = torch.zeros(num_envs, kept, dtype=torch.uint8, device=device)

    def __call__(self, picture: Tensor, lost: Tensor, mask: Tensor | None) -> Tensor:
        """(B, H, W, 3), in and out."""
        seen = self.delay(picture.flatten(1), mask)
        if self.last.shape[1]:
            seen = torch.where(lost[:, None], self.last, seen)
            self.last = seen if mask is None else torch.where(mask[:, None], seen, self.last)
        return seen.view_as(picture)


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
