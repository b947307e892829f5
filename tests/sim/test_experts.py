"""Scripted experts: they do their tasks in every way they know, and err like people when asked to."""

import math
from dataclasses import replace

import pytest
import torch

from robolearn import config
from robolearn.errors import ConfigError
from robolearn.loops.threads import one_thread
from robolearn.state import RobotState, SceneState
from sim.env import SimEnv
from sim.experts import Waypoint, WaypointExpert
from sim.tasks.manipulation.carry import over

config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
TASKS = ["franka_peg_insert", "franka_stack", "franka_two_part"]
UPRIGHT = (0.0, 0.0, 0.0, 1.0)


def world(task, num_envs, engine="mujoco", seed=0, **changes):
    backend = config.entry("backend", engine).config()
    return SimEnv(config.entry("task", task).config(**changes), backend, num_envs, seed=seed)


def expert_of(env, noise=0.0, seed=1):
    return env.task.expert(env.num_envs, env.device, noise, torch.Generator().manual_seed(seed))


def perform(env, expert):
    """Success (B,) and rewards (B,) of one episode in each environment."""
    env.reset()
    won, earned = torch.zeros(env.num_envs), torch.zeros(env.num_envs)
    going = torch.ones(env.num_envs, dtype=torch.bool)
    with torch.inference_mode(), one_thread():
        while going.any():
            _, reward, terminated, truncated, extras = env.step(expert.act(*env.states()))
            earned += reward * going
            ended = (terminated | truncated) & going
            won[ended] = extras["episode"]["success"][ended]
            going &= ~ended
    return won, earned


@pytest.mark.parametrize("task", TASKS)
def test_every_strategy_does_the_task(task):
    """Six environments, two to a strategy; sparse rewards: 1 an event, and two events in the task of two parts."""
    env = world(task, 6)
    expert = expert_of(env)
    follow(expert, torch.arange(6) % len(expert.strategies))
    won, earned = perform(env, expert)
    assert won.sum() >= 5, [expert.strategies[s] for s in expert.strategy[won == 0]]
    events = 2.0 if task == "franka_two_part" else 1.0
    torch.testing.assert_close(earned[won > 0], torch.full_like(earned[won > 0], events))


def test_a_cube_is_lifted_by_either_pair_of_its_sides():
    """In the 4 s of the task, which are short; success is judged at the end."""
    env = world("franka_lift", 16)
    expert = expert_of(env)
    follow(expert, torch.arange(16) % 2)
    won, _ = perform(env, expert)
    assert won[0::2].sum() >= 6 and won[1::2].sum() >= 6


def follow(expert, strategy):
    """Strategies (B,), from the start."""
    expert.strategy = strategy
    expert._go(torch.ones_like(strategy, dtype=torch.bool), expert._first[strategy])


def test_strategies_are_different_ways():
    """From the same start: one path passes beside the hole, one leans, one does neither."""
    env = world("franka_peg_insert", 3)
    env.reset()
    env.backend.set_state(env.backend.get_state()[:1].expand(3, -1).clone())
    env._target = env._target[:1].expand(3, -1).clone()
    env.commander.reset(torch.ones(3, dtype=torch.bool), env._target[:, env._driven])
    expert = expert_of(env)
    follow(expert, torch.arange(3))
    tilt, aside = torch.zeros(3), torch.zeros(3)
    for _ in range(60):
        robot, scene = env.states()
        found = env.task.metrics(robot, scene)
        low = env.task._end(scene)[:, 2] < 0.035
        tilt = torch.maximum(tilt, found["tilt_rad"] * low)
        aside = torch.maximum(aside, found["aside_error_m"] * low)
        env.step(expert.act(robot, scene))
    names = dict(zip(expert.strategies, range(3), strict=True))
    assert tilt.argmax() == names["tilt"] and tilt[names["tilt"]] > 0.07
    assert aside.argmax() == names["search"] and aside[names["search"]] > 0.008


def test_a_noisy_expert_is_slower_and_not_the_same_twice():
    env = world("franka_stack", 4)
    clean, noisy = expert_of(env), expert_of(env, noise=1.0)
    env.reset()
    robot, scene = env.states()
    assert (noisy._pace <= 1.0).all() and noisy._pace.min() >= 0.3 and noisy._pace.std() > 0.01
    assert (clean._pace == 1.0).all()
    first, second = clean.act(robot, scene), clean.act(robot, scene)
    assert torch.equal(first, second)
    assert not torch.equal(noisy.act(robot, scene), noisy.act(robot, scene))


def test_who_takes_over_goes_on_with_what_somebody_else_has_begun():
    """A new one every half second, who began anew each time, would never come to lift the cube."""
    env = world("franka_lift", 8)
    env.reset()
    everyone = torch.ones(8, dtype=torch.bool)
    for t in range(80):
        if t % 10 == 0:
            expert = expert_of(env, seed=t)
            expert.keep_to("sides")
            expert.join(everyone, *env.states())
        _, _, _, _, extras = env.step(expert.act(*env.states()))
    assert extras["episode"]["success"].sum() >= 7


def test_who_takes_over_sets_out_from_where_the_hand_is():
    """By hand: far away, above the cube, on the way down, around it, and with it in the air."""
    env = world("franka_lift", 1)
    env.reset()
    expert = expert_of(env)
    expert.keep_to("sides")
    robot, scene = env.states()
    joined = []
    everyone = torch.ones(1, dtype=torch.bool)
    for up, aside, held in (
        (0.3, 0.1, False),
        (0.1, 0.0, False),
        (0.05, 0.0, False),
        (0.0, 0.0, False),
        (0.0, 0.0, True),
    ):
        pose = over("cube", up)(robot, scene)
        pose[:, 0] += aside
        expert.waypoints[2] = replace(expert.waypoints[2], over=lambda robot, scene, held=held: torch.tensor([held]))
        robot.ee_pose = pose
        expert.join(everyone, robot, scene)
        joined.append(int(expert._at))
    assert joined == [0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("turn", "held", "joined"), [(0.0, False, [1, 4]), (math.pi / 2, False, [0, 5]), (0.0, True, [3, 7])]
)
def test_who_takes_over_joins_their_own_strategy_and_no_others(turn, held, joined):
    """Two environments, two strategies of four waypoints each: half way down, with the fingers along the sides of the
    first or of the second; and with the cube in the hand, which either lifts."""
    env = world("franka_lift", 2)
    env.reset()
    expert = expert_of(env)
    robot, scene = env.states()
    robot.ee_pose = over("cube", 0.05, turn)(robot, scene)
    expert.choose = lambda mask, generator: None
    expert.strategy = torch.tensor([0, 1])
    for k in (2, 6):
        expert.waypoints[k] = replace(expert.waypoints[k], over=lambda robot, scene: torch.tensor([held, held]))
    expert.join(torch.ones(2, dtype=torch.bool), robot, scene)
    assert expert._at.tolist() == joined
    expert._at = torch.tensor([9, 9])
    expert.join(torch.tensor([False, True]), robot, scene)
    assert expert._at.tolist() == [9, joined[1]]


def test_one_that_keeps_to_a_strategy_follows_no_other():
    env = world("franka_stack", 32)
    expert, everyone = expert_of(env), torch.ones(32, dtype=torch.bool)
    assert len(set(expert.strategy.tolist())) == 3
    expert.keep_to("turned")
    expert.reset(everyone)
    assert {expert.strategies[s] for s in expert.strategy} == {"turned"}
    with pytest.raises(ConfigError, match="no strategy 'turn'; did you mean turned"):
        expert.keep_to("turn")


def test_the_same_generator_gives_the_same_faults():
    env = world("franka_stack", 4)
    env.reset()
    robot, scene = env.states()
    one, other, third = (expert_of(env, noise=1.0, seed=s) for s in (3, 3, 4))
    for _ in range(5):
        action = one.act(robot, scene)
        assert torch.equal(action, other.act(robot, scene))
    assert not torch.equal(action, third.act(robot, scene))


def test_pauses_stand_still_and_pass():
    env = world("franka_stack", 2)
    env.reset()
    robot, scene = env.states()
    expert = expert_of(env)
    expert._pause = torch.tensor([0.12, 0.0])
    moved = [expert.act(robot, scene)[:, :6].abs().amax(1) > 0.0 for _ in range(4)]  # 50 ms each
    assert torch.stack(moved)[:, 0].tolist() == [False, False, True, True]
    assert torch.stack(moved)[:, 1].all()


def test_reset_of_one_leaves_the_others_where_they_are():
    env = world("franka_stack", 3)
    env.reset()
    expert = expert_of(env, noise=1.0)
    for _ in range(12):
        env.step(expert.act(*env.states()))
    before = {k: v.clone() for k, v in vars(expert).items() if isinstance(v, torch.Tensor) and len(v) == 3}
    expert._clock += 1.0
    expert.reset(torch.tensor([False, True, False]))
    assert expert._clock[1] == 0.0 and (expert._clock[[0, 2]] > 1.0).all()
    for name, value in before.items():
        if name not in ("_clock", "_rows") and value.shape[0] == 3:
            assert torch.equal(getattr(expert, name)[[0, 2]], value[[0, 2]]), name


class TestWaypoints:
    """A robot that stands still, and goals in a row along x from where its hand is."""

    robot = config.entry("robot", "franka").value

    def make(self, *plan, noise=0.0):
        from sim.tasks.manipulation.franka import FrankaCfg, arm_action

        action = arm_action(FrankaCfg(name="x", action="ee_delta"), self.robot)
        return WaypointExpert({"only": plan}, action, self.robot, 1, 0.05, torch.device("cpu"), noise,
                              torch.Generator().manual_seed(0))  # fmt: skip

    def state(self):
        from robolearn.kinematics import Chain

        q = torch.tensor([self.robot.default_joint_pos])
        chain = Chain(self.robot.urdf, self.robot.ee_link, self.robot.joint_names)
        return RobotState(torch.zeros(1), q, q * 0, q * 0, q.clone(), torch.zeros(1, 7), torch.zeros(1, 6), chain)

    def at(self, x_m, **settings):
        shift = torch.tensor([x_m, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        return Waypoint(lambda robot, scene: robot.ee_pose + shift, **settings)

    def test_a_waypoint_within_reach_is_passed_and_one_that_is_not_given_up(self):
        """1 cm is within 2 cm; 10 cm is not, and after 0.2 s it goes on with number 0."""
        expert = self.make(self.at(0.01, within_m=0.02), self.at(0.1, give_up_s=0.2, otherwise=0), self.at(0.0))
        where = []
        for _ in range(8):
            expert.act(self.state(), SceneState())
            where.append(int(expert._at[0]))
        assert where == [1, 1, 1, 1, 1, 0, 1, 1]

    def test_at_the_end_and_not_done_it_tries_again(self):
        """Both are within reach; the episode goes on, so after 0.2 s it is back at number 0."""
        expert = self.make(self.at(0.0), self.at(0.0, give_up_s=0.2, otherwise=0))
        where = []
        for _ in range(8):
            expert.act(self.state(), SceneState())
            where.append(int(expert._at[0]))
        assert where == [1, 1, 1, 1, 1, 0, 1, 1]

    def test_it_stays_as_long_as_it_must(self):
        expert = self.make(self.at(0.0, stay_s=0.15), self.at(0.0))
        where = []
        for _ in range(5):
            expert.act(self.state(), SceneState())
            where.append(int(expert._at[0]))
        assert where == [0, 0, 1, 1, 1]

    def test_the_longest_part_of_an_action_keeps_to_the_speed(self):
        """30 cm away at a speed of a half: half the range along x, nothing else."""
        action = self.make(self.at(0.3, speed=0.5)).act(self.state(), SceneState())
        torch.testing.assert_close(action, torch.tensor([[0.5, 0, 0, 0, 0, 0]]), atol=1e-4, rtol=0)

    def test_near_the_goal_it_takes_a_share_of_what_is_missing(self):
        """1 cm at 4 cm an action: 0.25 of the range, of which GAIN = 0.6."""
        action = self.make(self.at(0.01, within_m=1e-4)).act(self.state(), SceneState())
        torch.testing.assert_close(action[0, 0], torch.tensor(0.15), atol=1e-4, rtol=0)


def test_who_has_no_expert_says_so():
    flight = config.build(config.entry("task", "crazyflie_hover").config())
    with pytest.raises(ConfigError, match="crazyflie_hover has no scripted expert"):
        flight.expert(1, torch.device("cpu"), 0.0, torch.Generator())
    with pytest.raises(ConfigError, match="needs action=ee_delta"):
        expert_of(world("franka_stack", 1, action="joint_position_delta"))
    with pytest.raises(ConfigError, match="noise must be from 0"):
        expert_of(world("franka_stack", 1), noise=-1.0)
