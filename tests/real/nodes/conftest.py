"""A stack of the nodes as processes of their own over DDS, and a node of the test's that watches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

RATE = ["-p", "command_rate_hz:=200.0"]
AGAIN_S = 3.0


class Stack:
    """Processes by name: `twin`, `guard`, `policy`, or another name for a second one. Their output is in NAME.log."""

    def __init__(self, folder: Path, run: Path, until: Callable[..., None]):
        from real import ros
        from real.connection import LATCHED, NEWEST, DiagnosticArray, JointState, PoseStamped, String

        self.folder, self.run, self.until = folder, run, until
        self.processes: dict[str, subprocess.Popen] = {}
        self.clients: dict[str, Any] = {}
        ros.init(args=["test"])
        self.node = ros.Node("watcher")
        self.heard: dict[str, list[str]] = {"guard/state": [], "guard/owner": []}
        for topic in self.heard:
            self.node.create_subscription(String, topic, lambda m, t=topic: self.heard[t].append(m.data), LATCHED)
        self.states: list[Any] = []
        self.commands: list[Any] = []
        self.node.create_subscription(JointState, "joint_states", self.states.append, NEWEST)
        self.node.create_subscription(JointState, "guard/target", self.commands.append, NEWEST)
        self.said: dict[str, Any] = {}
        """The last diagnostics of each node."""
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._goal = self.node.create_publisher(PoseStamped, "goal", LATCHED)
        self.set_goal()

    def _on_diagnostics(self, message: Any) -> None:
        self.said |= {status.name: status for status in message.status}

    def set_goal(self) -> None:
        """In front of the arm, the tool upright."""
        from real.connection import PoseStamped

        message = PoseStamped()
        message.pose.position.x, message.pose.position.z, message.pose.orientation.x = 0.45, 0.4, 1.0
        message.pose.orientation.w = 0.0
        self._goal.publish(message)

    def start(self, *names: str, words: Sequence[str] = (), called: str = "") -> None:
        """Nodes with more words of the command line; `called` is the process's name here, if not the node's."""
        for name in names:
            command = [sys.executable, "-m", f"real.nodes.{name}", "--ros-args", "-p", "robot:=franka", *RATE,
                       "-p", f"run:={self.run}", *words]  # fmt: skip
            called = called or name
            with (self.folder / f"{called}.log").open("w") as log:
                self.processes[called] = subprocess.Popen(command, stdout=log, stderr=log)
            called = ""

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def spin(self, seconds: float = 0.01) -> None:
        from real import ros

        ros.spin_once(self.node, timeout_sec=seconds)

    def rest(self, seconds: float) -> None:
        """Listen for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin()

    def wait(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        self.until(condition, self.spin, timeout_s)

    def state(self) -> str:
        return self.heard["guard/state"][-1] if self.heard["guard/state"] else ""

    def call(self, name: str) -> Any:
        """The answer; it asks again where a request or an answer was lost, on a busy machine."""
        from real.connection import Trigger

        if name not in self.clients:
            self.clients[name] = self.node.create_client(Trigger, name)
        client, asked = self.clients[name], []

        def answered() -> bool:
            if client.service_is_ready() and (not asked or time.monotonic() - asked[-1][0] > AGAIN_S):
                asked.append((time.monotonic(), client.call_async(Trigger.Request())))
            return any(future.done() for _, future in asked)

        self.wait(answered)
        return next(future for _, future in asked if future.done()).result()

    def fly(self, words: Sequence[str] = ()) -> None:
        """All at work, the policy in authority; it asks again where a busy machine has let it be taken away."""
        self.start("twin", "guard", "policy", words=words)
        self.wait(lambda: self.states and self.heard["guard/state"])
        self.wait(lambda: self.call("policy/start").success and self.state() == "active" and len(self.commands) > 10)

    def owner(self) -> str | None:
        """Who has authority, or "" for nobody; None before the guard has said so. Said after the state."""
        return self.heard["guard/owner"][-1] if self.heard["guard/owner"] else None

    def at_rest(self) -> bool:
        """Whether nobody has authority and the arm stands."""
        return self.owner() == "" and self.state() in ("idle", "stopped") and self.still()

    def still(self) -> bool:
        """Whether the last command stands."""
        return bool(self.commands) and not any(self.commands[-1].velocity)

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        os.kill(self.processes[name].pid, how)

    def close(self) -> None:
        from real import ros

        for process in self.processes.values():
            process.kill()
            process.wait()
        ros.shutdown()


@pytest.fixture(scope="session")
def reacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keeps_moving(tmp_path_factory.mktemp("bundle") / "reach.zip")


@pytest.fixture(scope="session")
def slow_reacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keeps_moving(tmp_path_factory.mktemp("bundle") / "slow.zip", decimation=24)


def keeps_moving(path: Path, **task: Any) -> Path:
    """A bundle whose policy does: the wire is what is tested here. 20 Hz unless the task is told otherwise."""
    from robolearn import bundle, config
    from robolearn.cli import _world
    from robolearn.policies.gaussian import GaussianPolicy
    from sim.env import SimEnv

    _world.discover()
    env = SimEnv(config.entry("task", "franka_reach").config(**task), config.entry("backend", "mujoco").config(), 1)
    torch.manual_seed(0)
    net = {"hidden": [16], "activation": "elu", "initial_std": 0.5, "min_std": 0.1}
    policy = GaussianPolicy(env.policy_spec(), net)
    torch.nn.init.constant_(policy.mean[-1].bias, 0.2)
    env.close()
    return bundle.save(path, bundle.Bundle(policy, env.robot))


@pytest.fixture
def stack(
    one_at_a_time: None, domain: int, tmp_path: Path, until: Callable[..., None], reacher: Path
) -> Iterator[Stack]:
    made = Stack(tmp_path, reacher, until)
    yield made
    made.close()
