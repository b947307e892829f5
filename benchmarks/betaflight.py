"""A quadrotor of ours under the real Betaflight: `python -m benchmarks.betaflight [PART ...] [key=value ...]`.

- hover: climb to a point 1 m above the ground, then stay there for `seconds=60` of simulated time;
- eight: follow the lying figure-eight of `crazyflie_track` (2 x 1 m in 5.5 s), from above its middle.

Per run the distance from where it should be, RMS and greatest, after the first `SETTLE_S` seconds. Each run starts an
autopilot of its own. The pilot commands attitudes at 100 Hz, of what it observes by the terms and memory of a robot; it
is the geometric controller, or the policies of `run=PATH` and `track=PATH`. `runs=5` is how often, `speed=1` how fast
simulated time may go.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from real.pipeline import Pipeline
from robolearn import config, runs, trajectories
from robolearn.cli import _world
from robolearn.policies.base import Policy
from robolearn.policies.geometric import GeometricPolicy, config_of
from robolearn.spec import PolicySpec, RobotSpec
from robolearn.state import RobotState, SceneState
from sim.autopilots.betaflight import Betaflight
from sim.autopilots.flight import BetaflightQuadrotor

SETTINGS = {"runs": "5", "seconds": "60", "speed": "1", "run": "", "track": ""}
SETTLE_S, CLIMB_MPS = 4.0, 0.5
GAINS = {"lift": 1.0}
"""Of the geometric controller, where they are not the Crazyflie's: its weight is known."""
Goals = Callable[[int], dict[str, Tensor]]
"""What is commanded in a period, by name, (1, n)."""


class Pilot:
    """A policy behind what stands around it on a robot, too."""

    def __init__(self, policy: Policy, robot: RobotSpec):
        self.policy, self.pipeline = policy, Pipeline(policy.spec, robot)
        policy.reset(torch.ones(1, dtype=torch.bool))

    def __call__(self, state: RobotState, goals: dict[str, Tensor]) -> Tensor:
        """(4,) rad, rad, rad/s, N."""
        with torch.no_grad():
            action = self.policy.act(self.pipeline.observe(state, SceneState(commands=goals)))
        return self.pipeline.command(action).target[0]


@dataclass(frozen=True)
class Flight:
    error_m: Tensor  # (n,) distances, one a period
    wall_s: float
    simulated_s: float
    repeated: int

    @property
    def row(self) -> str:
        rms, most = self.error_m.square().mean().sqrt().item(), self.error_m.max().item()
        pace = self.simulated_s / self.wall_s
        return f"{rms:.3f} | {most:.3f} | {pace:.2f} | {self.repeated}"


def task_of(name: str) -> Any:
    return config.entry("task", name).config(robot="racer")


def geometric(task: Any) -> GeometricPolicy:
    made = config.build(task)
    spec = PolicySpec(made.robot.name, 1.0 / task.step_dt_s, made.observation_spec(), made.action_spec())
    return GeometricPolicy(spec, config_of(made.robot.quadrotor, GAINS))


def hover(task: Any) -> Goals:
    """A point that rises from the ground to 1 m."""

    def goals(k: int) -> dict[str, Tensor]:
        height = min(1.0, CLIMB_MPS * k * task.step_dt_s)
        return {"goal": torch.tensor([[0.0, 0.0, height, *[0.0] * 6]])}

    return goals


def eight(task: Any) -> Goals:
    """After half of `SETTLE_S`, which is how long it climbs to its middle."""
    stride, wait = round(task.preview_step_s / task.step_dt_s), round(0.5 * SETTLE_S / task.step_dt_s)
    climb = hover(task)
    figure = trajectories.figure_eight(torch.tensor([0.0, 0.0, 1.0]), 2.0 * task.size_m, task.size_m, task.period_s)

    def at(steps: Tensor) -> Tensor:
        """(n, 9)"""
        rows = figure((steps - wait).clamp_min(0) * task.step_dt_s)
        rising = torch.cat([climb(int(k))["goal"] for k in steps])
        return torch.where((steps < wait)[:, None], rising, rows)

    def goals(k: int) -> dict[str, Tensor]:
        ahead = at(k + stride * torch.arange(1, task.preview + 1))[:, :3]
        return {"goal": at(torch.tensor([k])), "ahead": ahead.flatten()[None]}

    return goals


def fly(pilot: Pilot, goals: Goals, seconds: float, speed: float) -> Flight:
    robot, dt = pilot.pipeline.robot, pilot.pipeline.dt
    errors = []
    with Betaflight() as autopilot:
        vehicle = BetaflightQuadrotor(robot, autopilot, speed)
        vehicle.arm()
        start_s, start = vehicle.time_s, time.monotonic()
        for k in range(round((SETTLE_S + seconds) / dt)):
            now, wanted = vehicle.state(), goals(k)
            errors.append((now.root_pose[0, :3] - wanted["goal"][0, :3]).norm())
            vehicle.fly(pilot(now, wanted), dt)
        flown_s, wall_s, repeated = vehicle.time_s - start_s, time.monotonic() - start, autopilot.repeated
    return Flight(torch.stack(errors)[round(SETTLE_S / dt) :], wall_s, flown_s, repeated)


PARTS = {"hover": ("crazyflie_hover", "run", hover), "eight": ("crazyflie_track", "track", eight)}


def measure(part: str, settings: dict[str, str]) -> None:
    name, key, goals = PARTS[part]
    task, seconds = task_of(name), float(settings["seconds"])
    print(
        f"\n{part}, {seconds:g} s\n\n| run | RMS, m | greatest, m | of real time | packets sent again |\n|{'---|' * 5}"
    )
    for i in range(int(settings["runs"])):
        policy = runs.load_bundle(settings[key])[1].policy if settings[key] else geometric(task)
        flight = fly(
            Pilot(policy, config.entry("robot", "racer").value), goals(task), seconds, float(settings["speed"])
        )
        print(f"| {i + 1} | {flight.row} |", flush=True)


def main(words: list[str]) -> None:
    torch.set_num_threads(1)
    _world.discover()
    given = dict(word.split("=", 1) for word in words if "=" in word)
    parts = [word for word in words if "=" not in word] or list(PARTS)
    wrong = [*(given.keys() - SETTINGS.keys()), *(set(parts) - PARTS.keys())]
    if wrong:
        raise SystemExit(f"error: no '{wrong[0]}'; there are {', '.join([*PARTS, *(f'{k}=' for k in SETTINGS)])}")
    for part in parts:
        measure(part, SETTINGS | given)


if __name__ == "__main__":
    main(sys.argv[1:])
