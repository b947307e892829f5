"""Targets beyond a wall: the arm slides along it, and is not moved by the wall itself."""

import numpy as np
import pytest
import torch

from real.safety.admission import SLIDE_M, Path, slide_along_the_walls
from real.safety.clearance import Body
from real.safety.guard import Guard
from real.safety.proposals import Proposal
from robolearn import config
from robolearn.kinematics import Chain

config.discover(["robolearn.robots", "real.robots"])
NAMES = ("franka", "ur5e")
DT, PERIOD = 0.002, 0.05


def body_of(name, **changes):
    profile = config.entry("profile", name).value
    spec = config.entry("robot", profile.robot).value
    limits = profile.limits.tightened(changes)
    return Body(spec, limits.tool(), limits.floor_m, limits.clearance_m), spec, limits


def rest(spec):
    return np.array(spec.of("default_joint_pos", spec.arm_joints))


@pytest.mark.parametrize("name", NAMES)
def test_the_jacobian_is_that_of_the_chain(name):
    body, spec, _ = body_of(name)
    _, expected = Chain(spec.urdf, spec.ee_link, spec.arm_joints).pose_and_jacobian(
        torch.tensor(rest(spec))[None].float()
    )
    assert np.allclose(body.jacobian(rest(spec)), expected[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_target_beyond_a_wall_is_brought_to_it_and_keeps_the_rest_of_what_was_asked(axis, sign):
    at = body_of("franka")[0].tool(rest(config.entry("robot", "franka").value)[None])[0, :3, 3]
    wall = float(at[axis] + sign * 0.02)
    bounds = {"box_lower_m": [-0.95, -0.95, 0.0], "box_upper_m": [0.95, 0.95, 1.3]}
    bounds["box_lower_m" if sign < 0.0 else "box_upper_m"][axis] = wall
    body, spec, _ = body_of("franka", **bounds)
    step = np.full(3, 0.01)  # m, of which the wall takes away only its own direction's
    step[axis] = 0.05 * sign
    target = rest(spec) + np.linalg.pinv(body.jacobian(rest(spec))) @ np.concatenate((step, np.zeros(3)))
    path, clips = slide_along_the_walls(Path(np.array([1.0]), target[None]), rest(spec), body)
    asked, got = body.tool(np.stack((target, path.places[0])))
    assert [c.kind for c in clips] == ["workspace_box"] and clips[0].what == f"tool {'xyz'[axis]}"
    assert SLIDE_M - 3e-4 < sign * (wall - got[axis, 3]) < SLIDE_M + 2e-3
    others = [k for k in range(3) if k != axis]
    assert np.allclose(got[others, 3], asked[others, 3], atol=4e-3)
    assert np.allclose(got[:3, :3], asked[:3, :3], atol=0.03)


def test_a_target_within_is_not_touched():
    body, spec, _ = body_of("franka")
    path = Path(np.array([1.0, 2.0]), rest(spec) + np.array([[0.02], [0.04]]))
    same, clips = slide_along_the_walls(path, rest(spec), body)
    assert np.array_equal(same.places, path.places) and clips == []


def test_who_stands_outside_is_not_pulled_in_by_a_target_where_it_stands():
    body, spec, _ = body_of("franka", box_lower_m=[-0.95, -0.95, 0.35])
    assert body.room(rest(spec)[None]).metres[0, 2] < -0.02
    path = Path(np.array([1.0]), rest(spec)[None].copy())
    same, clips = slide_along_the_walls(path, rest(spec), body)
    assert np.array_equal(same.places, path.places) and clips == []


@pytest.mark.parametrize("name", NAMES)
def test_an_arm_that_is_pushed_against_the_table_still_goes_sideways(name):
    """Every period the source asks for 1 cm down and 1 cm to the side, from where its set-points are."""
    body, spec, limits = body_of(name)
    start = rest(spec)
    guard = Guard(limits, spec, ("policy",), DT)
    now, place = 10.0, start
    guard.observe(now, place, 0 * place, now)
    assert guard.take("policy").ok
    heights = []
    for _ in range(80):
        down = np.array([0.0, 0.01, -0.01, 0.0, 0.0, 0.0])
        j = body.jacobian(place)
        target = place + j.T @ np.linalg.solve(j @ j.T + 1e-4 * np.eye(6), down)
        guard.propose("policy", now, Proposal(spec.arm_joints, [target.tolist()], now, PERIOD))
        for _ in range(round(PERIOD / DT)):
            now += DT
            place = guard.command(now).target
            guard.observe(now, place, 0 * place, now)
        heights.append(float(body.tool(place[None])[0, 2, 3]))
    first, last = (body.tool(q[None])[0, :3, 3] for q in (start, place))
    assert min(heights) >= limits.box_lower_m[2] and heights[-1] < heights[0] - 0.1
    pressed = [k for k, h in enumerate(heights) if h < heights[-1] + 0.01]
    assert len(pressed) > 10 and last[1] - first[1] > 0.3
