"""A trained policy at work: observations by the functions of training, set-points as proposals to the guard.

Topics below the robot's namespace: the robot's state; the goals that the policy reads, by name (`goal`:
geometry_msgs/PoseStamped, others std_msgs/Float64MultiArray, latched); objects as `objects/NAME`
(geometry_msgs/PoseStamped). Services (std_srvs/Trigger): `policy/start` takes authority from the guard and starts an
episode where the robot stands, `policy/stop` gives it back, `policy/reset` starts a new episode on the way.
`/diagnostics` once a second: rate, jitter, inference time, age of the state.

It proposes from fresh states only, and stops for good when the guard takes its authority: the next start is yours.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from real import ros
from real.connection import LATCHED, NEAR_RAD, NEWEST, Goals, JointReader, duration_of, stamp_of
from real.nodes.run import run
from real.pipeline import Pipeline, commands_of, objects_of, poses_of
from real.site import parameter, read_site
from real.spread import Spread
from robolearn import runs
from robolearn.errors import ConfigError

SOURCE = "policy"
REPORT_S = 1.0

JointState = ros.interface("sensor_msgs/msg/JointState")
JointTrajectory = ros.interface("trajectory_msgs/msg/JointTrajectory")
Point = ros.interface("trajectory_msgs/msg/JointTrajectoryPoint")
PoseStamped = ros.interface("geometry_msgs/msg/PoseStamped")
Numbers = ros.interface("std_msgs/msg/Float64MultiArray")
String = ros.interface("std_msgs/msg/String")
Trigger = ros.interface("std_srvs/srv/Trigger")
DiagnosticArray = ros.interface("diagnostic_msgs/msg/DiagnosticArray")
DiagnosticStatus = ros.interface("diagnostic_msgs/msg/DiagnosticStatus")
KeyValue = ros.interface("diagnostic_msgs/msg/KeyValue")


class PolicyNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("policy")
        self.site = read_site(self)
        where = parameter(self, "run", "")
        if not where:
            raise ConfigError("the policy node needs `run`: a run's folder, a bundle, or last")
        _, self.bundle = runs.load_bundle(where)
        self.bundle.require(self.site.robot)
        self.bundle.require_hardware()
        self.pipeline = Pipeline(self.bundle.spec, self.site.robot)
        if self.pipeline.joints != self.site.robot.arm_joints:
            raise ConfigError(
                f"the policy moves {', '.join(self.pipeline.joints)}; the guard takes the arm's joints only"
            )
        if self.pipeline.commander.mode != "position":
            raise ConfigError(f"the policy commands {self.pipeline.commander.mode}; the guard takes positions only")
        self.policy = self.bundle.policy
        self.dt, self.max_age_s = self.pipeline.dt, self.site.profile.limits.proposal_timeout_s
        self.running = False
        self._start_when_ready = parameter(self, "start", False)
        self._asked_s: float | None = None  # the guard, for authority, on the steady clock
        self._guard = {"state": "", "owner": ""}
        self._names = list(self.pipeline.joints)
        self.ages, self.thinking, self.periods = Spread(), Spread(), Spread()
        self.counts = {"proposals": 0, "clipped by the guard": 0, "stale state": 0, "no goal": 0}
        self._proposed = False  # in this episode
        self._last_tick = 0.0
        self._connect()

    def _connect(self) -> None:
        profile, spec = self.site.profile, self.pipeline.observation
        wire = dict(zip(self.site.robot.arm_joints, profile.joint_names, strict=True))
        self._names = [wire.get(n, n) for n in self.pipeline.joints]
        self.reader, self.goals = JointReader(wire, self.site.robot), Goals(self.site.base, profile.base_frame)
        self.create_subscription(JointState, profile.state_topic, lambda m: self.reader(m, self.now_s()), NEWEST)
        self._needed = set(commands_of(spec)), set(objects_of(spec))
        for name in self._needed[0]:
            is_pose = name in poses_of(spec)
            put = self.goals.set_pose if is_pose else self.goals.set_numbers
            self.create_subscription(PoseStamped if is_pose else Numbers, name, partial(put, name), LATCHED)
        for name in self._needed[1]:
            self.create_subscription(PoseStamped, f"objects/{name}", partial(self.goals.set_object, name), NEWEST)
        for key in self._guard:
            self.create_subscription(String, f"guard/{key}", partial(self._on_guard, key), LATCHED)
        self.create_subscription(JointState, "guard/target", self._on_target, NEWEST)
        self._proposals = self.create_publisher(JointTrajectory, f"guard/proposals/{SOURCE}", NEWEST)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._take = self.create_client(Trigger, f"guard/take/{SOURCE}")
        self._release = self.create_client(Trigger, f"guard/release/{SOURCE}")
        for name, call in (("start", self.start), ("stop", self.stop), ("reset", self.reset)):
            self.create_service(Trigger, f"policy/{name}", partial(_answer, call))
        self.create_timer(self.dt, self._tick)
        self.create_timer(REPORT_S, self._report)
        self._reference: Tensor | None = None
        self.get_logger().info(
            f"{self.bundle.spec.robot}, {self.bundle.spec.rate_hz:g} Hz, goals {sorted(self._needed[0])}, "
            f"objects {sorted(self._needed[1])}; start with the service policy/start"
        )

    def now_s(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    # --- authority ------------------------------------------------------------------------------------------

    def start(self) -> tuple[bool, str]:
        """Ask the guard for authority; the first proposal follows its answer."""
        if self.running:
            return True, "it is running"
        patience_s = self.site.profile.limits.stop_after_s
        if self._asked_s is not None and time.monotonic() - self._asked_s < patience_s:
            return True, "asked the guard already"
        missing = self._missing()
        if missing:
            return False, missing
        if not self._take.service_is_ready():
            return False, "there is no guard"
        self._asked_s = time.monotonic()
        self._take.call_async(Trigger.Request()).add_done_callback(self._on_taken)
        return True, "asked the guard"

    def _on_taken(self, future: Any) -> None:
        answer, asked_s, self._asked_s = future.result(), self._asked_s, None
        if self.running:
            return
        if answer is None or not answer.success:
            self.get_logger().warning(f"not started: {answer.message if answer else 'no answer of the guard'}")
            return
        if asked_s is None or time.monotonic() - asked_s > self.site.profile.limits.stop_after_s:
            self._release.call_async(Trigger.Request())  # by now the guard may have taken it away again
            self.get_logger().warning("not started: told to stop, or the guard's answer came too late")
            return
        self.running = True
        self._guard["owner"] = SOURCE
        self.reset()
        self.get_logger().info("started")

    def stop(self) -> tuple[bool, str]:
        self._asked_s = None
        if self.running:
            self._halt("stopped")
            self._release.call_async(Trigger.Request())
        return True, "stopped"

    def reset(self) -> tuple[bool, str]:
        """A new episode from where the guard's target stands; the robot, if that is somewhere else."""
        target = torch.tensor(self.reader.latest.position, dtype=torch.float32)
        arm = self.reader.columns(self.site.robot.arm_joints)
        if self._reference is not None and (self._reference - target[arm]).abs().max() < NEAR_RAD:
            target[arm] = self._reference
        self.pipeline.reset(target)
        self._proposed = False
        self.policy.reset(torch.ones(1, dtype=torch.bool))
        return True, "a new episode"

    def _halt(self, why: str) -> None:
        self.running = False
        self.get_logger().info(why)

    def _on_guard(self, key: str, message: Any) -> None:
        self._guard[key] = message.data
        if self.running and key == "owner" and message.data != SOURCE:
            self._halt(f"the guard gave authority to {message.data or 'nobody'} ({self._guard['state']})")

    def _on_target(self, message: Any) -> None:
        names = self.site.profile.joint_names
        if tuple(message.name) == names and len(message.position) == len(names):
            self._reference = torch.tensor(message.position, dtype=torch.float32)

    # --- a period -------------------------------------------------------------------------------------------

    def _missing(self) -> str:
        """Why it cannot propose now, or nothing."""
        age = self.now_s() - self.reader.latest.stamp_s
        if not age <= self.max_age_s:
            return f"no fresh joint state on {self.site.profile.state_topic} (age {age:.3g} s)"
        lacks = [n for n in self._needed[0] if n not in self.goals.commands]
        lacks += [f"objects/{n}" for n in self._needed[1] if n not in self.goals.objects]
        return f"nobody has set {', '.join(lacks)}" if lacks else ""

    def _tick(self) -> None:
        began = time.monotonic()
        if self._start_when_ready and not self.running and self._asked_s is None and not self._missing():
            started, _ = self.start()
            self._start_when_ready = not started
        if not self.running:
            self._last_tick = 0.0
            return
        if self._last_tick:
            self.periods.add(began - self._last_tick)
        self._last_tick = began
        missing = self._missing()
        if missing:
            self.counts["no goal" if missing.startswith("nobody") else "stale state"] += 1
            return
        self._propose()
        self.thinking.add(time.monotonic() - began)

    @torch.inference_mode()
    def _propose(self) -> None:
        latest, pipeline = self.reader.latest, self.pipeline
        self.ages.add(self.now_s() - latest.stamp_s)
        joints = (torch.tensor(v, dtype=torch.float32) for v in (latest.position, latest.velocity, latest.effort))
        if self._proposed and self._reference is not None and pipeline.follow(self._reference):
            self.counts["clipped by the guard"] += 1
        state = pipeline.state(latest.stamp_s, *joints)
        action = self.policy.act(pipeline.observe(state, self.goals.scene()))
        command = pipeline.command(action)
        point = Point(positions=command.target[0].tolist(), time_from_start=duration_of(self.dt))
        header = ros.interface("std_msgs/msg/Header")(stamp=stamp_of(latest.stamp_s))
        self._proposals.publish(JointTrajectory(header=header, joint_names=self._names, points=[point]))
        self.counts["proposals"] += 1
        self._proposed = True

    def _report(self) -> None:
        figures = {"period": self.periods, "inference": self.thinking, "state age": self.ages}
        values = [KeyValue(key=f"{k}, ms", value=str(v)) for k, v in figures.items()]
        values += [KeyValue(key=k, value=str(n)) for k, n in (*self.counts.items(), *self.reader.refused.items())]
        status = DiagnosticStatus(
            level=b"\0" if self.running else b"\1", name=self.get_fully_qualified_name(),
            hardware_id=self.site.profile.robot, message="running" if self.running else "waits", values=values,
        )  # fmt: skip
        header = ros.interface("std_msgs/msg/Header")(stamp=stamp_of(self.now_s()))
        self._diagnostics.publish(DiagnosticArray(header=header, status=[status]))
        for spread in figures.values():
            spread.clear()


def _answer(call: Any, request: Any, response: Any) -> Any:
    response.success, response.message = call()
    return response


def main(args: Sequence[str] | None = None) -> int:
    return run(PolicyNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
