"""Speed of `real/ros` between two processes on this machine: `python -m benchmarks.ros [joints|image|rate ...]`.

- joints: a JointState of 7 joints goes to another process and comes back through a subscription's callback there;
- image: a 640x480x3 image, one way, from before its encoding to inside the subscription's callback;
- both beside a bare echo in the same run and in turns: the same bytes through cyclonedds alone, its writer, reader and
  wait set, without message, node or callback;
- rate: JointState at 1 kHz from a timer for 30 s: lost, time between messages, CPU share of each side.

`seconds=30` is the length of `rate`, `domain=99` the DDS domain.
"""

from __future__ import annotations

import itertools
import os
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from real import ros

ROUNDS, TRIPS, IMAGES = 30, 100, 200
JOINTS, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
DOMAIN = 99
DEPTH = 100  # of the history at 1 kHz: a side may be off the processor for 0.1 s


class Bare:
    """Bytes through cyclonedds' binding."""

    def __init__(self, type_name: str, writes: str, reads: str):
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
        from cyclonedds.pub import DataWriter
        from cyclonedds.sub import DataReader
        from cyclonedds.topic import Topic

        from real.ros.context import context
        from real.ros.dds import announced_type
        from real.ros.qos import QoSProfile

        participant, kind = context().participant.entity, announced_type(type_name)
        qos = QoSProfile(depth=10).to_dds("")
        self.writer = DataWriter(participant, Topic(participant, f"bare/{writes}", kind), qos)
        self.reader = DataReader(participant, Topic(participant, f"bare/{reads}", kind), qos)
        any_state = ViewState.Any | SampleState.Any | InstanceState.Any
        self.waiter, self.condition = WaitSet(participant), ReadCondition(self.reader, any_state)
        self.waiter.attach(self.condition)

    def write(self, data: bytes | bytearray) -> None:
        from cyclonedds._clayer import ddspy_write

        ddspy_write(self.writer._ref, data)

    def take(self, timeout_s: float = 5.0) -> bytes:
        from cyclonedds._clayer import ddspy_take

        self.waiter.wait(round(timeout_s * 1e9))
        samples = ddspy_take(self.reader._ref, 0, 1)
        return samples[0][0] if isinstance(samples, list) and samples else b""


def joint_state() -> Any:
    names = [f"panda_joint{k}" for k in range(1, 8)]
    return ros.interface(JOINTS)(name=names, position=[0.1] * 7, velocity=[0.2] * 7, effort=[0.3] * 7)


def payload(message: Any) -> bytes:
    from real.ros.cdr import encode

    return bytes(encode(message, message.TYPE))


# --- the other process ------------------------------------------------------------------------------------


def echo_ours() -> None:
    node = ros.Node("echo")
    publisher = node.create_publisher(ros.interface(JOINTS), "back", 10)
    node.create_subscription(ros.interface(JOINTS), "there", publisher.publish, 10)
    ros.spin(node)


def echo_bare() -> None:
    bare = Bare(JOINTS, "back", "there")
    while ros.ok():
        if data := bare.take(0.2):
            bare.write(data)


def send_images() -> None:
    """In turns, one for each line of the input, stamped just before it is encoded, or written."""
    node, bare = ros.Node("camera"), Bare(IMAGE, "image", "none")
    publisher = node.create_publisher(ros.interface(IMAGE), "image", 10)
    pixels = os.urandom(640 * 480 * 3)
    whole = bytearray(payload(ros.interface(IMAGE)(data=pixels, width=640, height=480)))
    while sys.stdin.readline():
        stamp = time.monotonic_ns()
        message = ros.interface(IMAGE)(data=pixels, width=640, height=480)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        publisher.publish(message)
        sys.stdin.readline()
        struct.pack_into("<iI", whole, 4, *divmod(time.monotonic_ns(), 10**9))
        bare.write(whole)


def send_states(seconds: str) -> None:
    """At 1 kHz; prints its CPU share and how many were sent."""
    node, message, sent = ros.Node("driver"), joint_state(), iter(range(10**9))
    publisher = node.create_publisher(ros.interface(JOINTS), "states", DEPTH)

    def send() -> None:
        message.header.stamp.sec = next(sent)
        publisher.publish(message)

    while not publisher.get_subscription_count():
        time.sleep(0.01)
    node.create_timer(1e-3, send)
    share = cpu_share(node, float(seconds))
    print(share, next(sent), flush=True)


def cpu_share(node: Any, seconds: float) -> float:
    """Spin for so long; CPU time of this process over time."""
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds and ros.ok():
        ros.spin_once(node, timeout_sec=0.1)
    return (time.process_time() - cpu) / (time.perf_counter() - start)


# --- this process -----------------------------------------------------------------------------------------


def joints() -> None:
    node, got, bare = ros.Node("asks"), [], Bare(JOINTS, "there", "back")
    publisher, message = node.create_publisher(ros.interface(JOINTS), "there", 10), joint_state()
    node.create_subscription(ros.interface(JOINTS), "back", got.append, 10)
    data = payload(message)

    def ours_once() -> None:
        got.clear()
        publisher.publish(message)
        while not got:
            ros.spin_once(node, timeout_sec=1.0)

    def bare_once() -> None:
        bare.write(data)
        while not bare.take():
            pass

    with other("echo_ours"), other("echo_bare"):
        until(lambda: publisher.get_subscription_count() and node.count_publishers("back"))
        until(lambda: bare.writer.get_matched_subscriptions() and bare.reader.get_matched_publications())
        compare("JointState round trip", *in_turns(ours_once, bare_once))


def in_turns(ours: Callable[[], None], bare: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Seconds of each call."""
    times: tuple[list[float], list[float]] = [], []
    for turn in range(ROUNDS + 1):
        for call, kept in zip((ours, bare), times, strict=True):
            for _ in range(TRIPS):
                start = time.perf_counter()
                call()
                if turn:  # the first is to warm up
                    kept.append(time.perf_counter() - start)
    return times


def image() -> None:
    node, bare = ros.Node("sees"), Bare(IMAGE, "none", "image")
    ours: list[float] = []
    plain: list[float] = []

    def seen(message: Any) -> None:
        ours.append(time.monotonic() - message.header.stamp.sec - message.header.stamp.nanosec * 1e-9)

    node.create_subscription(ros.interface(IMAGE), "image", seen, 10)

    def ask(process: Any) -> None:
        time.sleep(0.02)
        process.stdin.write("next\n")
        process.stdin.flush()

    with other("send_images") as process:
        until(lambda: node.count_publishers("image") and bare.reader.get_matched_publications())
        while len(plain) < IMAGES:
            ask(process)
            before, end = len(ours), time.monotonic() + 1.0
            while len(ours) == before and time.monotonic() < end:
                ros.spin_once(node, timeout_sec=0.1)
            ask(process)
            if data := bare.take(1.0):
                seconds, nanoseconds = struct.unpack_from("<iI", data, 4)
                plain.append(time.monotonic() - seconds - nanoseconds * 1e-9)
    compare("640x480x3 image, one way", ours[5:], plain[5:])


def rate(seconds: float) -> None:
    node, got, times = ros.Node("hears"), [], []

    def heard(message: Any) -> None:
        got.append(message.header.stamp.sec)
        times.append(time.perf_counter())

    node.create_subscription(ros.interface(JOINTS), "states", heard, DEPTH)
    with other("send_states", seconds) as process:
        while not got:
            ros.spin_once(node, timeout_sec=0.1)
        share = cpu_share(node, seconds)
        line = process.stdout.readline()
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            ros.spin_once(node, timeout_sec=0.1)
    theirs, sent = line.split()
    gaps = sorted(abs(b - a - 1e-3) for a, b in itertools.pairwise(times))
    print(f"{'JointState at 1 kHz':26} {sent} sent in {seconds:g} s, {int(sent) - len(set(got))} lost")
    print(f"{'':26} CPU: sender {100 * float(theirs):.1f} %, receiver {100 * share:.1f} % of a core")
    print(f"{'':26} period jitter: {quantiles(gaps)}")


def compare(what: str, ours: Sequence[float], bare: Sequence[float]) -> None:
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"{what:26} ours {quantiles(ours)}; bare {quantiles(bare)}; ratio of medians {ratio:.2f}", flush=True)


def quantiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (1e6 * ordered[int(q * (len(ordered) - 1))] for q in (0.5, 0.99))
    return f"p50 {p50:.0f} us p99 {p99:.0f} us"


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.01)
    time.sleep(0.5)


class other:
    """A process that runs one of the functions above."""

    def __init__(self, *words: object):
        command = [sys.executable, "-m", "benchmarks.ros", "--other", *map(str, words)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Any:
        return self.process

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def main(words: list[str]) -> None:
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    os.environ["ROS_DOMAIN_ID"] = settings.get("domain", os.environ.get("ROS_DOMAIN_ID", str(DOMAIN)))
    ros.init(args=[])
    if words[:1] == ["--other"]:
        globals()[words[1]](*words[2:])
    else:
        runs = {"joints": joints, "image": image, "rate": lambda: rate(float(settings.get("seconds", 30.0)))}
        for name in [word for word in words if "=" not in word] or list(runs):
            runs[name]()
    ros.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
