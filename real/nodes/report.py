"""What a node says of itself on /diagnostics."""

from __future__ import annotations

from typing import Any

from real.connection import DiagnosticArray, DiagnosticStatus, Header, KeyValue, stamp_of

OK, WARN, ERROR = range(3)


class Report:
    """A status with figures, and how many messages were dropped as malformed, by topic and service."""

    def __init__(self, node: Any, robot: str):
        self._node, self._robot = node, robot
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def __call__(self, level: int, message: str, figures: dict[str, object]) -> None:
        malformed = {f"malformed on {name}": count for name, count in self._node.malformed().items()}
        status = DiagnosticStatus(
            level=bytes([level]), name=self._node.get_fully_qualified_name(), hardware_id=self._robot, message=message,
            values=[KeyValue(key=k, value=str(v)) for k, v in (figures | malformed).items()],
        )  # fmt: skip
        stamp = stamp_of(1e-9 * float(self._node.get_clock().now().nanoseconds))
        self._publisher.publish(DiagnosticArray(header=Header(stamp=stamp), status=[status]))
