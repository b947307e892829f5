"""How the joints of a worker's robots are driven: the law of `Backend`, for all its environments at once.

A sub-step of an environment costs, besides Bullet's own, one call to read its joints, one for its gravity torques
and one to apply the torques; the arithmetic is one numpy expression for all environments.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robolearn.optional import lazy
from sim.backends.bullet_plan import Layout, Plan, RobotPlan
from sim.backends.bullet_world import World

pybullet = lazy("pybullet", extra="bullet")


class Law(Protocol):
    """What drives one robot in each of a worker's worlds."""

    def begin(self, live: list[int]) -> None:
        """A period starts in these environments; their rows are in the engine."""
        ...

    def apply(self, k: int, n: int) -> None:
        """Set the forces of sub-step k = 1 ... n; `stepSimulation` follows."""
        ...

    def measure(self) -> None:
        """The sub-step is done."""
        ...

    def end(self) -> None:
        """The period is over: the outcome goes into the rows."""
        ...


class JointLaw:
    """clip(kp (q* - q) + kd (v* - v) + effort* + gravity torque, +-effort_limit), q* on its way linearly; and the
    viscous friction of the joints, which no motor feels: explicit as the law, stable while (kd + damping) dt < M_jj.
    Bullet itself has the dry one.
    """

    def __init__(self, worlds: list[World], rows: np.ndarray, layout: Layout, name: str, plan: Plan):
        robot = plan.robots[name]
        self.worlds, self.rows, self.layout, self.name = worlds, rows, layout, name
        self.body = [w.parts[name].body for w in worlds]
        self.joints = worlds[0].parts[name].joints
        self.spec = robot.spec
        self.weight = GravityTorque(robot, plan) if robot.spec.gravity_compensation else None
        shape = (len(worlds), robot.spec.dof)
        self.q, self.v, self.torque = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.gravity = np.zeros(shape)
        self.passive = np.array(robot.damping)
        self.arm = np.isin(robot.spec.joint_names, robot.spec.arm_joints)

    def begin(self, live: list[int]) -> None:
        layout, name = self.layout, self.name
        self.live = live
        rows = self.rows[live]
        self.q, self.v = np.split(rows[:, layout.joints[name]], 2, axis=1)
        self.start, self.end_ = rows[:, layout.start[name]], rows[:, layout.end[name]]
        self.kp, self.kd, self.limit = (self._scaled(rows, p) for p in ("kp", "kd", "effort_limit"))
        damping = layout.params.get(f"{name}.joint_damping")
        self.damping = self.passive if damping is None else self.passive + rows[:, damping] * self.arm
        self.feed = self.kd * rows[:, layout.feed_velocity[name]] + rows[:, layout.feed_effort[name]]
        self.gravity = np.zeros_like(self.q)

    def _scaled(self, rows: np.ndarray, param: str) -> np.ndarray:
        """(E, J), or (J,) where it is not randomised."""
        value, at = np.array(getattr(self.spec, param)), self.layout.params.get(f"{self.name}.{param}")
        return value if at is None else value * rows[:, at]

    def apply(self, k: int, n: int) -> None:
        if self.weight is not None:
            for i, q in enumerate(self.q.tolist()):
                self.gravity[i] = self.weight(q)
        target = self.start + (self.end_ - self.start) * (k / n)
        wanted = self.kp * (target - self.q) - self.kd * self.v + self.feed + self.gravity
        self.torque = np.clip(wanted, -self.limit, self.limit)
        for i, torque in zip(self.live, (self.torque - self.damping * self.v).tolist(), strict=True):
            pybullet.setJointMotorControlArray(
                self.body[i], self.joints, pybullet.TORQUE_CONTROL, forces=torque,
                physicsClientId=self.worlds[i].client,
            )  # fmt: skip

    def measure(self) -> None:
        for row, i in enumerate(self.live):
            states = pybullet.getJointStates(self.body[i], self.joints, self.worlds[i].client)
            self.q[row], self.v[row], *_ = zip(*states, strict=True)

    def end(self) -> None:
        layout, name = self.layout, self.name
        self.rows[self.live, layout.joints[name]] = np.concatenate((self.q, self.v), axis=1)
        self.rows[self.live, layout.effort[name]] = self.torque


class GravityTorque:
    """Joint torques that hold a robot's masses as built, by inverse dynamics in a client of its own: the
    controller knows no others, whatever has been randomised."""

    def __init__(self, robot: RobotPlan, plan: Plan):
        alone = Plan({"robot": robot}, {}, {}, [], plan.dt_s, plan.gravity_mps2, None)
        world = World(alone, Layout(alone))
        self.client, self.body = world.client, world.parts["robot"].body
        self.still = [0.0] * robot.spec.dof
        self.order = np.argsort(world.parts["robot"].joints).tolist()
        self.sorted = self.order == sorted(self.order)
        _, back = pybullet.invertTransform((0.0, 0.0, 0.0), robot.pose[3:])
        down, _ = pybullet.multiplyTransforms((0.0,) * 3, back, (0.0, 0.0, -plan.gravity_mps2), (0.0, 0.0, 0.0, 1.0))
        pybullet.setGravity(*down, physicsClientId=self.client)  # inverse dynamics does not turn with the base

    def __call__(self, q: list[float]) -> list[float]:
        """Of (J,), in the specification's order."""
        if self.sorted:
            torque: list[float] = pybullet.calculateInverseDynamics(
                self.body, q, self.still, self.still, physicsClientId=self.client
            )
            return torque
        ours = pybullet.calculateInverseDynamics(
            self.body, [q[i] for i in self.order], self.still, self.still, physicsClientId=self.client
        )
        return [torque for _, torque in sorted(zip(self.order, ours, strict=True))]
