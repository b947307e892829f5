"""Devices behind other nodes' messages: sensor_msgs/Joy (joy_node, spacenav) and geometry_msgs/TwistStamped."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from real.teleop.base import BUTTONS, DeviceError, Host, Reading, demand_dead_zone, demand_shares, share
from robolearn.config import register
from robolearn.errors import ConfigError

SILENT_S = 0.15
"""Of three messages at the 20 Hz of joy_node's `autorepeat_rate`."""
NONE = -1


class Heard:
    """The newest message, read when it comes. What makes no sense, or a silence, is a loss until a good one comes."""

    def __init__(self, name: str, kind: str, topic: str, timeout_s: float, read: Callable[[Any, float], Reading],
                 host: Host):  # fmt: skip
        self.name, self.topic, self._timeout_s, self._read, self._host = name, topic, timeout_s, read, host
        self._last: Reading | DeviceError | None = None
        host.subscribe(kind, topic, self._take)

    def _take(self, message: Any) -> None:
        try:
            self._last = self._read(message, self._host.now_s())
        except DeviceError as error:
            self._last = error

    def read(self) -> Reading:
        if self._last is None:
            raise DeviceError(
                f"{self.name}: nobody publishes on {self.topic}; start its node, or set {self.name}.topic"
            )
        if isinstance(self._last, DeviceError):
            raise DeviceError(str(self._last))
        if not abs(self._host.now_s() - self._last.stamp_s) <= self._timeout_s:
            raise DeviceError(f"{self.name}: silence on {self.topic} for more than {self._timeout_s} s; is its node "
                              f"alive, and does it repeat itself at {2 / self._timeout_s:.0f} Hz or more?")  # fmt: skip
        return self._last

    def close(self) -> None:
        """Its node does that."""


def demand_timeout(timeout_s: float) -> None:
    if not 0.0 < timeout_s < math.inf:
        raise ConfigError(f"timeout_s must be above 0, got {timeout_s}")


@dataclass
class JoyCfg:
    topic: str = "joy"
    axes: tuple[int, ...] = (1, 0, 4, 6, 7, 3)
    """Which of the message's axes are forwards, left, up, roll, tip and turn; -1 for none. As joy_node numbers those of
    an Xbox gamepad: left stick, right stick, cross."""
    signs: tuple[float, ...] = (1.0, 1.0, 1.0, -1.0, 1.0, 1.0)
    close: int = 0
    """Buttons by number; -1 for none."""
    open: int = 3
    take: int = 4
    release: int = 5
    stop: int = 1
    success: int = 7
    failure: int = 6
    reset: int = 8
    dead_zone: float = 0.1
    timeout_s: float = SILENT_S

    def __post_init__(self) -> None:
        demand_dead_zone(self.dead_zone)
        demand_timeout(self.timeout_s)
        if len(self.axes) != 6 or len(self.signs) != 6:
            raise ConfigError(f"joy.axes and joy.signs are 6 numbers each, got {self.axes} and {self.signs}")


@register("device", "joy", JoyCfg)
class Joy(Heard):
    def __init__(self, cfg: JoyCfg, host: Host):
        self.cfg = cfg
        super().__init__("joy", "sensor_msgs/msg/Joy", cfg.topic, cfg.timeout_s, self._reading, host)

    def _reading(self, message: Any, now_s: float) -> Reading:
        cfg, axes = self.cfg, [float(v) for v in message.axes]
        if not max(cfg.axes) < len(axes):
            raise DeviceError(f"joy: a message with {len(axes)} axes on {cfg.topic}, joy.axes wants {cfg.axes}; is it "
                              "another device, with other numbers?")  # fmt: skip
        raw = tuple(s * axes[k] if k != NONE else 0.0 for k, s in zip(cfg.axes, cfg.signs, strict=True))
        demand_shares("joy", raw, f"is the driver on {cfg.topic} alright?")
        pressed = {n for n in ("close", "open", *BUTTONS) if self._is_down(message.buttons, getattr(cfg, n))}
        gripper = ("open" in pressed) - ("close" in pressed)
        twist = tuple(share(v, cfg.dead_zone) for v in raw)
        return Reading(twist, gripper, frozenset(pressed & set(BUTTONS)), now_s)

    def _is_down(self, buttons: Any, number: int) -> bool:
        return 0 <= number < len(buttons) and bool(buttons[number])


@dataclass
class TwistCfg:
    topic: str = "twist"
    full_mps: float = 1.0
    """What counts as the full deflection; 1 for messages that are shares already, as those of MoveIt Servo."""
    full_radps: float = 1.0
    dead_zone: float = 0.0
    timeout_s: float = SILENT_S

    def __post_init__(self) -> None:
        demand_dead_zone(self.dead_zone)
        demand_timeout(self.timeout_s)
        for name in ("full_mps", "full_radps"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"twist.{name} must be above 0, got {getattr(self, name)}")


@register("device", "twist", TwistCfg)
class Twist(Heard):
    """Its axes are those that the teleop node's `frame` says, whatever the message's frame."""

    def __init__(self, cfg: TwistCfg, host: Host):
        self.cfg = cfg
        super().__init__("twist", "geometry_msgs/msg/TwistStamped", cfg.topic, cfg.timeout_s, self._reading, host)

    def _reading(self, message: Any, now_s: float) -> Reading:
        cfg, linear, angular = self.cfg, message.twist.linear, message.twist.angular
        raw = tuple(
            [v / cfg.full_mps for v in (linear.x, linear.y, linear.z)]
            + [v / cfg.full_radps for v in (angular.x, angular.y, angular.z)]
        )
        demand_shares("twist", raw, f"set twist.full_mps and twist.full_radps to what {cfg.topic} says at most")
        return Reading(tuple(share(v, cfg.dead_zone) for v in raw), 0, frozenset(), now_s)
