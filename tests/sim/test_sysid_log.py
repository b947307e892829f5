"""Logs: what is written is read, and what cannot be right is refused by name."""

import dataclasses
import math

import numpy as np
import pytest

from robolearn import config
from robolearn.errors import ConfigError
from sim.sysid import log as logs
from sim.sysid.checks import checked
from sim.sysid.log import Log

config.discover(["robolearn.robots"])
FRANKA, CRAZYFLIE = config.entry("robot", "franka").value, config.entry("robot", "crazyflie").value
TIME = np.arange(181) / 60.0
REST = np.array(FRANKA.of("default_joint_pos", FRANKA.arm_joints))


def arm_log(**changed):
    wave = 0.2 * np.sin(math.tau * 0.5 * TIME)[:, None]
    columns = {
        "joint_target": REST + wave,
        "joint_pos": REST + wave,
        "joint_vel": np.full((181, 7), 0.2 * math.pi) * np.cos(math.pi * TIME)[:, None],
    }
    about = {"robot": "franka", "joints": FRANKA.arm_joints, "time_s": TIME.copy(), "columns": columns | changed}
    return Log(**about)


def flight_log(**changed):
    still = np.zeros((181, 3))
    columns = {
        "attitude_command": np.tile([0.0, 0.0, 0.0, 0.27], (181, 1)), "position": still, "velocity": still,
        "rotation": np.tile([0.0, 0.0, 0.0, 1.0], (181, 1)), "rates": still,
    }  # fmt: skip
    return Log("crazyflie", CRAZYFLIE.joint_names, TIME.copy(), {k: v.copy() for k, v in (columns | changed).items()})


def moving_flight(metres=1.0, velocity=1.0, turning=1.0, **changed):
    """Along x, and about z, as fast as `velocity` and `turning` times what the log says; rotors at hover speed."""
    angle, pace = 0.5 * np.sin(math.pi * TIME), 0.5 * math.pi * np.cos(math.pi * TIME)
    still, up = np.zeros((181, 1)), np.array([0.0, 0.0, 1.0])
    half = angle[:, None] / 2
    return flight_log(**{
        "position": metres * 2.0 * angle[:, None] * [1.0, 0.0, 0.0],
        "velocity": velocity * 2.0 * pace[:, None] * [1.0, 0.0, 0.0],
        "rotation": np.hstack((still, still, np.sin(half), np.cos(half))),
        "rates": turning * pace[:, None] * up,
    } | changed)  # fmt: skip


def rotor_log(speed):
    log = flight_log(rotor_command=np.full((181, 4), speed))
    del log.columns["attitude_command"]
    return log


def with_time(time):
    return dataclasses.replace(arm_log(), time_s=time)


def test_what_is_written_is_read(tmp_path):
    logs.write(arm_log(), tmp_path / "a.npz")
    back = checked(logs.read(tmp_path / "a.npz", FRANKA), FRANKA)
    assert back.joints == FRANKA.arm_joints
    assert back.period_s == pytest.approx(1 / 60)
    for name, value in arm_log().columns.items():
        np.testing.assert_array_equal(back.columns[name], value)


def test_a_csv_is_read_by_its_header_in_any_order(tmp_path):
    log, names = arm_log(), [f"{c}.{j}" for c in ("joint_pos", "joint_target") for j in FRANKA.arm_joints]
    table = np.column_stack((log.columns["joint_pos"], log.columns["joint_target"], log.time_s))
    np.savetxt(tmp_path / "a.csv", table, delimiter=",", header=",".join([*names, "time_s"]), comments="")
    back = checked(logs.read(tmp_path / "a.csv", FRANKA), FRANKA)
    np.testing.assert_allclose(back.columns["joint_target"], log.columns["joint_target"])
    assert back.joints == FRANKA.arm_joints


def test_a_log_of_uneven_rows_is_brought_to_its_median_period():
    jitter = TIME + 0.2 / 60 * np.sin(np.arange(181))
    log = dataclasses.replace(arm_log(), time_s=jitter)
    log.columns["joint_pos"][:, 0] = jitter  # a ramp stays one
    even = checked(dataclasses.replace(log, columns={k: log.columns[k] for k in ("joint_target", "joint_pos")}), FRANKA)
    np.testing.assert_allclose(np.diff(even.time_s), even.period_s)
    np.testing.assert_allclose(even.columns["joint_pos"][:, 0], even.time_s, atol=1e-9)


def test_noise_is_a_share_of_each_signals_deviation_and_not_on_commands():
    log, noisy = arm_log(), logs.noisy(arm_log(), 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy.columns["joint_target"], log.columns["joint_target"])
    added = noisy.columns["joint_pos"] - log.columns["joint_pos"]
    np.testing.assert_allclose(added.std(), 0.1 * log.columns["joint_pos"].std(0).mean(), rtol=0.1)


def test_rotation_vectors_undo_turns():
    g = np.random.default_rng(0)
    q = g.standard_normal((50, 4))
    q, r = q / np.linalg.norm(q, axis=1, keepdims=True), 0.6 * g.standard_normal((50, 3))
    np.testing.assert_allclose(logs.rotation_vectors(q, logs.turned(q, r)), r, atol=1e-9)


def test_windows_follow_each_other_and_too_few_are_refused():
    first, rows = arm_log().windows(0.5)
    assert (first.tolist(), rows) == ([0, 30, 60, 90, 120, 150], 30)
    with pytest.raises(ConfigError, match=r"of 181 rows makes 2 windows of 1.5 s, at least 3 .* shorter window_s"):
        arm_log().windows(1.5)


LATE = TIME.copy()
LATE[90:] += 0.1
BACK = TIME.copy()
BACK[50] = BACK[48]
NAN = arm_log().columns["joint_pos"].copy()
NAN[7, 2] = np.nan
BAD = [
    (with_time(LATE), FRANKA, r"1 gaps in time, the first of 0.117 s after 1.483 s"),
    (with_time(BACK), FRANKA, "time_s does not increase at row 50"),
    (with_time(1e3 * TIME), FRANKA, "looks like milliseconds; give seconds"),
    (with_time(1e9 * TIME), FRANKA, "looks like microseconds or nanoseconds"),
    (with_time(TIME[:, None]), FRANKA, r"time_s has the shape \(181, 1\); give one number a row"),
    (with_time(0.5 * TIME), FRANKA, "lasts 1.50 s; at least 2 s"),
    (arm_log(joint_pos=NAN), FRANKA, "joint_pos is not a number in 1 rows, first in row 7"),
    (arm_log(joint_pos=57.3 * arm_log().columns["joint_pos"]), FRANKA, "joint_pos of .* it looks like degrees"),
    (arm_log(joint_vel=57.3 * arm_log().columns["joint_vel"]), FRANKA, "joint_vel is 57 times .*degrees"),
    (dataclasses.replace(arm_log(), joints=tuple(f"shoulder_{i}" for i in range(7))), FRANKA, "the log has shoulder_0"),
    (arm_log(joint_pos=NAN[:, :5]), FRANKA, r"joint_pos has the shape \(181, 5\)"),
    (arm_log(torque=NAN), FRANKA, "columns torque are not known"),
    (arm_log(joint_pos=np.tile(REST, (181, 1))), FRANKA, "joint_pos never changes; record while the robot moves"),
    (arm_log(joint_effort=np.full((181, 7), 2e4)), FRANKA, "joint_effort of .* goes to 2e.04, its limit is .* N m"),
    (moving_flight(metres=1e3), CRAZYFLIE, "positions change by 1000 times its velocity; are they in .*millimetres"),
    (moving_flight(metres=1e3, velocity=1e3), CRAZYFLIE, "velocity goes to .* millimetres"),
    (moving_flight(velocity=1e2 / 4), CRAZYFLIE, "velocity is 25 times what the positions change by"),
    (moving_flight(turning=-1.0), CRAZYFLIE, "rates does not go with what the positions change by; check signs"),
    (flight_log(attitude_command=np.tile([0, 0, 90.0, 0.27], (181, 1))), CRAZYFLIE, "yaw rate of 90; give rad/s"),
    (rotor_log(15_000.0), CRAZYFLIE, "rotor_command goes to 1.5e.04, full speed is .* it looks like rpm"),
    (rotor_log(240.0), CRAZYFLIE, "rotor_command is 240 in the mean, which cannot carry the vehicle; give rad/s"),
    (flight_log(rotation=np.ones((181, 4))), CRAZYFLIE, "rotation has a norm of 2"),
    (flight_log(attitude_command=np.tile([0, 0, 0, 36_000.0], (181, 1))), CRAZYFLIE, "looks like motor counts, give N"),
    (flight_log(attitude_command=np.tile([5.0, 0, 0, 0.27], (181, 1))), CRAZYFLIE, "give rad, not degrees"),
    (flight_log(attitude_command=np.zeros((181, 4))), CRAZYFLIE, "thrust cannot carry the vehicle"),
    (flight_log(rotor_command=np.ones((181, 4))), CRAZYFLIE, "attitude_command or rotor_command, one of them"),
]  # fmt: skip


@pytest.mark.parametrize(("log", "spec", "message"), BAD, ids=[m[:30] for _, _, m in BAD])
def test_what_cannot_be_right_is_refused_by_name(log, spec, message):
    with pytest.raises(ConfigError, match=message) as refused:
        checked(log, spec)
    assert "\n" not in str(refused.value)


def test_good_logs_pass():
    checked(arm_log(), FRANKA)
    checked(flight_log(), CRAZYFLIE)
    checked(moving_flight(), CRAZYFLIE)
    checked(rotor_log(CRAZYFLIE.quadrotor.hover_speed_radps), CRAZYFLIE)
    checked(arm_log(joint_effort=np.full((181, 7), 12.0)), FRANKA)


def test_a_log_that_is_cut_short_or_of_another_robot_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    logs.write(arm_log(), path)
    with pytest.raises(ConfigError, match="is of robot franka, not of crazyflie; give robot=franka"):
        logs.read(path, CRAZYFLIE)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ConfigError, match=r"a\.npz cannot be read, it may be cut short"):
        logs.read(path, FRANKA)
    with pytest.raises(ConfigError, match="there is no log"):
        logs.read(tmp_path / "b.npz", FRANKA)
    (tmp_path / "c.csv").write_text("time_s,joint_pos.panda_joint1\n0,1\n0.1")
    with pytest.raises(ConfigError, match="line 3 has 1 values, the header 2; is it cut short"):
        logs.read(tmp_path / "c.csv", FRANKA)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows below its header"),
        (b"time_s,joint_pos.panda_joint1\n", "has no rows below its header"),
        (bytes(range(256)), "is no text"),
        (b"time_s,joint_pos.a,joint_pos.a\n0,1,2\n", "more than one column joint_pos.a; name each element once"),
        (b"time_s,joint_pos.a\n0,x\n", "holds something that is no number"),
    ],
)
def test_a_csv_that_is_none_is_refused(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        logs.read(tmp_path / "a.csv", FRANKA)
    assert "\n" not in str(refused.value)


def test_a_csv_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("\ufefftime_s,joint_pos.a\n0,1\n", encoding="utf-8")
    assert logs.read(tmp_path / "a.csv", FRANKA).time_s.tolist() == [0.0]
