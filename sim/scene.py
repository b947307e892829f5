"""What a world contains, as plain data that every engine can build. SI units; poses are position + quaternion
xyzw."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from robolearn.spec import RobotSpec

Pose = tuple[float, float, float, float, float, float, float]
IDENTITY: Pose = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
Param = Literal[
    "mass", "inertia", "friction", "kp", "kd", "effort_limit", "joint_damping", "joint_friction",
    "thrust", "reaction_torque", "spin_up", "spin_down", "drag", "sag", "link_delay",
]  # fmt: skip
"""What an engine can vary. Most are scales: factors of the value that a robot was built with, 1 being that value."""
ADDED: tuple[Param, ...] = ("joint_damping", "joint_friction")
"""These are added instead, as a robot is built without: N m s/rad of viscous and N m of Coulomb friction in every joint
of its arm (N s/m and N where a joint slides); 0 is the robot as built."""


def unchanged(param: Param) -> float:
    """The value of a parameter with which a robot is as it was built."""
    return 0.0 if param in ADDED else 1.0


@dataclass(frozen=True)
class Box:
    size_m: tuple[float, float, float]
    """Full edge lengths."""


@dataclass(frozen=True)
class Sphere:
    radius_m: float


@dataclass(frozen=True)
class Cylinder:
    """Axis along z."""

    radius_m: float
    length_m: float


@dataclass(frozen=True)
class Mesh:
    """Collides as its convex hull."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True)
class Boxes:
    """One body of several boxes, such as a socket: (edge lengths, centre) of each, its edges along the body's axes. The
    material is the same in all; the body's frame need not be at its centre of mass."""

    parts: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]

    def __post_init__(self) -> None:
        if not self.parts or min(min(size) for size, _ in self.parts) <= 0.0:
            raise ValueError(f"Boxes needs at least one box, with edges above 0, got {self.parts}")


Shape = Box | Sphere | Cylinder | Mesh | Boxes


@dataclass(frozen=True)
class Decal:
    """A flat pattern of black and white cells on an object, such as a tag. It is drawn, and has no physics."""

    cells: tuple[tuple[bool, ...], ...]
    """Rows as they are read, True for black; a white border around them is part of the pattern."""
    cell_m: float
    pose: Pose = IDENTITY
    """Its centre in the object's frame: x right and y up as it is read, z out of its face."""


@dataclass(frozen=True)
class ObjectCfg:
    """A free rigid body, or a fixed one."""

    shape: Shape
    mass_kg: float = 0.1
    pose: Pose = IDENTITY
    fixed: bool = False
    friction: float = 1.0
    """Sliding coefficient against the ground and robots; between two objects the larger counts."""
    rgba: tuple[float, float, float, float] = (0.8, 0.4, 0.2, 1.0)
    decals: tuple[Decal, ...] = ()

    def __post_init__(self) -> None:
        if not self.fixed and not self.mass_kg > 0.0:
            raise ValueError(f"a free object needs a positive mass, got {self.mass_kg}")
        if not self.friction >= 0.0:
            raise ValueError(f"an object's friction must be at least 0, got {self.friction}")


@dataclass(frozen=True)
class RobotCfg:
    spec: RobotSpec
    pose: Pose = IDENTITY


@dataclass(frozen=True)
class CameraCfg:
    """A pinhole camera at eye_m that looks at target_m (world z up); with `link` set, both are in that link's
    frame (`asset/link`)."""

    eye_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    fov_deg: float = 45.0
    """Vertical."""
    width: int = 84
    height: int = 84
    link: str | None = None

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels; the centre of the first pixel is (0, 0)."""
        focal = self.height / (2.0 * math.tan(math.radians(self.fov_deg) / 2.0))
        return focal, focal, (self.width - 1) / 2.0, (self.height - 1) / 2.0


@dataclass(frozen=True)
class ContactSensorCfg:
    """Net contact force on `body` (`asset` or `asset/link`), from `other` or from everything."""

    body: str
    other: str | None = None


@dataclass(frozen=True)
class FrameMarker:
    """A triad drawn where the task says (goals); it has no physics."""

    length_m: float = 0.1


@dataclass(frozen=True)
class SceneCfg:
    robots: dict[str, RobotCfg]
    objects: dict[str, ObjectCfg] = field(default_factory=dict)
    cameras: dict[str, CameraCfg] = field(default_factory=dict)
    contact_sensors: dict[str, ContactSensorCfg] = field(default_factory=dict)
    markers: dict[str, FrameMarker] = field(default_factory=dict)
    physics_dt_s: float = 1.0 / 240.0
    gravity_mps2: float = 9.81
    ground: bool = True
    randomized: tuple[tuple[str, Param], ...] = ()
    """(asset, field) pairs that `set_param` may change; declared before the build so that engines can
    allocate."""

    def __post_init__(self) -> None:
        overlap = self.robots.keys() & self.objects.keys()
        if overlap:
            raise ValueError(f"robots and objects share the names {sorted(overlap)}")
        unknown = {a for a, _ in self.randomized} - self.robots.keys() - self.objects.keys()
        if unknown:
            raise ValueError(f"randomised assets {sorted(unknown)} are not in the scene")
