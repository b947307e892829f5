"""The guard's end of a gripper's action against the twin's, over DDS: one goal at a time, the newest wins, what is held
is held."""

import dataclasses

import pytest
import torch

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from real import ros
from real.nodes.gripper import GripperClient
from real.nodes.twin_arm import Arm
from real.nodes.twin_gripper import GripperServer
from real.robots.base import GRIPPER_ACTIONS
from real.robots.franka import PROFILE
from robolearn import config
from robolearn.errors import ConfigError
from robolearn.robots.franka import FRANKA

DT = 1.0 / 240.0


class Both:
    """A node with the two ends, and the simulation that moves only when the node is served."""

    def __init__(self, kind: str, task: str = ""):
        self.node = ros.Node("hand")
        self.gripper = dataclasses.replace(PROFILE.gripper, type=kind, action="hand/move")
        self.arm = Arm(FRANKA, "mujoco", DT, None, task)
        self.server = GripperServer(self.node, self.gripper, FRANKA, self.arm)
        self.client = GripperClient(self.node, self.gripper, FRANKA)
        self.now_s = 0.0

    def step(self):
        ros.spin_once(self.node, timeout_sec=0.001)
        self.now_s += DT
        self.arm.advance(self.now_s, 1)
        self.server.tick(DT)

    @property
    def place(self) -> float:
        return self.arm.gripper()[0]

    @property
    def busy(self) -> bool:
        return self.client._busy


@pytest.fixture
def both(domain):
    config.discover(("robolearn.robots",))
    ros.init(args=["test"])
    made = []

    def make(kind=GRIPPER_ACTIONS[0], task=""):
        made.append(Both(kind, task))
        return made[-1]

    yield make
    for one in made:
        one.arm.backend.close()
    ros.shutdown()


@pytest.mark.parametrize("kind", GRIPPER_ACTIONS)
def test_it_closes_and_opens_as_it_is_told(both, until, kind):
    hand = both(kind)
    until(hand.client.ready, hand.step)
    for goal in (0.0, 0.04, 0.02):
        hand.client.move(goal)
        until(lambda: not hand.busy, hand.step)
        assert hand.place == pytest.approx(goal, abs=1.5e-3)
    assert hand.client.counts == {"goals": 3, "failed": 0, "refused": 0}


def test_what_is_wanted_is_cut_off_at_the_ends(both, until):
    hand = both()
    until(hand.client.ready, hand.step)
    for wrong, end in ((-5.0, 0.0), (5.0, 0.04)):
        hand.client.move(wrong)
        until(lambda: not hand.busy, hand.step)
        assert hand.place == pytest.approx(end, abs=1.5e-3)
    assert hand.client.counts["refused"] == 0


def test_the_newest_wins_and_trembling_sends_nothing(both, until):
    hand = both()
    until(hand.client.ready, hand.step)
    for goal in (0.0, 0.03, 0.01, 0.04):
        hand.client.move(goal)
        for _ in range(5):
            hand.step()
    until(lambda: not hand.busy and hand.place > 0.039, hand.step)
    sent = hand.client.counts["goals"]
    assert 2 <= sent <= 4 and hand.client.counts["failed"] == 0
    for k in range(20):
        hand.client.move(0.0385 + 1e-4 * (k % 3))
        hand.step()
    assert hand.client.counts["goals"] == sent


def test_what_is_held_is_held_when_nothing_is_wanted_any_more(both, until):
    """The fingers close on the cube, and press on it after the goal has ended."""
    hand = both(task="franka_lift")
    cube = hand.arm.objects[0]
    until(hand.client.ready, hand.step)
    tool = hand.arm._all.pose(hand.arm.backend.joint_pos("robot"))[0]
    hand.client.move(0.0)
    until(lambda: hand.place < 0.026, lambda: (hand.arm.put(cube, tool), hand.step()))
    until(lambda: not hand.busy, hand.step)
    for _ in range(240):
        hand.step()
    assert 0.02 < hand.place < 0.03 and hand.client.counts["failed"] == 0  # half of 5 cm
    assert (hand.arm.pose_of(cube)[:3] - tool[:3]).norm() < 0.02
    hand.client.stay()
    for _ in range(60):
        hand.step()
    assert hand.place < 0.03


def test_a_goal_that_is_not_finite_or_far_off_is_refused_by_the_twin(both, until):
    hand, client = both(), None
    until(hand.client.ready, hand.step)
    client = hand.client._client
    for wrong in (float("nan"), 0.5, -0.1):
        goal = hand.client._kind.Goal()
        goal.command.position = wrong
        future = client.send_goal_async(goal)
        until(future.done, hand.step)
        assert not future.result().accepted
    assert hand.arm.joints()[0][-1] == pytest.approx(0.035, abs=1e-3)


def test_a_gripper_of_an_unknown_action_is_refused():
    with pytest.raises(ConfigError, match="gripper action type"):
        dataclasses.replace(PROFILE.gripper, type="control_msgs/action/Grip")


def test_objects_of_a_scene_stand_where_they_are_put(both):
    arm = both(task="franka_lift").arm
    pose = torch.tensor([0.5, 0.1, 0.3, 0.0, 0.0, 0.0, 1.0])
    arm.put("cube", pose)
    assert arm.pose_of("cube").allclose(pose, atol=1e-6)


def test_a_scene_of_another_robot_is_refused(both):
    both()
    with pytest.raises(ConfigError, match="the scene of cartpole is of robot"):
        Arm(FRANKA, "mujoco", DT, None, "cartpole")


def test_a_driver_that_was_lost_on_the_way_is_told_again_after_a_new_start(both, until):
    hand = both()
    until(hand.client.ready, hand.step)
    hand.client.move(0.0)
    until(lambda: hand.place < 0.03, hand.step)
    hand.server._server.destroy()
    hand.server = GripperServer(hand.node, hand.gripper, FRANKA, hand.arm)
    hand.arm.grip(hand.place)  # it stands where it was lost
    for _ in range(240):
        hand.step()
    hand.client.move(0.01)
    assert hand.busy and hand.client.counts["goals"] == 1  # it still waits for the lost one
    hand.client.forget()
    until(hand.client.ready, hand.step)
    hand.client.move(0.01)
    until(lambda: not hand.busy, hand.step)
    assert hand.place == pytest.approx(0.01, abs=1.5e-3) and hand.client.counts["goals"] == 2
