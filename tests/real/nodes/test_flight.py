"""A quadrotor's twin, guard and policy as processes of their own over DDS, behind Crazyswarm2's topics and services."""

import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("warp", reason="warp-lang is not installed (extra flight)")
pytest.importorskip("pybullet", reason="PyBullet is not installed (extra bullet)")
from real.connection import NEWEST, JointTrajectory, JointTrajectoryPoint, duration_of, stamp_of
from real.flight.watcher import FlightWatcher
from robolearn.paths import share_dir

MODULES = {"twin": "real.nodes.flight_twin", "guard": "real.nodes.flight_guard", "policy": "real.nodes.policy"}
SITE = share_dir() / "configs/site/crazyflie.yaml"
SLOW = [
    w for s in ("backend:=quadrotor", "trajectory:=figure_eight", "size_m:=0.6", "period_s:=12.0") for w in ("-p", s)
]
"""What a busy machine can follow."""
NAMES = ["roll", "pitch", "yaw_rate", "thrust"]


@pytest.fixture(scope="session")
def pilot(tmp_path_factory):
    """A bundle of the geometric controller, for figure-eights."""
    from robolearn import bundle, config
    from robolearn.cli import _world
    from robolearn.policies.geometric import GeometricPolicy, config_of

    _world.discover()
    task, engine = (config.entry(*name).config() for name in (("task", "crazyflie_track"), ("backend", "quadrotor")))
    env = _world.make_env(task, engine, 1, "cpu", 0)
    packed = bundle.Bundle(GeometricPolicy(env.policy_spec(), config_of(env.robot.quadrotor)), env.robot)
    env.close()
    return bundle.save(tmp_path_factory.mktemp("bundle") / "geometric.zip", packed)


class Flight(FlightWatcher):
    def __init__(self, folder, run):
        super().__init__(lambda: "")
        self.folder, self.run, self.processes = folder, run, {}
        self._out = self.node.create_publisher(JointTrajectory, "guard/proposals/env", NEWEST)

    def begin(self, *names, words=()):
        for name in names:
            command = [sys.executable, "-m", MODULES[name], "--ros-args", "--params-file", str(SITE), "-p",
                       f"run:={self.run}", *SLOW, *words]  # fmt: skip
            with (self.folder / f"{name}.log").open("w") as log:
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)
        if "guard" in names:
            self.wait(lambda: self.state and (self.heard.truth or "twin" not in names), "all are there")

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    def hover(self, seconds, row=(0.0, 0.0, 0.0, 0.2649)):
        """Propose one set-point for so long."""
        for _ in range(round(seconds / 0.02)):
            now_s = 1e-9 * self.node.get_clock().now().nanoseconds
            point = JointTrajectoryPoint(positions=list(row), time_from_start=duration_of(0.02))
            message = JointTrajectory(joint_names=NAMES, points=[point])
            message.header.stamp = stamp_of(now_s)
            self._out.publish(message)
            self.stay(0.02)


@pytest.fixture
def flight(one_at_a_time, domain, tmp_path, pilot):
    with Flight(tmp_path, pilot) as made:
        yield made
        for process in made.processes.values():
            process.kill()
            process.wait()


def test_a_policy_takes_off_with_its_guard_flies_a_figure_eight_and_lands(flight):
    flight.begin("twin", "guard", "policy")
    assert flight.state == "grounded" and not flight.call("guard/take/policy").success
    flight.take_off()
    flight.start()
    flight.stay(6.0)
    assert flight.owner == "policy" and np.median(flight.errors(1.0)) < 0.15
    assert np.ptp([t.position[0] for t in flight.heard.truth]) > 0.5
    flight.demand("policy/stop")
    flight.stay(2.5)
    assert flight.state == "flying" and np.linalg.norm(flight.heard.truth[-1].velocity) < 0.2
    flight.land()
    flight.stay(0.5)
    assert flight.position()[2] < 0.06


def test_a_killed_policy_leaves_a_vehicle_that_hovers(flight):
    flight.begin("twin", "guard", "policy", words=["-p", "backend:=pybullet"])
    flight.take_off()
    flight.start()
    flight.stay(4.0)
    os.kill(flight.processes["policy"].pid, signal.SIGKILL)
    flight.wait(lambda: flight.owner == "", "authority has ended", 5.0)
    flight.clear()
    flight.stay(3.0)
    assert flight.state == "flying" and np.linalg.norm(flight.heard.truth[-1].velocity) < 0.2
    assert max(flight.tilts()) < 1.0 and min(t.position[2] for t in flight.heard.truth) > 0.5


def test_a_killed_guard_leaves_it_to_the_firmwares_watchdog(flight):
    flight.begin("twin", "guard")
    flight.take_off()
    flight.demand("guard/take/env")
    flight.hover(0.5)
    assert flight.owner == "env"
    os.kill(flight.processes["guard"].pid, signal.SIGKILL)
    flight.clear()
    flight.stay(1.2)
    assert max(flight.tilts()[40:]) < 0.15  # levelled
    flight.stay(3.0)
    assert flight.position()[2] < 0.06  # and cut


def test_a_guard_that_is_told_to_end_lands_first(flight):
    flight.begin("twin", "guard")
    flight.take_off()
    flight.processes["guard"].send_signal(signal.SIGINT)
    assert flight.processes["guard"].wait(20.0) == 0
    flight.stay(3.5)
    assert flight.state == "landing"  # the last that it said
    assert flight.position()[2] < 0.06


def test_a_guard_that_is_told_to_end_twice_and_while_it_lands_lands_all_the_same(flight):
    flight.begin("twin", "guard")
    flight.take_off()
    flight.demand("guard/take/env")
    flight.hover(0.3)
    assert flight.call("guard/land").success
    flight.processes["guard"].send_signal(signal.SIGINT)
    flight.stay(0.02)  # while it says so
    flight.processes["guard"].send_signal(signal.SIGINT)
    assert flight.processes["guard"].wait(20.0) == 0
    flight.stay(4.0)
    assert flight.position()[2] < 0.06 and max(flight.tilts()) < 1.0


@pytest.mark.parametrize("fault", ["freeze", "jump", "nan", "frame", "axes", "silent"])
def test_a_pose_that_cannot_be_relied_on_ends_in_a_landing(flight, fault):
    flight.begin("twin", "guard")
    flight.put(np.array([0.5, -0.4, 0.0]))  # where x and y differ
    flight.take_off()
    flight.demand("guard/take/env")
    flight.hover(0.3)
    flight.break_down(fault)
    flight.hover(1.2)
    assert flight.owner == "" and flight.state in ("landing", "grounded")
    flight.wait(lambda: flight.position()[2] < 0.08, "it is down", 10.0)
    assert max(flight.tilts()) < 1.0 and "the pose is" in flight.log("guard")


def test_a_battery_that_sags_ends_in_a_landing(flight):
    flight.begin("twin", "guard")
    flight.take_off()
    flight.break_down("sag")
    flight.wait(lambda: flight.state == "landing", "it lands", 10.0)
    assert "battery: V 2." in flight.log("guard")


def test_a_second_publisher_of_set_points_makes_it_land_and_keeps_it_down(flight):
    from real import ros

    flight.begin("twin", "guard")
    flight.take_off()
    intruder = flight.node.create_publisher(ros.interface("geometry_msgs/msg/Twist"), "cmd_vel_legacy", NEWEST)
    flight.wait(lambda: flight.state == "grounded", "it has landed", 15.0)
    assert "publishes on cmd_vel_legacy too" in flight.call("guard/takeoff").message
    flight.node.destroy_publisher(intruder)
    flight.stay(1.0)
    flight.demand("guard/takeoff")


def test_an_emergency_stop_cuts_the_motors_and_needs_a_restart(flight):
    flight.begin("twin", "guard")
    flight.take_off()
    assert flight.call("guard/estop").success
    flight.wait(lambda: flight.position()[2] < 0.06, "it has fallen", 5.0)
    flight.stay(1.5)
    assert flight.state == "emergency" and "restart it" in flight.call("guard/reset").message
    flight.put(np.array([0.5, 0.5, 0.0]))
    flight.stay(1.5)
    assert flight.call("guard/reset").success
    flight.take_off()
    assert flight.position() == pytest.approx([0.5, 0.5, 1.0], abs=0.15)


@pytest.mark.parametrize(("words", "why"), [
    (["-p", "robot:=franka"], "not of a quadrotor"),
    (["-p", "limits.tilt_rad:=1.0"], "tilt_rad = 1.0 is looser"),
    (["-p", "limits.height_m:=1.0"], "height_m"),
    (["-p", "command_interface:=thrust"], "command interface"),
])  # fmt: skip
def test_what_a_site_has_wrong_is_one_line(domain, words, why):
    command = [sys.executable, "-m", MODULES["guard"], "--ros-args", "-p", "robot:=crazyflie", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and why in ended.stderr and "Traceback" not in ended.stderr


def test_it_hovers_where_somebody_says_and_nowhere_outside(flight):
    from real.connection import LATCHED, PoseStamped

    flight.begin("twin", "guard", "policy", words=["-p", "trajectory:=hover"])
    goal = flight.node.create_publisher(PoseStamped, "goal", LATCHED)
    flight.take_off()
    flight.start()
    for x, there in ((0.3, 0.3), (5.0, 0.3), (math.nan, 0.3)):
        message = PoseStamped()
        message.pose.position.x, message.pose.position.z = x, 1.1
        goal.publish(message)
        flight.stay(4.0)
        assert flight.position() == pytest.approx([there, 0.0, 1.1], abs=0.12)
