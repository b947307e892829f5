"""A robot's URDF as every engine reads it: meshes found, bodies that physics can move, nothing that one engine heeds
and another does not."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.etree.ElementTree import Element

from robolearn.errors import ConfigError
from robolearn.paths import resolve
from robolearn.spec import RobotSpec


def prepared(spec: RobotSpec) -> Element:
    """The <robot> with absolute mesh paths, without mimic joints and engines' own tags. Raises ConfigError for
    meshes that are not there and joints of the specification that the file lacks."""
    path = resolve(spec.urdf)
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path} is no URDF ({error}); is it cut short?") from None
    _demand_numbers(root, path)
    for mesh in root.iter("mesh"):
        name = mesh.get("filename", "")
        file = resolve(name) if "://" in name else path.parent / name
        if not file.is_file():
            raise ConfigError(f"{path} names a mesh that is not there: {file}")
        mesh.set("filename", str(file))
    for own in root.findall("mujoco"):
        root.remove(own)
    for joint in root.findall("joint"):  # every joint of the specification has its own controller
        for mimic in joint.findall("mimic"):
            joint.remove(mimic)
    rigid = "fixed" if spec.quadrotor is None else ""  # rotors stand still in a URDF
    names = {j.get("name", "") for j in root.findall("joint") if j.get("type") != rigid}
    missing = [j for j in spec.joint_names if j not in names]
    if missing:
        raise ConfigError(f"{spec.urdf} has no joints {missing}; it has {sorted(names)}")
    return root


def _demand_numbers(root: Element, path: Path) -> None:
    """Masses, inertias and joints' dynamics are numbers."""
    for tag in ("mass", "inertia", "dynamics"):
        for name, value in (pair for element in root.iter(tag) for pair in element.attrib.items()):
            try:
                float(value)
            except ValueError:
                raise ConfigError(f'{path}: <{tag} {name}="{value}"> is no number') from None


def welded(root: Element) -> dict[str, str]:
    """Link -> the first link of the group that fixed joints make one rigid body of it."""
    up = {child: parent for parent, child, kind in _joints(root) if kind == "fixed"}
    return {link: _top(link, up) for link in links(root)}


def _top(link: str, up: dict[str, str]) -> str:
    while link in up:
        link = up[link]
    return link


def links(root: Element) -> list[str]:
    return [e.get("name", "") for e in root.findall("link")]


def _joints(root: Element) -> list[tuple[str, str, str]]:
    """(parent, child, type) of each."""
    found = []
    for joint in root.findall("joint"):
        parent, child = joint.find("parent"), joint.find("child")
        if parent is not None and child is not None:
            found.append((parent.get("link", ""), child.get("link", ""), joint.get("type", "")))
    return found


def apart(root: Element, exclude: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Pairs of links that do not collide: the excluded ones, those of one rigid body, and neighbours."""
    body = welded(root)
    near = {frozenset((body[a], body[b])) for a, b, _ in _joints(root)}
    names = sorted(body)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    shut = {frozenset(pair) for pair in exclude}
    return [(a, b) for a, b in pairs if frozenset((a, b)) in shut or frozenset((body[a], body[b])) in near
            or body[a] == body[b]]  # fmt: skip


def refuse_massless(root: Element, spec: RobotSpec) -> None:
    """Raise ConfigError for moving bodies without mass or inertia, by name."""
    body, weight = welded(root), dict.fromkeys(links(root), 0.0)
    for link in root.findall("link"):
        name, mass, inertia = link.get("name", ""), link.find("inertial/mass"), link.find("inertial/inertia")
        if mass is not None and inertia is not None:
            turning = min(float(inertia.get(i, 0.0)) for i in ("ixx", "iyy", "izz"))
            weight[body[name]] += float(mass.get("value", 0.0)) * (turning > 0.0)
    moving = {child for _, child, kind in _joints(root) if kind != "fixed"}
    empty = [name for name in links(root) if name in moving and not weight[name] > 0.0]
    if empty:
        raise ConfigError(f"{spec.urdf}: moving links need mass and inertia, {', '.join(empty)} have none")


def complete_inertials(root: Element) -> None:
    """What has no mass gets zero written down (an engine may else assume a kilogram), and inertias that no body can
    have become a ball's, as MuJoCo's `balanceinertia` does."""
    for link in root.findall("link"):
        inertial = link.find("inertial")
        if inertial is None:
            inertial = ElementTree.SubElement(link, "inertial")
            ElementTree.SubElement(inertial, "mass", {"value": "0"})
            ElementTree.SubElement(inertial, "inertia", dict.fromkeys(("ixx", "ixy", "ixz", "iyy", "iyz", "izz"), "0"))
        inertia = inertial.find("inertia")
        if inertia is not None and not any(float(inertia.get(i, 0.0)) for i in ("ixy", "ixz", "iyz")):
            moments = [float(inertia.get(i, 0.0)) for i in ("ixx", "iyy", "izz")]
            if sum(moments) < 2.0 * max(moments):
                for i in ("ixx", "iyy", "izz"):
                    inertia.set(i, str(sum(moments) / 3.0))


def limit_joints(root: Element, spec: RobotSpec) -> None:
    """The specification's joint limits in place of the file's."""
    for joint in root.findall("joint"):
        name = joint.get("name", "")
        if name not in spec.joint_names or joint.get("type") not in ("revolute", "continuous", "prismatic"):
            continue
        i = spec.joint_names.index(name)
        bounded = math.isfinite(spec.lower[i]) or math.isfinite(spec.upper[i])
        if joint.get("type") != "prismatic":
            joint.set("type", "revolute" if bounded else "continuous")
        limit = joint.find("limit")
        if limit is None:
            limit = ElementTree.SubElement(joint, "limit", {"effort": "0", "velocity": "0"})
        low, high = (max(spec.lower[i], -1e6), min(spec.upper[i], 1e6)) if bounded else (1.0, -1.0)  # low > high: free
        limit.set("lower", str(low))
        limit.set("upper", str(high))


def take_damping(root: Element, spec: RobotSpec) -> list[float]:
    """The file's viscous friction of each joint, N m s/rad or N s/m; the file then has none."""
    found = dict.fromkeys(spec.joint_names, 0.0)
    for joint in root.findall("joint"):
        dynamics = joint.find("dynamics")
        if dynamics is not None:
            found[joint.get("name", "")] = float(dynamics.attrib.pop("damping", 0.0))
    return [found[name] for name in spec.joint_names]
