"""The Env of a robot, over a twin and a guard that are processes of their own."""

import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from real import ros
from real.connection import JointTrajectory
from real.env import RobotEnv, RobotError
from real.ros.qos import QoSProfile
from real.site import read_site
from robolearn import bundle
from robolearn.env import Env
from robolearn.robots.franka import FRANKA

Joy = ros.interface("sensor_msgs/msg/Joy")
REST = torch.tensor(FRANKA.of("default_joint_pos", FRANKA.arm_joints))


@pytest.fixture
def make(stack):
    """An env over a running twin and guard."""
    made = []

    def env(*processes, rate_hz=None, **settings):
        stack.start(*(processes or ("twin", "guard")))
        node = ros.Node("learner")
        spec = bundle.load(stack.run).spec
        spec = replace(spec, rate_hz=rate_hz or spec.rate_hz)
        made.append(RobotEnv(node, read_site(node, "franka"), spec, **settings))
        stack.wait(lambda: processes or (stack.states and stack.heard["guard/state"]))
        return made[-1]

    return env


def begin(env, **options):
    """A reset; again where a busy machine keeps the robot silent, and the guard stops it."""
    for left in reversed(range(5)):
        try:
            return env.reset(options=options)
        except RobotError:
            if not left:
                raise


def run(env, action, steps, **options):
    """Steps after a reset, the extras of the last; begun anew where a busy machine ends them."""
    for _ in range(5):
        begin(env, **options)
        for k in range(steps):
            *_, extras = env.step(action)
            if extras["awaiting_reset"]:
                break
            if k + 1 == steps:
                return extras
    raise AssertionError(f"no episode of {steps} steps in five attempts")


def position(env):
    return torch.tensor(env.link.reader.latest.position)[env.link.arm]


def test_it_keeps_the_contract_of_simulation(make):
    env = make()
    assert isinstance(env, Env)
    obs, extras = begin(env)
    assert not extras["awaiting_reset"] and extras["observation_age_s"] < 0.08
    assert obs["policy"].shape == (1, env.observation_spec.dim("policy"))
    action = torch.full((1, env.action_spec.dim), 0.3)
    _, reward, terminated, truncated, _ = env.step(action)
    assert reward.shape == terminated.shape == truncated.shape == (1,)
    extras = run(env, action, 10)
    assert env.episode_length_buf.tolist() == [10]
    assert extras["applied_action"].allclose(action, atol=0.02)
    assert (position(env) - REST > 0.05).all()
    assert extras["guard"] == "active"


def test_a_step_lasts_a_period_and_says_when_it_was_late(make):
    env = make()
    action, spent = torch.zeros(1, env.action_spec.dim), []
    for _ in range(5):  # the best of some: a busy machine is late
        begin(env)
        began = time.monotonic()
        for _ in range(20):
            *_, extras = env.step(action)
            if extras["awaiting_reset"]:
                break
        spent.append(time.monotonic() - began)
        if spent[-1] == pytest.approx(20 * env.step_dt, abs=0.5 * env.step_dt) and not extras["deadline_missed"]:
            break
    assert spent[-1] == pytest.approx(20 * env.step_dt, abs=0.5 * env.step_dt)
    assert extras["observation_age_s"] < 0.08 and not extras["deadline_missed"]
    time.sleep(1.5 * env.step_dt)  # a learner that thinks for too long
    *_, extras = env.step(action)
    assert extras["deadline_missed"]


def test_a_slow_policy_proposes_its_way_in_parts_for_the_guard_holds_an_arm_that_it_hears_nothing_of(make, stack):
    env = make(rate_hz=10.0)
    said = []
    stack.node.create_subscription(JointTrajectory, "guard/proposals/env", said.append, QoSProfile(depth=1000))
    action = torch.full((1, env.action_spec.dim), 0.3)
    for _ in range(5):  # a busy machine may be late
        extras = run(env, action, 6)
        if extras["guard"] == "active":
            break
    assert extras["guard"] == "active" and extras["applied_action"].allclose(action, atol=0.05)
    stack.rest(0.2)
    ways = [np.array(m.points[0].positions) for m in said[-6:]]
    assert {m.points[0].time_from_start.nanosec for m in said} == {33_333_333}  # three in 100 ms, the guard waits 80 ms
    ahead = np.diff(ways, axis=0)  # two periods of constant speed, in six equal parts
    assert abs(ahead - ahead.mean(0)).max() < 0.1 * abs(ahead).max() and abs(ahead).min() > 0.0


def test_the_applied_action_is_what_the_guard_let_through(make):
    """At the end of a joint the guard stops what the action still asks for."""
    env = make()
    upper = FRANKA.of("upper", FRANKA.arm_joints)
    start = REST.clone()
    start[0] = upper[0] - 0.02
    action = torch.zeros(1, env.action_spec.dim)
    action[0, 0] = 1.0
    extras = run(env, action, 8, joint_pos=start)
    assert extras["applied_action"][0, 0].abs() < 0.05
    assert position(env)[0] <= upper[0] + 1e-3


def test_an_arm_that_is_stuck_goes_back_as_it_has_come(make, monkeypatch):
    """It has come round its base, with the elbow drawn in, which on the straight way it would not be."""
    env = make()
    draw_in, round_, stretch = torch.zeros(3, 1, env.action_spec.dim)
    draw_in[0, 1], round_[0, 0], stretch[0, 1] = -1.0, 1.0, 1.0

    def over_there() -> bool:  # a busy machine may end the episode on the way
        begin(env)
        for action, steps in ((draw_in, 15), (round_, 43), (stretch, 15), (torch.zeros_like(stretch), 10)):
            for _ in range(steps):
                if env.step(action)[-1]["awaiting_reset"]:
                    return False
        return True

    assert any(over_there() for _ in range(5))
    assert position(env)[0] > 2.3 and (position(env)[1:] - REST[1:]).abs().max() < 0.2
    monkeypatch.setattr("real.env.Stuck", lambda: lambda at: True)
    passed = []
    stand, env._stands_at = env._stands_at, lambda *a: passed.append(position(env)) or stand(*a)
    begin(env)
    assert (position(env) - REST).abs().max() < 0.03
    half = [at for at in passed if 1.3 < at[0] < 1.8]
    assert half and all(at[1] < REST[1] - 0.4 for at in half)


def test_reset_brings_the_arm_to_where_it_is_told_and_nothing_resets_itself(make):
    env = make(episode_length_s=0.5)
    action = torch.full((1, env.action_spec.dim), 0.5)
    for _ in range(5):
        begin(env)
        for _ in range(env.max_episode_length):
            *_, truncated, extras = env.step(action)
            if extras["awaiting_reset"]:
                break
        if extras["episode"]["length"] == env.max_episode_length:
            break
    assert truncated and extras["awaiting_reset"] and extras["episode"]["length"] == env.max_episode_length
    there = position(env)
    with pytest.raises(RobotError, match="call reset"):
        env.step(action)
    assert (position(env) - REST).abs().max() > 0.1
    goal = REST - torch.tensor([0.2, 0.0, 0.2, 0.0, 0.2, 0.0, 0.2])
    begin(env, joint_pos=goal)
    assert (position(env) - goal).abs().max() < 0.025 and (position(env) - there).abs().max() > 0.05


@pytest.mark.parametrize("how", ["guard/estop", "kill guard", "stop twin"])
def test_an_episode_ends_when_the_guard_or_the_robot_is_lost(make, stack, how):
    env = make()
    action = torch.zeros(1, env.action_spec.dim)
    run(env, action, 3)
    if how == "guard/estop":
        stack.call(how)
    else:
        stack.kill(how.split()[1], {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[how.split()[0]])
        time.sleep(0.2)
    for _ in range(3):
        *_, truncated, extras = env.step(action)
        if truncated:
            break
    assert truncated and extras["awaiting_reset"]
    with pytest.raises(RobotError):
        env.reset(options={"timeout_s": 1.0})


def test_close_gives_authority_back(make, stack):
    env = make()
    begin(env)
    env.close()
    stack.wait(lambda: stack.heard["guard/owner"][-1:] == [""] and stack.state() == "idle")


def test_without_a_robot_it_says_what_is_missing(make):
    env = make("guard")
    with pytest.raises(RobotError, match="no fresh joint state on joint_states"):
        env.reset()


def test_without_a_guard_it_says_so(make, stack):
    env = make("twin")
    stack.wait(lambda: stack.states)
    with pytest.raises(RobotError, match="is the guard running"):
        env.reset()


def test_an_action_of_another_shape_is_refused(make):
    env = make()
    begin(env)
    with pytest.raises(ValueError, match=r"must be \(1, 7\)"):
        env.step(torch.zeros(1, 6))


# --- a person ------------------------------------------------------------------------------------------------

UP, SUCCESS, FAILURE, RESET = 4, 7, 6, 8  # an axis and buttons of the joystick


class Episode:
    """Steps of a policy that wants to stand, while a joystick says this or that; busy where the machine ended it."""

    def __init__(self, env, stack):
        self.env, self.busy = env, False
        self._joy = stack.node.create_publisher(Joy, "joy", QoSProfile(depth=1))
        begin(env)

    def until(self, condition, axis=None, button=None, most=100):
        """What the step said that fulfils the condition; None, and busy, if there is none."""
        axes, buttons = [0.0] * 8, [0] * 11
        if axis is not None:
            axes[axis] = 1.0
        if button is not None:
            buttons[button] = 1
        for _ in range(0 if self.busy else most):
            self._joy.publish(Joy(axes=axes, buttons=buttons))
            step = self.env.step(torch.zeros(1, self.env.action_spec.dim))
            if condition(step[-1]):
                return step
            if step[-1]["awaiting_reset"]:
                break
        self.busy = True
        return None


def with_a_person(make, stack, act):
    """`act` on an episode, begun anew where a busy machine ended it."""
    env = make()
    stack.start("teleop", words=["-p", "devices:=[joy]", "-p", "joy.timeout_s:=1.0"])
    stack.wait(lambda: stack.node.count_publishers("/teleop/action"))
    for _ in range(5):
        episode = Episode(env, stack)
        found = act(episode)
        if not episode.busy:
            return found
    raise AssertionError(f"no episode in five attempts; {stack.log('teleop')[-1000:]} {stack.log('guard')[-1000:]}")


def test_a_person_takes_over_within_an_episode_and_gives_it_back(make, stack):
    def act(episode):
        alone = episode.until(lambda e: not e["intervened"])
        start = position(episode.env)
        mine = episode.until(lambda e: bool(e["intervened"]) and (position(episode.env) - start).abs().max() > 0.02, UP)
        policys = episode.until(lambda e: not e["intervened"])
        return alone, mine, policys, int(episode.env.episode_length_buf)

    alone, mine, policys, length = with_a_person(make, stack, act)
    assert alone[-1]["applied_action"].abs().max() < 0.02
    *_, terminated, truncated, extras = mine
    assert not terminated and not truncated and not extras["proposed"].any()
    assert extras["applied_action"].abs().max() > 0.05  # what reached the robot is the person's
    assert not policys[-1]["awaiting_reset"] and length > 3


@pytest.mark.parametrize(("button", "over"), [(SUCCESS, (1.0, True, False)), (FAILURE, (0.0, True, False)),
                                              (RESET, (0.0, False, True))])  # fmt: skip
def test_a_person_says_how_an_episode_ends(make, stack, button, over):
    def act(episode):
        episode.until(lambda e: not e["intervened"])
        step = episode.until(lambda e: e["awaiting_reset"], button=button)
        episode.busy = episode.busy or episode.env.link.owner not in ("env", "teleop")  # it was not the person
        return step

    _, reward, terminated, truncated, extras = with_a_person(make, stack, act)
    assert (float(reward), bool(terminated), bool(truncated)) == over
    assert float(extras["episode"]["success"]) == over[0]
