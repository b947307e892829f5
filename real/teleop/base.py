"""The one interface of gamepads, keyboards, mice with six axes, and of other nodes' messages. No ROS here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from robolearn.errors import UserError
from robolearn.hil.takeover import Claim

BUTTONS = ("take", "release", "stop", "success", "failure", "reset")
"""What a person can press: have the robot, let go of it, emergency stop; the rest is for who learns."""
BEYOND = 1.05
"""A device that says more than this of its full deflection is not read right; less is cut off at 1."""
RETRY_S = 0.5
"""From one attempt to open a lost device to the next."""


class DeviceError(UserError):
    """A device is missing, was unplugged, or sends what makes no sense; the message names the remedy."""


class Reading(NamedTuple):
    twist: tuple[float, ...]
    """(6,) shares of the full deflection in [-1, 1]: forwards, left, up, then turns about these axes (right-handed)."""
    gripper: int
    """-1 closes, +1 opens, 0 leaves it as it is."""
    buttons: frozenset[str]
    """Of BUTTONS, those that are pressed."""
    stamp_s: float
    """When it was so, on the host's clock."""


class Host(Protocol):
    """Who serves a device; the teleop node is one."""

    def now_s(self) -> float: ...

    def subscribe(self, kind: str, topic: str, call: Callable[[Any], None]) -> None:
        """Call with every message of the ROS 2 type `kind` on the topic."""
        ...


class Device(Protocol):
    """Built as `Device(config, host=host)`, which raises DeviceError where there is none."""

    def read(self) -> Reading:
        """The newest; never waits. Raises DeviceError as long as the device is lost; then it has been let go."""
        ...

    def close(self) -> None: ...


def claim(reading: Reading) -> Claim:
    """Who moves the gripper means to take over, too."""
    largest = max(abs(share) for share in reading.twist)
    let_go = bool(reading.buttons & {"release", "stop"})
    return Claim(largest, "take" in reading.buttons or reading.gripper != 0, let_go)


def share(value: float, dead_zone: float) -> float:
    """In [-1, 1], of a deflection; zero in the dead zone and without a jump at its end. NaN stays NaN."""
    beyond = min(abs(value), 1.0) - dead_zone
    return math.copysign(beyond / (1.0 - dead_zone), value) if not beyond <= 0.0 else 0.0


def demand_shares(device: str, values: tuple[float, ...], remedy: str, most: float = BEYOND) -> None:
    """Raise DeviceError unless all are numbers within `most`."""
    if not all(abs(v) <= most for v in values):  # NaN too
        raise DeviceError(f"{device} says {[round(v, 3) for v in values]}, which is not within -1 and 1: {remedy}")


def demand_dead_zone(dead_zone: float) -> None:
    if not 0.0 <= dead_zone < 1.0:
        raise ValueError(f"dead_zone must be in [0, 1), got {dead_zone}")
