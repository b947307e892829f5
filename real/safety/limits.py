"""What every guard's limits are: each has a value, and a site can only tighten them; and those of an arm's guard."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from robolearn.errors import ConfigError, unknown
from robolearn.limits import JointLimits, ToolLimits
from robolearn.spec import RobotSpec

_JOINTS = {
    "joint_lower_rad": "lower",
    "joint_upper_rad": "upper",
    "joint_velocity_radps": "velocity_limit",
    "joint_acceleration_radps2": "acceleration_limit",
    "joint_jerk_radps3": "jerk_limit",
}
"""Limits that the RobotSpec has too, and what it calls them."""
L = TypeVar("L", bound="Limits")


@dataclass(frozen=True)
class Limits:
    """Numbers and tuples of numbers, all finite; above 0 unless `SIGNED` names them."""

    UPWARDS: ClassVar[tuple[str, ...]] = ()
    """Tighter is larger; for all others it is smaller."""
    SIGNED: ClassVar[tuple[str, ...]] = ()
    RANGES: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Names of lower ends, each with that of the upper one."""

    def __post_init__(self) -> None:
        for name, value in self._each():
            signed = name.startswith(self.SIGNED)
            if not math.isfinite(value) or (value <= 0.0 and not signed):
                must = "finite" if signed else "finite and above 0"
                raise ConfigError(f"guard limit {name} must be {must}, got {value}")
        for low, high in self.RANGES:
            for (a_name, a), (b_name, b) in zip(self._of(low), self._of(high), strict=True):
                if a >= b:
                    raise ConfigError(f"guard limit {a_name} = {a} must be below {b_name} = {b}")

    def tightened(self: L, changes: Mapping[str, Any]) -> L:
        """With a site's values, by name. Raises ConfigError that names both values of every one that is looser."""
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ConfigError(unknown("guard limit", name, known))
        changed = dataclasses.replace(self, **{n: _like(n, v, getattr(self, n)) for n, v in changes.items()})
        changed.demand_within(self, "the robot's")
        return changed

    def demand_within(self, published: Limits, whose: str) -> None:
        """Raise ConfigError, naming both values, for what is looser than `published`."""
        pairs = zip(self._each(), published._each(), strict=True)
        looser = [
            f"{name} = {mine} is looser than {whose} {theirs}"
            for (name, mine), (_, theirs) in pairs
            if (mine < theirs if name.startswith(self.UPWARDS) else mine > theirs)
        ]
        if looser:
            raise ConfigError("guard limits can only be tightened: " + "; ".join(looser))

    def _each(self) -> list[tuple[str, float]]:
        """Every number with its name, `name[i]` within a tuple."""
        return [pair for f in dataclasses.fields(self) for pair in self._of(f.name)]

    def _of(self, name: str) -> list[tuple[str, float]]:
        value = getattr(self, name)
        return [(f"{name}[{i}]", v) for i, v in enumerate(value)] if isinstance(value, tuple) else [(name, value)]


@dataclass(frozen=True)
class GuardLimits(Limits):
    """Of an arm. Joint tuples run over `RobotSpec.arm_joints`; places are in the base frame."""

    UPWARDS = ("joint_lower_rad", "box_lower_m", "floor_m", "clearance_m")
    SIGNED = (*UPWARDS, "joint_upper_rad", "box_upper_m")
    RANGES = (("joint_lower_rad", "joint_upper_rad"), ("box_lower_m", "box_upper_m"))

    joint_lower_rad: tuple[float, ...]
    joint_upper_rad: tuple[float, ...]
    joint_velocity_radps: tuple[float, ...]
    joint_acceleration_radps2: tuple[float, ...]
    joint_jerk_radps3: tuple[float, ...]
    reference_error_rad: tuple[float, ...]
    """The command's largest distance from the measured position."""
    box_lower_m: tuple[float, ...]
    box_upper_m: tuple[float, ...]
    """Where the tool may be."""
    tool_speed_mps: float
    tool_rotation_radps: float
    force_n: float
    torque_nm: float
    """Norms of the measured wrench; beyond, it is a fault."""
    floor_m: float
    """Height that no moving part may go below."""
    clearance_m: float
    """Between parts that can meet."""
    state_timeout_s: float
    """Age of the newest measurement (joints; wrench, once there was one) at which the arm stops."""
    proposal_timeout_s: float
    """Age of the state behind a proposal at which it is refused."""
    future_s: float
    """How far a stamp may lie ahead of the clock."""
    hold_after_s: float
    stop_after_s: float
    """Without a proposal: from when on the arm holds, and from when on it takes an explicit start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hold_after_s > self.stop_after_s:
            raise ConfigError(f"hold_after_s = {self.hold_after_s} must not exceed stop_after_s = {self.stop_after_s}")

    @classmethod
    def of(cls, spec: RobotSpec, **others: Any) -> GuardLimits:
        """The specification's own limits of the arm's joints, and `others`."""
        joints: dict[str, Any] = {mine: spec.of(theirs, spec.arm_joints) for mine, theirs in _JOINTS.items()}
        return cls(**joints, **others)

    def demand_fit(self, spec: RobotSpec) -> None:
        """Raise ConfigError unless these are limits of this robot, none looser than its specification's."""
        for name, value in ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self)):
            count = len(spec.arm_joints) if name.startswith("joint_") or name == "reference_error_rad" else 3
            if isinstance(value, tuple) and len(value) != count:
                raise ConfigError(f"guard limit {name} has {len(value)} values, {spec.name} needs {count}")
        own = {mine: spec.of(theirs, spec.arm_joints) for mine, theirs in _JOINTS.items()}
        bounded: dict[str, Any] = {n: v for n, v in own.items() if all(map(math.isfinite, v))}
        self.demand_within(dataclasses.replace(self, **bounded), f"{spec.name}'s")

    def joints(self) -> JointLimits:
        return JointLimits(*(np.array(getattr(self, name)) for name in _JOINTS))

    def tool(self) -> ToolLimits:
        box = np.array(self.box_lower_m), np.array(self.box_upper_m)
        return ToolLimits(*box, self.tool_speed_mps, self.tool_rotation_radps)


def _like(name: str, value: Any, had: Any) -> Any:
    """`value` as numbers in the form that the limit has. A single number stands for every joint."""
    many = list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else None
    numbers = [value] if many is None else many
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers):
        raise ConfigError(f"guard limit {name} must be numbers, got {value!r}")
    if not isinstance(had, tuple):
        if many is not None:
            raise ConfigError(f"guard limit {name} must be one number, got {value!r}")
        return float(value)
    numbers = numbers * len(had) if many is None else numbers
    if len(numbers) != len(had):
        raise ConfigError(f"guard limit {name} must be {len(had)} numbers, got {value!r}")
    return tuple(map(float, numbers))
