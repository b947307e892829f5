"""What a process has once: the DDS participant, the arguments, the nodes, and how it ends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclonedds.core import DDSException, Policy, Qos
from cyclonedds.domain import Domain

from real.ros import dds, log
from real.ros.arguments import Arguments, cyclonedds_config, domain_id
from real.ros.complaints import Complaints, unprinted
from real.ros.graph import Graph
from real.ros.signals import Signals
from robolearn.errors import ConfigError

if TYPE_CHECKING:
    from real.ros.node import Node


class NotInitializedError(RuntimeError):
    """`init()` has not been called, or `shutdown()` has."""


class Context:
    """Of `ros.init()`. SIGINT and SIGTERM end `spin`; a later one acts as if nobody had caught it."""

    def __init__(self, argv: Sequence[str]):
        self.arguments = Arguments.parse(argv)
        self.domain_id = domain_id()
        self.nodes: list[Node] = []
        self.stopping = threading.Event()
        log.configure(self.arguments.log_levels)
        self.complaints = Complaints()
        try:
            with unprinted():
                self.domain = Domain(self.domain_id, cyclonedds_config(self.complaints.config))
            self.participant = dds.Participant(self.domain_id, Qos(Policy.Userdata(b"enclave=/;")))
        except DDSException as error:
            why = "is CYCLONEDDS_URI right, and the domain not full?"
            raise ConfigError(f"cannot join DDS domain {self.domain_id}: {why} ({error})") from None
        self.graph = Graph(self.participant)
        self._csid = 0
        self._signals = Signals(self.stop)

    def client_service_id(self) -> str:
        """Of a new client or service: the participant's GUID prefix and a counter, as dotted hexadecimal."""
        self._csid += 1
        return ".".join(f"{byte:x}" for byte in self.participant.gid[:12] + self._csid.to_bytes(4, "big"))

    def stop(self) -> None:
        """Make every `spin` return; from any thread."""
        self.stopping.set()
        for node in list(self.nodes):
            node.waiter.wake()

    def close(self) -> None:
        self.stop()
        self._signals.give_back()
        for node in list(self.nodes):
            node.destroy_node()
        self.graph.close()
        self.participant.close()
        dds.delete(self.domain)
        self.complaints.close()


_context: Context | None = None


def init(args: Sequence[str] | None = None) -> None:
    """Join the domain. `args`: the command line, with or without `--ros-args`; sys.argv if not given."""
    global _context
    if _context is not None:
        raise RuntimeError("ros.init() has been called already")
    _context = Context(sys.argv if args is None else args)


def context() -> Context:
    if _context is None:
        raise NotInitializedError("call ros.init() first")
    return _context


def ok() -> bool:
    """False before `init`, after `shutdown` and after SIGINT or SIGTERM."""
    return _context is not None and not _context.stopping.is_set()


def shutdown() -> None:
    """Destroy the nodes and leave the domain. A second time, or before `init`, nothing happens."""
    global _context
    leaving, _context = _context, None
    if leaving is not None:
        leaving.close()


def remove_ros_args(args: Sequence[str] | None = None) -> list[str]:
    """The command line without what is between `--ros-args` and `--`."""
    return Arguments.parse(sys.argv if args is None else args).rest
