"""The process that steps some environments in PyBullet. It imports no torch, so that it starts at once and stays
small; `bullet_pool` starts it and talks to it over a socket, and the numbers lie in shared memory.

It ends when its parent does, however that ended: the socket closes. Interrupts from the keyboard go to the parent.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from robolearn.errors import UserError
from sim.backends.bullet_drive import JointLaw, Law
from sim.backends.bullet_painter import Painter
from sim.backends.bullet_plan import Layout, Plan, message
from sim.backends.bullet_rotors import RotorLaw
from sim.backends.bullet_world import World, pybullet

EXPLODED = 1e6  # rad, m or their rates: no robot moves so


class Worker:
    """Environments first ... first + count - 1 of `rows` (B, W)."""

    def __init__(self, plan: Plan, rows: np.ndarray, first: int, count: int):
        self.plan, self.layout = plan, Layout(plan)
        self.all_rows, self.rows, self.count = rows, rows[first : first + count], count
        self.worlds: list[World] = []
        self.painter: Painter | None = None

    def handle(self, kind: str, content: dict[str, Any]) -> bytes:
        reply = getattr(self, kind)(**content)
        return reply if isinstance(reply, bytes) else message("done", **(reply or {}))

    def first(self) -> dict[str, Any]:
        """Build one environment, put its start into all rows; say what one costs in bytes, and what the parent
        checks of it."""
        before = _resident()
        world = World(self.plan, self.layout)
        self.worlds.append(world)
        for name, at in self.layout.roots.items():
            self.rows[:, at] = world._root(world.parts[name])
        inertia = {n: _inertia(world, n) for n in self.plan.robots if world.parts[n].joints}
        return {"bytes": _resident() - before, "inertia": inertia}

    def rest(self) -> None:
        """Build the other environments and the laws that drive them."""
        self.worlds += [World(self.plan, self.layout) for _ in range(self.count - 1)]
        self.laws: list[Law] = [
            (RotorLaw if robot.spec.quadrotor else JointLaw)(self.worlds, self.rows, self.layout, n, self.plan)
            for n, robot in self.plan.robots.items()
            if robot.spec.dof
        ]

    def step(self, n: int) -> None:
        live = self._put()
        pushed = [i for i in live if self.rows[i, self.layout.wrench].any()]
        for law in self.laws:
            law.begin(live)
        clients, forward = [self.worlds[i].client for i in live], pybullet.stepSimulation
        count = n * self.plan.split
        for k in range(1, count + 1):
            for law in self.laws:
                law.apply(k, count)
            for i in pushed:
                self.worlds[i].push(self.rows[i])
            for client in clients:
                forward(client)
            for law in self.laws:
                law.measure()
        for law in self.laws:
            law.end()
        for i in live:
            self.worlds[i].take(self.rows[i])
            if not self._sound(i):
                self.worlds[i].build()  # nothing of a NaN may stay in it
        self.rows[:, self.layout.time] += n * self.plan.dt_s

    def bare(self, n: int) -> None:
        """The engine alone, from the rows' state: what stepping costs without law and exchange."""
        clients = [self.worlds[i].client for i in self._put()]
        for _ in range(n * self.plan.split):
            for client in clients:
                pybullet.stepSimulation(client)

    def links(self) -> None:
        for i in self._put():
            for name, at in self.layout.links.items():
                self.rows[i, at] = self.worlds[i].link_poses(name)

    def paint(self, **picture: Any) -> bytes:
        if self.painter is None:
            self.painter = Painter(World(self.plan, self.layout))
        return self.painter.picture(self.all_rows[picture.pop("env")], **picture)

    def _put(self) -> list[int]:
        """Rows into the engine; the environments that this can be done for."""
        live = [i for i in range(self.count) if self._sound(i)]
        for i in live:
            self.worlds[i].put(self.rows[i])
        return live

    def _sound(self, i: int) -> bool:
        return bool((np.abs(self.rows[i, self.layout.moving]) < EXPLODED).all())


def _inertia(world: World, name: str) -> list[float]:
    """Diagonal of the mass matrix at the default posture, in the specification's order."""
    robot, part = world.plan.robots[name], world.parts[name]
    if not part.joints or not part.fixed:
        return []
    order = np.argsort(part.joints)
    posture = np.array(robot.spec.default_joint_pos)[order].tolist()
    matrix = np.array(pybullet.calculateMassMatrix(part.body, posture, physicsClientId=world.client))
    return np.diag(matrix)[np.argsort(order)].tolist()


def _resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(connection: Connection, memory: int) -> None:
    """Answer the parent's messages until it closes the connection."""
    about = json.loads(connection.recv_bytes())
    plan = Plan.from_json(connection.recv_bytes().decode())
    block = mmap.mmap(memory, 0)
    rows = np.frombuffer(block, dtype=np.float64).reshape(about["num_envs"], -1)
    worker = Worker(plan, rows, about["first"], about["count"])
    while True:
        content = json.loads(connection.recv_bytes())
        try:
            reply = worker.handle(content.pop("kind"), content)
        except UserError as error:
            reply = message("refused", text=str(error))
        connection.send_bytes(reply)


def main() -> None:
    """`python -c ... SOCKET MEMORY`, both inherited file descriptors."""
    socket, memory = map(int, sys.argv[-2:])
    try:
        serve(Connection(socket), memory)
    except (EOFError, ConnectionError):
        os._exit(0)  # the parent is gone or has closed us: nothing here is worth an orderly end
