"""The facts of one robot where it stands: what is wrong is named, and what was read once cannot be set later."""

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
from real import ros
from real.site import read_site
from robolearn.errors import ConfigError


@pytest.fixture
def site_of(domain):
    """site_of(word, ...) -> (node, site) of a Franka with these parameters."""

    def make(*words):
        ros.init(args=["test", "--ros-args", *(part for word in words for part in ("-p", word))])
        node = ros.Node("guard")
        return node, read_site(node, "franka")

    yield make
    ros.shutdown()


@pytest.mark.parametrize(
    "word",
    ["state_topic:=1//x", "state_topic:=/", 'command_topic:="a b"', "wrench_topic:=é", "gripper.action:=a//b",
     "gripper.state_topic:=/x/", "object_timeout_s:=.nan", "command_rate_hz:=0.0", "gripper.max_effort_n:=.inf",
     "calibration.base:=[1.0]", "calibration.base:=[.nan, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]", "limits.force_n:=.nan",
     "limits.force_n:=1e300", "limits.joint_upper_rad:=[1.0]", "robot:=3", "state_topic:=[a, b]"],
)  # fmt: skip
def test_what_is_wrong_is_named(site_of, word):
    name = word.partition(":=")[0].removeprefix("limits.").removeprefix("gripper.max_")
    with pytest.raises(ConfigError) as error:
        site_of(word)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_topics_are_renamed(site_of):
    _, site = site_of("state_topic:=/left/joint_states", "wrench_topic:=ft", "gripper.action:='~/grip'")
    assert site.profile.state_topic == "/left/joint_states" and site.profile.wrench_topic == "ft"
    assert site.profile.gripper.action == "~/grip" and site.profile.command.topic.startswith("forward_position")


def test_a_limit_that_is_set_later_is_refused_rather_than_ignored(site_of):
    node, site = site_of("limits.tool_speed_mps:=0.25")
    assert site.profile.limits.tool_speed_mps == 0.25
    (answer,) = node.set_parameters([ros.Parameter("limits.tool_speed_mps", value=0.1)])
    assert not answer.successful and answer.reason
    assert node.get_parameter("limits.tool_speed_mps").value == 0.25
