"""Batched forward kinematics and geometric Jacobians of a URDF tree, the same in simulation and on hardware."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robolearn.paths import resolve
from robolearn.rotations import from_rpy, matrix_to_quat, quat_to_matrix

MOVABLE = ("revolute", "continuous", "prismatic")


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
    children = {j.child for j in joints}
    roots = [e.get("name", "") for e in root.findall("link") if e.get("name") not in children]
    if len(roots) != 1:
        raise ValueError(f"{path} must have one root link, found {roots}")
    known, ordered = set(roots), []
    while len(ordered) < len(joints):
        ready = [j for j in joints if j.parent in known and j.child not in known]
        if not ready:
            raise ValueError(f"{path}: joints {[j.name for j in joints if j.child not in known]} hang on no link")
        ordered += ready
        known |= {j.child for j in ready}
    return roots[0], ordered


def _joint(element: ElementTree.Element, path: Path) -> Joint:
    def numbers(tag: str, attribute: str, default: str) -> tuple[float, float, float]:
        child = element.find(tag)
        text = child.get(attribute, default) if child is not None else default
        values = tuple(float(v) for v in text.split())
        if len(values) != 3 or not all(map(math.isfinite, values)):
            raise ValueError(f"{path}: joint {element.get('name')}: {tag} {attribute} = '{text}'")
        return values

    parent, child = element.find("parent"), element.find("child")
    if parent is None or child is None:
        raise ValueError(f"{path}: joint {element.get('name')} lacks a parent or a child")
    return Joint(
        element.get("name", ""), element.get("type", ""), parent.get("link", ""), child.get("link", ""),
        numbers("origin", "xyz", "0 0 0"), numbers("origin", "rpy", "0 0 0"), numbers("axis", "xyz", "1 0 0"),
    )  # fmt: skip


class Chain:
    """The joints between the root link and `tip`, as one product of 4x4 transforms.

    A joint's transform is A + sin(q) S + (1 - cos q) C + q L with constant matrices (Rodrigues), so that all joints of
    all environments are built in a handful of tensor operations. `joint_names` fixes the order of q.
    """

    def __init__(self, urdf: str, tip: str, joint_names: tuple[str, ...], device: torch.device | str = "cpu"):
        root, joints = read_joints(resolve(urdf))
        path = _path_to(tip, root, joints)
        self.root, self.tip = root, tip
        moving = [j for j in path if j.kind in MOVABLE]
        missing = [j.name for j in moving if j.name not in joint_names]
        if missing:
            raise ValueError(f"{urdf}: joints {missing} on the way to {tip} are not among {joint_names}")
        self.ids = torch.tensor([joint_names.index(j.name) for j in moving], device=device)
        self.dof = len(joint_names)
        offset, constants = torch.eye(4, dtype=torch.float64), []
        for joint in path:
            offset = offset @ _origin(joint)
            if joint.kind in MOVABLE:
                constants.append(_constants(offset, joint))
                offset = torch.eye(4, dtype=torch.float64)
        stacked = torch.stack([torch.stack(c) for c in constants], dim=1).float().to(device)
        self._fixed, self._sin, self._cos, self._linear = stacked
        self._tip = offset.float().to(device)
        axes = [torch.nn.functional.normalize(torch.tensor(j.axis), dim=0) for j in moving]
        self._axis = torch.stack(axes)[..., None].to(device)
        self._revolute = torch.tensor([j.kind != "prismatic" for j in moving], device=device)[:, None]

    def frames(self, joint_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Joint frames (B, n, 4, 4) and tip frame (B, 4, 4) in the root link's frame, from joint_pos (B, J)."""
        q = joint_pos[:, self.ids, None, None]
        local = self._fixed + torch.sin(q) * self._sin + (1.0 - torch.cos(q)) * self._cos + q * self._linear
        frames = [local[:, 0]]
        for transform in local.unbind(1)[1:]:
            frames.append(frames[-1] @ transform)
        return torch.stack(frames, dim=1), frames[-1] @ self._tip

    def pose(self, joint_pos: Tensor) -> Tensor:
        """Tip pose (B, 7) in the root link's frame."""
        return to_pose(self.frames(joint_pos)[1])

    def pose_and_jacobian(self, joint_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Tip pose (B, 7) and geometric Jacobian (B, 6, J): rows are linear then angular velocity, in the root's
        frame, at the tip's origin; columns run over `joint_names` (zero for joints that do not move the tip)."""
        frames, tip = self.frames(joint_pos)
        axis = (frames[..., :3, :3] @ self._axis).squeeze(-1)
        arm = tip[:, None, :3, 3] - frames[..., :3, 3]
        linear = torch.where(self._revolute, torch.linalg.cross(axis, arm), axis)
        columns = torch.cat((linear, axis * self._revolute), dim=-1).transpose(1, 2)
        if len(self.ids) == self.dof:
            return to_pose(tip), columns[..., torch.argsort(self.ids)]
        full = columns.new_zeros(len(joint_pos), 6, self.dof)
        return to_pose(tip), full.index_copy(2, self.ids, columns)


def to_pose(frame: Tensor) -> Tensor:
    """(..., 4, 4) -> position + quaternion xyzw (..., 7)."""
    return torch.cat((frame[..., :3, 3], matrix_to_quat(frame[..., :3, :3])), dim=-1)


def damped_ik(jacobian: Tensor, delta: Tensor, damping: float) -> Tensor:
    """Joint step (B, n) that best moves the tip by delta (B, 6): J^T (J J^T + damping^2 I)^-1 delta
    (Wampler 1986, damped least squares)."""
    gram = jacobian @ jacobian.transpose(1, 2)
    gram = gram + damping**2 * torch.eye(6, device=gram.device)
    return (jacobian.transpose(1, 2) @ torch.linalg.solve(gram, delta[..., None])).squeeze(-1)


def _path_to(tip: str, root: str, joints: list[Joint]) -> list[Joint]:
    by_child = {j.child: j for j in joints}
    path, link = [], tip
    while link != root:
        if link not in by_child:
            raise ValueError(f"no link '{tip}'; the robot has {root}, {', '.join(by_child)}")
        path.append(by_child[link])
        link = path[-1].parent
    return path[::-1]


def _origin(joint: Joint) -> Tensor:
    out = torch.eye(4, dtype=torch.float64)
    out[:3, :3] = quat_to_matrix(from_rpy(torch.tensor(joint.rpy, dtype=torch.float64)))
    out[:3, 3] = torch.tensor(joint.xyz, dtype=torch.float64)
    return out


def _constants(offset: Tensor, joint: Joint) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(A, S, C, L) with offset @ transform(q) = A + sin(q) S + (1 - cos q) C + q L."""
    axis = torch.nn.functional.normalize(torch.tensor(joint.axis, dtype=torch.float64), dim=0)
    skew, slide = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
    if joint.kind == "prismatic":
        slide[:3, 3] = axis
    else:
        x, y, z = axis.tolist()
        skew[:3, :3] = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return offset, offset @ skew, offset @ skew @ skew, offset @ slide
