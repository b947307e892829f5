"""A person moves the arm, or takes over from what moves it: devices in, proposals to the guard out.

Who takes hold of a device (robolearn.hil.takeover says when) gets authority from the guard, before any policy; who lets
go hands it back to whom it was taken from. A device that is lost while it is in control gives authority to nobody: the
arm stands. The deflection is a velocity of the tool, along the axes of the base or, with `frame:=tool`, its own.

Topics below the robot's namespace: `teleop/action` (sensor_msgs/Joy, once a period): what the person does. `axes` are
the action of the period as the limits let it through, shares of full speed, and the gripper (-1 closes, +1 opens, 0
leaves it); `buttons` are in control, success, failure, reset; its stamp is that of the state that it was computed from.
An intervention begins with the first message whose button 0 is 1 and ends with the next that says 0. `teleop/owner`
(std_msgs/String, latched): the device in control, or empty. `/diagnostics` once a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from real import ros
from real.connection import SENSED
from real.nodes.person import REPORT_S, PersonNode
from real.nodes.report import OK, WARN
from real.nodes.run import run
from real.site import parameter
from real.teleop.base import Device, DeviceError, Reading, claim
from robolearn import config, registry
from robolearn.errors import ConfigError, unknown
from robolearn.hil.takeover import Desk, TakeoverCfg
from robolearn.registry import entry

C = TypeVar("C")


class TeleopNode(PersonNode):
    def __init__(self) -> None:
        super().__init__("teleop")
        config.discover(("real.teleop",))
        self.desk = Desk(*self._read_devices())
        self._stopping = set[str]()  # devices whose stop button is down: one that is stuck hides no other one's
        self.create_timer(self.dt, self._tick)
        self.create_timer(REPORT_S, self._report)
        self.get_logger().info(f"{', '.join(self.devices)} may move {self.site.profile.robot}, {1 / self.dt:g} Hz")

    def drop_holder(self, why: str) -> None:
        self.desk.drop()

    # --- parameters -----------------------------------------------------------------------------------------

    def _read_devices(self) -> tuple[TakeoverCfg, list[str]]:
        """What a take-over is, and the devices' names. Raises DeviceError for one that is not there."""
        names = list(parameter(self, "devices", ("gamepad",)))
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"devices must name at least one device, and none twice; got {names}")
        known: dict[str, type[Any]] = {n: c for n in registry.names("device") if (c := entry("device", n).config)}
        configs = {n: self._read_config(n, c) for n, c in known.items()}  # of all, so that a launch file may set them
        for name in names:
            if name not in configs:
                raise ConfigError(unknown("device", name, list(configs)))
        takeover = self._read_config("takeover", TakeoverCfg)
        self.devices: dict[str, Device] = {n: config.build(configs[n], host=self) for n in names}
        self._lacks = dict.fromkeys(names, "")
        return takeover, names

    def _read_config(self, prefix: str, cls: type[C]) -> C:
        """Its fields as parameters `PREFIX.FIELD`."""
        values = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            value = parameter(self, f"{prefix}.{field.name}", field.default)
            values[field.name] = tuple(value) if isinstance(field.default, tuple) else value
        try:
            return cls(**values)
        except ValueError as error:
            raise ConfigError(f"{prefix}: {error}") from error

    # --- the devices' host ----------------------------------------------------------------------------------

    def now_s(self) -> float:
        return self.link.now_s()

    def subscribe(self, kind: str, topic: str, call: Callable[[Any], None]) -> None:
        self.create_subscription(ros.interface(kind), topic, call, SENSED)

    # --- a period -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        readings = {name: self._read(name) for name in self.devices}
        verdict = self.desk(self.now_s(), {n: claim(r) if r else None for n, r in readings.items()})
        for message in verdict.refused:
            self.get_logger().warning(message)
        pressed = frozenset[str]().union(*(r.buttons for r in readings.values() if r))
        stopping = {name for name, reading in readings.items() if reading and "stop" in reading.buttons}
        if stopping - self._stopping:
            self._stop()
        self._stopping = stopping
        self._settle(verdict.owner, verdict.lost)
        reading = readings.get(self.holder)
        action = self._move(reading) if self.in_control and reading else None
        self._tell(action, pressed)

    def _read(self, name: str) -> Reading | None:
        """What the device says, or None while it is lost; the log tells when that changes."""
        try:
            reading = self.devices[name].read()
        except DeviceError as error:
            if not self._lacks[name]:
                self.get_logger().error(str(error))
            self._lacks[name] = str(error)
            return None
        if self._lacks[name]:
            self.get_logger().info(f"{name} is there")
            self._lacks[name] = ""
        return reading

    def _report(self) -> None:
        figures: dict[str, object] = {f"{name}": why or "there" for name, why in self._lacks.items()}
        lost = any(self._lacks.values())
        state = f"{self.holder} is in control" if self.in_control else "waits"
        self._diagnostics(WARN if lost else OK, state, figures | self.counts | self.link.reader.refused)

    def close(self) -> None:
        super().close()
        for device in self.devices.values():
            device.close()


def main(args: Sequence[str] | None = None) -> int:
    return run(TeleopNode, args, on_time=True)


if __name__ == "__main__":
    raise SystemExit(main())
