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
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from real import ros
from real.connection import LATCHED, NEWEST, SENSED, Header, String, Trigger, shown, stamp_of
from real.link import Link
from real.nodes.report import OK, WARN, Report
from real.nodes.run import run
from real.pipeline import GROUP, Pipeline
from real.site import Site, parameter, read_site
from real.teleop.base import Device, DeviceError, Reading, claim
from robolearn import config, registry
from robolearn.errors import ConfigError, unknown
from robolearn.hil.takeover import Desk, TakeoverCfg
from robolearn.registry import entry
from robolearn.spec import ActionSpec, ObservationSpec, PolicySpec

C = TypeVar("C")
SOURCE = "teleop"
REPORT_S = 1.0
TOLD = ("success", "failure", "reset")
Joy = ros.interface("sensor_msgs/msg/Joy")


class TeleopNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("teleop")
        self.site = read_site(self)
        config.discover(("real.teleop",))
        self.source = parameter(self, "source", SOURCE)
        self.dt = self._read_period()
        speed, turn = self._positive("speed_mps", 0.1), self._positive("turn_radps", 0.5)
        spec = motion(self.site, self.dt, speed, turn, parameter(self, "frame", "base"))
        self.link = Link(self, self.site, Pipeline(spec, self.site.robot), self.source)
        self.desk = Desk(*self._read_devices())
        self.in_control, self._asked_s = False, -math.inf  # the guard, for authority, on the steady clock
        self._proposed = False  # since it has authority
        self._told, self._pressed = "", frozenset[str]()
        self._estop = self.create_client(Trigger, "guard/estop")
        self._action = self.create_publisher(Joy, "teleop/action", NEWEST)
        self._owner = self.create_publisher(String, "teleop/owner", LATCHED)
        self._owner.publish(String(data=""))
        self._diagnostics = Report(self, self.site.profile.robot)
        self.counts = {"interventions": 0, "proposals": 0}
        self.create_timer(self.dt, self._tick)
        self.create_timer(REPORT_S, self._report)
        self.get_logger().info(f"{', '.join(self.devices)} may move {self.site.profile.robot}, {1 / self.dt:g} Hz")

    # --- parameters -----------------------------------------------------------------------------------------

    def _positive(self, name: str, default: float) -> float:
        value = float(parameter(self, name, default))
        if not 0.0 < value < math.inf:
            raise ConfigError(f"{name} must be above 0, got {value}")
        return value

    def _read_period(self) -> float:
        rate_hz, longest_s = self._positive("rate_hz", 50.0), self.site.profile.limits.hold_after_s
        if 1.0 / rate_hz > longest_s:
            raise ConfigError(
                f"rate_hz must be at least {1 / longest_s:.3g}, or the guard brakes between two proposals"
            )
        return 1.0 / rate_hz

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
        self._lost = dict.fromkeys(names, "")
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

    # --- authority ------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Ask the guard for authority; the first proposal follows its answer."""
        if not self.link.take.service_is_ready():
            return self._drop("there is no guard")
        self._asked_s = asked_s = time.monotonic()
        self.link.take.call_async(Trigger.Request()).add_done_callback(lambda f: self._on_taken(f.result(), asked_s))
        return None

    def _on_taken(self, answer: Any, asked_s: float) -> None:
        given, current = answer is not None and answer.success, asked_s == self._asked_s
        self._asked_s = -math.inf if current else self._asked_s
        if given and not (current and self.desk.owner):  # let go meanwhile, or too late to be meant
            self.link.hand_back.call_async(Trigger.Request())
            return None
        if not given:
            return self._drop(answer.message if answer else "no answer of the guard") if current else None
        self.in_control, self._proposed, self.link.owner = True, False, self.source
        self.link.pipeline.reset(self.link.standing())
        self.counts["interventions"] += 1
        return self.get_logger().info(f"{self.desk.owner} is in control")

    def _leave(self, lost: bool) -> None:
        """Let go on purpose the robot goes on as before; a device that was lost leaves it standing."""
        self.in_control = False
        back = self.link.release if lost else self.link.hand_back
        back.call_async(Trigger.Request())
        self.get_logger().info("lost: nobody is in control" if lost else "let go")

    def _drop(self, why: str) -> None:
        self.desk.drop()
        self.in_control, self._asked_s = False, -math.inf
        self.get_logger().warning(f"{why}; let go of the device, then try again")

    # --- a period -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        readings = {name: self._read(name) for name in self.devices}
        verdict = self.desk(self.now_s(), {n: claim(r) if r else None for n, r in readings.items()})
        for message in verdict.refused:
            self.get_logger().warning(message)
        pressed = frozenset[str]().union(*(r.buttons for r in readings.values() if r))
        if "stop" in pressed - self._pressed:
            self._stop()
        self._pressed = pressed
        self._settle(verdict.owner, verdict.lost)
        reading = readings.get(self.desk.owner)
        action = self._move(reading) if self.in_control and reading else None
        self._tell(action, pressed)

    def _read(self, name: str) -> Reading | None:
        """What the device says, or None while it is lost; the log tells when that changes."""
        try:
            reading = self.devices[name].read()
        except DeviceError as error:
            if not self._lost[name]:
                self.get_logger().error(str(error))
            self._lost[name] = str(error)
            return None
        if self._lost[name]:
            self.get_logger().info(f"{name} is there")
            self._lost[name] = ""
        return reading

    def _settle(self, owner: str, lost: bool) -> None:
        """Who is in control: as the desk says, and the guard."""
        if self.in_control and self.link.owner != self.source:
            to = shown(self.link.owner) if self.link.owner else "nobody"
            self._drop(f"the guard gave authority to {to} ({shown(self.link.guard_state)})")
        elif self.in_control and not owner:
            self._leave(lost)
        elif owner and not self.in_control and self._asked_s == -math.inf:
            self._take()
        elif owner and not self.in_control and time.monotonic() - self._asked_s > self.link.patience_s:
            self._drop("the guard does not answer")

    def _stop(self) -> None:
        self._estop.call_async(Trigger.Request())
        self.get_logger().error("emergency stop; guard/reset ends it")

    @torch.inference_mode()
    def _move(self, reading: Reading) -> list[float] | None:
        """Propose; the action that was let through, or None where nothing could be proposed."""
        link, pipeline = self.link, self.link.pipeline
        if lack := link.lack():
            self.counts[lack.kind] = self.counts.get(lack.kind, 0) + 1
            return None
        if self._proposed and link.reference is not None:
            pipeline.follow(link.reference)
        n = pipeline.spec.action.dim
        command = pipeline.command(torch.tensor([[*reading.twist, float(reading.gripper)][:n]]))
        if reading.gripper and n > 6:
            link.propose(command)
        else:  # the gripper stays as it is: what is held does not fall
            link.propose_joints(command.target[0, : len(link.arm)])
        self.counts["proposals"] += 1
        self._proposed = True
        return [*command.applied_action[0, :6].tolist(), float(reading.gripper)]

    def _tell(self, action: list[float] | None, pressed: frozenset[str]) -> None:
        owner = self.desk.owner if self.in_control else ""
        stamp_s = self.link.reader.latest.stamp_s
        header = Header(stamp=stamp_of(stamp_s if math.isfinite(stamp_s) else 0.0),
                        frame_id=self.link.pipeline.spec.action.frame)  # fmt: skip
        buttons = [int(bool(owner)), *(int(word in pressed) for word in TOLD)]
        self._action.publish(Joy(header=header, axes=action or [0.0] * 7, buttons=buttons))
        if owner != self._told:
            self._owner.publish(String(data=owner))
            self._told = owner

    def _report(self) -> None:
        figures: dict[str, object] = {f"{name}": why or "there" for name, why in self._lost.items()}
        lost = any(self._lost.values())
        state = f"{self.desk.owner} is in control" if self.in_control else "waits"
        self._diagnostics(WARN if lost else OK, state, figures | self.counts | self.link.reader.refused)

    def close(self) -> None:
        if self.in_control:
            self.link.release.call_async(Trigger.Request())
        for device in self.devices.values():
            device.close()


def motion(site: Site, dt: float, speed_mps: float, turn_radps: float, frame: str) -> PolicySpec:
    """The contract of a person with the arm: a period's way of the tool at full deflection, and the gripper. Raises
    ConfigError for a frame that is neither base nor tool."""
    if frame not in ("base", "tool"):
        raise ConfigError(f"frame must be base or tool, got {frame!r}")
    robot = site.robot
    names: tuple[str, ...] = ("x", "y", "z", "rx", "ry", "rz")
    scale = (speed_mps * dt,) * 3 + (turn_radps * dt,) * 3
    params: dict[str, Any] = {}
    if site.profile.gripper and robot.gripper_joints:
        joints = robot.gripper_joints
        ends = {"closed": list(robot.of("lower", joints)), "open": list(robot.of("upper", joints))}
        names, params = (*names, "gripper"), {"gripper": {"joints": list(joints), **ends}}
    action = ActionSpec("ee_delta", names, "m, rad", frame=frame, scale=scale, params=params)
    return PolicySpec(robot.name, 1.0 / dt, ObservationSpec({GROUP: ()}), action)


def main(args: Sequence[str] | None = None) -> int:
    return run(TeleopNode, args, on_time=True)


if __name__ == "__main__":
    raise SystemExit(main())
