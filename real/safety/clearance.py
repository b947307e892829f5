"""How much room a posture leaves: the tool in its box, the links above the floor and apart from each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from real.safety.shapes import spheres
from robolearn.kinematics import MOVABLE, Tree, read_joints
from robolearn.limits import ToolLimits
from robolearn.paths import resolve
from robolearn.spec import RobotSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Room:
    """Of B postures."""

    tool: Floats
    """(B, 4, 4) in the base frame."""
    metres: Floats
    """(B, R): room left in each respect, negative where it is exceeded. Their names: `Body.name`."""


class Body:
    """The arm as spheres, with other joints (a gripper's) at the default posture.

    Which pairs of spheres can meet: none of one rigid body, of neighbours, of links that the specification excludes,
    nor those that are too near already in the default posture, where the spheres are thicker than the links.
    """

    def __init__(self, spec: RobotSpec, tool: ToolLimits, floor_m: float, clearance_m: float):
        self.limits, self.floor_m = tool, floor_m
        rest = dict(zip(spec.joint_names, spec.default_joint_pos, strict=True))
        self.tree = Tree(spec.urdf, spec.arm_joints, rest, np.zeros(1))
        frame, offset = self.tree.place(spec.ee_link)
        self._tool = frame, offset.numpy()
        covers = spheres(spec.urdf)
        self._links = [link for link, cover in covers.items() for _ in cover]
        self._radii = np.concatenate(list(covers.values()))[:, 3]
        frames = [self.tree.place(link)[0] for link in self._links]
        self._slots = self._lay_out(np.array([self._in_frame(n, s) for n, c in covers.items() for s in c]), frames)
        self._moving = [i for i, f in enumerate(frames) if f > 0]
        self._floor = (self._radii[self._moving] + floor_m)[:, None]
        self._pairs = self._that_meet(spec)
        self._apart = self._radii[self._pairs].sum(0)[:, None] + clearance_m
        near = self.room(np.array([spec.of("default_joint_pos", spec.arm_joints)])).metres[0, -len(self._apart) :] < 0.0
        self._pairs, self._apart = self._pairs[:, ~near], self._apart[~near]

    def _lay_out(self, centres: Floats, frames: list[int]) -> NDArray[np.int64]:
        """Put centres (S, 4) into a table by frame, `_centres` (n + 1, 1, 4, most), with gaps; each sphere's slot."""
        most = max(frames.count(f) for f in frames)
        self._centres = np.zeros((self.tree.count, 1, 4, most))
        slots = []
        for i, frame in enumerate(frames):
            column = frames[:i].count(frame)
            self._centres[frame, 0, :, column] = centres[i]
            slots.append(frame * most + column)
        return np.array(slots)

    def _in_frame(self, link: str, sphere: Floats) -> Floats:
        """A sphere's centre (4,), homogeneous, in the frame that carries its link."""
        return self.tree.place(link)[1].numpy() @ np.append(sphere[:3], 1.0)

    def _that_meet(self, spec: RobotSpec) -> NDArray[np.int64]:
        """Pairs of spheres (2, P)."""
        never = {frozenset(pair) for pair in spec.contact_exclude}
        joints = read_joints(resolve(spec.urdf))[1]
        frame = {link: self.tree.place(link)[0] for j in joints for link in (j.parent, j.child)}
        near = {frozenset((frame[j.parent], frame[j.child])) for j in joints if j.kind in MOVABLE}
        pairs = np.array(np.triu_indices(len(self._links), 1))
        meet = [
            frame[a] != frame[b] and frozenset((frame[a], frame[b])) not in near and frozenset((a, b)) not in never
            for a, b in ((self._links[i], self._links[j]) for i, j in pairs.T)
        ]
        return pairs[:, meet]

    def room(self, joint_pos: Floats) -> Room:
        """Of postures (B, J): 6 faces of the box, then the moving spheres above the floor, then pairs."""
        frames = self.tree.frames(joint_pos)
        tool = frames[self._tool[0]] @ self._tool[1]
        by_frame = frames[:, :, :3] @ self._centres  # (n + 1, B, 3, most)
        places = by_frame.transpose(2, 0, 3, 1).reshape(3, -1, len(joint_pos)).take(self._slots, 1)  # (3, S, B)
        gap = places.take(self._pairs[0], 1) - places.take(self._pairs[1], 1)
        x, y, z = gap * gap
        where = tool[:, :3, 3]
        rooms = (
            (where - self.limits.lower).T,
            (self.limits.upper - where).T,
            places[2, self._moving] - self._floor,
            np.sqrt(x + y + z) - self._apart,
        )
        return Room(tool, np.concatenate(rooms).T)

    def tool(self, joint_pos: Floats) -> Floats:
        """Its frames (B, 4, 4) in postures (B, J)."""
        return self.tree.frames(joint_pos)[self._tool[0]] @ self._tool[1]

    def name(self, respect: int) -> tuple[str, str]:
        """The check that column `respect` of `Room.metres` belongs to, and what it is about."""
        if respect < 6:
            return "workspace_box", f"tool {'xyz'[respect % 3]}"
        respect -= 6
        if respect < len(self._moving):
            return "floor", self._links[self._moving[respect]]
        i, j = self._pairs[:, respect - len(self._moving)]
        return "self_collision", f"{self._links[i]} and {self._links[j]}"
