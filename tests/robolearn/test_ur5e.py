"""The UR5e's URDF against the published Denavit-Hartenberg table."""

import math
from xml.etree import ElementTree

import pytest
import torch

from robolearn import config
from robolearn.kinematics import Chain
from robolearn.paths import resolve
from robolearn.rotations import quat_to_matrix

config.discover(["robolearn.robots"])
UR5E = config.entry("robot", "ur5e").value
QUARTER = math.pi / 2
# Universal Robots, "DH parameters for calculations of kinematics and dynamics": a (m), d (m), alpha (rad).
TABLE = [
    (0.0, 0.1625, QUARTER), (-0.425, 0.0, 0.0), (-0.3922, 0.0, 0.0),
    (0.0, 0.1333, QUARTER), (0.0, 0.0997, -QUARTER), (0.0, 0.0996, 0.0),
]  # fmt: skip


def row(theta, a, d, alpha):
    """Rz(theta) Tz(d) Tx(a) Rx(alpha), written out."""
    ct, st, ca, sa = math.cos(theta), math.sin(theta), math.cos(alpha), math.sin(alpha)
    return torch.tensor(
        [[ct, -st * ca, st * sa, a * ct], [st, ct * ca, -ct * sa, a * st], [0.0, sa, ca, d], [0.0, 0.0, 0.0, 1.0]],
        dtype=torch.float64,
    )


def flange(q):
    base = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))  # base_link looks the other way
    for theta, (a, d, alpha) in zip(q, TABLE, strict=True):
        base = base @ row(theta, a, d, alpha)
    return base


def test_it_is_where_the_published_table_has_it():
    q = torch.rand(200, 6, generator=torch.Generator().manual_seed(0)) * 4 * math.pi - 2 * math.pi
    pose = Chain(UR5E.urdf, "tool0", UR5E.joint_names).pose(q)
    expected = torch.stack([flange(r) for r in q.tolist()]).float()
    torch.testing.assert_close(pose[:, :3], expected[:, :3, 3], atol=2e-6, rtol=0)
    torch.testing.assert_close(quat_to_matrix(pose[:, 3:]), expected[:, :3, :3], atol=5e-6, rtol=0)


def test_stretched_out_it_reaches_forward_by_the_sum_of_its_links():
    pose = Chain(UR5E.urdf, "tool0", UR5E.joint_names).pose(torch.zeros(1, 6))
    # Along x the two arms; along y the wrist's offsets; down from the shoulder one wrist.
    by_hand = [0.425 + 0.3922, 0.1333 + 0.0996, 0.1625 - 0.0997]
    assert pose[0, :3].tolist() == pytest.approx(by_hand, abs=1e-6)


def test_it_weighs_what_is_published():
    links = ElementTree.parse(resolve(UR5E.urdf)).findall("link")
    masses = {
        e.get("name"): float(e.find("inertial/mass").get("value")) for e in links if e.find("inertial") is not None
    }
    del masses["base_link"]  # it stands
    assert list(masses.values()) == [3.761, 8.058, 2.846, 1.37, 1.3, 0.365]
