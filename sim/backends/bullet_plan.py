"""What a worker of the PyBullet backend builds, as data that crosses a process boundary as JSON, and where each
number of an environment lies in the memory that all processes share. No torch here: workers start without it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from robolearn.errors import ConfigError
from robolearn.paths import resolve
from robolearn.spec import RobotSpec, from_dict, to_dict
from sim.backends import urdf
from sim.backends.meshes import Solid, solid_of, solid_of_boxes
from sim.scene import Box, Boxes, Cylinder, Mesh, ObjectCfg, Param, RobotCfg, SceneCfg, Sphere

Numbers = list[float]
FLYING_STEP_S = 0.001
"""Longest step of Bullet's integrator for a quadrotor; its flight in it differs from RK4 by some 0.1 %."""


@dataclass
class RobotPlan:
    spec: RobotSpec
    urdf: str
    """The file's text, prepared."""
    pose: Numbers
    fixed: bool
    links: list[str]
    apart: list[list[str]]
    """Pairs of links that do not collide."""
    friction: float
    damping: Numbers
    """Of the joints, N m s/rad."""


@dataclass
class ObjectPlan:
    kind: str
    size: Numbers
    """Half edges (box; one box after the other for boxes), radius (sphere), radius and length (cylinder); nothing for a
    mesh."""
    centres: Numbers
    """Of boxes."""
    solid: Solid
    pose: Numbers
    fixed: bool
    friction: float
    rgba: Numbers


@dataclass
class Plan:
    robots: dict[str, RobotPlan]
    objects: dict[str, ObjectPlan]
    sensors: dict[str, list[str]]
    """Name -> body, and the other body or nothing."""
    randomized: list[tuple[str, Param]]
    dt_s: float
    gravity_mps2: float
    ground_friction: float | None
    """None: there is no ground."""
    markers: dict[str, float] = field(default_factory=dict)
    visual: bool = False
    split: int = 1
    """Bullet's steps in one of `dt_s`."""

    def to_json(self) -> str:
        plain = dataclasses.asdict(self)
        for name, robot in self.robots.items():
            plain["robots"][name]["spec"] = to_dict(robot.spec)
        return json.dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        plain = json.loads(text)
        for robot in plain["robots"].values():
            robot["spec"] = from_dict(RobotSpec, robot["spec"])
        for thing in plain["objects"].values():
            thing["solid"] = Solid(**thing["solid"])
        plain["robots"] = {n: RobotPlan(**r) for n, r in plain["robots"].items()}
        plain["objects"] = {n: ObjectPlan(**o) for n, o in plain["objects"].items()}
        return cls(**plain)


def plan_of(scene: SceneCfg, visual: bool = False) -> Plan:
    """ConfigError for what Bullet cannot build: missing meshes, moving links without mass."""
    surface = _surface(scene)
    return Plan(
        {n: _robot(r, surface) for n, r in scene.robots.items()},
        {n: _object(o, surface) for n, o in scene.objects.items()},
        {n: [s.body, *([s.other] if s.other else [])] for n, s in scene.contact_sensors.items()},
        list(scene.randomized),
        scene.physics_dt_s,
        scene.gravity_mps2,
        surface if scene.ground else None,
        {n: m.length_m for n, m in scene.markers.items()},
        visual,
        _split(scene),
    )


def _split(scene: SceneCfg) -> int:
    flies = any(r.spec.quadrotor for r in scene.robots.values())
    return max(1, math.ceil(scene.physics_dt_s / FLYING_STEP_S - 1e-6)) if flies else 1


def _surface(scene: SceneCfg) -> float:
    """Friction of robots and of the ground. Bullet multiplies the coefficients of two bodies, our rule is that an
    object's counts against robots and ground, and the larger of two objects'. With this value both hold for pairs of
    objects of which one has the scene's lowest friction, and one alone needs no care."""
    rough = [o.friction for o in scene.objects.values()]
    return math.sqrt(min(rough)) if len(rough) > 1 and min(rough) > 0.0 else 1.0


def _robot(cfg: RobotCfg, friction: float) -> RobotPlan:
    root = urdf.prepared(cfg.spec)
    urdf.refuse_massless(root, cfg.spec)
    _refuse_strangers(root, cfg.spec)
    urdf.complete_inertials(root)
    urdf.limit_joints(root, cfg.spec)
    damping = urdf.take_damping(root, cfg.spec)
    return RobotPlan(
        cfg.spec, ElementTree.tostring(root, encoding="unicode"), list(cfg.pose),
        cfg.spec.quadrotor is None, urdf.links(root),
        [list(pair) for pair in urdf.apart(root, cfg.spec.contact_exclude)], friction, damping,
    )  # fmt: skip


def _refuse_strangers(root: ElementTree.Element, spec: RobotSpec) -> None:
    moving = {j.get("name", "") for j in root.findall("joint") if j.get("type") != "fixed"}
    strangers = sorted(moving - set(spec.joint_names))
    if strangers:
        raise ConfigError(
            f"backend pybullet moves the joints of a specification only, and {spec.name} does not name {strangers} of "
            f"{spec.urdf}; name them (effort_limit 0 is passive), or make them fixed in the URDF"
        )


def _object(cfg: ObjectCfg, surface: float) -> ObjectPlan:
    shape, m = cfg.shape, cfg.mass_kg
    size: Numbers = []
    centres: Numbers = []
    if isinstance(shape, Boxes):
        size = [edge / 2 for sizes, _ in shape.parts for edge in sizes]
        centres, solid = [x for _, centre in shape.parts for x in centre], solid_of_boxes(shape.parts, m)
    elif isinstance(shape, Box):
        x, y, z = shape.size_m
        size, solid = [x / 2, y / 2, z / 2], _block(m, y * y + z * z, x * x + z * z, x * x + y * y)
    elif isinstance(shape, Sphere):
        size, solid = [shape.radius_m], Solid(m, [0.4 * m * shape.radius_m**2] * 3)
    elif isinstance(shape, Cylinder):
        r, length = shape.radius_m, shape.length_m
        size, side = [r, length], m * (3 * r * r + length * length) / 12
        solid = Solid(m, [side, side, 0.5 * m * r * r])
    else:
        solid = _mesh(shape, m)
    return ObjectPlan(
        type(shape).__name__, size, centres, solid, list(cfg.pose), cfg.fixed, cfg.friction / surface, list(cfg.rgba)
    )


def _block(mass: float, *squares: float) -> Solid:
    return Solid(mass, [mass * s / 12 for s in squares])


def _mesh(shape: Mesh, mass: float) -> Solid:
    path = resolve(shape.path)
    try:
        return solid_of(path, shape.scale, mass)
    except ValueError as error:
        raise ConfigError(f"{path} cannot be an object: {error}") from error


class Layout:
    """Columns of an environment's row, in float64. `moving` is what divergence shows in, `state` all that the next
    steps depend on but for parameters; `links` are filled when they are asked for."""

    def __init__(self, plan: Plan):
        self._width = 0
        self.time = self._take(1)
        self.joints = {n: self._of(r, 2) for n, r in plan.robots.items()}
        free = [n for n, o in plan.objects.items() if not o.fixed]
        floating = [n for n, r in plan.robots.items() if not r.fixed]
        self.roots = {n: self._take(13) for n in (*floating, *free)}
        self.moving = slice(1, self._width)
        self.effort = {n: self._of(r) for n, r in plan.robots.items()}
        self.contact = {n: self._take(3) for n in plan.sensors}
        self.measured = slice(self.moving.stop, self._width)
        self.start = {n: self._of(r) for n, r in plan.robots.items()}
        self.end = {n: self._of(r) for n, r in plan.robots.items()}
        self.feed_velocity = {n: self._of(r) for n, r in plan.robots.items()}
        self.feed_effort = {n: self._of(r) for n, r in plan.robots.items()}
        self.flight = {n: self._take(14) for n, r in plan.robots.items() if r.spec.quadrotor}
        self.bodies = [f"{n}/{link}" for n, r in plan.robots.items() for link in r.links] + free
        self.wrench = self._take(6 * len(self.bodies))
        self.state = slice(0, self._width)
        self.params = {f"{a}.{p}": self._take(1) for a, p in plan.randomized}
        self.links = {n: self._take(7 * len(r.links)) for n, r in plan.robots.items()}

    def _of(self, robot: RobotPlan, times: int = 1) -> slice:
        return self._take(times * robot.spec.dof)

    def _take(self, count: int) -> slice:
        self._width += count
        return slice(self._width - count, self._width)

    @property
    def width(self) -> int:
        return self._width

    def wrench_on(self, body: str) -> slice:
        """Raises ValueError with the bodies that there are."""
        if body not in self.bodies:
            raise ValueError(f"no body '{body}' to push; there are {', '.join(self.bodies)}")
        at = self.wrench.start + 6 * self.bodies.index(body)
        return slice(at, at + 6)


def message(kind: str, **content: Any) -> bytes:
    return json.dumps({"kind": kind, **content}).encode()
