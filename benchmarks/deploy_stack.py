"""Twin, guard and policy as processes over DDS, which the watcher starts, kills, and listens to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from real import ros
from real.connection import JointTrajectory
from real.listener import nanoseconds
from real.robots.base import COMMANDS, CommandInterface
from real.watcher import EVERY, Watcher
from robolearn import bundle, config
from robolearn.spec import PolicySpec, RobotSpec

Floats = NDArray[np.float64]
ROBOT = "franka"
GOAL = {"goal": (0.45, 0.0, 0.4, 1.0, 0.0, 0.0, 0.0)}
"""For a policy that asks for one and does not care."""
SWING_RAD, SWING_RADPS = 0.2, 4.0
"""Amplitude, and angle of the phase a second: up to 0.8 rad/s."""
SIGNS = {
    "twin": "a simulated franka on",
    "guard": "guards franka",
    "policy": "start with the service policy/start",
    "page": "the operator's page of",
    "camera": "pictures on",
}
"""What the nodes log when they are built."""


class Stack(Watcher):
    """In the domain that the environment names. Only what it started is ever killed."""

    def __init__(self, folder: Path, run: Path | str, words: Sequence[str] = (),
                 interface: CommandInterface = "forward_position"):  # fmt: skip
        """`words` are for every process."""
        config.discover(["robolearn.robots", "real.robots"])
        self.robot: RobotSpec = config.entry("robot", ROBOT).value
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()
        self.words = ["-p", f"robot:={ROBOT}", "-p", f"run:={run}", "-p", f"command_interface:={interface}", *words]
        self.rest = np.array(self.robot.of("default_joint_pos", self.robot.arm_joints))
        self.commands = list[tuple[float, Floats]]()
        """The command topic: when taken (steady clock), position (n,). Since the last `clear`, as all that follows."""
        self.log = list[tuple[float, str, str]]()
        """/rosout: when (the stamps' clock), node, text."""
        super().__init__(config.entry("profile", ROBOT).value, list(GOAL), self.dead)
        command, log = COMMANDS[interface], ros.interface("rcl_interfaces/msg/Log")
        self.node.create_subscription(ros.interface(command.type), command.topic, self._on_command, EVERY)
        self.node.create_subscription(log, "/rosout", self._on_log, EVERY)
        self.env = self.node.create_publisher(JointTrajectory, "guard/proposals/env", 1)

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        super().__exit__(*error)

    def _on_command(self, message: Any) -> None:
        values = message.data if hasattr(message, "data") else message.points[-1].positions
        self.commands.append((time.monotonic(), np.array(values, dtype=np.float64)))

    def _on_log(self, message: Any) -> None:
        self.log.append((1e-9 * nanoseconds(message.stamp), message.name, message.msg))

    def clear(self) -> None:
        super().clear()
        self.commands, self.log = [], []

    def said(self, node: str, text: str) -> bool:
        """On /rosout."""
        return any(name == node and text in line for _, name, line in self.log)

    # --- processes ------------------------------------------------------------------------------------------

    def dead(self) -> str:
        """Processes that ended by themselves, and what they said last; empty while there are none."""
        ended = {n: p.poll() for n, p in self.processes.items()}
        lines = [
            f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()[-500:]}"
            for name, code in ended.items()
            if code is not None and code != -signal.SIGKILL
        ]
        return "; ".join(lines)

    def start(self, *names: str, module: Sequence[str] = ("real.nodes.{}",), words: Sequence[str] = ()) -> None:
        """Processes of these nodes, and wait until they are there; what they print is in the folder."""
        self.clear()
        for name in names:
            program = [part.format(name) for part in module]
            command = [sys.executable, "-m", *program, "--ros-args", *self.words, *words]
            with (self.folder / f"{name}.log").open("a") as log:
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)
        for name in names:
            self.wait(lambda n=name: self.said(n, SIGNS[n]), f"the {name} is up")  # type: ignore[misc]

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> float:
        """Send the signal; the time before it was sent."""
        began = time.monotonic()
        os.kill(self.processes[name].pid, how)
        return began

    def end(self, *names: str) -> None:
        """As Ctrl-C does, and wait."""
        for name in names:
            self.kill(name, signal.SIGINT)
        for name in names:
            self.processes.pop(name).wait(timeout=30.0)


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


def restless(folder: Path, rate_hz: float | None = None) -> Path:
    """A bundle whose policy, an MLP of the size that is trained, swings all joints about SWING_RAD beyond their rest
    for ever: the action, a change of the set-points, changes in proportion to their distance from there."""
    from dataclasses import replace

    from robolearn.cli import _world
    from robolearn.policies.gaussian import GaussianPolicy
    from sim.env import SimEnv

    _world.discover()
    task = config.entry("task", "franka_reach").config
    engine = config.entry("backend", "mujoco").config
    assert task is not None and engine is not None
    env = SimEnv(task(), engine(), 1)
    spec = replace(env.policy_spec(), rate_hz=rate_hz or env.policy_spec().rate_hz)
    net = {"hidden": [128, 128], "activation": "elu", "initial_std": 0.5, "min_std": 0.05}
    policy = GaussianPolicy(spec, net)
    _swing(policy, spec)
    env.close()
    return bundle.save(folder / "restless.zip", bundle.Bundle(policy, env.robot))


@torch.no_grad()
def _swing(policy: Any, spec: PolicySpec) -> None:
    """ELU is a straight line above zero: with `lift` added and taken away again the network is linear."""
    first, second, last = (policy.mean[k] for k in (0, 2, 4))
    lift, n = 10.0, spec.action.dim
    at, columns = 0, dict[str, int]()
    for term in spec.observation.terms("policy"):
        columns[term.field.name], at = at, at + term.field.size
    for layer in (first, second, last):
        layer.weight.zero_()
        layer.bias.zero_()
    pull = torch.tensor((SWING_RADPS / spec.rate_hz) ** 2) / torch.tensor(spec.action.scale)
    for j in range(n):
        first.weight[j, columns["joint_pos"] + j] = first.weight[j, columns["joint_target_error"] + j] = 1.0
        first.weight[n + j, columns["last_action"] + j] = 1.0
        last.weight[j, j], last.weight[j, n + j] = -pull[j], 1.0
        last.bias[j] = pull[j] * (lift + SWING_RAD) - lift
    first.bias[: 2 * n] = lift
    second.weight[: 2 * n, : 2 * n] = torch.eye(2 * n)
