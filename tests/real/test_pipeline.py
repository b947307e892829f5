"""A robot's pipeline is the simulator's: the same states and actions give the same observations and set-points."""

import pytest
import torch

from real.pipeline import Pipeline, joints_read_by, numbers_of, objects_of, poses_of
from robolearn import config
from robolearn.cli import _world
from robolearn.observation import START
from robolearn.spec import Field, ObservationSpec, PolicySpec, TermSpec
from sim.env import SimEnv
from sim.randomize import RandomizeCfg

pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")


@pytest.fixture(scope="module", autouse=True)
def _known():
    _world.discover()


def world(task: str, **settings) -> SimEnv:
    """One copy, nothing random on what is sensed."""
    cfg = config.entry("task", task).config(randomize=RandomizeCfg(), **settings)
    return SimEnv(cfg, config.entry("backend", "mujoco").config(), 1)


@pytest.mark.parametrize(
    ("task", "action"),
    [("franka_reach", "joint_position_delta"), ("franka_reach", "ee_delta"), ("franka_lift", "ee_delta"),
     ("franka_lift", "asked"), ("franka_lift", "relative"), ("franka_peg_insert", "relative"),
     ("franka_peg_insert", "asked")],
)  # fmt: skip
def test_observations_and_set_points_are_those_of_the_simulator(task, action):
    """A robot keeps by itself where its hand began; `asked` is seen from where the set-points would have the hand."""
    settings = {"relative": {"relative": True, "start_spread_rad": 0.3}, "asked": {"own_commands": False}}.get(
        action, {"action": action}
    )
    env = world(task, **settings)
    pipeline = Pipeline(env.policy_spec(), env.robot)
    obs, _ = env.reset(seed=3)
    robot, scene = env._states()
    pipeline.reset(robot.joint_target[0])
    for k in range(25):
        scene.commands.pop(START, None)
        seen = pipeline.state(0.0, robot.joint_pos[0], robot.joint_vel[0], robot.joint_effort[0])
        assert torch.equal(pipeline.observe(seen, scene)["policy"], obs["policy"])
        act = torch.rand(1, env.action_spec.dim, generator=torch.Generator().manual_seed(k)) * 2 - 1
        command = pipeline.command(act)
        obs, _, _, _, extras = env.step(act)
        assert torch.equal(command.applied_action, extras["applied_action"])
        assert torch.equal(pipeline.target, env._target)
        robot, scene = env._states()
    env.close()


def test_where_the_hand_began_is_of_this_episode():
    """The first frame says that it has not moved, wherever that is."""
    env = world("franka_lift", relative=True)
    pipeline, rest = Pipeline(env.policy_spec(), env.robot), torch.tensor(env.robot.default_joint_pos)
    scene, still, seen = env._states()[1], torch.zeros(9), []
    for shift in (0.0, 0.2):
        pipeline.reset(rest)
        for more in (0.0, 0.1):
            state = pipeline.state(0.0, rest + shift + more, still, still)
            seen.append(pipeline.observe(state, scene)["policy"][0, 2:5].norm())  # metres from the start
    assert max(seen[0], seen[2]) < 1e-6 and min(seen[1], seen[3]) > 0.01
    env.close()


def test_where_a_gripper_is_as_a_number_of_an_action():
    """Franka's fingers go from 0 (-1) to 4 cm (+1)."""
    env = world("franka_lift", action="ee_delta")
    pipeline, at = Pipeline(env.policy_spec(), env.robot), torch.tensor(env.robot.default_joint_pos)
    for opening_m, number in ((0.04, 1.0), (0.01, -0.5), (0.0, -1.0), (0.041, 1.0)):
        at[7:] = opening_m
        pipeline.reset(at)
        assert pipeline.gripper() == pytest.approx(number, abs=1e-6)
    env.close()


def test_what_the_guard_sent_instead_counts_as_let_through():
    env = world("franka_reach")
    pipeline, rest = Pipeline(env.policy_spec(), env.robot), torch.tensor(env.robot.default_joint_pos)
    pipeline.reset(rest)
    pipeline.command(torch.ones(1, 7))
    asked = pipeline.target[0, :7].clone()
    assert not pipeline.follow(asked) and (pipeline.action > 0.0).all()
    assert not pipeline.follow(asked - 0.01 * (asked - rest[:7]) / pipeline.dt)  # 10 ms late
    assert pipeline.follow(rest[:7])  # a wall
    assert pipeline.target[0].equal(rest) and pipeline.action.abs().max() < 1e-6
    pipeline.command(torch.ones(1, 7))
    assert pipeline.target[0, :7].allclose(asked)  # from where it stands, at rest
    env.close()


def test_goals_and_objects_are_named():
    spec = world("franka_lift").observation_spec
    assert numbers_of(spec) == {"height": 1} and poses_of(spec) == () and objects_of(spec) == ("cube",)
    assert joints_read_by(spec) == tuple(range(9))
    spec = world("franka_lift", relative=True).observation_spec
    assert numbers_of(spec) == {"height": 1} and poses_of(spec) == () and objects_of(spec) == ("cube",)
    spec = world("franka_reach").observation_spec
    assert numbers_of(spec) == {} and poses_of(spec) == ("goal",) and objects_of(spec) == ()


def test_what_only_a_simulator_knows_is_refused():
    env = world("franka_reach")
    secret = TermSpec(Field("joint_effort", (9,)), "joint_effort", {"joints": list(range(9))}, privileged=True)
    spec = PolicySpec("franka", 20.0, ObservationSpec({"policy": (secret,)}), env.action_spec)
    with pytest.raises(ValueError, match="joint_effort"):
        Pipeline(spec, env.robot)


def test_after_periods_without_a_command_the_set_points_go_on_from_rest():
    env = world("franka_reach")
    pipeline, rest = Pipeline(env.policy_spec(), env.robot), torch.tensor(env.robot.default_joint_pos)
    pipeline.reset(rest)
    for _ in range(3):
        pipeline.command(torch.ones(1, 7))
    asked = pipeline.target[0, :7].clone()
    pipeline.pause()
    assert pipeline.action.abs().max() == 0.0 and not pipeline.commander.last.velocity.any()
    assert not pipeline.follow(asked)  # the guard is there
    braked = asked + 0.02
    assert pipeline.follow(braked)
    assert pipeline.commander.last.velocity[0].allclose(torch.full((7,), 0.02 / pipeline.dt), rtol=1e-3)
    env.close()


def test_a_robot_that_was_braked_before_its_first_command_goes_on_from_where_it_stands():
    env = world("franka_reach")
    pipeline, rest = Pipeline(env.policy_spec(), env.robot), torch.tensor(env.robot.default_joint_pos)
    pipeline.reset(rest)
    pipeline.stand(rest + 0.1)
    assert pipeline.target[0].equal(rest + 0.1)
    assert pipeline.command(torch.zeros(1, 7)).target[0, :7].allclose(rest[:7] + 0.1)
    env.close()
