"""Whoever can do a task without having learned it: scripted experts, from the true state, with a person's faults.

An expert with `noise` 0 does the same thing in the same way as well as it can. With `noise` 1 it errs like a person who
teleoperates: it works at its own pace, misses a little and tries again, trembles, pauses to look, and strays on the
way. Policies that learn from a clean expert never see how to recover.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robolearn.errors import ConfigError, unknown
from robolearn.hil.frames import to_tool
from robolearn.kinematics import Chain
from robolearn.rotations import from_rotation_vector, pose_difference, quat_mul
from robolearn.spec import ActionSpec, RobotSpec
from robolearn.state import RobotState, SceneState
from sim.randomize import uniform

PACE = (0.55, 1.0)
"""Of a person, as shares of the expert's speed."""
TREMOR, TREMOR_MEMORY = 0.06, 0.85
"""Of the action's range, and how much of it is left after a step."""
PAUSES_PER_S, PAUSE_S = 0.12, (0.2, 0.8)
DETOURS, DETOUR_S, DETOUR_M = 0.3, (0.3, 0.9), 0.04
"""The share of the ways through free space on which a person strays, for how long, and how far."""
ONTO = 2.0
"""Tolerances within which somebody else's way is one's own."""
GAIN = 0.6
"""The share of what is missing that one step covers: all of it would ring in the limits."""


class Expert(ABC):
    """Acts for B environments, each by one of its `strategies`."""

    strategies: tuple[str, ...] = ("only",)
    strategy: Tensor
    """(B,) int64: the one that each environment follows in this episode."""
    only: int | None = None
    """The strategy that is followed always, if not one at random."""

    def keep_to(self, strategy: str) -> None:
        """Follow this one from the next `reset` on. ConfigError for one that there is not."""
        if strategy not in self.strategies:
            raise ConfigError(unknown("strategy", strategy, self.strategies))
        self.only = self.strategies.index(strategy)

    def choose(self, mask: Tensor, generator: torch.Generator) -> None:
        """The strategies of those in mask (B,), anew."""
        drawn = torch.randint(len(self.strategies), (len(mask),), generator=generator, device=mask.device)
        if self.only is not None:
            drawn = torch.full_like(drawn, self.only)
        self.strategy = torch.where(mask, drawn, self.strategy)

    @abstractmethod
    def act(self, robot: RobotState, scene: SceneState) -> Tensor:
        """The next action (B, A) in [-1, 1], from the true states (`SimEnv.states`); call it once a step."""

    @abstractmethod
    def reset(self, mask: Tensor) -> None:
        """These environments (B,) begin an episode: a new strategy, a new pace."""

    def join(self, mask: Tensor, robot: RobotState, scene: SceneState) -> None:
        """In these environments (B,) somebody else has begun: go on from where things stand."""
        self.reset(mask)


@dataclass(frozen=True)
class Waypoint:
    """A pose on the way, and when it counts as reached."""

    pose: Callable[[RobotState, SceneState], Tensor]
    """Where the end effector shall be, (B, 7) in the base frame."""
    open: bool = False
    """The hand, on the way there and then."""
    within_m: float = 0.01
    within_rad: float = 0.05
    speed: float = 1.0
    """Share of the action's range."""
    stay_s: float = 0.0
    """At least; for a hand that opens or closes."""
    give_up_s: float = 3.0
    """Then it goes on with the next, or with number `otherwise`."""
    otherwise: int | None = None
    error_m: float = 0.0
    """Standard deviation of where a person aims, along each axis; anew at each attempt."""
    free: bool = False
    """Through free space: a person may stray."""
    over: Callable[[RobotState, SceneState], Tensor] | None = None
    """Where what takes time here (`stay_s`) is done already, (B,) bool; nobody can tell if not given."""


class WaypointExpert(Expert):
    """Follows the waypoints of a strategy with end effector deltas, from set-point to set-point.

    All environments are computed at once: every waypoint of every strategy has its pose for all of them, of which each
    takes its own.
    """

    def __init__(self, plans: Mapping[str, Sequence[Waypoint]], action: ActionSpec, robot: RobotSpec, num_envs: int,
                 dt: float, device: torch.device, noise: float, generator: torch.Generator):  # fmt: skip
        if action.function != "ee_delta":
            raise ConfigError(f"the scripted expert moves the end effector: it needs action=ee_delta, not "
                              f"{action.function}")  # fmt: skip
        if not 0.0 <= noise <= 10.0:
            raise ConfigError(f"noise must be from 0 (clean) to 10, got {noise}; 1 is like a person")
        self.strategies, self.noise, self.dt, self.generator = tuple(plans), noise, dt, generator
        self.waypoints = [w for plan in plans.values() for w in plan]
        self.chain = Chain(robot.urdf, robot.ee_link, robot.joint_names, device)
        self.in_tool = action.frame == "tool"
        self.scale, self.grips = torch.tensor(action.scale, device=device), "gripper" in action.names
        self._tabulate(list(plans.values()), device)
        self._allocate(num_envs, device)

    def _tabulate(self, plans: Sequence[Sequence[Waypoint]], device: torch.device) -> None:
        """The waypoints' numbers (W,), all plans one after the other; `_first` and `_last` (S,) of each plan."""
        sizes = [len(plan) for plan in plans]
        firsts = [sum(sizes[:s]) for s in range(len(sizes))]
        self._first = torch.tensor(firsts, device=device)
        self._last = torch.tensor([f + n - 1 for f, n in zip(firsts, sizes, strict=True)], device=device)
        after = [
            first + (k + 1 if w.otherwise is None else w.otherwise)
            for first, plan in zip(firsts, plans, strict=True) for k, w in enumerate(plan)
        ]  # fmt: skip
        self._otherwise = torch.tensor(after, device=device)

        def column(name: str) -> Tensor:
            return torch.tensor([float(getattr(w, name)) for w in self.waypoints], device=device)

        self._within_m, self._within_rad, self._speed = map(column, ("within_m", "within_rad", "speed"))
        self._stay_s, self._give_up_s, self._error_m = map(column, ("stay_s", "give_up_s", "error_m"))
        self._open, self._free = column("open") * 2.0 - 1.0, column("free") > 0.0

    def _allocate(self, b: int, device: torch.device) -> None:
        self.strategy = torch.zeros(b, dtype=torch.long, device=device)
        self._at = torch.zeros(b, dtype=torch.long, device=device)
        self._clock, self._pause, self._detour = (torch.zeros(b, device=device) for _ in range(3))
        self._pace = torch.ones(b, device=device)
        self._error, self._stray = torch.zeros(b, 3, device=device), torch.zeros(b, 3, device=device)
        self._tremor = torch.zeros(b, 6, device=device)
        self._rows = torch.arange(b, device=device)
        self.reset(torch.ones(b, dtype=torch.bool, device=device))

    def reset(self, mask: Tensor) -> None:
        b, generator = len(mask), self.generator
        self.choose(mask, generator)
        self._pause = self._pause * ~mask
        self._tremor = self._tremor * ~mask[:, None]
        low, high = PACE
        slower = self.noise * (1.0 - uniform((b,), low, high, generator))
        self._pace = torch.where(mask, (1.0 - slower).clamp_min(0.3), self._pace)
        self._go(mask, self._first[self.strategy])

    def join(self, mask: Tensor, robot: RobotState, scene: SceneState) -> None:
        """At the last waypoint, of the strategy, on whose straight way from the one before it the hand is."""
        self.reset(mask)
        poses = torch.stack([w.pose(robot, scene) for w in self.waypoints])
        start = self._first[self.strategy]
        for k in range(1, len(self.waypoints)):
            if k not in self._first.tolist():
                own = (self._first[self.strategy] < k) & (k <= self._last[self.strategy])
                start = torch.where(own & self._on_the_way(k, poses, robot, scene), k, start)
        self._go(mask, start)

    def _on_the_way(self, k: int, poses: Tensor, robot: RobotState, scene: SceneState) -> Tensor:
        """From waypoint k - 1 to waypoint k, (B,) bool: within ONTO tolerances of the line. `poses` (W, B, 7)."""
        before = self.waypoints[k - 1]
        if before.over is not None:
            return before.over(robot, scene)
        if before.stay_s:
            return torch.zeros_like(self._rows, dtype=torch.bool)
        a, b, hand = poses[k - 1, :, :3], poses[k, :, :3], robot.ee_pose[:, :3]
        along = (((hand - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1).clamp_min(1e-9)).clamp(0.0, 1.0)
        off = (hand - torch.lerp(a, b, along[:, None])).norm(dim=1)
        turn = pose_difference(robot.ee_pose, poses[k])[:, 3:].norm(dim=1)
        after = self.waypoints[k]
        near = off < ONTO * min(before.within_m, after.within_m)
        return near & (turn < ONTO * max(before.within_rad, after.within_rad))

    def _go(self, mask: Tensor, to: Tensor) -> None:
        """The masked set out for waypoint number `to` (B,): how they will miss it, and stray on the way."""
        b, generator, device = len(mask), self.generator, mask.device
        self._at = torch.where(mask, to, self._at)
        self._clock = self._clock * ~mask
        missed = torch.randn(b, 3, generator=generator, device=device) * (self.noise * self._error_m[to])[:, None]
        self._error = torch.where(mask[:, None], missed, self._error)
        away = torch.randn(b, 3, generator=generator, device=device) * DETOUR_M
        strays = torch.rand(b, generator=generator, device=device) < DETOURS * self.noise
        how_long = uniform((b,), *DETOUR_S, generator)
        self._stray = torch.where(mask[:, None], away, self._stray)
        self._detour = torch.where(mask, how_long * (strays & self._free[to]), self._detour)

    def act(self, robot: RobotState, scene: SceneState) -> Tensor:
        goal = self._goal(robot, scene)
        missing = pose_difference(robot.ee_pose, goal)
        self._advance(missing)
        asked = self.chain.pose(robot.joint_target)
        way = pose_difference(asked, goal)
        wanted = (to_tool(way, asked[:, 3:]) if self.in_tool else way) * GAIN / self.scale
        wanted = wanted * self._slowed(wanted)[:, None] + self._trembling()
        wanted = wanted * (self._pause <= 0.0)[:, None]
        if not self.grips:
            return wanted.clamp(-1.0, 1.0)
        return torch.cat((wanted.clamp(-1.0, 1.0), self._open[self._at][:, None]), dim=1)

    def _goal(self, robot: RobotState, scene: SceneState) -> Tensor:
        poses = torch.stack([w.pose(robot, scene) for w in self.waypoints])
        goal = poses[self._at, self._rows]
        aside = self._error + self._stray * (self._detour > 0.0)[:, None]
        return torch.cat((goal[:, :3] + aside, goal[:, 3:]), dim=1)

    def _slowed(self, wanted: Tensor) -> Tensor:
        """(B,) factor that keeps the longest part of an action within the pace."""
        most = self._pace * self._speed[self._at]
        return (most / wanted.abs().amax(1).clamp_min(1e-6)).clamp_max(1.0)

    def _advance(self, missing: Tensor) -> None:
        """A step is over: pauses, detours, and on to the next waypoint."""
        at, dt = self._at, self.dt
        b, device = len(at), at.device
        waits = self._pause > 0.0
        begins = torch.rand(b, generator=self.generator, device=device) < PAUSES_PER_S * self.noise * dt
        how_long = uniform((b,), *PAUSE_S, self.generator)
        self._pause = torch.where(begins & ~waits, how_long, self._pause - dt)
        self._clock, self._detour = self._clock + dt * ~waits, self._detour - dt
        near = missing[:, :3].norm(dim=1) < self._within_m[at]
        near &= missing[:, 3:].norm(dim=1) < self._within_rad[at]
        there = near & (self._detour <= 0.0) & (self._clock >= self._stay_s[at])
        last = self._last[self.strategy]
        on = there & (at < last)
        late = (self._clock > self._give_up_s[at]) & ~on  # at the end too: the task would be over, had it been done
        self._go(on | late, torch.minimum(torch.where(late, self._otherwise[at], at + 1), last))

    def _trembling(self) -> Tensor:
        """(B, 6): a first-order process."""
        fresh = torch.randn(self._tremor.shape, generator=self.generator, device=self._tremor.device)
        kept = TREMOR_MEMORY
        self._tremor = kept * self._tremor + math.sqrt(1.0 - kept * kept) * fresh
        return self.noise * TREMOR * self._tremor


def turned(pose: Tensor, axis: Sequence[float], angle_rad: float) -> Tensor:
    """The pose (B, 7) after a turn about an axis of its own."""
    vector = angle_rad * torch.tensor(axis, device=pose.device).expand(len(pose), 3)
    return torch.cat((pose[:, :3], quat_mul(pose[:, 3:], from_rotation_vector(vector))), dim=1)


def shifted(pose: Tensor, by_m: Sequence[float]) -> Tensor:
    """The pose (B, 7) moved along the axes of the base frame."""
    return torch.cat((pose[:, :3] + torch.tensor(by_m, device=pose.device), pose[:, 3:]), dim=1)
