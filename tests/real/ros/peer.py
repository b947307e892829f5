"""The other process of a test: `python peer.py ROLE ...`."""

import ctypes as ct
import os
import random
import signal
import sys
import time
from pathlib import Path

from real import ros


def talker(topic: str, period_s: str) -> None:
    """Publishes "0", "1", ... until it is stopped."""
    String = ros.interface("std_msgs/msg/String")
    node = ros.Node("talker")
    publisher, count = node.create_publisher(String, topic, 10), iter(range(10**9))
    node.create_timer(float(period_s), lambda: publisher.publish(String(data=str(next(count)))))
    print("ready", flush=True)
    ros.spin(node)


def echo(type_name: str) -> None:
    """Publishes on `back` what comes on `there`."""
    node = ros.Node("echo")
    publisher = node.create_publisher(ros.interface(type_name), "back", 10)
    node.create_subscription(ros.interface(type_name), "there", publisher.publish, 10)
    print("ready", flush=True)
    ros.spin(node)


def adder() -> None:
    """Serves example_interfaces/srv/AddTwoInts on `add`."""
    node = ros.Node("adder")

    def add(request: object, response: object) -> object:
        response.sum = request.a + request.b
        return response

    node.create_service(ros.interface("example_interfaces/srv/AddTwoInts"), "add", add)
    node.declare_parameter("rate", 10.0)
    ros.spin(node)


def fibonacci() -> None:
    """Serves example_interfaces/action/Fibonacci, a number each 20 ms; refuses negative orders."""
    node, kind = ros.Node("fibonacci"), ros.interface("example_interfaces/action/Fibonacci")

    async def execute(goal: object) -> object:
        numbers = [0, 1]
        while len(numbers) < goal.request.order:
            wait = ros.Future()
            timer = node.create_timer(0.02, lambda wait=wait: wait.done() or wait.set_result(None))
            await wait
            node.destroy_timer(timer)
            if goal.is_cancel_requested:
                goal.canceled()
                return kind.Result(sequence=numbers)
            numbers.append(numbers[-1] + numbers[-2])
            goal.publish_feedback(kind.Feedback(sequence=numbers))
        goal.succeed()
        return kind.Result(sequence=numbers)

    ros.ActionServer(
        node, kind, "count", execute,
        goal_callback=lambda g: ros.GoalResponse.ACCEPT if g.order >= 0 else ros.GoalResponse.REJECT,
        cancel_callback=lambda g: ros.CancelResponse.ACCEPT,
    )  # fmt: skip
    ros.spin(node)


def listener(topic: str, type_name: str) -> None:
    """A reliable reader that can be stopped or killed."""
    node = ros.Node("listener")
    node.create_subscription(ros.interface(type_name), topic, lambda m: None, 10)
    print("ready", flush=True)
    ros.spin(node)


class RawWriter:
    """Announces itself as a writer of the type and writes any bytes. Real writers check theirs first."""

    def __init__(self, dds_topic: str, type_name: str, service: bool = False):
        from cyclonedds.internal import DDS

        from real.ros import cdr, dds, qos
        from real.ros.context import context
        from real.ros.messages import message_class

        lib, self._sample = DDS._dll_handle, dds.SAMPLE.pack
        self._make, self._write, self._wait = (
            lib["ddsi_serdata_from_sample"], lib["dds_writecdr"], lib["dds_wait_for_acks"],
        )  # fmt: skip
        self._make.restype, self._make.argtypes = ct.c_void_p, [ct.c_void_p, ct.c_int, ct.c_void_p]
        self._write.argtypes = [ct.c_int32, ct.c_void_p]
        kind = dds.announced_type(type_name, service=service)
        profile = qos.QoSProfile(depth=100, durability=qos.DurabilityPolicy.TRANSIENT_LOCAL)
        self.writer = dds.Writer(context().participant, dds_topic, kind, profile.to_dds(""))
        self._valid = cdr.encode(message_class(type_name)(), type_name, bytes(16) if service else b"")
        self._sertype = ct.c_void_p()
        lib["dds_get_entity_sertype"](self.writer.entity._ref, ct.byref(self._sertype))

    def readers(self) -> int:
        return self.writer.entity.get_publication_matched_status().current_count

    def write(self, payload: bytes) -> None:
        """With its header, which RTPS does not deliver if it is an unknown one."""
        room = max(len(payload) + 3 & ~3, len(self._valid))
        memory = (ct.c_char * room).from_buffer(self._valid.ljust(room, b"\0"))
        data = self._make(self._sertype, 2, self._sample(ct.addressof(memory), room))
        words = (ct.c_uint64 * 40).from_address(data)
        size = next(i for i in range(8, 40) if words[i] == room)  # behind the pointer to the payload
        ct.memmove(words[size - 1], payload, len(payload))
        words[size] = len(payload)
        self._write(self.writer.entity._ref, data)

    def flush(self) -> None:
        """Wait until all who listen reliably have got it."""
        self._wait(self.writer.entity._ref, ct.c_int64(10**10))


def vandal(dds_topic: str, type_name: str, count: str, seed: str, *service: str) -> None:
    """Writes `count` random payloads that announce themselves as the type."""
    from real.ros import native

    g, node = random.Random(int(seed)), native.Node("vandal")
    writer = RawWriter(dds_topic, type_name, bool(service))
    while not writer.readers():
        time.sleep(0.01)
    for _ in range(int(count)):
        writer.write(b"\0\1\0\0" + g.randbytes(4 * g.randint(0, 60)))
    writer.flush()
    node.destroy_node()


if __name__ == "__main__":
    if os.environ.get("PEER_IGNORES_SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    cut = sys.argv.index("--ros-args") if "--ros-args" in sys.argv else len(sys.argv)
    ros.register_interfaces(Path(__file__).parent / "interfaces")
    ros.init()
    globals()[sys.argv[1]](*sys.argv[2:cut])
    ros.shutdown()
