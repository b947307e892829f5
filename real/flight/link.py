"""A policy's link to a quadrotor and its guard: the vehicle's state as the policy's, its actions as proposals. The same
shape as `real.link.Link`."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from real import ros
from real.connection import (
    LATCHED,
    NEWEST,
    Header,
    JointState,
    JointTrajectory,
    JointTrajectoryPoint,
    PoseStamped,
    String,
    Trigger,
    duration_of,
    shown,
    stamp_of,
)
from real.flight.goals import KINDS, FlightGoals
from real.flight.listening import listen
from real.flight.prediction import Prediction
from real.flight.reading import FlightReader
from real.flight.state import SETPOINTS, Flight
from real.link import Lack
from real.pipeline import Pipeline
from real.site import FlightSite, parameter
from robolearn.actions import Command
from robolearn.errors import ConfigError
from robolearn.rotations import quat_apply
from robolearn.spec import PolicySpec, RobotSpec
from robolearn.state import RobotState, SceneState

Odometry = ros.interface("nav_msgs/msg/Odometry")
SAME, REMEMBERED = 1e-4, 4
"""A set-point that differs by no more is the one that was proposed, one of the last few."""
THINKING = 0.02
"""How far one period pulls the mean of the time that a policy takes."""
SILENCE_S = 0.5
"""Without a word of the guard for so long the policy stops."""


class FlightPipeline(Pipeline):
    """Of attitudes: they have no limits in training, so what the guard leaves of one is told by comparing."""

    def __init__(self, spec: PolicySpec, robot: RobotSpec):
        super().__init__(spec, robot)
        if self.commander.mode != "attitude":
            raise ConfigError(f"the policy commands {self.commander.mode}: over a radio only attitude can be commanded")
        self._asked: list[Tensor] = []

    def reset(self, target: Tensor) -> None:
        super().reset(target)
        self._asked = []

    def command(self, action: Tensor) -> Command:
        command = super().command(action)
        self._asked = [*self._asked[1 - REMEMBERED :], command.target]
        return command

    def follow(self, sent: Tensor) -> bool:
        """Where what was sent, (4,), is nothing of what was asked for lately, it counts as the last action."""
        if any((sent - asked).abs().max() < SAME for asked in self._asked):
            return False
        self.action = self.commander.term.action(sent[None], sent[None])
        return True


class FlightLink:
    """Topics below the node's namespace; `node` serves them."""

    def __init__(self, node: Any, site: FlightSite, pipeline: FlightPipeline, source: str):
        """Raises ConfigError for a policy that commands what this vehicle's guard does not take."""
        self.node, self.site, self.pipeline, self.source = node, site, pipeline, source
        profile, vehicle = site.profile, site.robot.quadrotor
        if profile.command_interface != "attitude":
            raise ConfigError(f"the policy commands attitudes, the guard takes {profile.command_interface}: set "
                              "command_interface: attitude")  # fmt: skip
        assert vehicle is not None
        self._names = list(SETPOINTS["attitude"])
        self._prediction = Prediction(vehicle, profile.state_delay_s, profile.command_delay_s)
        kind, size_m = parameter(node, "trajectory", KINDS[0]), parameter(node, "size_m", 1.0)
        period_s = parameter(node, "period_s", 5.5)
        self.goals = Goals(pipeline, kind, size_m, period_s, site)
        self.parts, self.proposal_s = 1, pipeline.dt
        self.needed: tuple[list[str], list[str]] = ([], [])
        self.guard_state, self.owner, self.patience_s = "", "", SILENCE_S
        self.reference: Tensor | None = None
        """(4,) the set-point that the guard sent last."""
        self._reference_s = -math.inf  # on the steady clock
        self._looked_s, self._thinking_s = 0.0, 0.0  # when it saw the state; the time from there to the proposal
        self._hear()
        self._goal = node.create_publisher(Odometry, f"{source}/goal", NEWEST)
        self._proposals = node.create_publisher(JointTrajectory, f"guard/proposals/{source}", NEWEST)
        self.take = node.create_client(Trigger, f"guard/take/{source}")
        self.release = node.create_client(Trigger, f"guard/release/{source}")

    def _hear(self) -> None:
        node = self.node
        self.reader: FlightReader = listen(node, self.site)
        node.create_subscription(PoseStamped, "goal", self._on_goal, LATCHED)
        node.create_subscription(String, "guard/state", lambda m: setattr(self, "guard_state", m.data), LATCHED)
        node.create_subscription(String, "guard/owner", lambda m: setattr(self, "owner", m.data), LATCHED)
        node.create_subscription(JointState, "guard/target", self._on_target, NEWEST)

    # --- time -----------------------------------------------------------------------------------------------

    def now_s(self) -> float:
        return 1e-9 * float(self.node.get_clock().now().nanoseconds)

    def age_s(self) -> float:
        """Of the pose."""
        return self.now_s() - self.reader.latest.stamp_s if self.reader.latest else math.inf

    def silence_s(self) -> float:
        """Since the guard's last set-point; infinite before there was one."""
        return time.monotonic() - self._reference_s

    # --- what it hears --------------------------------------------------------------------------------------

    def lack(self) -> Lack | None:
        """What of the observations is missing, or too old."""
        profile, age_s = self.site.profile, self.age_s()
        if not age_s <= profile.limits.proposal_timeout_s:
            return Lack("stale pose", f"no fresh pose on {profile.state_topic} (age {age_s:.3g} s)")
        return None

    def state(self) -> RobotState:
        """Where the vehicle will be when it hears of it: the newest measurement, carried on."""
        assert self.reader.latest is not None
        self._looked_s = time.monotonic()
        return state_of(self._prediction(self.reader.latest, self.now_s() + self._thinking_s))

    def scene(self) -> SceneState:
        """Where it should be then."""
        return self.goals.scene(self.now_s() + self._thinking_s + self.site.profile.command_delay_s)

    def standing(self) -> Tensor:
        """(J,) as an episode starts: here the trajectory begins, unless somebody has set a goal."""
        if self.reader.latest is not None:
            here = torch.tensor(self.reader.latest.position, dtype=torch.float32)
            self.goals.begin(self.now_s(), None if self.goals.told else here)
        self.reference = None
        self._prediction.clear()
        return torch.tensor(self.site.robot.default_joint_pos)

    def _on_target(self, message: Any) -> None:
        if list(message.name) == self._names and len(message.position) == len(self._names):
            target = torch.tensor(message.position, dtype=torch.float32)
            if target.isfinite().all():
                self.reference, self._reference_s = target, time.monotonic()
                self._prediction.sent(self.now_s(), target.double().numpy())

    def _on_goal(self, message: Any) -> None:
        p, frame = message.pose.position, message.header.frame_id
        place, limits = torch.tensor([p.x, p.y, p.z]), self.site.profile.limits
        low, high = torch.tensor(limits.fence_lower_m), torch.tensor(limits.fence_upper_m)
        if frame not in ("", self.site.profile.base_frame):
            self.goals.refuse(f"goal: frame {shown(frame)} is not {self.site.profile.base_frame}")
        elif not ((place > low) & (place < high)).all():  # NaN too
            self.goals.refuse("goal: it is not within the geofence")
        else:
            self.goals.told = True
            self.goals.place(place)

    # --- what it says ---------------------------------------------------------------------------------------

    def propose(self, command: Command, part: int = 0) -> None:
        """One period's set-point, from the newest state; it has no parts."""
        assert self.reader.latest is not None
        header = Header(stamp=stamp_of(self.reader.latest.stamp_s))
        point = JointTrajectoryPoint(
            positions=command.target[0].tolist(), time_from_start=duration_of(self.pipeline.dt)
        )
        self._proposals.publish(JointTrajectory(header=header, joint_names=self._names, points=[point]))
        spent_s = min(time.monotonic() - self._looked_s, self.pipeline.dt)
        self._thinking_s += THINKING * (spent_s - self._thinking_s)
        self._tell_goal()

    def _tell_goal(self) -> None:
        now_s = self.now_s()
        message = Odometry(header=Header(stamp=stamp_of(now_s), frame_id=self.site.profile.base_frame))
        row = self.goals.at(torch.tensor([now_s], dtype=torch.float64))[0].tolist()
        for part, values in ((message.pose.pose.position, row[:3]), (message.twist.twist.linear, row[3:6])):
            part.x, part.y, part.z = values
        self._goal.publish(message)


class Goals(FlightGoals):
    """With what was refused of what somebody has set."""

    def __init__(self, pipeline: FlightPipeline, kind: str, size_m: float, period_s: float, site: FlightSite):
        assert site.robot.quadrotor is not None
        limits = site.profile.limits
        super().__init__(pipeline.observation, kind, size_m, period_s, site.robot.quadrotor, limits.tilt_rad)
        self.told, self.refused = False, dict[str, int]()

    def refuse(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1


def state_of(flight: Flight) -> RobotState:
    """Batch 1. What a radio does not tell (rotors) is zero."""
    zeros, pose = torch.zeros(1, 4), torch.tensor([[*flight.position, *flight.turn]], dtype=torch.float32)
    linear, rates = (torch.tensor(v[None], dtype=torch.float32) for v in (flight.velocity, flight.rates))
    velocity = torch.cat((linear, quat_apply(pose[:, 3:], rates)), dim=1)
    stamp = torch.tensor([flight.stamp_s], dtype=torch.float64)
    return RobotState(stamp, zeros, zeros, zeros, zeros, pose, velocity, None)
