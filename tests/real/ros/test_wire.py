"""What other DDS participants see of our nodes, checked with a plain cyclonedds one, and what ours make of rubbish."""

import random
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("cyclonedds")

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant, BuiltinTopicDcpsPublication
from cyclonedds.core import Policy, Qos

from real import ros
from real.ros import cdr, dds
from real.ros.context import context
from real.ros.graph import INFO
from real.ros.qos import LATCHED, QoSProfile
from robolearn.errors import ConfigError

PEER = Path(__file__).parent / "peer.py"
HASH = "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"


@pytest.fixture
def plain(make_node) -> dds.Participant:
    """A participant that is no node, in the test's process."""
    make_node("here")
    participant = dds.Participant(context().domain_id, Qos())
    yield participant
    participant.close()


def of_peer(endpoints, topic):
    return [e for e in endpoints if e.topic_name == topic and e.sample_info.valid_data]


def test_topic_type_qos_and_user_data_of_a_publisher(plain, spawn, until):
    seen, reader = {}, BuiltinDataReader(plain.entity, BuiltinTopicDcpsPublication)
    spawn(PEER, "talker", "chatter", 0.1)
    until(lambda: "rt/chatter" in seen, lambda: seen.update({e.topic_name: e for e in reader.take(N=100)}))
    found = seen["rt/chatter"]
    assert found.type_name == "std_msgs::msg::dds_::String_"
    assert found.qos[Policy.Userdata].data == f"typehash={HASH};".encode()
    assert isinstance(found.qos[Policy.Reliability], Policy.Reliability.Reliable)
    assert found.qos[Policy.Durability] == Policy.Durability.Volatile
    assert found.qos[Policy.DataRepresentation] == Policy.DataRepresentation(True, False)
    assert found.qos[Policy.WriterDataLifecycle].autodispose is False
    log = seen["rt/rosout"]
    assert (log.type_name, log.qos[Policy.Durability]) == (
        "rcl_interfaces::msg::dds_::Log_",
        Policy.Durability.TransientLocal,
    )
    info = seen["ros_discovery_info"]
    assert info.type_name == "rmw_dds_common::msg::dds_::ParticipantEntitiesInfo_"
    assert info.qos[Policy.Durability] == Policy.Durability.TransientLocal


def test_the_enclave_of_a_participant(plain, spawn, until):
    seen, reader = [], BuiltinDataReader(plain.entity, BuiltinTopicDcpsParticipant)
    spawn(PEER, "talker", "chatter", 0.1)
    data = lambda: [p.qos[Policy.Userdata].data for p in seen if p.qos and Policy.Userdata in p.qos]  # noqa: E731
    until(lambda: len(data()) >= 2, lambda: seen.extend(reader.take(N=100)))
    assert set(data()) <= {b"enclave=/;", b""}


def test_discovery_info_lists_nodes_with_their_endpoints(plain, spawn, until):
    kind, got = dds.announced_type(INFO), {}
    reader = dds.Reader(plain, "ros_discovery_info", kind, LATCHED.to_dds(""))
    endpoints = BuiltinDataReader(plain.entity, BuiltinTopicDcpsPublication)
    gids = {}
    spawn(PEER, "talker", "chatter", 0.1, "--ros-args", "-r", "__ns:=/left")

    def read():
        gids.update({e.topic_name: e.key.bytes for e in of_peer(endpoints.take(N=100), "rt/left/chatter")})
        while (taken := reader.take()) is not None:
            info = cdr.decode(taken[0], INFO)
            got.update({(n.node_namespace, n.node_name): (info, n) for n in info.node_entities_info_seq})

    def complete():
        writers = (
            {bytes(g.data) for g in got[("/left", "talker")][1].writer_gid_seq} if ("/left", "talker") in got else ()
        )
        return gids.get("rt/left/chatter") in writers

    until(complete, read)
    info, _ = got["/left", "talker"]
    assert len(info.gid.data) == 16 and bytes(info.gid.data)[:12] == gids["rt/left/chatter"][:12]


def test_the_payload_on_the_wire(plain, spawn, until):
    got, kind = [], dds.announced_type("std_msgs/msg/String")
    reader = dds.Reader(plain, "rt/chatter", kind, QoSProfile(depth=100).to_dds(""))
    spawn(PEER, "talker", "chatter", 0.01)
    until(lambda: got, lambda: (time.sleep(0.01), got.extend(filter(None, [reader.take()]))))
    number = got[0][0][8:].split(b"\0")[0]
    assert got[0][0][:8] == bytes.fromhex("00010000") + (len(number) + 1).to_bytes(4, "little")
    assert number.isdigit() and len(got[0][0]) % 4 == 0


@pytest.mark.parametrize("type_name", ["std_msgs/msg/String", "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image",
                                       "diagnostic_msgs/msg/DiagnosticArray"])  # fmt: skip
def test_malformed_payloads_are_counted_and_the_rest_goes_on(make_node, spawn, until, type_name, capfd):
    node, got = make_node("strong"), []
    profile = ros.QoSProfile(depth=1000)
    subscription = node.create_subscription(ros.interface(type_name), "open", got.append, profile)
    vandal = spawn(PEER, "vandal", "rt/open", type_name, 3000, 5)
    until(lambda: subscription.malformed >= 1500, lambda: ros.spin_once(node, timeout_sec=0.1), timeout_s=30.0)
    assert vandal.wait(timeout=30.0) == 0
    before = len(got)
    publisher = node.create_publisher(ros.interface(type_name), "open", profile)
    last = ros.interface(type_name)()
    until(lambda: last in got[before:], lambda: (publisher.publish(last), ros.spin_once(node, timeout_sec=0.1)))
    said = capfd.readouterr().err
    assert said.count("further ones are only counted") in (1, 2) and said.count("\n") < 5  # not a line for each


def test_a_configuration_that_dds_does_not_understand_is_the_users_error(domain, monkeypatch, capfd):
    monkeypatch.setenv("CYCLONEDDS_URI", "<CycloneDDS><Domain><Rubbish/></Domain></CycloneDDS>")
    with pytest.raises(ConfigError, match="CYCLONEDDS_URI"):
        ros.init(args=["test"])
    assert "Rubbish: unknown element" in capfd.readouterr().err  # what DDS itself says of it


def test_malformed_discovery_info_is_ignored(make_node, spawn, until, capfd):
    node = make_node("strong")
    vandal = spawn(PEER, "vandal", "ros_discovery_info", INFO, 500, 6)
    assert vandal.wait(timeout=30.0) == 0
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        ros.spin_once(node, timeout_sec=0.1)
    assert ("strong", "/") in node.get_node_names_and_namespaces()
    assert capfd.readouterr().err.count("a malformed message on ros_discovery_info") == 1
    assert node.malformed()["ros_discovery_info"] > 400


def test_rubbish_on_its_ports_does_not_harm_a_node(make_node, domain, until, capfd):
    node, got, g = make_node("strong"), [], random.Random(8)
    node.create_subscription(ros.interface("std_msgs/msg/String"), "open", got.append, 10)
    publisher = node.create_publisher(ros.interface("std_msgs/msg/String"), "open", 10)
    head = b"RTPS\x02\x01\x01\x10"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        for k in range(5000):
            data = (head if k % 4 else b"") + g.randbytes(g.randint(0, 200))
            outside.sendto(data, ("127.0.0.1", 7400 + 250 * domain + g.choice((10, 11))))
            if k % 20 == 19:
                time.sleep(0.001)  # what the ports' buffers do not hold is lost before it is read
    until(
        lambda: got,
        lambda: (publisher.publish(ros.interface("std_msgs/msg/String")()), ros.spin_once(node, timeout_sec=0.1)),
    )
    assert node.malformed()["DDS's ports"] > 1000
    assert capfd.readouterr().err.count("\n") < 5
