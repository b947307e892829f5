"""How much room a posture leaves: the tool in its box, the links above the floor and apart from each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from real.safety.shapes import shapes
from robolearn.limits import ToolLimits
from robolearn.paths import resolve
from robolearn.spec import RobotSpec
from robolearn.urdf import MOVABLE, Tree, read_joints

Floats = NDArray[np.float64]
NUDGE = 1e-6
"""rad, for differences."""
NEAR_M = 0.01
"""Where spheres are nearer than this, the shapes themselves are looked at."""


@dataclass(frozen=True)
class Room:
    """Of B postures."""

    tool: Floats
    """(B, 4, 4) in the base frame."""
    metres: Floats
    """(B, R): room left in each respect, negative where it is exceeded. Their names: `Body.name`."""


class Body:
    """The arm as spheres, with other joints (a gripper's) at the default posture.

    Which shapes can meet: none of one rigid body, of neighbours, nor of links that the specification excludes; nor
    pairs of spheres that are too near already in the default posture. Spheres are thicker than what they cover, so
    where two are near the room is the gap between the convex hulls of the two shapes, seen along the lines between
    their spheres: never more than there is.
    """

    def __init__(self, spec: RobotSpec, tool: ToolLimits, floor_m: float, clearance_m: float):
        self.limits, self.clearance_m = tool, clearance_m
        rest = dict(zip(spec.joint_names, spec.default_joint_pos, strict=True))
        self.tree = Tree(spec.urdf, spec.arm_joints, rest, np.zeros(1))
        frame, offset = self.tree.place(spec.ee_link)
        self._tool = frame, offset
        self._shapes = shapes(spec.urdf)
        self._frames = [self.tree.place(shape.link)[0] for shape in self._shapes]
        self._outlines = [self._in_frame(shape.link, shape.outline)[:, :3] for shape in self._shapes]
        self._shape_of = np.repeat(np.arange(len(self._shapes)), [len(shape.spheres) for shape in self._shapes])
        self._radii = np.concatenate([shape.spheres[:, 3] for shape in self._shapes])
        self._lay_out()
        self._moving = np.flatnonzero([self._frames[s] > 0 for s in self._shape_of])
        self._floor = (self._radii[self._moving] + floor_m)[:, None]
        self._pairs, self._meetings = self._that_meet(spec)
        self._apart = self._radii[self._pairs].sum(0)[:, None] + clearance_m
        posture = np.array([spec.of("default_joint_pos", spec.arm_joints)])
        apart = self.room(posture).metres[0, -len(self._apart) :] >= 0.0
        self._pairs, self._meetings, self._apart = self._pairs[:, apart], self._meetings[apart], self._apart[apart]

    def _in_frame(self, link: str, points: Floats) -> Floats:
        """Points (n, 3) of a link, homogeneous (n, 4), in the frame that carries it."""
        return np.column_stack((points, np.ones(len(points)))) @ self.tree.place(link)[1].T

    def _lay_out(self) -> None:
        """Put the spheres' centres into a table by frame, (n + 1, 1, 4, most), with gaps; each one's slot in it."""
        centres = [self._in_frame(shape.link, shape.spheres[:, :3]) for shape in self._shapes]
        frames = [self._frames[s] for s in self._shape_of]
        most = max(frames.count(f) for f in frames)
        self._centres, slots = np.zeros((self.tree.count, 1, 4, most)), []
        for i, (frame, centre) in enumerate(zip(frames, np.concatenate(centres), strict=True)):
            column = frames[:i].count(frame)
            self._centres[frame, 0, :, column] = centre
            slots.append(frame * most + column)
        self._slots = np.array(slots)

    def _that_meet(self, spec: RobotSpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of spheres (2, P), and the number of the pair of shapes (P,) that each belongs to."""
        never = {frozenset(pair) for pair in spec.contact_exclude}
        joints = read_joints(resolve(spec.urdf))[1]
        frame = {link: self.tree.place(link)[0] for j in joints for link in (j.parent, j.child)}
        near = {frozenset((frame[j.parent], frame[j.child])) for j in joints if j.kind in MOVABLE}
        pairs = np.array(np.triu_indices(len(self._radii), 1))
        first, second = self._shape_of[pairs]
        links = [(self._shapes[i].link, self._shapes[j].link) for i, j in zip(first, second, strict=True)]
        meet = [
            frame[a] != frame[b] and frozenset((frame[a], frame[b])) not in near and frozenset((a, b)) not in never
            for a, b in links
        ]
        return pairs[:, meet], (first * len(self._shapes) + second)[meet]

    def room(self, joint_pos: Floats) -> Room:
        """Of postures (B, J): 6 faces of the box, then the moving spheres above the floor, then pairs."""
        frames = self.tree.frames(joint_pos)
        tool = frames[self._tool[0]] @ self._tool[1]
        by_frame = frames[:, :, :3] @ self._centres  # (n + 1, B, 3, most)
        places = by_frame.transpose(2, 0, 3, 1).reshape(3, -1, len(joint_pos)).take(self._slots, 1)  # (3, S, B)
        gap = places.take(self._pairs[1], 1) - places.take(self._pairs[0], 1)
        x, y, z = gap * gap
        distance = np.sqrt(x + y + z)
        pairs = distance - self._apart
        if pairs.min(initial=np.inf) < NEAR_M:
            self._look_closer(pairs, frames, gap / distance)
        where = tool[:, :3, 3]
        box = (where - self.limits.lower).T, (self.limits.upper - where).T
        return Room(tool, np.concatenate((*box, places[2].take(self._moving, 0) - self._floor, pairs)).T)

    def _look_closer(self, pairs: Floats, frames: Floats, directions: Floats) -> None:
        """Replace the room of near spheres, in `pairs` (P, B), by that of their shapes; directions (3, P, B)."""
        near = np.flatnonzero((pairs < NEAR_M).any(1))
        for meeting in set(self._meetings[near].tolist()):
            these = near[self._meetings[near] == meeting]
            seen = self._hulls_apart(meeting, frames, directions[:, these]) - self.clearance_m
            pairs[these] = np.maximum(pairs[these], seen)

    def _hulls_apart(self, meeting: int, frames: Floats, directions: Floats) -> Floats:
        """Gap (B,) between the hulls of two shapes along the best of directions (3, D, B): a plane across it parts
        them that far."""
        first, second = divmod(meeting, len(self._shapes))
        gap = -self._shapes[first].margin_m - self._shapes[second].margin_m
        ends = []
        for shape, sign in ((first, 1.0), (second, -1.0)):
            frame = frames[self._frames[shape]]  # (B, 4, 4)
            local = np.einsum("bki,kdb->bdi", frame[:, :3, :3], directions)
            farthest = (sign * (local @ self._outlines[shape].T)).max(-1)  # (B, D)
            ends.append(farthest + sign * np.einsum("bk,kdb->bd", frame[:, :3, 3], directions))
        return (gap - ends[0] - ends[1]).max(-1)

    def tool(self, joint_pos: Floats) -> Floats:
        """Its frames (B, 4, 4) in postures (B, J)."""
        return self.tree.frames(joint_pos)[self._tool[0]] @ self._tool[1]

    @property
    def walls(self) -> int:
        """The first so many columns of `Room.metres` are those of the box and the floor."""
        return 6 + len(self._moving)

    def way_in(self, lacks: Floats) -> Floats:
        """Where to (3,) m the tool has to go for what is lacking (walls,) m to be there."""
        way = lacks[:3] - lacks[3:6]
        under = float(lacks[6:].max(initial=0.0))
        way[2] = max(way[2], under) if under > 0.0 else way[2]
        return way

    def jacobian(self, joint_pos: Floats) -> Floats:
        """(6, J) of the tool at joints (J,): m, then rad, in the base frame, for each rad."""
        here, *moved = self.tool(np.concatenate((joint_pos[None], joint_pos + NUDGE * np.eye(len(joint_pos)))))
        turns = [(there[:3, :3] @ here[:3, :3].T) / NUDGE for there in moved]
        spins = [(turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]) for turn in turns]
        shifts = [(there[:3, 3] - here[:3, 3]) / NUDGE for there in moved]
        return np.concatenate((np.array(shifts).T, 0.5 * np.array(spins).T))

    def name(self, respect: int) -> tuple[str, str]:
        """The check that column `respect` of `Room.metres` belongs to, and what it is about."""
        if respect < 6:
            return "workspace_box", f"tool {'xyz'[respect % 3]}"
        respect -= 6
        if respect < len(self._moving):
            return "floor", self._link(self._moving[respect])
        i, j = self._pairs[:, respect - len(self._moving)]
        return "self_collision", f"{self._link(i)} and {self._link(j)}"

    def _link(self, sphere: int) -> str:
        return self._shapes[self._shape_of[sphere]].link
