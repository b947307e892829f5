"""Times and durations in nanoseconds, as rclpy has them. ROS time is the system's time here: no simulated time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from real.ros.messages import interface


def _split(nanoseconds: int) -> dict[str, int]:
    seconds, rest = divmod(nanoseconds, 10**9)
    return {"sec": seconds, "nanosec": rest}


@dataclass(frozen=True, order=True)
class Duration:
    nanoseconds: int = 0

    def __init__(self, *, seconds: float = 0, nanoseconds: int = 0):
        object.__setattr__(self, "nanoseconds", round(seconds * 1e9) + nanoseconds)

    def to_msg(self) -> Any:
        return interface("builtin_interfaces/msg/Duration")(**_split(self.nanoseconds))

    @classmethod
    def from_msg(cls, msg: Any) -> Duration:
        return cls(nanoseconds=msg.sec * 10**9 + msg.nanosec)


@dataclass(frozen=True, order=True)
class Time:
    nanoseconds: int = 0

    def __init__(self, *, seconds: float = 0, nanoseconds: int = 0):
        object.__setattr__(self, "nanoseconds", round(seconds * 1e9) + nanoseconds)

    def to_msg(self) -> Any:
        return interface("builtin_interfaces/msg/Time")(**_split(self.nanoseconds))

    @classmethod
    def from_msg(cls, msg: Any) -> Time:
        return cls(nanoseconds=msg.sec * 10**9 + msg.nanosec)

    def seconds_nanoseconds(self) -> tuple[int, int]:
        return divmod(self.nanoseconds, 10**9)

    def __add__(self, other: Duration) -> Time:
        return Time(nanoseconds=self.nanoseconds + other.nanoseconds)

    def __sub__(self, other: Any) -> Any:
        kind = Duration if isinstance(other, Time) else Time
        return kind(nanoseconds=self.nanoseconds - other.nanoseconds)


class Clock:
    def now(self) -> Time:
        return Time(nanoseconds=time.time_ns())
