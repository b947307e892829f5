"""Definitions and their hashes."""

from pathlib import Path

import pytest

pytest.importorskip("cyclonedds")

from real.ros.definitions import FIELDS, dds_name, register_interfaces, type_hash
from real.ros.messages import interface
from robolearn.errors import ConfigError

OURS = Path(__file__).parent / "interfaces"


@pytest.mark.parametrize(
    ("type_name", "published"),
    [
        ("std_msgs/msg/String", "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"),
        ("sensor_msgs/msg/JointState", "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"),
    ],
)
def test_hashes_are_those_that_ros_publishes(type_name, published):
    assert type_hash(type_name) == published


def test_a_char_is_an_octet_in_hashes(tmp_path):
    for name, base in (("A", "char"), ("B", "uint8")):
        write(tmp_path, f"hashed{name.lower()}/msg/Same.msg", f"{base} x\n")
    register_interfaces(tmp_path)
    described = [FIELDS[f"hashed{n}/msg/Same"] for n in "ab"]
    assert described[0] != described[1]
    import hashlib
    import json

    def by_hand(package):
        of = {"type_id": 3, "capacity": 0, "string_capacity": 0, "nested_type_name": ""}
        whole = {"type_name": f"{package}/msg/Same", "fields": [{"name": "x", "type": of}]}
        text = json.dumps({"type_description": whole, "referenced_type_descriptions": []})
        return f"RIHS01_{hashlib.sha256(text.encode()).hexdigest()}"

    assert type_hash("hasheda/msg/Same") == by_hand("hasheda")
    assert type_hash("hashedb/msg/Same") == by_hand("hashedb")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_names_on_the_wire():
    assert dds_name("std_msgs/msg/String") == "std_msgs::msg::dds_::String_"
    assert dds_name("std_srvs/srv/Trigger_Request") == "std_srvs::srv::dds_::Trigger_Request_"


def test_text_files_give_messages_services_and_actions():
    assert register_interfaces(OURS) == [
        "example_interfaces/action/Fibonacci",
        "example_interfaces/srv/AddTwoInts",
    ]
    assert register_interfaces(OURS)  # again: the same
    assert interface("example_interfaces/srv/AddTwoInts").Request(a=1).b == 0
    assert interface("example_interfaces/action/Fibonacci").Goal(order=3).order == 3
    inner = dict(FIELDS["example_interfaces/action/Fibonacci_SendGoal_Request"][1])
    assert [inner["goal_id"][1], inner["goal"][1]] == [
        "unique_identifier_msgs/msg/UUID",
        "example_interfaces/action/Fibonacci_Goal",
    ]


def test_defaults_of_text_files_are_kept(tmp_path):
    write(tmp_path, "defaults_/msg/D.msg", "float64 speed 1.5\nint32[3] v [1, 2, 3]\nstring s 'x'\nuint8 K=4\n")
    register_interfaces(tmp_path)
    made = interface("defaults_/msg/D")()
    assert (made.speed, list(made.v), made.s, made.K) == (1.5, [1, 2, 3], "x", 4)
    made.v.append(4)
    assert list(interface("defaults_/msg/D")().v) == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("bad_/msg/A.msg", "float64[ speed\n", "A.msg"),
        ("bad_/msg/B.msg", "sensor_msgs/JointStat state\n", "did you mean sensor_msgs/msg/JointState"),
        ("bad_/srv/C.srv", "bool x\n", "1 lines of --- expected, 0 found"),
        ("std_msgs/msg/String.msg", "int32 data\n", "with other fields"),
    ],
)
def test_what_is_wrong_in_a_text_file_is_said_with_its_path(tmp_path, name, text, says):
    path = write(tmp_path, name, text)
    with pytest.raises(ConfigError, match=says) as caught:
        register_interfaces(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_interfaces_are_refused_with_the_near_ones(tmp_path):
    for name in ("sensor_msgs/msg/JointStat", "std_srvs/srv/Triger", "control_msgs/action/Gripper", "JointState"):
        with pytest.raises(ConfigError, match=r"no (message|service|action)"):
            interface(name)
    with pytest.raises(ConfigError, match="holds no interfaces"):
        register_interfaces(tmp_path)
