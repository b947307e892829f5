"""An actor on a robot: over a twin, a guard and a person's joystick, with a learner at the other end of the wire."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
pytest.importorskip("grpc", reason="grpc is not installed (extra distributed)")
from real import ros
from real.ros.qos import QoSProfile
from robolearn import config
from robolearn.cli import _world, hil
from robolearn.distributed.learner import LearnerServer
from robolearn.hil import steps

Joy = ros.interface("sensor_msgs/msg/Joy")
_world.discover()
WORDS = ["task=franka_reach", "algo=sac", "algo.hidden=[16]", "algo.capacity=1000"]


@pytest.fixture
def acting(stack, tmp_path):
    """A twin, a guard, a joystick's node, and the actor as a process; what it tells, as it comes."""
    cfg = config.load(hil.HilCfg, WORDS)
    spec = _world.spec_of(cfg.task)
    about = steps.about(hil._run_name(cfg), spec, hil._algo(cfg, spec, 1).policy)
    stack.start("twin", "guard")
    stack.start("teleop", words=["-p", "devices:=[joy]", "-p", "joy.timeout_s:=1.0"])
    stack.wait(lambda: stack.states and stack.heard["guard/state"] and stack.node.count_publishers("/teleop/action"))
    with ExitStack() as at_end, (tmp_path / "log").open("w") as log:
        server = LearnerServer("127.0.0.1:0", about, tmp_path / "journals")
        at_end.callback(server.close)
        words = [*WORDS, "role=actor", "site=franka", f"address={server.address}", f"run_dir={tmp_path / 'run'}"]
        command = [sys.executable, "-m", "robolearn.cli.main", "hil", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            yield Acting(stack, server, process, tmp_path / "log", at_end)
        finally:
            process.kill()
            process.wait()


class Acting:
    def __init__(self, stack, server, process, log, at_end):
        self.stack, self.process, self.log = stack, process, log
        self.end_learner = at_end.close
        self.records, self.server, self._positions = [], server, {}
        self._joy = stack.node.create_publisher(Joy, "joy", QoSProfile(depth=1))
        self.axes, self.buttons = [0.0] * 8, [0] * 11
        stack.node.create_timer(0.02, lambda: self._joy.publish(Joy(axes=self.axes, buttons=self.buttons)))

    def until(self, condition, timeout_s=90.0):
        """Of all records that have come."""
        end = time.monotonic() + timeout_s
        while not condition(self.records):
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()[-2000:]
            self.stack.spin()
            for record in self.server.read(self._positions):
                self._positions[record.actor] = record.sequence
                self.records.append(record)

    def steps(self, **wanted):
        return [r for r in self.records if not r.first and all(r.numbers[k] == v for k, v in wanted.items())]


def test_a_person_on_the_robot_is_told_to_the_learner_with_what_the_policy_wanted(acting):
    acting.until(lambda _: len(acting.steps(human=0.0)) >= 5)
    acting.axes[4] = 1.0  # up
    acting.until(lambda _: len(acting.steps(human=1.0)) >= 10)
    acting.axes[4] = 0.0
    before = len(acting.records)
    acting.until(lambda records: any(not r.first and not r.numbers["human"] for r in records[before:]))
    theirs, ours = acting.steps(human=1.0), acting.steps(human=0.0)
    assert max(abs(r.tensors["action"]).max() for r in theirs) > 0.05
    assert any(abs(r.tensors["action"] - r.tensors["proposed"]).max() > 0.05 for r in theirs)
    assert all(r.tensors["obs/policy"].shape == ours[0].tensors["obs/policy"].shape for r in acting.records)
    assert acting.records[0].first


def test_a_person_ends_an_episode_and_the_arm_goes_back_by_itself(acting):
    acting.until(lambda _: len(acting.steps()) >= 5)
    acting.buttons[7] = 1  # success
    acting.until(lambda _: acting.steps(terminated=1.0, success=1.0, reward=1.0))
    acting.buttons[7] = 0
    ended = next(k for k, r in enumerate(acting.records) if r.numbers.get("success"))
    acting.until(lambda records: len(records) > ended + 4)
    assert acting.records[ended + 1].first and not acting.records[ended + 2].first


def test_an_actor_that_is_killed_leaves_the_arm_at_rest(acting):
    acting.until(lambda _: len(acting.steps()) >= 5)
    acting.process.kill()
    acting.stack.wait(acting.stack.at_rest)


def test_an_actor_that_its_learner_refuses_under_way_gives_authority_back(acting, tmp_path):
    """A learner of another rate, at the same address; the guard does not have to stop the arm for want of proposals."""
    acting.until(lambda _: len(acting.steps()) >= 5)
    acting.end_learner()
    with LearnerServer(acting.server.address, of_another_rate(), tmp_path / "others"):
        end = time.monotonic() + 90.0
        while acting.process.poll() is None and time.monotonic() < end:
            acting.stack.spin()
    assert acting.process.returncode == 1 and "rate_hz" in acting.log.read_text()
    acting.stack.wait(acting.stack.at_rest)
    acting.stack.rest(0.2)
    assert acting.stack.state() == "idle"


def test_an_actor_that_its_learner_refuses_joins_no_robot(tmp_path):
    """Where there is none it would say so, and try again."""
    with LearnerServer("127.0.0.1:0", of_another_rate(), tmp_path / "journals") as server:
        words = [*WORDS, "role=actor", "site=franka", f"address={server.address}", f"run_dir={tmp_path / 'run'}"]
        command = [sys.executable, "-m", "robolearn.cli.main", "hil", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120.0)
    assert done.returncode == 1 and "rate_hz" in done.stderr and "no episode can begin" not in done.stderr


def of_another_rate():
    cfg = config.load(hil.HilCfg, [*WORDS, "task.decimation=8"])
    spec = _world.spec_of(cfg.task)
    return steps.about(hil._run_name(cfg), spec, hil._algo(cfg, spec, 1).policy)


def test_a_site_of_another_robot_and_a_simulated_person_are_refused(tmp_path):
    words = ["task=franka_reach", "algo=sac", "role=actor", "address=127.0.0.1:1", f"run_dir={tmp_path}"]
    with pytest.raises(config.ConfigError, match="person=late is for simulated worlds"):
        hil.main([*words, "site=franka", "person=late"])
    with pytest.raises(config.ConfigError, match="site=ur5e is of ur5e, the task is for franka"):
        hil.main([*words, "site=ur5e"])
