"""What every node does alike by which a person moves the arm: authority asked of the guard and given back, a person's
twist as a proposal, and what is told of it. Who means to have the arm, and by what, subclasses say."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from real import ros
from real.connection import LATCHED, NEWEST, Header, String, Trigger, shown, stamp_of
from real.link import Link
from real.nodes.report import Report
from real.pipeline import GROUP, Pipeline
from real.site import Site, parameter, read_site
from real.teleop.base import Reading
from robolearn.errors import ConfigError
from robolearn.spec import ActionSpec, ObservationSpec, PolicySpec

REPORT_S = 1.0
TOLD = ("success", "failure", "reset")
AGAIN_S, INSIST_S = 0.2, 5.0
"""An emergency stop that is not answered is asked for again, for so long."""
NO_GUARD = "there is no guard to hear it"
Joy = ros.interface("sensor_msgs/msg/Joy")


class PersonNode(ros.Node):
    """Its topics are `NAME/action` and `NAME/owner`, as docs/teleop.md has them. Subclasses call `_settle`, `_move` and
    `_tell` once a period of `dt`, from a timer that they create when all is there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.site = read_site(self)
        self.source = parameter(self, "source", name)
        self.dt = self._read_period()
        speed, turn = self._positive("speed_mps", 0.1), self._positive("turn_radps", 0.5)
        spec = motion(self.site, self.dt, speed, turn, parameter(self, "frame", "base"))
        self.link = Link(self, self.site, Pipeline(spec, self.site.robot), self.source)
        self.holder = ""
        """Who meant to have the arm in the last period: a device, a page; empty: nobody."""
        self.in_control, self._asked_s = False, -math.inf  # the guard, for authority, on the steady clock
        self._lost = False  # who asked, before the answer came
        self._proposed = False  # since it has authority
        self._told = ""
        self._stop_until_s = self._stop_asked_s = -math.inf
        self._estop = self.create_client(Trigger, "guard/estop")
        self._action = self.create_publisher(Joy, f"{name}/action", NEWEST)
        self._owner = self.create_publisher(String, f"{name}/owner", LATCHED)
        self._owner.publish(String(data=""))
        self._diagnostics = Report(self, self.site.profile.robot)
        self.counts = {"interventions": 0, "proposals": 0}

    def drop_holder(self, why: str) -> None:
        """Whoever has hold of the arm must let go first."""
        raise NotImplementedError

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
        if not current and (self.in_control or self._asked_s > -math.inf):
            return None  # what was asked later decides
        self._asked_s = -math.inf
        if given and not (current and self.holder):  # let go meanwhile, or too late to be meant
            return self._give_back(self._lost)
        if not given:
            return self._drop(answer.message if answer else "no answer of the guard") if current else None
        self.in_control, self._proposed, self.link.owner = True, False, self.source
        self.link.pipeline.reset(self.link.standing())
        self.counts["interventions"] += 1
        return self.get_logger().info(f"{self.holder} is in control")

    def _leave(self, lost: bool) -> None:
        self.in_control = False
        self._give_back(lost)
        self.get_logger().info("lost: nobody is in control" if lost else "let go")

    def _give_back(self, lost: bool) -> None:
        """Let go on purpose the robot goes on as before; a device that was lost leaves it standing."""
        back = self.link.release if lost else self.link.hand_back
        back.call_async(Trigger.Request())

    def _drop(self, why: str) -> None:
        self.drop_holder(why)
        self.holder, self.in_control, self._asked_s = "", False, -math.inf
        self.get_logger().warning(f"{why}; let go of the device, then try again")

    # --- a period -------------------------------------------------------------------------------------------

    def _settle(self, owner: str, lost: bool) -> None:
        """Who is in control: as the desk says, and the guard."""
        self.holder, self._lost = owner, (lost or self._lost) and not owner
        asked, waits_s = self._asked_s > -math.inf, time.monotonic() - self._asked_s
        self._insist()
        if self.in_control and self.link.owner != self.source:
            to = shown(self.link.owner) if self.link.owner else "nobody"
            self._drop(f"the guard gave authority to {to} ({shown(self.link.guard_state)})")
        elif self.in_control and not owner:
            self._leave(lost)
        elif owner and not self.in_control and not asked:
            self._take()
        elif asked and waits_s > self.link.patience_s:
            self._drop("the guard does not answer")

    def _stop(self) -> None:
        there = self._estop.service_is_ready()
        self.get_logger().error(f"emergency stop; {'guard/reset ends it' if there else NO_GUARD}")
        self._stop_until_s, self._stop_asked_s = time.monotonic() + INSIST_S, -math.inf
        self._insist()

    def _insist(self) -> None:
        """On an emergency stop, until the guard says that it has heard."""
        now_s = time.monotonic()
        if now_s < self._stop_until_s and now_s - self._stop_asked_s > AGAIN_S:
            self._stop_asked_s = now_s
            self._estop.call_async(Trigger.Request()).add_done_callback(self._on_stopped)

    def _on_stopped(self, answer: Any) -> None:
        self._stop_until_s = -math.inf

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
        owner = self.holder if self.in_control else ""
        stamp_s = self.link.reader.latest.stamp_s
        header = Header(stamp=stamp_of(stamp_s if math.isfinite(stamp_s) else 0.0),
                        frame_id=self.link.pipeline.spec.action.frame)  # fmt: skip
        buttons = [int(bool(owner)), *(int(word in pressed) for word in TOLD)]
        self._action.publish(Joy(header=header, axes=action or [0.0] * 7, buttons=buttons))
        if owner != self._told:
            self._owner.publish(String(data=owner))
            self._told = owner

    def close(self) -> None:
        if self.in_control:
            self.link.release.call_async(Trigger.Request())


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
