"""Services and clients between processes; their payload and their names on the wire."""

import itertools
import struct
import time
from pathlib import Path

import pytest

from real import ros

PEER = Path(__file__).parent / "peer.py"
Trigger = ros.interface("std_srvs/srv/Trigger")
native = pytest.mark.skipif(not hasattr(ros.Node, "spin_once"), reason="looks below the API, where rclpy is")


@pytest.fixture
def AddTwoInts():
    return ros.interface("example_interfaces/srv/AddTwoInts")


def test_a_service_of_another_process_answers(make_node, spawn, AddTwoInts):
    node = make_node("asks")
    client = node.create_client(AddTwoInts, "add")
    assert not client.wait_for_service(timeout_sec=0.05)
    spawn(PEER, "adder")
    assert client.wait_for_service(timeout_sec=15.0)
    futures = [client.call_async(AddTwoInts.Request(a=k, b=1)) for k in range(5)]
    for future in futures:
        ros.spin_until_future_complete(node, future, timeout_sec=10.0)
    assert [f.result().sum for f in futures] == [1, 2, 3, 4, 5]


def test_two_clients_get_each_their_own_answers(make_node, spawn, AddTwoInts, until):
    node = make_node("asks")
    clients = [node.create_client(AddTwoInts, "add") for _ in range(2)]
    spawn(PEER, "adder")
    assert all(client.wait_for_service(timeout_sec=15.0) for client in clients)
    futures = [c.call_async(AddTwoInts.Request(a=100 * k)) for k, c in enumerate(clients)]
    until(lambda: all(f.done() for f in futures), lambda: ros.spin_once(node, timeout_sec=0.1))
    assert [f.result().sum for f in futures] == [0, 100]


def test_a_server_that_dies_leaves_the_future_open(make_node, spawn, AddTwoInts):
    node = make_node("asks")
    client = node.create_client(AddTwoInts, "add")
    server = spawn(PEER, "adder")
    assert client.wait_for_service(timeout_sec=15.0)
    server.kill()
    future = client.call_async(AddTwoInts.Request())
    start = time.monotonic()
    ros.spin_until_future_complete(node, future, timeout_sec=0.3)
    assert not future.done() and time.monotonic() - start < 2.0
    called = []
    future.add_done_callback(called.append)
    client.remove_pending_request(future)
    future.cancel()
    assert called == [future]


@native
def test_requests_and_replies_on_the_wire(make_node, until):
    from cyclonedds.core import Policy, Qos

    from real.ros import dds
    from real.ros.context import context
    from real.ros.qos import SERVICES

    node = make_node("serves")
    service = node.create_service(Trigger, "~/go", lambda _, r: Trigger.Response(success=True, message="went"))
    plain = dds.Participant(context().domain_id, Qos())
    kinds = [dds.announced_type(f"std_srvs/srv/Trigger_{part}", service=True) for part in ("Request", "Response")]
    mine = SERVICES.to_dds("clientid=1.2.3;")
    writer = dds.Writer(plain, "rq/serves/goRequest", kinds[0], mine)
    reader = dds.Reader(plain, "rr/serves/goReply", kinds[1], mine)
    until(lambda: writer.entity.get_matched_subscriptions() and reader.entity.get_matched_publications())
    writer.write(bytearray(bytes.fromhex("00010000") + struct.pack("<Qq", 2**63 + 5, 77) + bytes(4)))
    got = []
    until(lambda: got, lambda: (ros.spin_once(node, timeout_sec=0.05), got.extend(filter(None, [reader.take()]))))
    assert got[0][0] == bytes.fromhex("00010000") + struct.pack("<Qq", 2**63 + 5, 77) + b"\1\0\0\0\5\0\0\0went\0\0\0\0"
    server = reader.entity.get_matched_publication_data(reader.entity.get_matched_publications()[0])
    assert server.type_name == "std_srvs::srv::dds_::Trigger_Response_"
    key, typehash, end = server.qos[Policy.Userdata].data.decode().split(";")
    prefix = ".".join(f"{b:x}" for b in context().participant.gid[:12])
    assert key.startswith(f"serviceid={prefix}.0.0.") and typehash.startswith("typehash=RIHS01_") and end == ""
    assert service.malformed == 0
    plain.close()


@native
def test_a_client_without_a_reader_delays_nobody(make_node, until):
    from real.ros import dds
    from real.ros.context import context
    from real.ros.qos import SERVICES

    node, ticks = make_node("serves"), []
    node.create_service(Trigger, "go", lambda _, response: response)
    node.create_timer(0.01, lambda: ticks.append(time.monotonic()))
    kind = dds.announced_type("std_srvs/srv/Trigger_Request", service=True)
    deaf = dds.Writer(context().participant, "rq/goRequest", kind, SERVICES.to_dds("clientid=9;"))
    until(lambda: deaf.entity.get_matched_subscriptions())
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        deaf.write(bytearray(bytes.fromhex("00010000") + struct.pack("<Qq", 1, 1) + bytes(4)))
        ros.spin_once(node, timeout_sec=0.01)
    assert max(b - a for a, b in itertools.pairwise(ticks)) < 0.09
    deaf.close()


@native
def test_malformed_requests_are_counted_and_the_service_goes_on(make_node, spawn, until, AddTwoInts):
    node = make_node("serves")
    kind = ros.interface("rcl_interfaces/srv/SetParameters")
    service = node.create_service(kind, "open", lambda _, response: response)
    vandal = spawn(PEER, "vandal", "rq/openRequest", "rcl_interfaces/srv/SetParameters_Request", 3000, 5, "service")
    until(lambda: service.malformed >= 1000, lambda: ros.spin_once(node, timeout_sec=0.1), timeout_s=30.0)
    assert node.malformed().keys() == {"/open"} and node.malformed()["/open"] >= 1000
    assert vandal.wait(timeout=30.0) == 0
    client = node.create_client(kind, "open")
    assert client.wait_for_service(timeout_sec=10.0)
    future = client.call_async(kind.Request())
    ros.spin_until_future_complete(node, future, timeout_sec=10.0)
    assert future.done()


@native
def test_malformed_replies_are_counted_and_the_client_goes_on(make_node, spawn, until, AddTwoInts):
    node = make_node("asks")
    client = node.create_client(Trigger, "open")
    lost = client.call_async(Trigger.Request())
    vandal = spawn(PEER, "vandal", "rr/openReply", "std_srvs/srv/Trigger_Response", 2000, 5, "service")
    until(lambda: client.malformed >= 1000, lambda: ros.spin_once(node, timeout_sec=0.1), timeout_s=30.0)
    assert vandal.wait(timeout=30.0) == 0 and not lost.done()
    node.create_service(Trigger, "open", lambda _, response: response)
    assert client.wait_for_service(timeout_sec=10.0)
    future = client.call_async(Trigger.Request())
    ros.spin_until_future_complete(node, future, timeout_sec=10.0)
    assert future.done()
