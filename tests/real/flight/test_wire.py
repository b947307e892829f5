"""Set-points as Crazyswarm2's messages: units, signs and limits of the firmware, by hand; and back."""

import math

import numpy as np
import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
from real.flight.wire import Wire, counts_of, thrust_of
from robolearn.robots.crazyflie import CRAZYFLIE

VEHICLE = CRAZYFLIE.quadrotor


def wire(interface):
    return Wire(interface, CRAZYFLIE, "world")


def test_attitude_is_degrees_with_the_firmwares_yaw_rate():
    message = wire("attitude").encode(np.array([0.1, 0.2, 0.5, 0.27]), 0.0)
    assert message.linear.y == pytest.approx(5.72957795)  # the right side down
    assert message.linear.x == pytest.approx(11.4591559)  # the nose down: forward
    assert message.angular.z == pytest.approx(-28.6478898)  # to the left is negative
    rpm = math.sqrt(0.27 / 4 / 3.16e-10)
    assert message.linear.z == pytest.approx((rpm - 4070.3) / 0.2685, abs=0.5)


def test_thrust_in_counts_is_cut_off_where_the_firmware_does():
    assert counts_of(VEHICLE, 0.0) == 0.0 and counts_of(VEHICLE, math.nan) == 0.0
    assert counts_of(VEHICLE, 1.0) == 60000.0
    assert thrust_of(VEHICLE, 999.0) == 0.0 and thrust_of(VEHICLE, 65535.0) == thrust_of(VEHICLE, 60000.0)
    assert thrust_of(VEHICLE, 60000.0) == pytest.approx(4 * 3.16e-10 * (4070.3 + 0.2685 * 60000) ** 2)


def test_velocity_has_its_yaw_rate_turned_too():
    message = wire("velocity_world").encode(np.array([0.1, -0.2, 0.3, 1.0]), 2.5)
    assert (message.vel.x, message.vel.y, message.vel.z) == pytest.approx((0.1, -0.2, 0.3))
    assert message.yaw_rate == pytest.approx(-57.2957795)
    assert message.header.frame_id == "world" and message.header.stamp.sec == 2


def test_full_state_is_si_and_a_quaternion_about_z():
    row = np.array([1.0, 2.0, 3.0, 0.1, 0.2, 0.3, -1.0, -2.0, -3.0, math.pi / 2])
    message = wire("full_state").encode(row, 0.0)
    assert (message.pose.position.y, message.twist.linear.y, message.acc.y) == (2.0, 0.2, -2.0)
    q = message.pose.orientation
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)))


@pytest.mark.parametrize(("interface", "size"), [("attitude", 4), ("velocity_world", 4), ("full_state", 10)])
def test_every_interface_comes_back(interface, size):
    rng, one = np.random.default_rng(0), wire(interface)
    for _ in range(50):
        row = rng.uniform(-0.5, 0.5, size)
        if interface == "attitude":
            row[3] = rng.uniform(0.1, 0.5)
        back = one.decode(one.encode(row, 0.0))
        assert back == pytest.approx(row, abs=2e-5)  # counts of thrust are whole numbers


def test_the_definitions_are_those_of_crazyflie_interfaces():
    from real import ros

    status = ros.interface("crazyflie_interfaces/msg/Status")(supervisor_info=16, battery_voltage=3.5, rssi=40)
    assert status.SUPERVISOR_INFO_IS_FLYING == 16 and status.latency_unicast == 0
    assert ros.interface("crazyflie_interfaces/msg/Status").SUPERVISOR_INFO_IS_LOCKED == 64
