"""Headless rendering, threads, and skips, with the reason, for what this machine lacks."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import pytest

# Read when mujoco and torch are imported, so set before any test module is.
for gl, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
    if find_library(library):
        os.environ.setdefault("MUJOCO_GL", gl)
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The longest files first: started last, they would leave the other processes waiting.
    items.sort(key=lambda item: item.path.name not in LONG)
    reasons: dict[str, str | None] = {}
    for item in items:
        if REAL_TIME & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.flaky(reruns=2))
        for marker in item.iter_markers():
            if marker.name in LACKS:
                reason = reasons.setdefault(marker.name, LACKS[marker.name](config))
                if reason:
                    item.add_marker(pytest.mark.skip(reason=reason))


def lacks_slow(config: pytest.Config) -> str | None:
    asked = config.getoption("--slow") or os.environ.get("ROBOLEARN_SLOW") == "1"
    return None if asked else "takes minutes: --slow or ROBOLEARN_SLOW=1"


def lacks_gpu(config: pytest.Config) -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no NVIDIA GPU that torch can use"


def lacks_isaac(config: pytest.Config) -> str | None:
    return None if find_spec("isaaclab") else "Isaac Lab is not installed (extra isaaclab)"


def lacks_ros(config: pytest.Config) -> str | None:
    return None if find_spec("rclpy") else "no ROS 2 installation (rclpy)"


def lacks_hardware(config: pytest.Config) -> str | None:
    asked = os.environ.get("ROBOLEARN_HARDWARE") == "1"
    return None if asked else "moves a real robot: ROBOLEARN_HARDWARE=1"


REAL_TIME = {"one_at_a_time", "domain"}
"""Fixtures of tests with processes or networks that keep real time: on a machine that others use, a stall of theirs
fails one now and then. It has failed when it does so twice; the last line of the output counts the repeated ones."""
LONG = ("test_configs.py", "test_package.py")
LACKS = {
    "slow": lacks_slow,
    "gpu": lacks_gpu,
    "isaac": lacks_isaac,
    "ros": lacks_ros,
    "hardware": lacks_hardware,
}


@pytest.fixture
def one_at_a_time() -> Iterator[None]:
    """For tests whose processes have to keep real time together: the processors are theirs, as far as our tests go."""
    with open(Path(tempfile.gettempdir()) / "robolearn-test-real-time", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
