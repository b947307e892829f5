"""Nodes in the test's own process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ros = pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
ros.register_interfaces(Path(__file__).parent / "interfaces")


@pytest.fixture
def make_node(domain: int) -> Iterator[Callable[..., Any]]:
    """make_node(name, *words of the command line) -> a node; ROS is started with the first one's words."""

    def make(name: str, *words: str, **how: Any) -> Any:
        if not ros.ok():
            ros.init(args=["test", *words])
        return ros.Node(name, **how)

    yield make
    ros.shutdown()
