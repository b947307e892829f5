"""Spheres cover the links, and room is what a ruler would measure."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from real.safety.clearance import Body
from real.safety.shapes import _wavefront, shapes
from robolearn import config
from robolearn.errors import ConfigError
from robolearn.kinematics import Chain
from robolearn.limits import ToolLimits
from robolearn.paths import resolve

config.discover(["robolearn.robots"])
FRANKA, UR5E = (config.entry("robot", n).value for n in ("franka", "ur5e"))
BOX = ToolLimits(np.array([-1.0, -1.0, 0.0]), np.array([1.0, 1.0, 1.2]), 1.0, 1.0)


def rest(spec):
    return np.array([spec.of("default_joint_pos", spec.arm_joints)])


def spheres(urdf, link="a"):
    return np.concatenate([s.spheres for s in shapes(urdf) if s.link == link])


def one_link(tmp_path, shapes):
    path = tmp_path / "one.urdf"
    path.write_text(
        f'<robot name="r"><link name="a">{"".join(f"<collision>{s}</collision>" for s in shapes)}</link></robot>'
    )
    return str(path)


def test_every_vertex_of_every_mesh_is_inside_a_sphere():
    path = resolve(FRANKA.urdf)
    for link in ElementTree.parse(path).getroot().findall("link"):
        for shape in link.findall("collision"):
            vertices, faces = _wavefront(path.parent / shape.find("geometry/mesh").get("filename"))
            if link.get("name").endswith("rightfinger"):
                vertices = vertices * [-1.0, -1.0, 1.0]  # its origin is turned by half a turn
            points = np.concatenate((vertices, vertices[faces].mean(1)))
            cover = spheres(FRANKA.urdf, link.get("name"))
            distance = np.linalg.norm(points[:, None] - cover[None, :, :3], axis=2) - cover[:, 3]
            assert distance.min(1).max() <= 1e-6, link.get("name")


@pytest.mark.parametrize(
    ("shape", "volume"),
    [('<box size="0.1 0.2 0.3"/>', "box"), ('<cylinder radius="0.05" length="0.4"/>', "cylinder"),
     ('<sphere radius="0.1"/>', "sphere")],
)  # fmt: skip
def test_primitives_are_covered_where_their_origin_puts_them(tmp_path, shape, volume):
    origin = f'<origin xyz="1 2 3" rpy="0 {math.pi / 2} 0"/>'  # z becomes x
    cover = spheres(one_link(tmp_path, [f"{origin}<geometry>{shape}</geometry>"]))
    rng = np.random.default_rng(0)
    p = rng.uniform(-1, 1, (20000, 3))
    if volume == "box":
        p = p * [0.05, 0.1, 0.15]
        p = p[(np.abs(p) > [0.049, 0.098, 0.147]).any(1)]
    elif volume == "cylinder":
        angle = rng.uniform(0, math.tau, 20000)
        p = np.stack((0.05 * np.cos(angle), 0.05 * np.sin(angle), 0.2 * p[:, 2]), -1)
    else:
        p = 0.1 * p / np.linalg.norm(p, axis=1, keepdims=True)
    placed = np.stack((p[:, 2], p[:, 1], -p[:, 0]), -1) + np.array([1.0, 2.0, 3.0])
    distance = np.linalg.norm(placed[:, None] - cover[None, :, :3], axis=2) - cover[:, 3]
    assert distance.min(1).max() <= 0.0
    assert cover[:, 3].max() < 0.2


def test_unreadable_shapes_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="is a capsule; the guard reads box, cylinder, sphere, mesh"):
        spheres(one_link(tmp_path, ['<geometry><capsule radius="1"/></geometry>']))
    other = tmp_path / "b"
    other.mkdir()
    with pytest.raises(ConfigError, match=r"from \.obj files, not arm\.stl"):
        spheres(one_link(other, ['<geometry><mesh filename="arm.stl"/></geometry>']))


@pytest.mark.parametrize("spec", [FRANKA, UR5E], ids=lambda s: s.name)
def test_where_it_rests_there_is_room(spec):
    body = Body(spec, BOX, floor_m=-0.02, clearance_m=0.01)
    assert body.room(rest(spec)).metres.min() > 0.01


def test_the_tool_is_where_the_chain_has_it_and_the_box_is_measured_from_there():
    import torch

    body, q = Body(FRANKA, BOX, -0.02, 0.01), rest(FRANKA)
    pose = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names).pose(torch.tensor([FRANKA.default_joint_pos]))
    room = body.room(q)
    np.testing.assert_allclose(room.tool[0, :3, 3], pose[0, :3], atol=1e-6)
    x, y, z = pose[0, :3].tolist()
    np.testing.assert_allclose(room.metres[0, :6], [x + 1, y + 1, z, 1 - x, 1 - y, 1.2 - z], atol=1e-6)


def worst(body, q):
    metres = body.room(np.array([q])).metres[0]
    return body.name(int(metres.argmin())), metres.min()


def test_a_wrist_at_its_own_shoulder_and_a_hand_below_the_floor_are_found():
    franka = Body(FRANKA, BOX, -0.02, 0.01)
    (check, what), room = worst(franka, [0.0, -1.7, 0.0, -3.05, 0.0, 0.3, 0.785])
    assert check == "self_collision" and room < 0.0 and "panda_" in what
    down = rest(UR5E)[0] + np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    (check, what), room = worst(Body(UR5E, BOX, 0.0, 0.01), down)
    assert check in ("floor", "workspace_box") and room < 0.0


def test_folded_onto_itself_the_ur5e_collides():
    (check, _), room = worst(Body(UR5E, BOX, -2.0, 0.01), [0.0, -1.57, 3.1, 0.0, 0.0, 0.0])
    assert check == "self_collision" and room < -0.02


def test_clearance_is_taken_off():
    near, wide = (Body(UR5E, BOX, -2.0, c).room(rest(UR5E)).metres[0, -10:] for c in (0.001, 0.011))
    np.testing.assert_allclose(near - wide, 0.01, atol=1e-9)
