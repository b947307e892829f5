"""Tasks as the hand sees them: whichever way the base faces, the same is seen and the same joints move."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from robolearn import config
from robolearn.actions import Commander
from robolearn.cli import _world
from robolearn.observation import START, ObservationTerms
from robolearn.rotations import from_rpy, pose_mul
from robolearn.state import ObjectState, RobotState, SceneState
from sim.env import SimEnv
from sim.randomize import RandomizeCfg

pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
_world.discover()
YAWS = torch.tensor([-2.0, -math.pi / 2, -0.3, 0.7, math.pi / 2, 2.2])
TASKS = {
    "franka_lift": ("cube",), "franka_peg_insert": ("peg", "hole"), "franka_stack": ("cube", "base"),
    "franka_two_part": ("part", "plate"),
}  # fmt: skip
EVERY = pytest.mark.parametrize("task", TASKS)


def world(task: str, num_envs: int = 1, **settings: Any) -> SimEnv:
    cfg = config.entry("task", task).config(**({"relative": True, "randomize": RandomizeCfg()} | settings))
    return SimEnv(cfg, config.entry("backend", "mujoco").config(), num_envs)


def about_base(yaw: Tensor, pose: Tensor) -> Tensor:
    """Poses (B, 7) after a turn of the world about the base's axis."""
    zero = torch.zeros_like(yaw)
    turn = torch.cat((torch.zeros(len(yaw), 3), from_rpy(torch.stack((zero, zero, yaw), dim=1))), dim=1)
    return pose_mul(turn, pose.expand(len(yaw), 7))


def turned(robot: RobotState, scene: SceneState, yaw: Tensor) -> tuple[RobotState, SceneState]:
    """Everything but the base, which is what its first joint turns; B of one."""
    b, joints = len(yaw), robot.joint_pos.expand(len(yaw), -1).clone()
    joints[:, 0] += yaw
    off = (robot.joint_target - robot.joint_pos).expand(b, -1)
    there = RobotState(robot.stamp_s.expand(b), joints, robot.joint_vel.expand(b, -1),
                       robot.joint_effort.expand(b, -1), joints + off, robot.root_pose.expand(b, 7),
                       robot.root_vel.expand(b, 6), robot.chain)  # fmt: skip
    objects = {n: ObjectState(about_base(yaw, o.pose), o.vel.expand(b, 6), o.stamp_s.expand(b), o.valid.expand(b))
               for n, o in scene.objects.items()}  # fmt: skip
    commands = {n: about_base(yaw, c) if n == START else c.expand(b, -1) for n, c in scene.commands.items()}
    return there, SceneState(objects, commands=commands)


def moved(env: SimEnv, steps: int = 8) -> tuple[RobotState, SceneState]:
    """Somewhere on the way, all joints moving."""
    env.reset(seed=1)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        env.step(torch.rand(1, env.action_spec.dim, generator=generator) * 2.0 - 1.0)
    return env.states()


@EVERY
def test_the_hand_sees_the_same_whichever_way_the_base_faces(task: str) -> None:
    env = world(task)
    robot, scene = moved(env)
    assert set(scene.objects) == set(TASKS[task]) and float((robot.ee_pose - scene.commands[START]).abs().max()) > 0.02
    terms, still = ObservationTerms(env.observation_spec, "cpu"), torch.zeros(1, env.action_spec.dim)
    here = terms.frames(robot, scene, still)
    there = terms.frames(*turned(robot, scene, YAWS), still.expand(len(YAWS), -1))
    for key, seen in here.items():
        torch.testing.assert_close(there[key], seen.expand_as(there[key]), atol=2e-5, rtol=1e-4)
    env.close()


@EVERY
def test_the_same_action_moves_the_same_joints_whichever_way_the_base_faces(task: str) -> None:
    env = world(task)
    robot, _ = moved(env)
    joints = robot.joint_pos.expand(len(YAWS), -1).clone()
    joints[:, 0] += YAWS
    generator = torch.Generator().manual_seed(3)
    here, there = (Commander(env.action_spec, env.robot, n, env.step_dt, "cpu") for n in (1, len(YAWS)))
    for commander, start in ((here, robot.joint_pos), (there, joints)):
        driven = [env.robot.joint_names.index(n) for n in commander.joints]
        commander.reset(torch.ones(len(start), dtype=torch.bool), start[:, driven])
    for _ in range(10):
        action = torch.rand(1, env.action_spec.dim, generator=generator) * 2.0 - 1.0
        before = here.last.position, there.last.position
        one, many = here(action), there(action.expand(len(YAWS), -1))
        step = one.target - before[0]
        assert float(step.abs().max()) > 1e-3
        torch.testing.assert_close(many.target - before[1], step.expand(len(YAWS), -1), atol=5e-5, rtol=1e-3)
        torch.testing.assert_close(many.applied_action, one.applied_action.expand(len(YAWS), -1), atol=5e-3, rtol=1e-3)
    env.close()


def test_without_it_the_base_is_seen() -> None:
    """Or the test of what is seen could not fail."""
    env = world("franka_lift", relative=False)
    robot, scene = env.states()
    terms, still = ObservationTerms(env.observation_spec, "cpu"), torch.zeros(1, env.action_spec.dim)
    scene.commands[START] = robot.ee_pose
    there = terms.frames(*turned(robot, scene, YAWS), still.expand(len(YAWS), -1))
    assert float((there["policy"] - terms.frames(robot, scene, still)["policy"]).abs().max()) > 0.5
    env.close()


def test_the_start_is_that_of_each_episode() -> None:
    """The first observation says identity wherever the hand starts; an environment that ends has a start of its own."""
    env = world("franka_lift", 3, start_spread_rad=0.2)
    obs, _ = env.reset(seed=4)
    names = [(t.field.name, t.field.size) for t in env.observation_spec.terms("policy")]
    at = sum(size for name, size in names[: [n for n, _ in names].index("ee_pose")])
    nothing = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]).expand(3, 9)
    torch.testing.assert_close(obs["policy"][:, at : at + 9], nothing, atol=1e-5, rtol=0.0)
    first = env.states()[1].commands[START].clone()
    assert float((first[0] - first[1]).abs().max()) > 0.01
    env.episode_length_buf[1] = env.max_episode_length - 1
    forward = torch.zeros(3, env.action_spec.dim)
    forward[:, 0] = 1.0
    obs = env.step(forward)[0]
    second = env.states()[1].commands[START]
    assert torch.equal(second[[0, 2]], first[[0, 2]]) and not torch.equal(second[1], first[1])
    torch.testing.assert_close(obs["policy"][1, at : at + 9], nothing[1], atol=1e-5, rtol=0.0)
    assert float((obs["policy"][0, at : at + 9] - nothing[0]).abs().max()) > 1e-4
    env.close()


def test_the_start_survives_a_checkpoint() -> None:
    env, other = world("franka_lift"), world("franka_lift")
    env.reset(seed=5)
    env.step(torch.ones(1, env.action_spec.dim))
    other.reset(seed=6)
    other.load_state_dict(env.state_dict())
    action = torch.full((1, env.action_spec.dim), 0.5)
    assert torch.equal(env.step(action)[0]["policy"], other.step(action)[0]["policy"])
    env.close(), other.close()


@pytest.mark.parametrize("task", ["franka_lift", "franka_peg_insert"])
def test_the_expert_acts_along_the_hands_axes(task: str) -> None:
    """It succeeds as it does along the base's."""
    env = world(task, 12)
    expert = env.task.expert(12, env.device, 0.0, torch.Generator().manual_seed(0))
    env.reset(seed=7)
    best = torch.zeros(12, dtype=torch.bool)
    for _ in range(env.max_episode_length - 1):
        episode = env.step(expert.act(*env.states()))[-1]["episode"]
        best = best | (episode["success"] > 0.0)
    assert int(best.sum()) >= 10
    env.close()


@pytest.mark.parametrize(
    ("task", "settings", "says"),
    [
        ("franka_lift", {"action": "joint_position_delta"}, r"task\.relative needs task\.action=ee_delta"),
        ("franka_reach", {"action": "ee_delta"}, r"task\.relative and .* are for tasks with objects"),
        ("franka_lift", {"start_spread_rad": -0.1}, r"task\.start_spread_rad must be finite"),
    ],
)
def test_what_cannot_be_relative_is_refused(task: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config.entry("task", task).config(**({"relative": True} | settings))
