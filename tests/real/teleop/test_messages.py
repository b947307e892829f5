"""Joy and Twist devices, by real messages between two nodes over DDS: what they say, and what is a loss."""

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
from real import ros
from real.connection import NEWEST, SENSED
from real.teleop.base import DeviceError
from real.teleop.messages import Joy, JoyCfg, Twist, TwistCfg
from robolearn.errors import ConfigError

JOY, TWIST = ros.interface("sensor_msgs/msg/Joy"), ros.interface("geometry_msgs/msg/TwistStamped")


class Bench:
    """A device's host with a clock of the test's, and a publisher of its topic."""

    def __init__(self, until):
        ros.init(args=["test"])
        self.node, self.until, self.time_s, self.heard = ros.Node("host"), until, 50.0, 0

    def now_s(self):
        return self.time_s

    def subscribe(self, kind, topic, call):
        def count(message):
            call(message)
            self.heard += 1

        self.node.create_subscription(ros.interface(kind), topic, count, SENSED)
        self.out = self.node.create_publisher(ros.interface(kind), topic, NEWEST)
        self.until(lambda: self.node.count_publishers(topic) > 0, self.spin)

    def spin(self):
        ros.spin_once(self.node, timeout_sec=0.01)

    def send(self, message):
        """Until it was heard: a first one may be lost before the two have found each other."""
        before, tries = self.heard, [0]

        def again():
            if tries[0] % 50 == 0:
                self.out.publish(message)
            tries[0] += 1
            self.spin()

        self.until(lambda: self.heard > before, again)


@pytest.fixture
def bench(domain, until):
    yield Bench(until)
    ros.shutdown()


def joy(axes=(), buttons=()):
    return JOY(axes=[*axes, *[0.0] * (8 - len(axes))], buttons=[*buttons, *[0] * (11 - len(buttons))])


def twist(linear=(0.0, 0.0, 0.0), angular=(0.0, 0.0, 0.0)):
    made = TWIST()
    made.twist.linear.x, made.twist.linear.y, made.twist.linear.z = linear
    made.twist.angular.x, made.twist.angular.y, made.twist.angular.z = angular
    return made


def test_a_joystick_by_hand(bench):
    device = Joy(JoyCfg(dead_zone=0.2), bench)
    with pytest.raises(DeviceError, match=r"nobody publishes on joy; start its node, or set joy\.topic"):
        device.read()
    bench.send(joy([0.6, -1.0, 0.9, 0.1, 0.4, 0.9, 1.0, -1.0], [1, 0, 0, 0, 1]))
    reading = device.read()
    assert reading.twist == pytest.approx((-1.0, 0.5, 0.25, -1.0, -1.0, 0.0))
    assert reading[1:] == (-1, {"take"}, 50.0)
    bench.send(joy([], [0, 1, 0, 1]))
    assert device.read()[:3] == ((0.0,) * 6, 1, {"stop"})


def test_a_silence_is_a_loss_and_a_message_ends_it(bench):
    device = Joy(JoyCfg(timeout_s=0.2), bench)
    bench.send(joy([0.0, 1.0]))
    bench.time_s += 0.19
    assert device.read().twist[0] == 1.0
    bench.time_s += 0.02
    with pytest.raises(DeviceError, match=r"joy: silence on joy for more than 0.2 s.*at 10 Hz or more"):
        device.read()
    bench.send(joy())
    assert device.read().twist == (0.0,) * 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.2, 1e30])
def test_what_no_joystick_says_is_a_loss(bench, bad):
    device = Joy(JoyCfg(), bench)
    bench.send(joy([0.0, 1.0]))
    bench.send(joy([0.0, bad]))
    with pytest.raises(DeviceError, match="is the driver on joy alright"):
        device.read()
    bench.send(joy())
    assert device.read().gripper == 0


def test_a_joystick_with_too_few_axes_is_another_device(bench):
    device = Joy(JoyCfg(), bench)
    bench.send(JOY(axes=[0.0] * 3, buttons=[1]))
    with pytest.raises(DeviceError, match="a message with 3 axes on joy"):
        device.read()


def test_a_twist_is_a_share_of_what_is_full(bench):
    device = Twist(TwistCfg(topic="servo", full_mps=0.2, full_radps=2.0), bench)
    bench.send(twist((0.1, -0.2, 0.0), (0.5, 0.0, -2.0)))
    assert device.read() == (pytest.approx((0.5, -1.0, 0.0, 0.25, 0.0, -1.0)), 0, frozenset(), 50.0)
    bench.send(twist((0.3, 0.0, 0.0)))
    with pytest.raises(DeviceError, match=r"set twist.full_mps and twist.full_radps to what servo says"):
        device.read()


@pytest.mark.parametrize(
    ("cfg", "wrong"),
    [(TwistCfg, {"full_mps": 0.0}), (TwistCfg, {"timeout_s": float("nan")}), (JoyCfg, {"axes": (1, 2)})],
)
def test_settings_that_make_no_sense_are_refused(cfg, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        cfg(**wrong)
