"""The codec: bytes by hand, rosbags' codec as a second opinion, and everything that is no message."""

import random
import struct
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("cyclonedds")

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

from real.ros import cdr
from real.ros.definitions import FIELDS, fields_of
from real.ros.messages import Message, interface, message_class

ROSBAGS = get_typestore(Stores.ROS2_JAZZY)
STANDARD = sorted(ROSBAGS.fielddefs)
HEADER = bytes.fromhex("00010000")


def test_text_is_counted_with_its_zero_and_padded():
    got = cdr.encode(interface("std_msgs/msg/String")(data="hi"), "std_msgs/msg/String")
    assert got == HEADER + bytes.fromhex("03000000 686900 00")


def test_doubles_are_aligned_to_eight_behind_the_header():
    state = interface("sensor_msgs/msg/JointState")(name=["a"], position=[1.0])
    state.header.stamp.sec, state.header.stamp.nanosec = 1, 2
    want = HEADER + bytes.fromhex(
        "01000000 02000000"  # stamp
        "01000000 00 000000"  # frame_id "", padding
        "01000000 02000000 6100 0000"  # one name, padding
        "01000000 000000000000f03f"  # 28 + 4 = 32: aligned without padding
        "00000000 00000000"  # no velocity, no effort
    )
    assert cdr.encode(state, state.TYPE) == want


def test_no_members_are_one_zero_byte():
    assert cdr.encode(interface("std_srvs/srv/Trigger").Request(), "std_srvs/srv/Trigger_Request") == HEADER + bytes(4)
    assert cdr.decode(HEADER + bytes(4), "std_srvs/srv/Trigger_Request") == interface("std_srvs/srv/Trigger").Request()


def test_a_service_header_stands_before_the_message():
    reply = interface("std_srvs/srv/Trigger").Response(success=True, message="ok")
    got = cdr.encode(reply, reply.TYPE, struct.pack("<Qq", 7, 9))
    assert got == HEADER + bytes.fromhex("0700000000000000 0900000000000000 01 000000 03000000 6f6b00 00")
    assert cdr.decode(bytes(got), reply.TYPE, skip=16) == reply


def test_a_quaternion_is_no_rotation_unless_told():
    assert interface("geometry_msgs/msg/Pose")().orientation.w == 1.0


def test_a_byte_is_bytes_as_in_rclpy():
    status = interface("diagnostic_msgs/msg/DiagnosticStatus")
    sent = status(level=status.ERROR, name="guard")
    assert status.ERROR == b"\x02"
    assert cdr.decode(bytes(cdr.encode(sent, status.TYPE)), status.TYPE) == sent


@pytest.mark.parametrize("type_name", STANDARD)
def test_the_same_bytes_as_rosbags(type_name):
    g = random.Random(type_name)
    for _ in range(5):
        message = filled(type_name, g)
        data = bytes(cdr.encode(message, type_name))
        other = ROSBAGS.deserialize_cdr(data, type_name)
        assert bytes(ROSBAGS.serialize_cdr(other, type_name)).ljust(len(data), b"\0") == data
        assert cdr.decode(data, type_name) == message


def filled(type_name: str, g: random.Random) -> Message:
    return message_class(type_name)(**{name: value(desc, g) for name, desc in fields_of(type_name)})


def value(desc, g: random.Random):
    kind, inner = desc
    if kind == Nodetype.NAME:
        return filled(inner, g)
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        count = inner[1] if kind == Nodetype.ARRAY else g.randint(0, min(3, inner[1] or 3))
        got = [value(inner[0], g) for _ in range(count)]
        base = inner[0][1][0]
        numbers = inner[0][0] == Nodetype.BASE and base != "string"
        if base == "byte":
            return np.frombuffer(b"".join(got), np.uint8)
        return np.array(got, "?" if base == "bool" else cdr.DTYPES[base]) if numbers else got
    base = inner[0]
    if base == "string":
        return "".join(g.choice("aé_/ 漢") for _ in range(g.randint(0, min(9, inner[1] or 9) // 3)))
    if base in ("bool", "byte"):
        return g.random() < 0.5 if base == "bool" else g.randbytes(1)
    if base.startswith("float"):
        return float(np.float32(g.uniform(-1e3, 1e3)))
    info = np.iinfo(cdr.DTYPES[base])
    return g.randint(int(info.min), int(info.max))


HARD = [
    "sensor_msgs/msg/JointState",
    "diagnostic_msgs/msg/DiagnosticArray",
    "trajectory_msgs/msg/JointTrajectory",
    "rcl_interfaces/msg/ParameterEvent",
    "sensor_msgs/msg/Image",
    "rmw_dds_common/msg/ParticipantEntitiesInfo",
]


@pytest.mark.parametrize("type_name", HARD)
def test_bytes_that_are_no_message_are_malformed_and_nothing_else(type_name):
    g = random.Random(3)
    valid, refused = bytes(cdr.encode(filled(type_name, g), type_name)), 0
    for k in range(2000):
        data = HEADER + g.randbytes(g.randint(0, 120)) if k % 2 else damaged(valid, g)
        try:
            cdr.decode(data, type_name)
        except cdr.MalformedError:
            refused += 1
    assert refused > 500


def damaged(valid: bytes, g: random.Random) -> bytes:
    data = bytearray(valid[: g.randint(0, len(valid))])
    for _ in range(g.randint(0, 3)):
        if data:
            data[g.randrange(len(data))] = g.choice((0, 1, 127, 255))
    return bytes(data)


def test_a_length_beyond_the_bytes_is_refused_at_once():
    for number in (2**31, 2**32 - 1, 100):
        with pytest.raises(cdr.MalformedError):
            cdr.decode(HEADER + bytes(12) + struct.pack("<I", number) + bytes(64), "sensor_msgs/msg/JointState")


def test_text_must_end_at_its_only_zero_byte_and_be_utf8():
    kind = "std_msgs/msg/String"
    assert cdr.decode(HEADER + bytes.fromhex("03000000 686900 00"), kind).data == "hi"
    for wrong in (
        "03000000 686969 00",
        "03000000 680000 00",
        "00000000",
        "03000000 c3a900 ff ff ff ff",
        "02000000 ff00",
    ):
        with pytest.raises(cdr.MalformedError):
            cdr.decode(HEADER + bytes.fromhex(wrong), kind)


def test_long_lists_of_messages_are_refused_before_they_take_seconds():
    point, path = (
        interface("trajectory_msgs/msg/JointTrajectoryPoint"),
        interface("trajectory_msgs/msg/JointTrajectory"),
    )
    most = bytes(cdr.encode(path(joint_names=["a"] * 96, points=[point()] * 4000), path.TYPE))
    assert len(cdr.decode(most, path.TYPE).points) == 4000
    more = bytes(cdr.encode(path(joint_names=["a"] * 96, points=[point()] * 4001), path.TYPE))
    with pytest.raises(cdr.MalformedError, match="by 1"):
        cdr.decode(more, path.TYPE)
    assert len(cdr.decode(more, path.TYPE, most=5000).points) == 4001
    with pytest.raises(cdr.MalformedError, match="by 1"):  # strings alone
        cdr.decode(bytes(cdr.encode(path(joint_names=["a"] * 4097), path.TYPE)), path.TYPE)
    numbers = interface("std_msgs/msg/Float64MultiArray")(data=np.zeros(100_000))
    assert len(cdr.decode(bytes(cdr.encode(numbers, numbers.TYPE)), numbers.TYPE).data) == 100_000


def test_long_lists_within_lists_are_added_up():
    array, status = interface("diagnostic_msgs/msg/DiagnosticArray"), interface("diagnostic_msgs/msg/DiagnosticStatus")
    value = interface("diagnostic_msgs/msg/KeyValue")()
    many = array(status=[status(values=[value] * 1000) for _ in range(5)])
    with pytest.raises(cdr.MalformedError, match="by 909"):  # 5 + 5000 - 4096
        cdr.decode(bytes(cdr.encode(many, many.TYPE)), many.TYPE)


def test_names_that_came_before_are_the_receivers_own_and_others_are_read():
    state = interface("sensor_msgs/msg/JointState")
    for frame, names in (("base", ["a", "bc"]), ("base", ["a", "bc"]), ("other", ["a", "bc"]), ("other", ["d"])):
        sent = state(name=names, position=[1.0] * len(names))
        sent.header.frame_id = frame
        got = cdr.decode(bytes(cdr.encode(sent, state.TYPE)), state.TYPE)
        assert (got.header.frame_id, got.name, list(got.position)) == (frame, names, [1.0] * len(names))
        got.name.append("mine")


def test_texts_between_numbers_are_padded_as_they_end():
    log = interface("rcl_interfaces/msg/Log")(level=10, name="ab", msg="", file="abc", function="f", line=7)
    want = HEADER + bytes.fromhex(
        "00000000 00000000 0a 000000"  # stamp, level, padding
        "03000000 616200 00 01000000 00 000000 04000000 61626300 02000000 6600 0000"  # four texts
        "07000000"
    )
    assert cdr.encode(log, log.TYPE) == want and cdr.decode(want, log.TYPE) == log


def test_long_texts_are_not_remembered():
    string = interface("std_msgs/msg/String")
    tracemalloc.start()
    for k in range(100):
        data = bytes(cdr.encode(string(data=f"{k}" * 100_000), string.TYPE))
        assert cdr.decode(data, string.TYPE).data[0] == f"{k}"[0]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1e6


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"position": "text"}, ".position"),
        ({"position": [[1.0], [2.0]]}, ".position"),
        ({"position": ["1.0"]}, ".position"),
        ({"name": "joint"}, ".name"),
        ({"name": ["a", 3]}, ".name"),
        ({"header": None}, ".header"),
    ],
)
def test_what_a_type_cannot_hold_is_named_by_its_field(fields, where):
    state = interface("sensor_msgs/msg/JointState")(**fields)
    with pytest.raises((TypeError, ValueError), match=where):
        cdr.encode(state, state.TYPE)


@pytest.mark.parametrize("wrong", [2**31, 1.5, "1", None])
def test_a_nested_field_is_named_by_its_path(wrong):
    header = interface("std_msgs/msg/Header")()
    header.stamp.sec = wrong
    with pytest.raises((TypeError, ValueError), match=r"\.stamp\.sec"):
        cdr.encode(header, header.TYPE)


def test_numbers_that_would_change_are_refused():
    for type_name, data in (("UInt8MultiArray", [256]), ("UInt8MultiArray", [-1]), ("Int32MultiArray", [1.5])):
        message = interface(f"std_msgs/msg/{type_name}")(data=data)
        with pytest.raises(ValueError, match=r"\.data"):
            cdr.encode(message, message.TYPE)
    with pytest.raises(TypeError):
        cdr.encode(interface("std_msgs/msg/Bool")(data=1), "std_msgs/msg/Bool")


def test_fixed_and_bounded_lengths_are_kept():
    for wrong in ([0.0] * 35, np.zeros(37)):
        message = interface("geometry_msgs/msg/PoseWithCovariance")(covariance=wrong)
        with pytest.raises(ValueError, match="36 expected"):
            cdr.encode(message, message.TYPE)
    assert FIELDS["shape_msgs/msg/SolidPrimitive"][1][1][1][1][1] == 3
    message = interface("shape_msgs/msg/SolidPrimitive")(dimensions=[1.0] * 4)
    with pytest.raises(ValueError, match="at most 3"):
        cdr.encode(message, message.TYPE)


def test_an_unknown_field_is_refused_with_the_near_ones():
    with pytest.raises(TypeError, match="did you mean position"):
        interface("sensor_msgs/msg/JointState")(positions=[])
    with pytest.raises(AttributeError):
        interface("sensor_msgs/msg/JointState")().positions = []
