"""What a browser may say, read with suspicion: a heartbeat, which holds all that keys and pointer do, or an order."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

ORDERS = ("take", "back", "success", "failure", "reset", "pause", "resume", "clear", "stop")
"""Have the robot, let go of it, three words for who learns, hold and go on, leave `fault`, emergency stop."""
LONGEST = 2000
"""Characters of a message."""
FARTHEST_M = 3.0
"""From the robot's base: no arm reaches further."""


class Refused(ValueError):
    """A message that makes no sense, and the kind of nonsense, which is counted."""


class Beat(NamedTuple):
    seen: int
    """Number of the newest state that the page has been sent: a heartbeat that was under way for long is none."""
    twist: tuple[float, ...] = (0.0,) * 6
    """(6,) as of a device: shares of full speed in [-1, 1]."""
    gripper: int = 0
    target_m: tuple[float, ...] | None = None
    """(3,) where the tool is dragged to, in the base's frame."""


class Order(NamedTuple):
    what: str
    """Of ORDERS."""


def read(text: str) -> Beat | Order:
    """Raises Refused."""
    if len(text) > LONGEST:
        raise Refused("too long")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("no JSON") from None
    if not isinstance(said, dict):
        raise Refused("neither a heartbeat nor an order")
    if set(said) == {"do"}:
        if said["do"] not in ORDERS:
            raise Refused("an unknown order")
        return Order(said["do"])
    if set(said) != {"seen", "twist", "gripper", "target"}:
        raise Refused("neither a heartbeat nor an order")
    seen, gripper, target = said["seen"], said["gripper"], said["target"]
    if type(seen) is not int or type(gripper) is not int or gripper not in (-1, 0, 1):
        raise Refused("a heartbeat's number or gripper")
    twist = _numbers(said["twist"], 6, 1.0, "twist")
    return Beat(seen, twist, gripper, None if target is None else _numbers(target, 3, FARTHEST_M, "target"))


def _numbers(values: Any, count: int, most: float, what: str) -> tuple[float, ...]:
    """So many within `most`; JSON as Python reads it knows NaN and infinity, which are not."""
    if not isinstance(values, list) or len(values) != count:
        raise Refused(f"a {what} of another shape")
    if not all(type(v) in (int, float) and math.isfinite(v) and abs(v) <= most for v in values):
        raise Refused(f"a {what} that is not within {most:g}")
    return tuple(float(v) for v in values)
