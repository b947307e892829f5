"""What a policy reads, what it commands and what robot it drives, as plain data that survives JSON.

No torch here: a specification is compared, printed and stored on machines that run no network.
Units are SI (m, rad, s, N, N m); quaternions are xyzw; frames are named in the fields.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Kind = Literal["vector", "image", "depth", "scan", "goal_image", "point_cloud"]
ControlMode = Literal["position", "velocity", "effort", "attitude"]

# The least value of a robot's numbers (NaN is below everything), and how a person says it.
LIMITS = {
    "lower": (-math.inf, "a number"),
    "upper": (-math.inf, "a number"),
    "velocity_limit": (sys.float_info.min, "finite and above 0"),
    "acceleration_limit": (sys.float_info.min, "finite and above 0"),
    "jerk_limit": (sys.float_info.min, "finite and above 0"),
    "effort_limit": (0.0, "finite and at least 0"),
    "kp": (0.0, "finite and at least 0"),
    "kd": (0.0, "finite and at least 0"),
    "default_joint_pos": (-sys.float_info.max, "finite"),
}


@dataclass(frozen=True)
class Field:
    """One named array, without the batch dimension.

    An image is (H, W, 3) uint8, a depth image (H, W) metres, a scan (rays,) metres. `low` and `high` bound every
    element, or each one when they have the array's length; None is unbounded.
    """

    name: str
    shape: tuple[int, ...]
    unit: str = ""
    frame: str = ""
    kind: Kind = "vector"
    dtype: str = "float32"
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class TermSpec:
    """One observation term: the registered function that computes it, its parameters, and what comes out."""

    field: Field
    function: str
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    privileged: bool = False
    """True for what only a simulator knows; a bundle whose policy needs such a term refuses hardware."""
    sensed: bool = True
    """False for what the controller itself knows (goals, last action): no noise, no delay, no drop-outs."""
    history: int = 1
    """That many of the term's last frames in its place, oldest first."""
    integral_limit: float = 0.0
    """Above 0: the term's integral over time (unit s) in its place, every element clamped to +-this."""

    @property
    def size(self) -> int:
        """Numbers in the group's vector."""
        return self.field.size * self.history


@dataclass(frozen=True)
class ObservationSpec:
    """Terms by group. A group's vector terms are concatenated in order, each frame after the one before it
    (oldest first) when `history` > 1; images and scans keep a key of their own, `group/term`."""

    groups: dict[str, tuple[TermSpec, ...]]
    history: dict[str, int] = field(default_factory=dict)

    def terms(self, group: str) -> tuple[TermSpec, ...]:
        if group not in self.groups:
            raise KeyError(f"no observation group '{group}'; there are {', '.join(self.groups)}")
        return self.groups[group]

    def frame_dim(self, group: str) -> int:
        """Length of one frame of the group's vector, before any memory."""
        return sum(t.field.size for t in self.terms(group) if t.field.kind == "vector")

    def dim(self, group: str) -> int:
        """Length of the group's vector, the terms' and the group's history included."""
        return sum(t.size for t in self.terms(group) if t.field.kind == "vector") * self.history.get(group, 1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every key of the observation dictionary, without the batch dimension."""
        out: dict[str, tuple[int, ...]] = {g: (self.dim(g),) for g in self.groups if self.frame_dim(g)}
        for group, terms in self.groups.items():
            out |= {f"{group}/{t.field.name}": t.field.shape for t in terms if t.field.kind != "vector"}
        return out

    def privileged(self, group: str = "policy") -> tuple[str, ...]:
        return tuple(t.field.name for t in self.terms(group) if t.privileged)


@dataclass(frozen=True)
class ActionSpec:
    """The policy's output: (horizon, dim) numbers in [low, high], turned into joint targets by a registered term.
    `params["rest"]` is the action of a robot that stays where it is, if that is not zero.

    `horizon` > 1 is an action chunk of which the first `execute` steps are run.
    """

    function: str
    names: tuple[str, ...]
    unit: str
    frame: str = "joint"
    scale: tuple[float, ...] = ()
    low: float = -1.0
    high: float = 1.0
    horizon: int = 1
    execute: int = 1
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class FirmwareSpec:
    """A flight controller's inner loop, in its own units: degrees, and motor counts of 65,535."""

    rate_hz: float
    angle: tuple[float, float, float]
    """Roll and pitch: kp (1/s), ki (1/s2), limit of the integral (deg s)."""
    rate: tuple[float, float, float, float]
    """Rates of roll and pitch: kp, ki, kd (counts per deg/s and its integral and derivative), limit (deg)."""
    yaw_rate: tuple[float, float, float]
    speed_offset_radps: float
    """A motor turns at offset + slope * counts."""
    speed_per_count_radps: float
    link_delay_s: float = 0.0
    """From the sender's command to the firmware."""

    def __post_init__(self) -> None:
        for name in ("rate_hz", "speed_per_count_radps"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"a firmware's {name} must be finite and above 0, got {getattr(self, name)}")
        if not 0.0 <= self.link_delay_s < math.inf:
            raise ValueError(f"a firmware's link_delay_s must be finite and at least 0, got {self.link_delay_s}")


@dataclass(frozen=True)
class QuadrotorSpec:
    """A quadrotor's rigid body and rotors. Body frame FLU, origin at the centre of mass; rotors in the order of
    RobotSpec.joint_names."""

    mass_kg: float
    inertia_kgm2: tuple[float, float, float]
    """Principal, about x, y, z."""
    rotor_xy_m: tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
    rotor_spin: tuple[float, float, float, float]
    """Sign of the reaction torque about z: -1 for a rotor that turns counter-clockwise seen from above."""
    thrust_curve: tuple[float, float, float]
    """Thrust of a rotor (N) = a + b speed + c speed^2, speed in rad/s."""
    torque_per_thrust_m: float
    max_speed_radps: float
    spin_up_s: float
    spin_down_s: float
    """Time constants of a rotor's first-order response."""
    drag_kg: tuple[float, float] = (0.0, 0.0)
    """Rotor drag (N) per body velocity (m/s) and sum of rotor speeds (rad/s): across and along the rotor axes."""
    sag_per_s: float = 0.0
    sag_at_full_thrust: float = 0.0
    """Battery: share of the rotor speed that is lost per second of flight, and under full load."""
    foot_m: float = 0.02
    """The centre of mass above the ground when it stands."""
    firmware: FirmwareSpec | None = None

    def __post_init__(self) -> None:
        positive = {
            "mass_kg": self.mass_kg, "max_speed_radps": self.max_speed_radps, "spin_up_s": self.spin_up_s,
            "spin_down_s": self.spin_down_s, "thrust_curve[2]": self.thrust_curve[2], "foot_m": self.foot_m,
            **{f"inertia_kgm2[{i}]": v for i, v in enumerate(self.inertia_kgm2)},
        }  # fmt: skip
        for name, value in positive.items():
            if not 0.0 < value < math.inf:
                raise ValueError(f"a quadrotor's {name} must be finite and above 0, got {value}")
        absent = {
            "torque_per_thrust_m": self.torque_per_thrust_m, "drag_kg[0]": self.drag_kg[0],
            "drag_kg[1]": self.drag_kg[1], "sag_per_s": self.sag_per_s, "sag_at_full_thrust": self.sag_at_full_thrust,
        }  # fmt: skip
        for name, value in absent.items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"a quadrotor's {name} must be finite and at least 0, got {value}")
        jx, jy, jz = self.inertia_kgm2
        if max(jx, jy, jz) > 0.5 * (jx + jy + jz) * (1.0 + 1e-6):
            raise ValueError(f"no rigid body has the inertia {self.inertia_kgm2}: one is larger than the others' sum")
        if not 9.81 * self.mass_kg < self.full_thrust_n < math.inf:  # NaN too
            raise ValueError(f"{self.full_thrust_n:.3g} N of thrust cannot lift {self.mass_kg:.3g} kg")

    def thrust_n(self, speed_radps: float) -> float:
        """Of one rotor."""
        a, b, c = self.thrust_curve
        return a + b * speed_radps + c * speed_radps**2

    def speed_radps(self, thrust_n: float) -> float:
        """Of one rotor that gives this thrust; the inverse of `thrust_n`."""
        a, b, c = self.thrust_curve
        return (math.sqrt(max(0.0, b * b + 4.0 * c * (thrust_n - a))) - b) / (2.0 * c)

    @property
    def full_thrust_n(self) -> float:
        return 4.0 * self.thrust_n(self.max_speed_radps)

    @property
    def hover_speed_radps(self) -> float:
        """At which four rotors carry the weight."""
        return self.speed_radps(9.81 * self.mass_kg / 4.0)


@dataclass(frozen=True)
class RobotSpec:
    """A robot as its controllers see it. Tuples run over `joint_names`, in that order.

    The low-level law is clip(kp (q* - q) + kd (v* - v) + feed-forward, +-effort_limit); a joint with kp = kd = 0 is
    driven by effort, one with effort_limit = 0 is passive.
    """

    name: str
    urdf: str
    """Path or `package://` URI."""
    base_link: str
    ee_link: str
    joint_names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity_limit: tuple[float, ...]
    acceleration_limit: tuple[float, ...]
    jerk_limit: tuple[float, ...]
    effort_limit: tuple[float, ...]
    kp: tuple[float, ...]
    kd: tuple[float, ...]
    default_joint_pos: tuple[float, ...]
    arm_joints: tuple[str, ...]
    """The joints that a policy's arm action commands; the others are held at their target."""
    gripper_joints: tuple[str, ...] = ()
    gravity_compensation: bool = False
    min_rate_hz: float = 1.0
    max_rate_hz: float = 1000.0
    contact_exclude: tuple[tuple[str, str], ...] = ()
    """Pairs of links that never collide with each other; neighbours in the chain are always excluded."""
    quadrotor: QuadrotorSpec | None = None
    """What flies it; its joints are then the rotors, and its base is free."""

    def __post_init__(self) -> None:
        for name, (low, must) in LIMITS.items():
            values = getattr(self, name)
            if len(values) != self.dof:
                raise ValueError(f"{self.name} has {self.dof} joints, {name} has {len(values)} values")
            unbounded = name in ("lower", "upper")
            self._demand(name, must, [low <= v and (unbounded or v < math.inf) for v in values])
        self._demand("lower", "at most upper", [a <= b for a, b in zip(self.lower, self.upper, strict=True)])
        for name in ("joint_names", "arm_joints", "gripper_joints"):
            twice = sorted({n for n in getattr(self, name) if getattr(self, name).count(n) > 1})
            if twice:
                raise ValueError(f"{self.name}: {name} has {', '.join(twice)} twice")
        unknown = set(self.arm_joints + self.gripper_joints) - set(self.joint_names)
        if unknown:
            raise ValueError(f"{self.name}: {sorted(unknown)} are not among its joints {self.joint_names}")

    def _demand(self, name: str, must: str, holds: list[bool]) -> None:
        got = zip(self.joint_names, getattr(self, name), holds, strict=True)
        wrong = [f"{value} for {joint}" for joint, value, held in got if not held]
        if wrong:
            raise ValueError(f"{self.name}: {name} must be {must}, got {', '.join(wrong)}")

    @property
    def dof(self) -> int:
        return len(self.joint_names)

    @property
    def arm_ids(self) -> tuple[int, ...]:
        return tuple(self.joint_names.index(n) for n in self.arm_joints)

    def of(self, attribute: str, joints: tuple[str, ...]) -> tuple[float, ...]:
        """The attribute's values for some joints, by name."""
        values = getattr(self, attribute)
        return tuple(values[self.joint_names.index(n)] for n in joints)


@dataclass(frozen=True)
class PolicySpec:
    """Everything two sides must agree on before a policy may run: the contract inside a bundle."""

    robot: str
    rate_hz: float
    observation: ObservationSpec
    action: ActionSpec
    recurrent_state: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of each recurrent tensor, without the batch dimension; empty for a feed-forward policy."""
    units: str = "SI: m, rad, s, N, N m"
    quaternion: str = "xyzw"
    world_frame: str = "ENU, bodies FLU"


def stepwise(spec: PolicySpec) -> PolicySpec:
    """The contract with a world, which takes one action at a time and does not see a policy's chunks and memory."""
    return dataclasses.replace(
        spec, action=dataclasses.replace(spec.action, horizon=1, execute=1), recurrent_state={}
    )  # fmt: skip


def columns(ids: Sequence[int]) -> slice | list[int]:
    """Indices as a slice where they are neighbours: a view then, not a copy."""
    first = ids[0] if ids else 0
    return slice(first, first + len(ids)) if list(ids) == list(range(first, first + len(ids))) else list(ids)


def differences(mine: Any, theirs: Any, path: str = "") -> list[str]:
    """Every leaf in which two specifications differ, as `path: mine != theirs`."""
    if dataclasses.is_dataclass(mine) and type(mine) is type(theirs):
        pairs = [(f.name, getattr(mine, f.name), getattr(theirs, f.name)) for f in dataclasses.fields(mine)]
    elif isinstance(mine, dict) and isinstance(theirs, dict):
        pairs = [(k, mine.get(k), theirs.get(k)) for k in sorted(mine.keys() | theirs.keys(), key=str)]
    elif isinstance(mine, tuple) and isinstance(theirs, tuple) and len(mine) == len(theirs):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(mine, theirs, strict=True))]
    elif isinstance(mine, tuple) and isinstance(theirs, tuple):
        return [f"{path}: {_summary(mine)} != {_summary(theirs)}"]
    else:
        return [] if mine == theirs else [f"{path}: {mine!r} != {theirs!r}"]
    return [d for k, a, b in pairs for d in differences(a, b, f"{path}.{k}" if path else k)]


def _summary(values: tuple[Any, ...]) -> str:
    """`2 (joint_pos, goal)`: how many, and their names where they have some or are some."""
    names = [v.field.name if isinstance(v, TermSpec) else getattr(v, "name", v) for v in values]
    return (
        f"{len(values)} ({', '.join(names)})"
        if names and all(isinstance(n, str) for n in names)
        else f"{len(values)} values"
    )


def to_dict(value: Any) -> Any:
    """Specification -> JSON-ready data (tuples become lists)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: to_dict(v) for k, v in value.items()}
    return [to_dict(v) for v in value] if isinstance(value, (tuple, list)) else value


def from_dict(cls: type[T], data: Any) -> T:
    """JSON data -> specification. Unknown and missing keys are errors that name them."""
    return typing.cast(T, _decode(cls, data, cls.__name__))


def _decode(kind: Any, data: Any, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, path)
    if origin in (typing.Union, types.UnionType):
        return None if data is None else _decode(next(a for a in args if a is not type(None)), data, path)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise ValueError(f"{path}: expected a list, found {data!r}")
        kinds = [args[0]] * len(data) if args[-1] is Ellipsis else args
        return tuple(_decode(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, data, strict=True)))
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{path}: expected an object, found {data!r}")
        return {k: _decode(args[1], v, f"{path}.{k}") for k, v in data.items()}
    if kind is float and isinstance(data, (int, float)) and not isinstance(data, bool):
        return float(data)
    if kind in (int, float, str, bool) and type(data) is not kind:
        raise ValueError(f"{path}: expected {kind.__name__}, found {data!r}")
    return data


def _decode_dataclass(cls: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected an object, found {data!r}")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}
    required = {
        f.name for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }  # fmt: skip
    if set(data) - names or required - set(data):
        raise ValueError(f"{path}: unknown {sorted(set(data) - names)}, missing {sorted(required - set(data))}")
    return cls(**{k: _decode(hints[k], v, f"{path}.{k}") for k, v in data.items()})
