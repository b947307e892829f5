"""What becomes of the scene between two episodes of a robot: on a twin, behind a guard, with a person's joystick."""

import dataclasses
import itertools
import threading
import time

import pytest
import torch

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from real import ros
from real.connection import LATCHED, String
from real.env import Bool, RobotEnv, RobotError
from real.resets import ByPerson, Learned, Scripted
from real.ros.qos import QoSProfile
from real.site import read_site
from robolearn import bundle
from robolearn.bundle import BundleError
from robolearn.errors import ConfigError
from robolearn.hil.rewarded import RewardedEnv
from robolearn.rewards.base import RewardError
from robolearn.rewards.classifier import Classifier, ClassifierCfg
from robolearn.robots.franka import FRANKA

Joy = ros.interface("sensor_msgs/msg/Joy")
REST = torch.tensor(FRANKA.of("default_joint_pos", FRANKA.arm_joints))
RESET, FAILURE = 8, 6  # of the joystick's buttons
TRIES = 5


class Bench:
    """An env over a running twin and guard, its phases as others hear them, and a joystick."""

    def __init__(self, stack, **settings):
        self.stack, self.phases = stack, []
        stack.start("twin", "guard")
        stack.start("teleop", words=["-p", "devices:=[joy]", "-p", "joy.timeout_s:=1.0"])
        node = ros.Node("learner")
        self.env = RobotEnv(node, read_site(node, "franka"), bundle.load(stack.run).spec, **settings)
        self.buttons, self.axes = [0] * 11, [0.0] * 8
        joy = node.create_publisher(Joy, "joy", QoSProfile(depth=1))
        node.create_timer(0.02, lambda: joy.publish(Joy(axes=self.axes, buttons=self.buttons)))
        node.create_subscription(String, "env/phase", self._hear, LATCHED)
        stack.wait(
            lambda: stack.states and stack.heard["guard/state"] and stack.node.count_publishers("/teleop/action")
        )
        self.act = {}
        """What the person does when a phase begins."""

    def _hear(self, message):
        self.phases.append(message.data)
        self.act.get(message.data, lambda: None)()

    def press(self, button):
        self.buttons = [int(k == button) for k in range(11)]

    def begin(self, **options):
        for left in reversed(range(TRIES)):
            self.phases.clear()
            try:
                begun = self.env.reset(options=options)
                self.env.serve(0.1)  # hears its own phase, too
                return begun
            except RobotError:
                self.press(None)
                if not left:
                    raise
        return None

    def waits_in_vain(self):
        """A reset for which nobody presses; again where a busy machine stops the arm on its way."""
        for _ in range(TRIES):
            with pytest.raises(RobotError) as error:
                self.env.reset()
            if "press `reset`" in str(error.value):
                return
        raise AssertionError(f"no reset waited for the person: {error.value}")

    def away(self):
        """Of the arm, from its start, rad."""
        return float((torch.tensor(self.env.link.reader.latest.position)[self.env.link.arm] - REST).abs().max())


def test_a_person_resets_the_scene_while_the_arm_stands_without_authority(stack):
    bench = Bench(stack)
    seen = []

    def wait():
        seen.append((stack.owner(), bench.away()))
        bench.press(RESET)

    bench.act["waiting"] = wait
    for _ in range(TRIES):  # a busy machine stops the arm on its way there
        seen.clear()
        bench.env.resets = ByPerson(patience_s=5.0)
        _, extras = bench.begin()
        bench.press(None)
        if len(seen) == 1 and "waiting" in bench.phases:
            break
        bench.env.serve(0.2)
    assert "waiting" in bench.phases and bench.phases[-1] == "running"  # the newest is heard, not each
    assert seen[-1][1] < 0.03 and "reset" in extras["told"] and bench.env.link.owner == "env"


def test_without_a_persons_word_no_episode_begins_and_the_arm_stands(stack):
    bench = Bench(stack, resets=ByPerson(patience_s=0.5))
    bench.waits_in_vain()
    assert bench.phases[-1] == "waiting"
    stack.wait(stack.at_rest)
    with pytest.raises(RobotError, match="call reset"):
        bench.env.step(torch.zeros(1, bench.env.action_spec.dim))


def test_it_goes_on_waiting_without_a_motion_and_hears_the_person_meanwhile(stack):
    """As an actor does, which is told again and again that nobody has said anything yet."""
    bench = Bench(stack, resets=ByPerson(patience_s=0.5))
    bench.waits_in_vain()
    stack.rest(0.5)
    stack.heard["guard/owner"].clear()
    bench.phases.clear()
    with pytest.raises(RobotError, match="press `reset`"):
        bench.env.reset()
    threading.Timer(0.3, lambda: bench.press(RESET)).start()
    bench.env.listen(1.0)
    stack.rest(0.2)
    assert stack.heard["guard/owner"] == [] == bench.phases  # it has stood, without authority, and still waits
    _, extras = bench.begin()
    assert "reset" in extras["told"]


def test_a_word_that_is_said_before_the_arm_stands_does_not_count(stack):
    bench = Bench(stack)
    bench.begin(joint_pos=REST + 0.4 * torch.tensor([1.0, 0, 0, 0, 0, 0, 0]))
    bench.env.resets = ByPerson(patience_s=1.0)
    bench.act["resetting"] = lambda: bench.press(RESET)
    with pytest.raises(RobotError, match="press `reset`"):
        bench.env.reset()
    assert bench.away() < 0.03 and bench.phases[-1] == "waiting"


def test_what_a_person_has_allowed_and_failed_has_to_be_allowed_again(stack):
    bench = Bench(stack, resets=ByPerson(patience_s=3.0))
    bench.act["waiting"] = lambda: bench.press(RESET)
    for _ in range(TRIES):
        with pytest.raises(RobotError) as error:
            bench.env.reset(options={"joint_pos": REST + 0.5, "timeout_s": 0.1})
        if "start posture" in str(error.value) and bench.env.pressed:
            break
        bench.press(None)
    assert "start posture" in str(error.value) and bench.env.pressed == {"reset"}
    bench.act.clear()
    bench.press(None)
    with pytest.raises(RobotError, match="press `reset`"):
        bench.env.reset()


@pytest.mark.parametrize("resets", ["to its start", "by a policy", "by a person"])
def test_a_reset_ends_when_it_is_told_to_and_gives_authority_back(stack, resets):
    end = threading.Event()
    how = {"by a policy": Learned(bundle.load(stack.run), FRANKA, limit_s=60.0), "by a person": ByPerson(60.0)}
    bench = Bench(stack, stopping=end.is_set)
    for _ in range(TRIES):
        end.clear()
        bench.env.resets = Scripted()
        bench.begin(joint_pos=REST + torch.tensor([1.5, 0, 0, 0, 0, 0, 0]))
        bench.env.resets = how.get(resets, Scripted())
        bench.env.link.use(bench.env.pipeline)
        threading.Timer(0.4, end.set).start()
        with pytest.raises(RobotError) as error:
            bench.env.reset()
        if str(error.value) == "told to end":
            break
    assert str(error.value) == "told to end"
    stack.wait(stack.at_rest)
    bench.env.close()


def test_a_pause_breaks_a_reset_off(stack):
    """Of the operator's, on the page; whoever else would let the arm go on."""
    bench, say = Bench(stack), stack.node.create_publisher(Bool, "page/paused", LATCHED)
    for _ in range(TRIES):
        say.publish(Bool(data=False))
        stack.until(lambda: not bench.env.told.paused, lambda: bench.env.listen(0.1), 10.0)
        bench.begin(joint_pos=REST + torch.tensor([1.5, 0, 0, 0, 0, 0, 0]))
        timer = threading.Timer(0.4, lambda: say.publish(Bool(data=True)))
        timer.start()
        with pytest.raises(RobotError) as error:
            bench.env.reset()
        timer.join()
        if "operator has paused" in str(error.value):
            break
    assert "operator has paused" in str(error.value) and bench.away() > 0.1
    stack.wait(stack.at_rest)


def test_what_bars_the_way_is_left_as_it_was_come_to(stack):
    """It came over an obstacle (joint 3 raised), and starts back below it. Where it is stopped it can go neither on
    nor straight to where it began to go back, only as it has come."""
    bench = Bench(stack)
    env, far = bench.env, REST.clone()
    far[:2] += torch.tensor([0.6, 0.2])

    def barred(joints):
        first, second, raised = (joints[:3] - REST[:3]).tolist()
        return raised < 0.1 and (0.15 < first < 0.3 or (first < 0.44 and second > 0.06))

    def slowly(target):
        """Of a guard: each joint as far as it gets in a period, and nothing where that is barred."""
        at = env.link.standing()[env.link.reader.columns(env.pipeline.joints)]
        reached.setdefault("at", at[:7])
        step = (target[:7] - reached["at"]).clamp(-0.02, 0.02)
        if not barred(reached["at"] + step):
            reached["at"] = reached["at"] + step
        propose(torch.cat((reached["at"], target[7:])))

    propose, reached = env.link.propose_joints, {}
    for left in reversed(range(TRIES)):  # a busy machine stops the arm
        try:
            env.link.propose_joints, reached = propose, {}
            env.go(far, 30.0)
            over = [REST, REST + 0.3 * (torch.arange(7) == 2), far + 0.3 * (torch.arange(7) == 2), far]
            env.way.begin(over[0])
            for before, then in itertools.pairwise(over):
                for share in torch.linspace(0.0, 1.0, 25):
                    env.way.add(before + share * (then - before))
            env.link.propose_joints = slowly
            env.go(timeout_s=20.0)
            break
        except RobotError:
            if not left:
                raise
    assert bench.away() < 0.03


def test_authority_that_is_given_back_at_once_is_known_to_be_gone(stack):
    """As where the arm stands at its start already: a guard that tells of it once a period would tell nothing, and who
    waits until nobody has the arm would wait for ever."""
    bench = Bench(stack)
    for _ in range(10):
        bench.env.take()
        bench.env.hold()
        bench.env.serve(0.1)
        stack.until(lambda: bench.env.link.owner == "", lambda: bench.env.serve(0.02), 10.0)


def test_a_reset_that_fails_gives_authority_back(stack):
    """Not for want of proposals only: then the guard would stop the arm."""
    bench = Bench(stack)
    for _ in range(TRIES):
        with pytest.raises(RobotError) as error:
            bench.env.reset(options={"joint_pos": REST + 0.5, "timeout_s": 0.1})
        stack.wait(lambda: stack.owner() == "")
        stack.rest(0.2)
        if stack.state() == "idle":
            break
    assert "start posture" in str(error.value) and stack.state() == "idle"
    with pytest.raises(RobotError, match="call reset"):
        bench.env.step(torch.zeros(1, bench.env.action_spec.dim))


class Slow:
    """A policy that thinks for longer than a period."""

    def __init__(self, policy, seconds):
        self.policy, self.seconds = policy, seconds
        self.reset = policy.reset

    def act(self, obs):
        time.sleep(self.seconds)
        return self.policy.act(obs)


def test_a_person_ends_the_reset_by_a_policy_that_falls_behind(stack):
    resets = Learned(bundle.load(stack.run), FRANKA, limit_s=60.0)
    resets.policy = Slow(resets.policy, 1.1 * resets.pipeline.dt)
    bench = Bench(stack, resets=resets)
    bench.env.serve(0.5)
    threading.Timer(1.0, lambda: bench.press(RESET)).start()
    _, extras = bench.begin()
    assert "reset" in extras["told"]


def test_what_a_person_presses_between_two_episodes_is_told_with_the_next(stack):
    bench = Bench(stack)
    bench.act["resetting"] = lambda: bench.press(FAILURE)
    for k in range(TRIES):
        bench.press(None)
        bench.env.serve(0.2)
        bench.env.pressed.clear()
        _, extras = bench.begin(joint_pos=REST + (0.3 if k % 2 else -0.3) * torch.tensor([1.0, 0, 0, 0, 0, 0, 0]))
        if "failure" in extras["told"]:  # the way is long enough to press a button
            break
    bench.act.clear()
    bench.press(None)
    bench.env.serve(0.2)
    assert extras["told"] == ("failure",) and bench.begin()[1]["told"] == ()


def test_a_policy_resets_behind_the_guard_until_its_time_is_over_and_the_arm_goes_to_its_start(stack):
    made = bundle.load(stack.run)
    bench = Bench(stack, resets=Learned(made, FRANKA, limit_s=1.0))
    for _ in range(TRIES):
        furthest, began = [0.0], time.monotonic()
        step = bench.env.link.propose

        def watched(*words, step=step, furthest=furthest):
            furthest.append(bench.away())
            step(*words)

        bench.env.link.propose = watched
        bench.begin()
        bench.env.link.propose = step
        if max(furthest) > 0.1:
            break
    assert max(furthest) > 0.1 and time.monotonic() - began > 1.0  # this one keeps moving
    assert bench.away() < 0.03 and bench.env.link.pipeline is bench.env.pipeline
    joints = FRANKA.of("upper", FRANKA.arm_joints), FRANKA.of("lower", FRANKA.arm_joints)
    assert all(low <= q <= high for c in stack.commands for q, high, low in zip(c.position, *joints, strict=True))


def test_a_person_ends_the_reset_by_a_policy(stack):
    bench = Bench(stack, resets=Learned(bundle.load(stack.run), FRANKA, limit_s=60.0))
    bench.env.serve(0.5)
    threading.Timer(2.0, lambda: bench.press(RESET)).start()
    began = time.monotonic()
    _, extras = bench.begin()
    assert "reset" in extras["told"] and time.monotonic() - began < 60.0


def test_a_classifiers_success_ends_a_robots_episode_and_one_button_takes_it_back(stack):
    bench = Bench(stack)
    source = classifier(bench.env.observation_spec.dim("policy"))
    kept = []
    env = RewardedEnv(bench.env, source, on_doubt=kept.append)
    action = torch.zeros(1, env.action_spec.dim)
    bench.env = env
    for _ in range(TRIES):  # a busy machine ends episodes, too
        say(source, False)
        bench.begin(joint_pos=REST - 0.3 * torch.tensor([1.0, 0, 0, 0, 0, 0, 0]))
        say(source, True)
        env.step(action)
        _, reward, terminated, truncated, extras = env.step(action)
        if terminated:
            break
    assert (float(reward), bool(truncated), extras["awaiting_reset"]) == (1.0, False, True)
    assert float(extras["episode"]["success"]) == 1.0 and env.claims == 1
    env.serve(0.1)
    assert env.progress.recent[-1].success and env.progress.recent[-1].length == 2 and bench.phases[-1] == "over"
    with pytest.raises(RobotError, match="call reset"):
        env.step(action)
    say(source, False)
    bench.act["resetting"] = lambda: bench.press(FAILURE)
    bench.begin()
    assert env.doubts == 1 and len(kept[0]) == 3


def test_a_robot_stands_without_authority_when_its_classifier_says_success_at_the_first_sight(stack):
    bench = Bench(stack)
    source = classifier(bench.env.observation_spec.dim("policy"))
    say(source, True)
    env = RewardedEnv(bench.env, source)
    for _ in range(TRIES):
        with pytest.raises((RobotError, RewardError)) as error:
            env.reset()
        if error.type is RewardError:
            break
    assert "at the first sight" in str(error.value)
    stack.wait(stack.at_rest)


def classifier(size):
    """Of the state, sure of success in two of two steps or of none, as `say` has it."""
    torch.manual_seed(0)
    cfg = ClassifierCfg(observed=("policy",), threshold=0.5, k=2, n=2, hidden=8)
    made = Classifier(cfg, {"policy": (size,)}).eval()
    with torch.no_grad():
        made.head[-1].weight.zero_()
    return made


def say(source, success):
    with torch.no_grad():
        source.head[-1].bias.fill_(10.0 if success else -10.0)


def test_a_policy_of_another_robot_or_without_a_time_limit_resets_nothing(stack):
    made = bundle.load(stack.run)
    other = dataclasses.replace(FRANKA, max_rate_hz=500.0)
    with pytest.raises(BundleError, match="max_rate_hz"):
        Learned(made, other, limit_s=1.0)
    with pytest.raises(ConfigError, match="time limit above 0"):
        Learned(made, FRANKA, limit_s=0.0)
