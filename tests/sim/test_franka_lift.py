"""The cube that a Franka lifts: rewards and success by hand, what is drawn, and a grasp that shows it can be done."""

import math

import pytest
import torch

from robolearn import config
from robolearn.errors import ConfigError
from robolearn.kinematics import Chain
from robolearn.rotations import quat_apply
from robolearn.state import ObjectState, RobotState, SceneState
from sim.backends.mujoco import MujocoCfg
from sim.env import SimEnv
from sim.randomize import RandomizeCfg
from sim.task import ActionState

config.discover(["robolearn.robots", "sim.tasks"])
Cfg = config.entry("task", "franka_lift").config
HELD_M, SIDE_M = 0.025, 0.05


def make(num_envs=4, seed=0, **changes):
    return SimEnv(Cfg(**{"randomize": RandomizeCfg()} | changes), MujocoCfg(threads=1), num_envs, seed=seed)


def task(**changes):
    return config.build(Cfg(**changes))


def situation(offset=(0.0, 0.0, 0.0), press=(0.005, 0.005), missing=0.0, speed=0.0):
    """One robot at its default posture; the cube's centre is off its grasp point, the fingers' set-points `press`
    beyond where they are, the goal `missing` metres above the cube."""
    robot = config.entry("robot", "franka").value
    q, zero = torch.tensor([robot.default_joint_pos]), torch.zeros(1, 9)
    target = q.clone()
    target[0, 7:] -= torch.tensor(press)
    chain = Chain(robot.urdf, robot.ee_link, robot.joint_names)
    state = RobotState(torch.zeros(1), q, zero, zero, target, torch.zeros(1, 7), torch.zeros(1, 6), chain)
    at = state.ee_pose[:, :3] + torch.tensor([offset])
    pose = torch.cat((at, torch.tensor([[0.0, 0.0, 0.0, 1.0]])), dim=1)
    velocity = torch.tensor([[speed, 0.0, 0.0, 0.0, 0.0, 0.0]])
    cube = ObjectState(pose, velocity, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    return state, SceneState({"cube": cube}, commands={"height": at[:, 2:] + missing})


def actions(applied=0.0, commanded=0.0, previous=0.0):
    return ActionState(*(torch.full((1, 7), v) for v in (commanded, applied, previous)))


def test_rewards_by_hand():
    """Held 4 cm too low (the reach and height scales are 10 and 5 cm), the hand straight down, 25.78 cm up."""
    terms = task().rewards(*situation(missing=0.04), actions(applied=-0.5, commanded=-0.7, previous=0.1))
    expected = {
        "reach": 1.0,
        "hand_down": 1.0,
        "aligned": 1.0,
        "fingers": 0.5,  # where the cube is between them, closing is good
        "grasp": 1.0,
        "carry": 1.0 - 0.04 / (0.2578 + 0.04 - 0.025),  # as far as it is lifted; a hand that leans earns less
        "lift": 1.0 - 0.04 / (0.2578 + 0.04 - 0.025),
        "height": 1.0 - math.tanh(0.8),
        "success": 0.0,
        "action_change": 7 * 0.36,
        "beyond_limits": 6 * 0.04,  # the arm's, not the hand's
        "joint_speed": 0.0,
        "strain": 0.0,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, abs=1e-5), name


def test_an_arm_that_presses_on_something_pays_for_it():
    """Set-points that run ahead of blocked joints would have to come all the way back before the arm moves."""
    robot, scene = situation()
    robot.joint_target[0, 1] += 0.3
    robot.joint_target[0, 3] -= 0.1
    assert task().rewards(robot, scene, actions())["strain"].item() == pytest.approx(0.1)


def test_away_from_the_cube_the_hand_shall_open_and_nothing_is_lifted():
    terms = task().rewards(*situation(offset=(0.1, 0.0, 0.0)), actions(applied=-0.5))
    assert terms["reach"].item() == pytest.approx(0.5)  # one half at the scale
    assert terms["fingers"].item() == pytest.approx(-0.5)
    assert terms["grasp"] == terms["lift"] == terms["height"] == terms["success"] == 0.0


@pytest.mark.parametrize(
    ("changes", "success"),
    [
        ({}, True),
        ({"missing": 0.024}, True),
        ({"missing": 0.026}, False),
        ({"missing": -0.026}, False),  # too high
        ({"speed": 0.09}, True),
        ({"speed": 0.11}, False),  # thrown
        ({"offset": (0.0, 0.024, 0.0)}, True),
        ({"offset": (0.0, 0.026, 0.0)}, False),  # not between the fingers
        ({"press": (0.002, 0.005)}, False),  # lies on one finger
        ({"press": (0.004, 0.004)}, True),
    ],
)
def test_success_is_the_height_in_a_firm_grip_at_rest(changes, success):
    t, (robot, scene) = task(), situation(**changes)
    assert t.metrics(robot, scene)["success"].item() is success
    assert bool(task(reward="sparse").rewards(robot, scene, actions())["success"].item()) is success


def test_the_sparse_reward_is_success_alone():
    t = task(reward="sparse")
    assert t.rewards(*situation(), actions()).keys() == {"success"}
    assert t.cfg.weights.keys() == {"success"}
    env = make(reward="sparse")
    env.reset(seed=1)
    assert torch.equal(env.step(torch.zeros(4, 7))[1], torch.zeros(4))


@pytest.mark.parametrize(("reward", "worth"), [("sparse", 1.0), ("dense", 4.0 * 26.5)])
def test_a_success_that_ends_the_episode_counts_once(reward, worth):
    """As a sparse reward 1; as a dense one what the other terms can earn in the 4 s, 26.5 a second."""
    t = task(reward=reward, success_ends=True)
    there, not_yet = situation(), situation(missing=0.1)
    assert t.terminated(*there).item() and not t.terminated(*not_yet).item()
    term = t.rewards(*there, actions())["success"].item()
    assert term * t.cfg.weights["success"] * t.cfg.step_dt_s == pytest.approx(worth)
    assert not task(reward=reward).terminated(*there).item()


def test_own_commands_can_be_left_out_of_the_observation():
    whole, without = (task(own_commands=own).observation_spec() for own in (True, False))
    names = [t.field.name for t in whole.terms("policy")]
    assert [n for n in names if n not in ("joint_target_error", "last_action")] == [
        t.field.name for t in without.terms("policy")
    ]
    assert whole.dim("policy") - without.dim("policy") == 9 + 7


@pytest.mark.parametrize(("at", "ends"), [(0.25, False), (0.15, True), (0.8, False), (0.9, True)])
def test_the_episode_ends_where_the_arm_cannot_reach(at, ends):
    robot, scene = situation()
    scene.objects["cube"].pose[:, :2] = torch.tensor([at * 0.6, -at * 0.8])
    assert task().terminated(robot, scene).item() is ends


def test_cubes_lie_and_goals_hang_all_over_their_ranges():
    env = make(256)
    env.reset(seed=3)
    pose, cfg = env.backend.pose("cube"), env.task.cfg
    yaw = 2 * torch.atan2(pose[:, 5], pose[:, 6])
    for value, (low, high) in (
        (pose[:, 0], cfg.cube_x_m),
        (pose[:, 1], cfg.cube_y_m),
        (yaw, cfg.cube_yaw_rad),
        (env.task.goal[:, 2], cfg.height_m),
    ):
        edge = 0.05 * (high - low)
        assert low - 1e-5 <= value.min() < low + edge
        assert high - edge < value.max() <= high + 1e-5
        assert value.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / math.sqrt(12 * 256))
    assert torch.equal(pose[:, 2], torch.full((256,), SIDE_M / 2))
    torch.testing.assert_close(env.task.goal[:, :2], pose[:, :2])


def test_mass_and_friction_of_the_cube_are_what_was_drawn():
    env = make(64, cube_mass_kg=(0.1, 0.3), cube_friction=(0.5, 1.5))
    env.reset(seed=3)
    ids = [m.body("cube").id for m in env.backend._models]
    mass = torch.tensor([m.body_mass[i] for m, i in zip(env.backend._models, ids, strict=True)])
    friction = torch.tensor([m.geom("cube").friction[0] for m in env.backend._models])
    assert 0.1 <= mass.min() < 0.12 < 0.28 < mass.max() <= 0.3
    assert 0.5 <= friction.min() < 0.6 < 1.4 < friction.max() <= 1.5
    assert abs(torch.corrcoef(torch.stack((mass, friction)).double())[0, 1]) < 0.4


def test_what_does_not_vary_is_not_declared():
    t = task(cube_mass_kg=(0.1, 0.1), cube_friction=(0.5, 1.5))
    assert t.scene().randomized == (("cube", "friction"),)
    assert t.scene().objects["cube"].mass_kg == pytest.approx(0.1)


def test_a_reset_by_mask_leaves_the_other_cubes_and_goals():
    env = make(8)
    env.reset(seed=1)
    env.step(torch.zeros(8, 7))  # draws depend on the seed and the period
    goal, cube = env.task.goal.clone(), env.backend.pose("cube").clone()
    env._reset(torch.arange(8) % 2 == 0)
    kept = torch.arange(8) % 2 == 1
    assert torch.equal(env.task.goal[kept], goal[kept])
    assert torch.equal(env.backend.pose("cube")[kept], cube[kept])
    assert not torch.isclose(env.backend.pose("cube")[~kept, :2], cube[~kept, :2]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "shaped"}, "dense or sparse, got 'shaped'"),
        ({"cube_mass_kg": (0.0, 0.1)}, "cube_mass_kg must be a range"),
        ({"height_m": (0.3, 0.1)}, "height_m must be a range"),
        ({"height_m": (0.02, 0.1)}, "height_m must be a range .* above 0.025"),
        ({"cube_size_m": 0.0}, "cube_size_m must be positive"),
        ({"cube_size_m": 0.09}, "cube_size_m must be below 0.08"),
        ({"workspace_m": (0.5, 0.6)}, "workspace_m"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Cfg(**changes)


def test_unknown_actions_are_refused_with_the_valid_ones():
    with pytest.raises(ConfigError, match="no action 'telepathy' for franka_lift; there are joint_position_delta"):
        task(action="telepathy").action_spec()


# --- a grasp by hand ------------------------------------------------------------------------------------------------


def scripted(env, period):
    """Above the cube and turned to its sides, down, close, lift: 1.4 s, 0.7 s, 0.4 s, and the rest."""
    robot, scene = env._states()
    cube, hand = scene.objects["cube"].pose, robot.ee_pose
    way = cube[:, :3] - hand[:, :3]
    if period < 28:
        way[:, 2] += 0.08
    elif period >= 42:
        way[:, :2], way[:, 2] = 0.0, (env.task.goal[:, 2] - cube[:, 2]) * float(period >= 50)
    forward = torch.tensor([1.0, 0.0, 0.0]).expand(env.num_envs, 3)
    ours, its = quat_apply(hand[:, 3:], forward), quat_apply(cube[:, 3:], forward)
    yaw = torch.atan2(ours[:, 0] * its[:, 1] - ours[:, 1] * its[:, 0], (ours * its)[:, :2].sum(1))
    yaw = torch.remainder(yaw + math.pi / 4, math.pi / 2) - math.pi / 4
    action = torch.zeros(env.num_envs, 7)
    action[:, :3] = (0.25 * way / env.cfg.ee_step_m).clamp(-1.0, 1.0)
    action[:, 5] = (0.25 * yaw / env.cfg.ee_step_rad).clamp(-1.0, 1.0) * float(period < 42)
    action[:, 6] = 1.0 if period < 42 else -1.0
    return action


def grasped_by_hand(env, periods=80):
    env.reset(seed=5)
    for period in range(periods):
        *_, extras = env.step(scripted(env, period))
    return extras["episode"]


def test_a_scripted_grasp_lifts_every_cube_to_its_height():
    end = grasped_by_hand(make(32, cube_friction=(0.4, 1.2)))
    assert end["success"].all()


def test_a_held_cube_does_not_creep():
    env = make(8, episode_length_s=9.0, cube_friction=(0.6, 0.6), cube_mass_kg=(0.2, 0.2))
    env.reset(seed=5)
    held = []
    for period in range(160):
        env.step(scripted(env, period))
        robot, scene = env._states()
        held.append((scene.objects["cube"].pose - robot.ee_pose)[:, 2])
    assert (held[-1] - held[100]).abs().mean() < 0.003  # in 3 s; 18 mm with pyramidal cones


def test_one_environment_lifts_as_the_first_of_four():
    """Draws depend on the batch, so both get the same cube; the physics must then be the same to the bit."""
    one, four = make(1), make(4)
    for env in (one, four):
        env.reset(seed=5)
        pose = torch.tensor([[0.5, 0.1, 0.025, 0.0, 0.0, 0.0, 1.0]]).expand(env.num_envs, 7)
        env.backend.write_pose("cube", pose, torch.zeros(env.num_envs, 6), torch.ones(env.num_envs, dtype=torch.bool))
        for param in ("mass", "friction"):
            env.backend.set_param("cube", param, torch.ones(env.num_envs), torch.ones(env.num_envs, dtype=torch.bool))
        env.task.goal = torch.tensor([[0.5, 0.1, 0.2, 0.0, 0.0, 0.0, 1.0]]).expand(env.num_envs, 7)
    for period in range(60):
        action = scripted(one, period)
        obs, reward, *_ = one.step(action)
        obs4, reward4, *_ = four.step(action.expand(4, 7))
        assert torch.equal(one.backend.pose("cube")[0], four.backend.pose("cube")[0])
        torch.testing.assert_close(obs["policy"][0], obs4["policy"][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(reward[0], reward4[0], atol=1e-6, rtol=0)
    assert one.backend.pose("cube")[0, 2] > 0.05


# --- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_cameras_take_the_place_of_the_cube(relative: bool) -> None:
    """Told is the height; what is missing would tell where the cube is."""
    cfg = config.entry("task", "franka_lift").config(cameras=("front", "wrist"), relative=relative)
    env = SimEnv(cfg, config.entry("backend", "mujoco").config(), 1)
    obs, _ = env.reset(seed=1)
    assert obs["policy/front"].shape == obs["policy/wrist"].shape == (1, 84, 84, 3)
    assert float(obs["policy/front"].float().std()) > 10.0
    functions = {t.function for t in env.observation_spec.terms("policy")}
    assert not [f for f in functions if f.startswith(("object_", "height_"))] and "command" in functions
    hidden = {"cube_position_ee", "cube_rotation_ee", "height_error"} | (set() if relative else {"cube_position"})
    assert {t.field.name for t in env.observation_spec.terms("privileged")} == hidden
    vector = [t for t in env.observation_spec.terms("policy") if t.field.kind == "vector"]
    at = sum(t.field.size for t in vector[: [t.field.name for t in vector].index("height")])
    assert float(obs["policy"][0, at]) == pytest.approx(float(env.task.goal[0, 2]))
    env.close()
