"""One PyBullet client with one environment in it.

A period starts with `put`: the whole state is written and every contact cache is dropped, whether it had changed or
not. What follows is then a function of the row alone, and a run that goes on from a saved row does so to the bit;
it costs 3 % of a period of an arm, and the solver its warm start in one sub-step of each period.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import ConfigError
from robolearn.optional import lazy
from sim.backends.bullet_plan import Layout, ObjectPlan, Plan, RobotPlan
from sim.scene import unchanged

pybullet = lazy("pybullet", extra="bullet")
MOVING, STATIC = 1, 2
"""Collision groups; what stands still does not collide with what stands still."""
FREE = {"linearDamping": 0.0, "angularDamping": 0.0, "jointDamping": 0.0, "maxJointVelocity": 1e9, "restitution": 0.0}
"""Bullet's own drag and caps, off."""
GROUND_M = (100.0, 100.0, 5.0)
"""Half edges. Not a plane: Bullet finds all four corners of a box on a box at once, on a plane one a sub-step."""
FLOOR = (0.62, 0.66, 0.70, 1.0)
BASE = -1
Pose = tuple[Any, Any]


class Part:
    """A body of the client: a robot or an object."""

    def __init__(self, client: int, body: int, plan: RobotPlan | ObjectPlan):
        self.body, self.plan, self.fixed = body, plan, plan.fixed
        count = pybullet.getNumJoints(body, physicsClientId=client)
        infos = [pybullet.getJointInfo(body, j, physicsClientId=client) for j in range(count)]
        base = pybullet.getBodyInfo(body, physicsClientId=client)[0].decode()
        self.links = {base: BASE} | {info[12].decode(): j for j, info in enumerate(infos)}
        by_name = {info[1].decode(): j for j, info in enumerate(infos)}
        spec = plan.spec if isinstance(plan, RobotPlan) else None
        turning = spec.joint_names if spec is not None and spec.quadrotor is None else ()  # rotors are fixed joints
        self.joints = [by_name[n] for n in turning]
        self.friction = [infos[j][7] for j in self.joints]
        """The URDF's dry friction in each joint, N m."""
        self.dynamics = {j: pybullet.getDynamicsInfo(body, j, physicsClientId=client) for j in (BASE, *range(count))}
        self.solids = [j for j in self.dynamics if pybullet.getCollisionShapeData(body, j, physicsClientId=client)]
        self.centre: Pose = self.dynamics[BASE][3:5]
        """The base's centre of mass and principal axes in its frame."""
        self.plain = np.allclose(self.centre[0], 0.0) and np.allclose(self.centre[1], (0.0, 0.0, 0.0, 1.0))


class World:
    """`plan` in a client of its own. Rows (W,) float64 are laid out as `Layout` says."""

    def __init__(self, plan: Plan, layout: Layout):
        self.plan, self.layout = plan, layout
        self.client: int = pybullet.connect(pybullet.DIRECT)
        self.build()

    def build(self) -> None:
        """From nothing, or anew: Bullet does not recover from a NaN."""
        c, plan = self.client, self.plan
        pybullet.resetSimulation(physicsClientId=c)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=plan.dt_s / plan.split,
            deterministicOverlappingPairs=1,
            enableFileCaching=1,
            physicsClientId=c,
        )
        pybullet.setGravity(0.0, 0.0, -plan.gravity_mps2, physicsClientId=c)
        self.ground = self._add_ground() if plan.ground_friction is not None else None
        self.parts = {n: self._add_robot(r) for n, r in plan.robots.items()}
        self.parts |= {n: self._add_object(o) for n, o in plan.objects.items()}
        self.scales = {f"{asset}.{param}": unchanged(param) for asset, param in plan.randomized}
        self._sensed = {name: [self._find(b) for b in bodies] for name, bodies in plan.sensors.items()}
        self._moving = [
            (part.body, j) for part in self.parts.values() for j in part.solids if not (part.fixed and j == BASE)
        ]

    def close(self) -> None:
        pybullet.disconnect(physicsClientId=self.client)

    def _add_ground(self) -> int:
        c = self.client
        slab = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=GROUND_M, physicsClientId=c)
        seen = -1
        if self.plan.visual:
            form = {"halfExtents": GROUND_M, "rgbaColor": FLOOR}
            seen = pybullet.createVisualShape(pybullet.GEOM_BOX, **form, physicsClientId=c)
        body: int = pybullet.createMultiBody(0.0, slab, seen, (0.0, 0.0, -GROUND_M[2]), physicsClientId=c)
        pybullet.changeDynamics(
            body, BASE, lateralFriction=self.plan.ground_friction, restitution=0.0, physicsClientId=c
        )
        pybullet.setCollisionFilterGroupMask(body, BASE, STATIC, MOVING, physicsClientId=c)
        return body

    def _add_robot(self, plan: RobotPlan) -> Part:
        c = self.client
        flags = pybullet.URDF_USE_INERTIA_FROM_FILE | pybullet.URDF_USE_SELF_COLLISION
        flags |= pybullet.URDF_USE_SELF_COLLISION_INCLUDE_PARENT  # the pairs that do not collide are listed
        if not self.plan.visual:
            flags |= pybullet.URDF_IGNORE_VISUAL_SHAPES
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "robot.urdf")
            path.write_text(plan.urdf)
            try:
                body = pybullet.loadURDF(
                    str(path), plan.pose[:3], plan.pose[3:], useFixedBase=plan.fixed, flags=flags, physicsClientId=c
                )
            except pybullet.error as error:
                raise ConfigError(f"PyBullet cannot load {plan.spec.urdf}: {error}") from error
        part = Part(c, body, plan)
        for j in part.dynamics:
            pybullet.changeDynamics(body, j, lateralFriction=plan.friction, **FREE, physicsClientId=c)
        for first, second in plan.apart:
            pybullet.setCollisionFilterPair(body, body, part.links[first], part.links[second], 0, physicsClientId=c)
        if plan.fixed:
            pybullet.setCollisionFilterGroupMask(body, BASE, STATIC, MOVING, physicsClientId=c)
        if part.joints:
            self._release(part)
        return part

    def _release(self, part: Part, friction: float = 0.0) -> None:
        """Bullet's velocity motors hold every joint by default; what is left of them is dry friction: the URDF's, and
        `friction` (N m) in the arm."""
        assert isinstance(part.plan, RobotPlan)
        spec = part.plan.spec
        forces = [f + friction * (n in spec.arm_joints) for f, n in zip(part.friction, spec.joint_names, strict=True)]
        pybullet.setJointMotorControlArray(
            part.body, part.joints, pybullet.VELOCITY_CONTROL, forces=forces, physicsClientId=self.client
        )

    def _add_object(self, plan: ObjectPlan) -> Part:
        c, solid = self.client, plan.solid
        shape, seen = self._shapes(plan)
        body = pybullet.createMultiBody(
            0.0 if plan.fixed else solid.mass_kg, shape, seen, plan.pose[:3], plan.pose[3:],
            baseInertialFramePosition=solid.centre, baseInertialFrameOrientation=solid.axes, physicsClientId=c,
        )  # fmt: skip
        moments = {} if plan.fixed else {"localInertiaDiagonal": solid.inertia}
        pybullet.changeDynamics(body, BASE, lateralFriction=plan.friction, **FREE, **moments, physicsClientId=c)
        if plan.fixed:
            pybullet.setCollisionFilterGroupMask(body, BASE, STATIC, MOVING, physicsClientId=c)
        part = Part(c, body, plan)
        self._place(part, plan.pose, [0.0] * 6)
        return part

    def _shapes(self, plan: ObjectPlan) -> tuple[int, int]:
        """To collide with, and to look at if anything shall be seen (else -1)."""
        c = self.client
        if plan.kind == "Boxes":
            sizes, centres = np.reshape(plan.size, (-1, 3)).tolist(), np.reshape(plan.centres, (-1, 3)).tolist()
            boxes = {"shapeTypes": [pybullet.GEOM_BOX] * len(sizes), "halfExtents": sizes, "physicsClientId": c}
            shape = pybullet.createCollisionShapeArray(**boxes, collisionFramePositions=centres)
            if not self.plan.visual:
                return shape, -1
            colours = [plan.rgba] * len(sizes)
            return shape, pybullet.createVisualShapeArray(**boxes, visualFramePositions=centres, rgbaColors=colours)
        kind, form = getattr(pybullet, f"GEOM_{plan.kind.upper()}"), _form(plan)
        shape = pybullet.createCollisionShape(kind, **form, physicsClientId=c)
        if not self.plan.visual:
            return shape, -1
        form |= {"length": form.pop("height")} if "height" in form else {}  # its name there
        return shape, pybullet.createVisualShape(kind, **form, rgbaColor=plan.rgba, physicsClientId=c)

    # --- state ----------------------------------------------------------------------------------------------

    def put(self, row: np.ndarray) -> None:
        """Parameters and state as the row has them, and no memory of contacts."""
        c = self.client
        self._apply_params(row)
        for name, part in self.parts.items():
            if part.joints:
                q, v = np.split(row[self.layout.joints[name]][:, None], 2)
                pybullet.resetJointStatesMultiDof(part.body, part.joints, q.tolist(), v.tolist(), physicsClientId=c)
            if not part.fixed:
                root = row[self.layout.roots[name]].tolist()
                self._place(part, root[:7], root[7:])
        for body, link in self._moving:  # a proxy that is new to the broad phase has no contacts yet
            pybullet.setCollisionFilterGroupMask(body, link, MOVING, -1, physicsClientId=c)

    def take(self, row: np.ndarray) -> None:
        """Roots and contact forces into the row; joints are read by their law."""
        for name, at in self.layout.roots.items():
            row[at] = self._root(self.parts[name])
        for name, force in (self._forces() if self._sensed else {}).items():
            row[self.layout.contact[name]] = force

    def _place(self, part: Part, pose: list[float], velocity: list[float]) -> None:
        """Pose and velocity (linear, angular) of the body's frame; Bullet's are those of the centre of mass."""
        c, place, turn = self.client, pose[:3], pose[3:]
        linear, angular = velocity[:3], velocity[3:]
        if not part.plain:
            centre, turn = pybullet.multiplyTransforms(place, turn, *part.centre)
            linear = (np.array(linear) + np.cross(angular, np.subtract(centre, place))).tolist()
            place = centre
        pybullet.resetBasePositionAndOrientation(part.body, place, turn, physicsClientId=c)
        if not part.fixed:
            pybullet.resetBaseVelocity(part.body, linear, angular, physicsClientId=c)

    def _root(self, part: Part) -> list[float]:
        place, turn = pybullet.getBasePositionAndOrientation(part.body, physicsClientId=self.client)
        linear, angular = pybullet.getBaseVelocity(part.body, physicsClientId=self.client)
        if not part.plain:
            centre = place
            place, turn = pybullet.multiplyTransforms(place, turn, *pybullet.invertTransform(*part.centre))
            linear = np.add(linear, np.cross(angular, np.subtract(place, centre)))
        return [*place, *turn, *linear, *angular]

    def link_poses(self, name: str) -> list[float]:
        """Poses of all links of a robot, in the plan's order, one after the other."""
        part = self.parts[name]
        assert isinstance(part.plan, RobotPlan)
        ids = [part.links[link] for link in part.plan.links]
        below = [j for j in ids if j != BASE]
        states = pybullet.getLinkStates(
            part.body, below, computeForwardKinematics=True, physicsClientId=self.client
        ) if below else ()  # fmt: skip
        poses = {j: (*s[4], *s[5]) for j, s in zip(below, states, strict=True)} | {BASE: self._root(part)[:7]}
        return [number for j in ids for number in poses[j]]

    # --- forces ---------------------------------------------------------------------------------------------

    def _find(self, body: str) -> tuple[int, int]:
        """Client's body and link of `asset`, `asset/link` or `world`, which is the ground."""
        asset, _, link = body.partition("/")
        if body == "world" and self.ground is not None:
            return self.ground, BASE
        if asset not in self.parts or (link and link not in self.parts[asset].links):
            raise ConfigError(f"no body '{body}'; there are {', '.join(self.parts)} and robots' links, as robot/link")
        part = self.parts[asset]
        return part.body, part.links[link] if link else BASE

    def _forces(self) -> dict[str, np.ndarray]:
        """By sensor: the force on its body, N, world frame, summed over its contacts in the last sub-step. All
        contacts are asked for: asked for one body's, Bullet turns the normal towards it but not the friction."""
        totals = {name: np.zeros(3) for name in self._sensed}
        for p in pybullet.getContactPoints(physicsClientId=self.client):
            force = np.multiply(p[9], p[7]) + np.multiply(p[10], p[11]) + np.multiply(p[12], p[13])
            first, second = (p[1], p[3]), (p[2], p[4])
            for name, (body, *other) in self._sensed.items():
                if first == body and other in ([], [second]):
                    totals[name] += force
                elif second == body and other in ([], [first]):
                    totals[name] -= force
        return totals

    def push(self, row: np.ndarray) -> None:
        """Apply the row's wrenches for the sub-step that follows: Bullet forgets them after it."""
        wrenches = row[self.layout.wrench].reshape(-1, 6)
        for i in np.flatnonzero(wrenches.any(axis=1)):
            body, link = self._find(self.layout.bodies[i])
            c, force, torque = self.client, wrenches[i, :3].tolist(), wrenches[i, 3:].tolist()
            if link == BASE:
                at = pybullet.getBasePositionAndOrientation(body, physicsClientId=c)[0]
            else:
                at = pybullet.getLinkState(body, link, computeForwardKinematics=True, physicsClientId=c)[0]
            pybullet.applyExternalForce(body, link, force, at, pybullet.WORLD_FRAME, physicsClientId=c)
            pybullet.applyExternalTorque(body, link, torque, pybullet.WORLD_FRAME, physicsClientId=c)

    # --- parameters -----------------------------------------------------------------------------------------

    def _apply_params(self, row: np.ndarray) -> None:
        changed = set()
        for key, at in self.layout.params.items():
            value = float(row[at][0])
            if value != self.scales[key]:
                self.scales[key] = value
                changed.add(key.partition("."))
                if key.endswith(".joint_friction"):
                    self._release(self.parts[key.partition(".")[0]], value)
        for asset, param in {(a, "friction" if p == "friction" else "body") for a, _, p in changed}:
            part = self.parts[asset]
            scale = {p: self.scales.get(f"{asset}.{p}", 1.0) for p in ("mass", "inertia", "friction")}
            for j, info in part.dynamics.items():
                new: dict[str, Any]
                if param == "friction":
                    new = {"lateralFriction": part.plan.friction * scale["friction"]}
                elif (part.fixed and j == BASE) or not info[0]:
                    continue
                else:  # both at once: Bullet takes a new mass as a reason for a new inertia
                    moments = [scale["inertia"] * i for i in info[2]]
                    new = {"mass": info[0] * scale["mass"], "localInertiaDiagonal": moments}
                pybullet.changeDynamics(part.body, j, physicsClientId=self.client, **new)


def _form(plan: ObjectPlan) -> dict[str, Any]:
    """A shape's measures by Bullet's names."""
    size = plan.size
    if plan.kind == "Box":
        return {"halfExtents": size}
    if plan.kind == "Mesh":
        return {"vertices": plan.solid.points}
    return {"radius": size[0]} | ({"height": size[1]} if plan.kind == "Cylinder" else {})
