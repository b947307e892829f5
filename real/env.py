"""The Env of one real robot: the contract of simulation over the robot's topics, behind the guard.

What is different is in the contract: batch 1; `step` lasts until the period is over and says how old what it saw is;
`extras["applied_action"]` is what the guard let through; it never resets itself: an episode that ends, or a guard that
takes authority away, leaves `extras["awaiting_reset"]`, and `reset` brings the arm back along its limits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from real import ros
from real.connection import LATCHED, NEAR_RAD, NEWEST, Goals, JointReader, duration_of, stamp_of
from real.pipeline import Pipeline, commands_of, objects_of, poses_of
from real.site import Site
from robolearn.env import Extras, Obs
from robolearn.errors import UserError
from robolearn.limits import TargetState, limit_target
from robolearn.spec import PolicySpec
from robolearn.state import RobotState, SceneState

JointState = ros.interface("sensor_msgs/msg/JointState")
JointTrajectory = ros.interface("trajectory_msgs/msg/JointTrajectory")
Point = ros.interface("trajectory_msgs/msg/JointTrajectoryPoint")
PoseStamped = ros.interface("geometry_msgs/msg/PoseStamped")
Numbers = ros.interface("std_msgs/msg/Float64MultiArray")
String = ros.interface("std_msgs/msg/String")
Trigger = ros.interface("std_srvs/srv/Trigger")
Judge = Callable[[RobotState, SceneState], tuple[Tensor, Tensor, dict[str, Tensor]]]
"""Reward (1,), terminated (1,) and metrics of what is seen."""


class RobotError(UserError):
    """The robot, its guard or the network is not there, or does not do what it is told."""


def no_judge(robot: RobotState, scene: SceneState) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Reward zero, never over: for those who label later."""
    return torch.zeros(1), torch.zeros(1, dtype=torch.bool), {}


class RobotEnv:
    """`node` is served by this object alone: while `step` and `reset` wait, and nowhere else."""

    num_envs = 1

    def __init__(self, node: Any, site: Site, spec: PolicySpec, judge: Judge = no_judge, episode_length_s: float = 60.0,
                 source: str = "env"):  # fmt: skip
        self.node, self.site, self.judge, self.source = node, site, judge, source
        self.device = torch.device("cpu")
        self.robot, self.observation_spec, self.action_spec = site.robot, spec.observation, spec.action
        self.pipeline = Pipeline(spec, site.robot)
        if self.pipeline.commander.mode != "position":
            raise RobotError(f"the policy commands {self.pipeline.commander.mode}; the guard takes positions only")
        self.step_dt, self.physics_dt = self.pipeline.dt, 1.0 / site.profile.command_rate_hz
        self.max_episode_length_s = episode_length_s
        self.max_episode_length = round(episode_length_s / self.step_dt)
        self.episode_length_buf = torch.zeros(1, dtype=torch.long)
        self.common_step_counter = 0
        self._return, self._due_s, self._awaiting = torch.zeros(1), 0.0, True
        self._guard = {"state": "", "owner": ""}
        self._reference: Tensor | None = None
        self._reference_s = -math.inf  # on the steady clock
        self._connect()

    def _connect(self) -> None:
        node, profile = self.node, self.site.profile
        wire = dict(zip(self.robot.arm_joints, profile.joint_names, strict=True))
        self._names = [wire.get(n, n) for n in self.pipeline.joints]
        self.reader, self.goals = JointReader(wire, self.robot), Goals(self.site.base, profile.base_frame)
        self._arm = self.reader.columns(self.robot.arm_joints)
        node.create_subscription(JointState, profile.state_topic, lambda m: self.reader(m, self._now_s()), NEWEST)
        node.create_subscription(JointState, "guard/target", self._on_target, NEWEST)
        for key in self._guard:
            node.create_subscription(String, f"guard/{key}", partial(self._on_guard, key), LATCHED)
        spec = self.pipeline.observation
        for name in commands_of(spec):
            is_pose = name in poses_of(spec)
            put = self.goals.set_pose if is_pose else self.goals.set_numbers
            node.create_subscription(PoseStamped if is_pose else Numbers, name, partial(put, name), LATCHED)
        for name in objects_of(spec):
            node.create_subscription(PoseStamped, f"objects/{name}", partial(self.goals.set_object, name), NEWEST)
        self._proposals = node.create_publisher(JointTrajectory, f"guard/proposals/{self.source}", NEWEST)
        self._take = node.create_client(Trigger, f"guard/take/{self.source}")
        self._release = node.create_client(Trigger, f"guard/release/{self.source}")

    # --- the contract ---------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, Extras]:
        """Take authority, bring the arm to `options["joint_pos"]` (n,) of its arm, or its default posture, along its
        limits, and observe. `seed` is there for the contract. Raises RobotError."""
        rest = torch.tensor(self.robot.of("default_joint_pos", self.robot.arm_joints))
        goal = torch.as_tensor((options or {}).get("joint_pos", rest), dtype=torch.float32)
        timeout_s = float((options or {}).get("timeout_s", 15.0))
        self._wait(lambda: self._age() < self._max_age, 5.0, f"no joint state on {self.site.profile.state_topic}")
        self._wait(lambda: not self._lacking(), 5.0, f"nobody has set {', '.join(self._lacking())}")
        self._call(self._take)
        self._go(goal, time.monotonic() + timeout_s)
        target = torch.tensor(self.reader.latest.position, dtype=torch.float32)
        target[self._arm] = goal
        self.pipeline.reset(target)
        self.episode_length_buf.zero_()
        self._return, self._awaiting, self._due_s = torch.zeros(1), False, time.monotonic()
        obs = self.pipeline.observe(self._state(), self.goals.scene())
        return obs, {"log": {}, "awaiting_reset": False, "observation_age_s": self._age()}

    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        """Propose, wait until the period is over, observe. Raises RobotError before a `reset`."""
        if action.shape != (1, self.action_spec.dim):
            raise ValueError(f"the action must be (1, {self.action_spec.dim}), got {tuple(action.shape)}")
        if self._awaiting:
            raise RobotError("the episode is over: call reset(), which moves the arm")
        command = self.pipeline.command(action.detach().float())
        missed = time.monotonic() > self._due_s + self.step_dt
        self._due_s = time.monotonic() if missed else self._due_s
        self._propose(command.target[0, : len(self._arm)], self.reader.latest.stamp_s)
        self._due_s += self.step_dt
        self._serve_until(self._due_s)
        if self._reference is not None:
            self.pipeline.follow(self._reference)
        self.common_step_counter += 1
        self.episode_length_buf += 1
        return self._outcome(missed)

    def close(self) -> None:
        """Give authority back."""
        if self._guard["owner"] == self.source:
            self._call(self._release)

    # --- a period -------------------------------------------------------------------------------------------

    def _outcome(self, missed: bool) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        robot, scene = self._state(), self.goals.scene()
        reward, terminated, metrics = self.judge(robot, scene)
        silent_s = time.monotonic() - self._reference_s  # a guard that was killed takes nothing away
        lost = self._guard["owner"] != self.source or max(self._age(), silent_s) > self._max_age
        timed = self.episode_length_buf >= self.max_episode_length
        truncated = (timed | lost) & ~terminated
        self._return = self._return + reward
        self._awaiting = bool(terminated | truncated)
        obs = self.pipeline.observe(robot, scene)
        episode = metrics | {"return": self._return, "length": self.episode_length_buf.float()}
        episode.setdefault("success", torch.zeros(1))
        extras = {
            "final_obs": obs, "applied_action": self.pipeline.action, "log": {}, "episode": episode,
            "awaiting_reset": self._awaiting, "observation_age_s": self._age(), "deadline_missed": missed,
            "guard": self._guard["state"],
        }  # fmt: skip
        return obs, reward, terminated, truncated, extras

    def _state(self) -> RobotState:
        latest = self.reader.latest
        joints = (torch.tensor(v, dtype=torch.float32) for v in (latest.position, latest.velocity, latest.effort))
        return self.pipeline.state(latest.stamp_s, *joints)

    def _propose(self, target: Tensor, stamp_s: float) -> None:
        point = Point(positions=target.tolist(), time_from_start=duration_of(self.step_dt))
        message = JointTrajectory(joint_names=self._names[: len(self._arm)], points=[point])
        message.header.stamp = stamp_of(stamp_s)
        self._proposals.publish(message)

    def _go(self, goal: Tensor, until_s: float) -> None:
        """Straight in joint space, as fast as half of the limits allow."""
        limits = self.pipeline.commander.limits
        n = len(self._arm)
        start = torch.tensor(self.reader.latest.position, dtype=torch.float32)[self._arm]
        if self._reference is not None and (self._reference - start).abs().max() < NEAR_RAD:
            start = self._reference
        full = TargetState.at(torch.cat((start, torch.zeros(len(limits.lower) - n)))[None])
        wanted = torch.cat((goal, torch.zeros(len(limits.lower) - n)))[None]
        slow = limits.tightened(0.5, 0.5)
        while True:
            full, _ = limit_target(wanted, full, slow, self.step_dt)
            self._propose(full.position[0, :n], self.reader.latest.stamp_s)
            self._serve_until(time.monotonic() + self.step_dt)
            latest = self.reader.latest
            near = abs(torch.tensor(latest.position)[self._arm] - goal).max() < 0.02
            if near and abs(latest.velocity[self._arm]).max() < 0.02:
                return
            if self._guard["owner"] not in ("", self.source) or time.monotonic() > until_s:
                raise RobotError(f"the arm did not come to its start posture; the guard is {self._guard['state']}")

    # --- waiting --------------------------------------------------------------------------------------------

    def _now_s(self) -> float:
        return 1e-9 * float(self.node.get_clock().now().nanoseconds)

    @property
    def _max_age(self) -> float:
        return self.site.profile.limits.state_timeout_s

    def _age(self) -> float:
        return self._now_s() - self.reader.latest.stamp_s

    def _lacking(self) -> list[str]:
        spec = self.pipeline.observation
        lacks = [n for n in commands_of(spec) if n not in self.goals.commands]
        return lacks + [f"objects/{n}" for n in objects_of(spec) if n not in self.goals.objects]

    def _serve_until(self, time_s: float) -> None:
        while (left := time_s - time.monotonic()) > 0.0:
            if not ros.ok():
                raise RobotError("told to end")
            ros.spin_once(self.node, timeout_sec=left)

    def _wait(self, ready: Callable[[], bool], timeout_s: float, what: str) -> None:
        until = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > until or not ros.ok():
                raise RobotError(f"{what} after {timeout_s:g} s")
            ros.spin_once(self.node, timeout_sec=0.05)

    def _call(self, client: Any) -> None:
        self._wait(client.service_is_ready, 5.0, f"no service {client.srv_name}: is the guard running?")
        future = client.call_async(Trigger.Request())
        self._wait(future.done, 5.0, f"no answer of {client.srv_name}")
        answer = future.result()
        if not answer.success:
            raise RobotError(f"the guard refused {client.srv_name}: {answer.message}")

    def _on_guard(self, key: str, message: Any) -> None:
        self._guard[key] = message.data

    def _on_target(self, message: Any) -> None:
        names, position = self.site.profile.joint_names, message.position
        if tuple(message.name) == names and len(position) == len(names) and math.isfinite(sum(position)):
            self._reference, self._reference_s = torch.tensor(position, dtype=torch.float32), time.monotonic()
