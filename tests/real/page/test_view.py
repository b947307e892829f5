"""Words, lines and figures of the page, against other computations of the same."""

import json
import math
import os

import numpy as np
import pytest
import torch

from real.page.drag import SETTLE_S, towards
from real.page.figures import MOST_POINTS, Figures
from real.page.view import Skeleton, who
from robolearn.kinematics import Chain
from robolearn.robots.franka import FRANKA
from robolearn.robots.ur5e import UR5E
from robolearn.rotations import from_rpy

PEOPLE = ("teleop", "page")


@pytest.mark.parametrize(
    ("guard", "owner", "paused", "kind", "title"),
    [
        ("active", "policy", False, "policy", "THE POLICY IS IN CONTROL"),
        ("holding", "env", True, "policy", "THE POLICY IS IN CONTROL"),
        ("active", "teleop", False, "person", "A PERSON IS IN CONTROL"),
        ("idle", "", False, "nobody", "NOBODY IS IN CONTROL"),
        ("idle", "", True, "paused", "PAUSED"),
        ("stopped", "", False, "stopped", "STOPPED"),
        ("stopped", "", True, "stopped", "STOPPED"),
        ("fault", "", True, "fault", "EMERGENCY STOP"),
        ("", "policy", False, "silent", "NO GUARD"),
    ],
)
def test_who_is_in_control_is_said_in_a_word(guard, owner, paused, kind, title):
    said = who(guard, owner, "", PEOPLE, "joy", paused)
    assert (said.kind, said.title) == (kind, title)


def test_details_name_the_device_the_reason_and_a_hold():
    assert who("active", "teleop", "", PEOPLE, "joy", False).detail == "teleop: joy"
    assert who("holding", "policy", "", PEOPLE, "joy", False).detail == "policy (holding)"
    assert who("fault", "", "64 N", PEOPLE, "", False).detail.startswith("64 N")


def test_the_arm_s_line_leads_from_the_base_over_its_joints_to_the_tool():
    skeleton, chain = Skeleton(FRANKA), Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names)
    posture = torch.rand(3, len(FRANKA.joint_names), generator=torch.Generator().manual_seed(0)) * 0.04
    for q, pose in zip(posture, chain.pose(posture), strict=True):
        joints = q.double().numpy()
        assert np.allclose(skeleton.tool(joints), pose.numpy(), atol=1e-5)
        arm, *fingers = skeleton.lines(joints)
        assert arm[0] == [0.0, 0.0, 0.0] and len(arm) == 9 and len(fingers) == 2
        assert arm[1] == [0.0, 0.0, 0.333]  # Franka's first joint
        ends = np.mean([finger[-1] for finger in fingers], axis=0)
        assert np.allclose(ends, pose[:3].numpy(), atol=1e-3)  # the tool is between the fingertips
        width = np.linalg.norm(np.subtract(fingers[0][1], fingers[1][1]))
        assert width == pytest.approx(float(q[7] + q[8]), abs=2e-4)


def test_an_arm_without_a_gripper_is_one_line_that_ends_at_its_tool():
    skeleton, chain = Skeleton(UR5E), Chain(UR5E.urdf, UR5E.ee_link, UR5E.joint_names)
    q = torch.linspace(-1.0, 1.0, len(UR5E.joint_names))
    (arm,) = skeleton.lines(q.double().numpy())
    assert len(arm) == 8 and np.allclose(arm[-1], chain.pose(q[None])[0, :3].numpy(), atol=1e-3)


def test_a_dragged_tool_goes_straight_at_full_speed_and_slows_down_at_the_end():
    pose = torch.tensor([0.4, 0.0, 0.3, 0.0, 0.0, 0.0, 1.0])
    far = towards(torch.tensor([0.4, 0.3, -0.1]), pose, 0.1, in_tool=False)
    assert far == pytest.approx((0.0, 0.6, -0.8, 0.0, 0.0, 0.0))  # the way is 3-4-5
    near = towards(torch.tensor([0.405, 0.0, 0.3]), pose, 0.1, in_tool=False)
    assert near[0] == pytest.approx(0.005 / (0.1 * SETTLE_S), rel=1e-4)
    assert towards(torch.tensor([0.4004, 0.0, 0.3]), pose, 0.1, in_tool=False) == (0.0,) * 6


def test_a_drag_means_the_same_place_in_the_tool_s_frame():
    turned = torch.cat((torch.zeros(3), from_rpy(torch.tensor([[0.0, 0.0, math.pi / 2]]))[0]))
    assert towards(torch.tensor([1.0, 0.0, 0.0]), turned, 0.1, in_tool=True) == pytest.approx(
        (0.0, -1.0, 0.0, 0.0, 0.0, 0.0), abs=1e-6
    )


def line(step, **figures):
    return json.dumps({"step": step, **{f"episode/{k}": v for k, v in figures.items()}}) + "\n"


def test_figures_are_followed_as_they_are_written_and_a_cut_line_waits_for_its_end(tmp_path):
    figures, path = Figures(tmp_path), tmp_path / "metrics.jsonl"
    assert not figures.look() and figures.latest == {}  # no run yet
    first, second = line(10, success=0.5, intervened=0.3), line(20, success=0.75)
    path.write_text(first + second[:9])
    assert figures.look() and figures.latest["success rate"] == 0.5 and figures.latest["steps learned from"] == 10
    path.write_text(first + second)
    assert figures.look() and figures.latest == {"steps learned from": 20, "success rate": 0.75}
    assert figures.curves["success rate"] == [(10, 0.5), (20, 0.75)]
    assert not figures.look()


def test_figures_that_begin_anew_or_are_none_do_no_harm(tmp_path):
    figures, path = Figures(tmp_path), tmp_path / "metrics.jsonl"
    path.write_text("nonsense\n[1]\n" + line(5, success=float("nan"), ratio=1.0) + line(6, success=1.0))
    figures.look()
    assert figures.curves == {"updates a step": [(5, 1.0)], "success rate": [(6, 1.0)]}
    path.write_text(line(1, success=0.0))
    figures.look()
    assert figures.curves == {"success rate": [(1, 0.0)]}


def test_the_last_run_is_whichever_is_the_newest_when_one_looks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures = Figures("last")
    assert not figures.look() and figures.latest == {}  # no run yet
    for k, name in enumerate(("first", "second")):
        folder = tmp_path / "runs" / "lift" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        os.utime(folder / "config.yaml", (k, k))
        assert figures.look() and figures.curves == {} and not figures.look()  # of the one before nothing stays
        (folder / "metrics.jsonl").write_text(line(k, success=0.5 * k))
        assert figures.look() and figures.curves == {"success rate": [(k, 0.5 * k)]}


def test_a_long_curve_is_thinned_and_keeps_both_ends(tmp_path):
    figures = Figures(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(line(k, success=0.0) for k in range(2 * MOST_POINTS + 1)))
    figures.look()
    curve = figures.curves["success rate"]
    assert len(curve) <= MOST_POINTS and curve[0][0] == 0 and curve[-1][0] == 2 * MOST_POINTS
