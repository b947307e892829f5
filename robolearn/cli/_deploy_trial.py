"""The demo's trial through ROS 2: twin, guard and policy as processes of their own, started from the launch files. The
arm goes to random goals, drawn and judged as in an evaluation; then the policy is killed while the arm moves."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import threading
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robolearn import registry
from robolearn.cli import _launch_places, _world
from robolearn.cli._launch_run import die_with_parent
from robolearn.errors import UserError
from robolearn.loops.log import Display
from robolearn.paths import share_dir
from robolearn.state import RobotState, SceneState

if TYPE_CHECKING:
    from real.robots.base import ArmProfile
    from real.trial import Episode
    from real.watcher import Watcher

log = logging.getLogger(__name__)

FILE = "ros2.json"
TWINS = ("mujoco", "pybullet")
"""Engines of a twin; the policy of another one is tried on the first."""
TRIES = 3
"""Of an episode that a busy machine did not run or measure in time, and of a goal on whose way the arm moves fast."""
SPOKEN = 0.75
"""Share of an episode's periods in which its policy must have proposed something that was followed; one that a busy
machine kept silent for longer has not been tried."""
FILMED = 4
"""Episodes that are kept for a film."""
STARTED = re.compile(r"\[launch\] \[(?:\w+/)*(\w+)\] started, process (\d+)")
INSTALL = "pip install 'robolearn[ros]'"


def site_of(robot: str) -> tuple[str, ArmProfile] | None:
    """The profile of an arm, and its name, that has a site file of ours; None for every other robot."""
    from real.robots.base import ArmProfile

    registry.discover(("real.robots",))
    found = ((name, registry.entry("profile", name).value) for name in registry.names("profile"))
    fit = ((n, p) for n, p in found if isinstance(p, ArmProfile) and p.robot == robot)
    return next(((n, p) for n, p in fit if (share_dir() / f"configs/site/{n}.yaml").is_file()), None)


def obstacle(packed: Any) -> str | None:
    """Why an arm's policy cannot be tried here; None if it can."""
    from real.pipeline import numbers_of, objects_of

    seen = packed.spec.observation
    if others := [*objects_of(seen), *numbers_of(seen)]:
        return f"its task has more than goal poses ({', '.join(others)})"
    try:
        from real import ros  # noqa: F401 - to see whether it is there
    except ImportError as error:
        return f"ROS 2 is not there ({error}); install it with: {INSTALL}"
    return None


def measure(path: Path, run: Path, episodes: int, seed: int) -> None:
    """Write what a trial of an arm's policy found. Raises TrialError; what the processes said is beside the file."""
    _, cfg, packed = _world.load_run(str(run))
    site = site_of(packed.spec.robot)
    assert site is not None
    with closing(_world.make_env(cfg.task, cfg.backend, episodes, "cpu", seed)) as env:
        found = _Trial(env, run, *site).run(path)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found | {"seed": seed}))
    part.replace(path)


def judged(env: Any, joints: Tensor, commands: dict[str, Tensor]) -> dict[str, Tensor]:
    """The task's own criterion on measured joints (B, n) of the arm, the rest as at rest, at commands (B, ...)."""
    robot, count = env.robot, len(joints)
    every = torch.tensor(robot.default_joint_pos).repeat(count, 1)
    every[:, [robot.joint_names.index(n) for n in robot.arm_joints]] = joints.float()
    still, base = torch.zeros_like(every), torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).expand(count, 7)
    state = RobotState(torch.zeros(count), every, still, still, every, base, torch.zeros(count, 6), env.chain)
    return {k: v.float() for k, v in env.task.metrics(state, SceneState(commands=commands)).items()}


class _Trial:
    """`env` gives starts and goals, as many as it has environments, and judges."""

    def __init__(self, env: Any, run: Path, site: str, profile: ArmProfile):
        self.env, self.run_folder, self.site, self.profile = env, run.resolve(), site, profile
        self.repeated, self.tracks = 0, list[dict[str, Any]]()
        env.reset()
        arm = [env.robot.joint_names.index(n) for n in env.robot.arm_joints]
        self.starts = env.backend.joint_pos(env.task.asset)[:, arm].double().numpy().copy()
        self.commands = {k: v.clone() for k, v in env.task.scene_state(env.backend).commands.items()}
        self.engine = next((e for e in TWINS if type(env.backend).__module__.endswith(f".{e}")), TWINS[0])
        self.title = f"{env.cfg.name} through ROS 2"

    def run(self, path: Path) -> dict[str, Any]:
        """The twin has a launch of its own, as a robot would: it stays when the policy's launch comes down."""
        from real.domain import own_domain
        from real.watcher import Watcher

        load = os.getloadavg()[0]
        with ExitStack() as stack:
            stack.enter_context(own_domain())
            logs = {n: path.with_name(f"ros2_{n}.log") for n in ("twin", "deploy")}
            robot = f"robot:={self.site}"
            twin = stack.enter_context(Launched(logs["twin"], "twin", robot, f"backend:={self.engine}"))
            deploy = stack.enter_context(Launched(logs["deploy"], "deploy", robot, f"run:={self.run_folder}"))
            watcher = stack.enter_context(
                Watcher(self.profile, list(self.commands), lambda: twin.trouble() or deploy.trouble())
            )
            watcher.await_all()
            rows, latency, held = self._episodes(watcher)
            told: dict[str, Any] = {"engine": self.engine, "rows": rows, "latency_ms": latency, "held": held}
            told |= {"tracks": self.tracks, "repeated": self.repeated, "state_ms": 1e3 * watcher.state_period_s()}
            told |= {"load": max(load, os.getloadavg()[0])}
            return told | {"counts": dict(watcher.counts)} | self._killed(watcher, deploy)

    def _episodes(self, watcher: Watcher) -> tuple[dict[str, list[float]], list[float], list[int]]:
        """Results by metric, latencies (ms), and the episodes in which the guard held or stopped."""
        rows: dict[str, list[float]] = {}
        latency, held = list[float](), list[int]()
        with Display(len(self.starts), self.title) as display:
            for k in range(len(self.starts)):
                episode = self._episode(watcher, k)
                wanted = {name: rows_of[k : k + 1] for name, rows_of in self.commands.items()}
                for name, value in judged(self.env, torch.from_numpy(episode.joints)[None], wanted).items():
                    rows.setdefault(name, []).append(float(value))
                latency += [round(1e3 * s, 3) for s in episode.latency_s]
                held += [k] if episode.states else []
                if k < FILMED:
                    self.tracks.append(self._track(k, episode, rows["success"][-1]))
                display.update(k + 1, {"success": sum(rows["success"]) / (k + 1)})
        return rows, latency, held

    def _track(self, k: int, episode: Episode, success: float) -> dict[str, Any]:
        """What a film shows of it: times and joints, some 50 a second, and the goals."""
        step = max(1, len(episode.track) // round(50 * self.env.max_episode_length_s))
        rows = [[1e-9 * m.stamp_ns, *m.position.round(5).tolist()] for m in episode.track[::step]]
        return {"track": rows, "goals": self._goals(k), "success": success}

    def _episode(self, watcher: Watcher, k: int) -> Episode:
        from real.listener import TrialError
        from real.trial import run_episode

        for left in reversed(range(TRIES)):
            try:
                episode = run_episode(watcher, self.starts[k], self._goals(k), self.env.max_episode_length_s)
                followed = len(episode.latency_s)
                if not left or followed >= SPOKEN * self.env.max_episode_length:
                    return episode
                trouble = f"the policy was followed in {followed} of {self.env.max_episode_length} periods only"
            except TrialError as error:
                if not left or watcher.trouble():
                    raise
                trouble = str(error)
            self.repeated += 1
            log.warning("%s: %s; once more", self.title, trouble)
        raise AssertionError

    def _goals(self, k: int) -> dict[str, list[float]]:
        return {name: rows[k].tolist() for name, rows in self.commands.items()}

    def _killed(self, watcher: Watcher, deploy: Launched) -> dict[str, Any]:
        """What became of the arm, or why nothing did: the episodes are not lost with it."""
        from real.trial import record_fault

        goals = [self._goals(k) for k in range(len(self.starts))][:TRIES]
        kill = partial(os.kill, deploy.pid_of("policy"), signal.SIGKILL)
        try:
            stop = record_fault(watcher, self.starts[0], goals, kill)
            return {"stop": asdict(stop), "launch_code": deploy.wait(), "not_killed": ""}
        except UserError as error:
            log.warning("%s: no stop was recorded: %s", self.title, error)
            return {"stop": None, "launch_code": None, "not_killed": str(error)}


class Launched:
    """`robolearn launch WORDS` as a process, whose output goes to a file; it ends when this program does, however
    that ends (Linux)."""

    def __init__(self, output: Path, *words: str):
        program = _launch_places.executable("robolearn", "robolearn")
        self.words, self.output = words, output
        self._pids: dict[str, int] = {}
        self._last = ""
        self.process = subprocess.Popen(
            [program, "launch", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True, preexec_fn=die_with_parent(),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.output.open("w") as file:
            for line in self.process.stdout:
                file.write(line)
                file.flush()
                self._last = line.strip() or self._last
                if match := STARTED.search(line):
                    self._pids[match[1]] = int(match[2])

    def pid_of(self, node: str) -> int:
        return self._pids[node]

    def trouble(self) -> str:
        """Why there is nothing to wait for: empty while it runs."""
        code = self.process.poll()
        if code is None:
            return ""
        self._reader.join(1.0)
        return f"robolearn launch {self.words[0]} ended with {code}: {self._last} (see {self.output})"

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit code, once it has ended."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise UserError(f"robolearn launch {self.words[0]} does not end (see {self.output})") from None

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *error: object) -> None:
        """As Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.wait()
        finally:
            self.process.kill()  # what it started gets SIGINT from the system
        self._reader.join(1.0)
