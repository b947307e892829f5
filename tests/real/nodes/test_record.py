"""The recorder as a process of its own over DDS: what was published is in the bag, byte for byte."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader

from real import ros
from real.connection import LATCHED, DiagnosticArray, JointState, String, Trigger
from real.nodes.record import dropped_packets, fitting
from real.recording.read import open_bag
from real.ros import cdr
from robolearn.errors import ConfigError

RELIABLE = ros.QoSProfile(depth=100)
WEAK = ros.QoSProfile(depth=100, reliability=ros.ReliabilityPolicy.BEST_EFFORT)
INT = ros.interface("std_msgs/msg/Int64")


class Desk:
    """Publishers of the test, and a recorder that records into `folder`."""

    def __init__(self, folder: Path, until: Callable[..., None]):
        self.folder, self.until = folder, until
        ros.init(args=["test"])
        self.node = ros.Node("desk")
        self.said: list[Any] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self.said.extend(m.status), 10)
        self.processes: list[subprocess.Popen] = []

    def record(self, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "real.nodes.record", "--ros-args", "-p", f"folder:={self.folder}",
                   "-p", "reserve_mb:=0.0"]  # fmt: skip
        for word in words:
            command += ["-p", word]
        with (self.folder / "log").open("a") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        return self.processes[-1]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def spin(self) -> None:
        ros.spin_once(self.node, timeout_sec=0.01)

    def wait(self, condition: Callable[[], object]) -> None:
        self.until(condition, self.spin, 30.0)

    def publisher(self, kind: Any, topic: str, qos: Any, heard: bool = True) -> Any:
        made = self.node.create_publisher(kind, topic, qos)
        if heard:
            self.wait(lambda: made.get_subscription_count() > 0)
        return made

    def call(self, name: str) -> Any:
        client = self.node.create_client(Trigger, f"record/{name}")
        self.wait(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        self.wait(future.done)
        return future.result()

    def end(self, process: subprocess.Popen, how: int = signal.SIGINT) -> None:
        process.send_signal(how)
        process.wait(20.0)

    def bag(self) -> Path:
        (path,) = (p for p in self.folder.iterdir() if p.is_dir())
        return path

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        ros.shutdown()


@pytest.fixture
def desk(one_at_a_time: None, domain: int, tmp_path: Path, until: Callable[..., None]) -> Iterator[Desk]:
    made = Desk(tmp_path, until)
    yield made
    made.close()


def numbers(path: Path, topic: str) -> list[int]:
    """Of Int64 messages, in the order of the bag."""
    with open_bag(path) as recording:
        return [int.from_bytes(m.data[4:12], "little", signed=True) for m in recording.messages([topic])]


def test_every_byte_with_type_hash_and_definition(desk: Desk) -> None:
    process = desk.record("topics:=/states /picture")
    states = desk.publisher(JointState, "/states", RELIABLE)
    kind = ros.interface("sensor_msgs/msg/Image")
    picture = desk.publisher(kind, "/picture", RELIABLE)
    pixels = np.random.default_rng(0).integers(0, 256, 3 * 64 * 48, dtype=np.uint8).tobytes()
    sent: dict[str, list[bytes]] = {"/states": [], "/picture": []}
    for k in range(100):
        message = JointState(name=["a", "b"], position=[0.1 * k, 1.0], velocity=[2.0, 3.0])
        states.publish(message)
        sent["/states"].append(bytes(cdr.encode(message, message.TYPE)))
        image = kind(width=64, height=48, encoding="rgb8", step=192, data=pixels)
        image.header.frame_id = "x" * (k % 5)  # payloads of every length behind the last multiple of four
        if k % 10 == 0:
            picture.publish(image)
            sent["/picture"].append(bytes(cdr.encode(image, kind.TYPE)))
        time.sleep(0.002)
    time.sleep(0.5)
    desk.end(process)
    assert process.returncode == 0
    found: dict[str, list[bytes]] = {"/states": [], "/picture": []}
    (path,) = desk.bag().glob("*.mcap")
    with path.open("rb") as file:
        for schema, channel, message in make_reader(file, True).iter_messages():
            found[channel.topic].append(message.data)
            assert channel.metadata["topic_type_hash"] == ros.type_hash(schema.name)
            assert schema.data.decode() == ros.definition(schema.name)
            assert 0 <= message.log_time - message.publish_time < 1e9
    assert found == sent


def test_best_effort_reliable_and_latched_topics_are_all_heard(desk: Desk) -> None:
    weak = desk.publisher(INT, "/weak", WEAK, heard=False)
    firm = desk.publisher(INT, "/firm", RELIABLE, heard=False)
    latched = desk.publisher(String, "/latched", LATCHED, heard=False)
    latched.publish(String(data="said before the recorder came"))
    process = desk.record("regex:=^/(weak|firm|latched)$")
    desk.wait(lambda: weak.get_subscription_count() and firm.get_subscription_count())
    desk.wait(lambda: latched.get_subscription_count())
    for k in range(50):
        weak.publish(INT(data=k))
        firm.publish(INT(data=k))
        time.sleep(0.005)
    time.sleep(0.5)
    desk.end(process)
    assert numbers(desk.bag(), "/weak") == numbers(desk.bag(), "/firm") == list(range(50))
    with open_bag(desk.bag()) as recording:
        (said,) = recording.messages(["/latched"])
        assert b"said before the recorder came" in said.data
        offers = {name: topic.offers[0] for name, topic in recording.topics.items()}
    assert offers["/weak"]["reliability"] == "best_effort"
    assert offers["/firm"]["durability"] == "volatile"
    assert offers["/latched"]["durability"] == "transient_local"


def test_a_publisher_that_offers_less_is_heard_too(desk: Desk) -> None:
    process = desk.record("topics:=/mixed")
    firm = desk.publisher(INT, "/mixed", RELIABLE)
    firm.publish(INT(data=1))
    weak = desk.publisher(INT, "/mixed", WEAK)
    desk.wait(firm.get_subscription_count)
    weak.publish(INT(data=2))
    firm.publish(INT(data=3))
    time.sleep(0.5)
    desk.end(process)
    assert set(numbers(desk.bag(), "/mixed")) == {1, 2, 3}
    assert "subscribed anew" in desk.log


def test_topics_that_come_later_are_taken_in_and_hidden_ones_are_not(desk: Desk) -> None:
    process = desk.record("exclude:=secret")
    first = desk.publisher(INT, "/first", RELIABLE)
    first.publish(INT(data=1))
    desk.node.create_publisher(INT, "/secret", RELIABLE)
    desk.node.create_publisher(INT, "/_hidden", RELIABLE)
    later = desk.publisher(INT, "/later", RELIABLE)
    later.publish(INT(data=2))
    time.sleep(0.5)
    desk.end(process)
    with open_bag(desk.bag()) as recording:
        names = set(recording.topics)
    assert {"/first", "/later", "/diagnostics"} <= names
    assert not names & {"/secret", "/_hidden"}
    assert numbers(desk.bag(), "/later") == [2]


def test_another_definition_than_ours_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a publisher of another ROS distribution: its hash is kept, by which readers see that the text is not its."""
    theirs = f"RIHS01_{'0' * 64}"
    process = desk.record("topics:=/same /other")
    desk.publisher(INT, "/same", RELIABLE)
    monkeypatch.setattr("real.ros.pubsub.typehash", lambda name: f"typehash={theirs};")
    desk.publisher(INT, "/other", RELIABLE)
    desk.end(process)
    assert "/other: its publisher has another definition of std_msgs/msg/Int64" in desk.log
    assert "/same: its publisher" not in desk.log
    with open_bag(desk.bag()) as recording:
        assert recording.topics["/other"].hash == theirs


def test_start_stop_split_and_a_name_that_is_taken(desk: Desk) -> None:
    desk.record("start:=false", "name:=bag", "topics:=/count", "storage:=sqlite3")
    assert not desk.call("split").success
    assert desk.call("start").message == str(desk.folder / "bag")
    count = desk.publisher(INT, "/count", RELIABLE)
    count.publish(INT(data=1))
    time.sleep(0.3)
    assert desk.call("split").success
    time.sleep(0.3)
    count.publish(INT(data=2))
    time.sleep(0.3)
    stopped = desk.call("stop")
    assert stopped.success and "2 messages" in stopped.message and "0 lost" in stopped.message
    info = yaml.safe_load((desk.bag() / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert [file["message_count"] for file in info["files"]] == [1, 1]
    again = desk.call("start")
    assert not again.success and "never written over" in again.message


def test_a_limit_is_told_in_diagnostics_and_the_log(desk: Desk) -> None:
    desk.record("topics:=/count", "limit_mb:=0.01")
    count = desk.publisher(INT, "/count", RELIABLE)
    desk.wait(lambda: any(s.message == "recording" and s.level == b"\0" for s in desk.said))
    for k in range(500):
        count.publish(INT(data=k))
        desk.spin()
    desk.wait(lambda: any("reached its limit" in s.message for s in desk.said))
    assert "reached its limit" in desk.log
    desk.said.clear()
    desk.wait(lambda: [s for s in desk.said if "ended by itself" in s.message and s.level == b"\2"])  # for good: ERROR
    kept = numbers(desk.bag(), "/count")
    assert kept == list(range(len(kept))) and 50 < len(kept) < 400


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("regex:=(", "no regular expression"),
        ("storage:=mcab", "did you mean mcap"),
        ("name:=../x", "one folder"),
        ("reserve_mb:=1.0e12", "stay free"),
        ("queue_mb:=0.0", "above 0"),
        ("folder:=/proc/nothing", "cannot be made"),
        ("interfaces:=/nowhere", "holds no interfaces"),
    ],
)
def test_wrong_parameters_end_it_with_a_line(desk: Desk, word: str, why: str) -> None:
    process = desk.record(word)
    assert process.wait(30.0) in (1, 2)
    assert why in desk.log and "Traceback" not in desk.log


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_kill_takes_at_most_the_last_second(desk: Desk, storage: str) -> None:
    """Three times: all numbers up to the last second before it are there, without a hole."""
    for attempt in range(3):
        process = desk.record(f"topics:=/count{attempt}", f"name:=bag{attempt}", f"storage:={storage}")
        count = desk.publisher(INT, f"/count{attempt}", RELIABLE)
        sent, k = [], 0
        until = time.monotonic() + 1.0 + 0.3 * attempt
        while time.monotonic() < until:
            count.publish(INT(data=k))
            sent.append(time.time())
            k += 1
            time.sleep(0.001)
        desk.end(process, signal.SIGKILL)
        killed = time.time()
        found = numbers(desk.folder / f"bag{attempt}", f"/count{attempt}")
        assert found == list(range(len(found)))
        assert all(at > killed - 1.0 for at in sent[len(found) :])


def test_states_at_1_khz_and_two_cameras_are_recorded_without_loss(desk: Desk) -> None:
    """Of a process of its own, for 5 s; benchmarks/record.py does it for 30 s and measures."""
    from importlib import util

    spec = util.spec_from_file_location("bench_record", Path(__file__).parents[3] / "benchmarks/record.py")
    assert spec is not None and spec.loader is not None
    bench = util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    process = desk.record(f"topics:={' '.join(bench.TOPICS)}")
    sent = bench.load(5.0)
    time.sleep(0.5)
    desk.end(process)
    with open_bag(desk.bag()) as recording:
        found: dict[str, list[int]] = {name: [] for name in bench.TOPICS}
        for m in recording.messages():
            found[m.topic].append(int.from_bytes(m.data[4:8], "little"))  # the stamp's seconds: the number
        assert not recording.lost
    assert {name: len(got) for name, got in found.items()} == sent
    assert all(got == list(range(len(got))) for got in found.values())


def test_what_is_asked_for_fits_all_publishers() -> None:
    firm, weak = {"reliability": "reliable"}, {"reliability": "best_effort"}
    latched, volatile = {"durability": "transient_local"}, {"durability": "volatile"}
    both = fitting([firm | latched, firm | latched])
    assert both.reliability == ros.ReliabilityPolicy.RELIABLE
    assert both.durability == ros.DurabilityPolicy.TRANSIENT_LOCAL
    mixed = fitting([firm | latched, weak | volatile])
    assert mixed.reliability == ros.ReliabilityPolicy.BEST_EFFORT
    assert mixed.durability == ros.DurabilityPolicy.VOLATILE


@pytest.mark.skipif(not Path("/proc/self/net/udp").exists(), reason="no /proc")
def test_packets_that_a_full_socket_costs_are_counted() -> None:
    before = dropped_packets()
    with socket.socket(type=socket.SOCK_DGRAM) as full, socket.socket(type=socket.SOCK_DGRAM) as sender:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        full.bind(("127.0.0.1", 0))
        for _ in range(100):
            sender.sendto(bytes(1000), full.getsockname())
        taken, dropped = 0, dropped_packets() - before
        full.setblocking(False)
        with pytest.raises(BlockingIOError):
            while full.recv(2000):
                taken += 1
    assert dropped == 100 - taken > 0


def test_a_type_that_nobody_knows_has_no_definition() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        ros.definition("sensor_msgs/msg/JointStat")
