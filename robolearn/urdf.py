"""Joints of a URDF, and where they put its links. Constants are float64 arrays; what moves may be a tensor too."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robolearn.arrays import Array, like, namespace
from robolearn.paths import resolve

Floats = NDArray[np.float64]
MOVABLE = ("revolute", "continuous", "prismatic")
KINDS = (*MOVABLE, "fixed")


@dataclass(frozen=True)
class Joint:
    name: str
    kind: str
    parent: str
    child: str
    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]
    axis: tuple[float, float, float]


def read_joints(path: Path) -> tuple[str, list[Joint]]:
    """Root link and joints of a URDF, parents first. Raises ValueError naming what is malformed."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not a URDF: {error}") from None
    joints = [_joint(e, path) for e in root.findall("joint")]
    children = {j.child: j.name for j in joints}
    for joint in joints:
        if children[joint.child] != joint.name:
            raise ValueError(f"{path}: link {joint.child} has two parents: {joint.name}, {children[joint.child]}")
    roots = [e.get("name", "") for e in root.findall("link") if e.get("name") not in children]
    if len(roots) != 1:
        raise ValueError(f"{path} must have one root link, found {roots}")
    known: set[str] = set(roots)
    ordered: list[Joint] = []
    while len(ordered) < len(joints):
        ready = [j for j in joints if j.parent in known and j.child not in known]
        if not ready:
            lost = [j.name for j in joints if j.child not in known]
            raise ValueError(f"{path}: joints {lost} hang on no link")
        ordered += ready
        known |= {j.child for j in ready}
    return roots[0], ordered


def _joint(element: ElementTree.Element, path: Path) -> Joint:
    where, kind = f"{path}: joint {element.get('name')}", element.get("type", "")

    def numbers(tag: str, attribute: str, default: str) -> tuple[float, float, float]:
        child = element.find(tag)
        text = child.get(attribute, default) if child is not None else default
        try:
            x, y, z = map(float, text.split())
        except ValueError:
            x = y = z = math.nan
        if not all(map(math.isfinite, (x, y, z))):
            raise ValueError(f"{where}: {tag} {attribute} = '{text}' is not three numbers")
        return x, y, z

    parent, child = element.find("parent"), element.find("child")
    if parent is None or child is None:
        raise ValueError(f"{where} lacks a parent or a child")
    if kind not in KINDS:
        raise ValueError(f"{where}: type '{kind}' is none of {', '.join(KINDS)}")
    axis = numbers("axis", "xyz", "1 0 0")
    if kind in MOVABLE and not any(axis):
        raise ValueError(f"{where}: its axis has no direction")
    xyz, rpy = numbers("origin", "xyz", "0 0 0"), numbers("origin", "rpy", "0 0 0")
    return Joint(element.get("name", ""), kind, parent.get("link", ""), child.get("link", ""), xyz, rpy, axis)


class Tree:
    """Frames of a URDF's links in the root's frame, branches included, on tensors or NumPy arrays.

    Moves the joints named; the others stand at `rest` (0 where it has none). Beside `Chain` this is for every link of
    few postures: plain products of matrices, batch first.
    """

    def __init__(self, urdf: str, joint_names: tuple[str, ...], rest: dict[str, float], example: Array):
        self.root, joints = read_joints(resolve(urdf))
        self._places: dict[str, tuple[int, Floats]] = {self.root: (0, np.eye(4))}
        self._parents: list[int] = []
        order, terms = [0], [np.stack((np.eye(4), *np.zeros((3, 4, 4))))]
        for joint in joints:
            frame, offset = self._places[joint.parent]
            turn = z_onto(joint.axis if joint.kind in MOVABLE else (0.0, 0.0, 1.0))
            still, sine, versine, slide = constants(offset @ origin(joint) @ turn, joint.kind)
            if joint.name in joint_names:
                order.append(joint_names.index(joint.name))
                terms.append(np.stack((still + versine, sine, -versine, slide)))
                self._parents.append(frame)
                frame, offset = len(self._parents), turn.T
            else:
                q = rest.get(joint.name, 0.0)
                offset = (still + math.sin(q) * sine + (1.0 - math.cos(q)) * versine + q * slide) @ turn.T
            self._places[joint.child] = (frame, offset)
        missing = set(joint_names) - {j.name for j in joints if j.kind in MOVABLE}
        if missing:
            raise ValueError(f"{urdf} has no joints {sorted(missing)} that move")
        self._order, self.count = order, len(order)
        stacked = np.stack(terms, axis=1).reshape(4, -1, 1, 16)  # (4, n + 1, 1, 16)
        self._slides = bool(stacked[3].any())
        self._constants = like(stacked, example)

    def place(self, link: str) -> tuple[int, Floats]:
        """The moving frame that carries a link, and the link's pose in it (4, 4)."""
        if link not in self._places:
            raise ValueError(f"no link '{link}'; the robot has {', '.join(self._places)}")
        return self._places[link]

    def frames(self, joint_pos: Array) -> Array:
        """(n + 1, B, 4, 4): the root, then what each joint moves, from joint_pos (B, n) over `joint_names`."""
        q = joint_pos.T[self._order][:, :, None]
        xp = namespace(q)
        still, sine, cosine, slide = self._constants
        local = still + xp.sin(q) * sine + xp.cos(q) * cosine
        local = local + q * slide if self._slides else local
        frames = local.reshape(*q.shape[:2], 4, 4)
        for k, parent in enumerate(self._parents, start=1):
            if parent:
                frames[k] = frames[parent] @ frames[k]
        return frames


def rpy_matrix(roll: float, pitch: float, yaw: float) -> Floats:
    """(3, 3): turned about the fixed x, then y, then z axis, rad, as URDF has it."""
    (sr, sp, sy), (cr, cp, cy) = np.sin((roll, pitch, yaw)), np.cos((roll, pitch, yaw))
    return np.array([
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ])  # fmt: skip


def pose_of_frame(frame: Floats) -> Floats:
    """(7,): position, then quaternion xyzw with w >= 0, of a frame (4, 4).

    The 16 products 4 q_i q_j are linear in the matrix; the row with the largest 4 q_i^2 is q up to its length.
    """
    (a, b, c), (d, e, f), (g, h, i) = frame[:3, :3]
    products = np.array([
        [1 + a - e - i, b + d, c + g, h - f],
        [b + d, 1 - a + e - i, f + h, c - g],
        [c + g, f + h, 1 - a - e + i, d - b],
        [h - f, c - g, d - b, 1 + a + e + i],
    ])  # fmt: skip
    turn = products[products.diagonal().argmax()]
    return np.concatenate((frame[:3, 3], turn / math.copysign(float(np.linalg.norm(turn)), turn[3])))


def origin(joint: Joint) -> Floats:
    """(4, 4): where the joint is in its parent link's frame."""
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rpy_matrix(*joint.rpy), joint.xyz
    return out


def z_onto(axis: tuple[float, float, float]) -> Floats:
    """A rotation (4, 4) that takes z to the axis."""
    z = np.array(axis) / np.linalg.norm(axis)
    x = np.cross(np.eye(3)[int(abs(z).argmin())], z)
    x /= np.linalg.norm(x)
    out = np.eye(4)
    out[:3, :3] = np.stack((x, np.cross(z, x), z), axis=1)
    return out


def constants(offset: Floats, kind: str) -> tuple[Floats, Floats, Floats, Floats]:
    """(A, S, C, L) with offset @ transform(q) = A + sin(q) S + (1 - cos q) C + q L, about or along z."""
    skew, slide = np.zeros((4, 4)), np.zeros((4, 4))
    if kind == "prismatic":
        slide[2, 3] = 1.0
    else:
        skew[1, 0], skew[0, 1] = 1.0, -1.0
    return offset, offset @ skew, offset @ skew @ skew, offset @ slide
