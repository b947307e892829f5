"""Flight through ROS 2, measured on real processes over DDS: `python -m benchmarks.fly [PART ...] [key=value ...]`.

- eight: the error on a figure-eight through twin, guard and policy (50 Hz pose, 20 ms of delay), beside that of the
  same policy in the simulator;
- losses: so many flights, from take-off to landing, with 5 % of the messages lost and 10 ms of jitter more;
- killed: the policy is killed in flight (kill -9), so many times: does it stay in the fence, and how does it end?

The vehicle is the twin (PyBullet, nominal Crazyflie), the site configs/site/crazyflie.yaml. `run=PATH` is a policy of
crazyflie_track, or a bundle of the geometric controller is made. `times=50` is how often (eight: 5 rounds),
`domain=N` the DDS domain (a free one is looked for).
"""

from __future__ import annotations

import logging
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from real.domain import own_domain
from real.flight.goals import RAMP_S
from real.flight.watcher import FlightWatcher
from real.listener import TrialError
from robolearn import bundle, config, runs
from robolearn.cli import _world
from robolearn.loops.log import Display
from robolearn.paths import share_dir
from robolearn.policies.geometric import GeometricPolicy, config_of

SETTINGS = {"times": "", "run": "", "domain": "", "delay_s": "0.02", "engine": "pybullet"}
Settings = dict[str, str]
SITE = "configs/site/crazyflie.yaml"
PERIOD_S = 5.5
ROUND_S = RAMP_S + PERIOD_S
SETTLED_S = RAMP_S
"""From when on the error counts: when the trajectory is as fast as it will be."""
CRASH_M, TILTED_RAD = 0.1, 1.9
DELAYED = ("-p", "delay_s:={delay_s}")
LOSSY = ("-p", "jitter_s:=0.01", "-p", "loss:=0.05")
MODULES = {"twin": "real.nodes.flight_twin", "guard": "real.nodes.flight_guard", "policy": "real.nodes.policy"}


class Stack(FlightWatcher):
    """In the domain that the environment names. Only what it started is ever killed."""

    def __init__(self, folder: Path, run: str, settings: Settings, line: Sequence[str] = ()):
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()
        self.words = ["--params-file", str(share_dir() / SITE), "-p", f"run:={run}", "-p", "trajectory:=figure_eight",
                      "-p", f"period_s:={PERIOD_S}", "-p", f"state_delay_s:={settings['delay_s']}",
                      "-p", f"command_delay_s:={settings['delay_s']}",
                      "-p", f"backend:={settings['engine']}"]  # fmt: skip
        self.line = [w.format(**settings) for w in (*DELAYED, *line)]
        super().__init__(self.dead)

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        super().__exit__(*error)

    def dead(self) -> str:
        """Processes that ended by themselves, and what they said last."""
        ended = {n: p.poll() for n, p in self.processes.items()}
        return "; ".join(
            f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()[-500:]}"
            for name, code in ended.items()
            if code is not None and code != -signal.SIGKILL
        )

    def begin(self, *names: str) -> None:
        for name in names:
            words = [*self.words, *(self.line if name == "twin" else ())]
            with (self.folder / f"{name}.log").open("a") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", MODULES[name], "--ros-args", *words], stdout=log, stderr=log
                )

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes.pop(name).wait()

    def home(self) -> None:
        """It lands, and is put where it began, as new."""
        if self.state == "emergency":
            self.put(np.zeros(3))
            self.demand("guard/reset")
        self.land()
        self.put(np.zeros(3))

    def crashed(self) -> bool:
        low = any(t.position[2] < CRASH_M for t in self.heard.truth)
        return low or self.state == "emergency" or max(self.tilts(), default=0.0) > TILTED_RAD


def eight(folder: Path, settings: Settings) -> str:
    times, run = int(settings["times"] or 5), run_of(folder, settings)
    errors = []
    with Stack(folder, run, settings) as stack, Display(times, "figure-eights") as display:
        stack.begin("twin", "guard", "policy")
        stack.await_all()
        stack.take_off()
        for k in range(times):
            stack.start()
            stack.stay(ROUND_S + 1.0)
            errors.append(stack.errors(SETTLED_S))
            stack.demand("policy/stop")
            stack.stay(2.0)
            display.update(k + 1, {"rmse_m": rms(errors[-1])})
        stack.land()
        counts = dict(stack.counts)
    rounds = [rms(e) for e in errors]
    mine = rms(np.concatenate(errors))
    rows = [("through ROS 2", f"{mine:.4f}", f"{min(rounds):.4f} to {max(rounds):.4f}", "1")]
    for label, engine, drawn in (("SimEnv, nominal vehicle", settings["engine"], False),
                                 ("SimEnv, as in training", settings["engine"], True)):  # fmt: skip
        theirs = simulated(run, engine, drawn)
        rows.append((label, f"{theirs:.4f}", "", f"{mine / theirs:.2f}"))
    lines = ["| figure-eight | RMSE, m | of the rounds | ROS 2 / this |", "|---|---|---|---|"]
    told = ", ".join(f"{k} {n}" for k, n in counts.items() if n and k.startswith("guard"))
    return "\n".join([*lines, *(f"| {' | '.join(r)} |" for r in rows), "", f"{len(rounds)} rounds; counted: {told}."])


def simulated(run: str, engine: str, drawn: bool, episodes: int = 64) -> float:
    """RMSE of the settled part of figure-eights in SimEnv; `drawn`: vehicles, disturbances and noise as in training."""
    _world.discover()
    _, packed = runs.load_bundle(run)
    task = config.entry("task", "crazyflie_track").config()
    task.trajectory, task.period_s = "figure_eight", PERIOD_S
    if not drawn:
        task.randomize = type(task.randomize)(observation_noise=task.randomize.observation_noise)
    cfg = config.entry("backend", engine).config()
    env = _world.make_env(task, cfg, episodes, "cpu", 0)
    obs, _ = env.reset()
    packed.policy.reset(torch.ones(episodes, dtype=torch.bool))
    results: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for _ in range(env.max_episode_length):
            obs, _, terminated, truncated, extras = env.step(packed.policy.act(obs))
            for row in (terminated | truncated).nonzero().flatten().tolist():
                results.setdefault(str(row), extras["episode"]["steady_error_m"][row].clone())
    env.close()
    return float(torch.stack(list(results.values())).square().mean().sqrt())


def losses(folder: Path, settings: Settings) -> str:
    times, run, crashes, errors, lost = int(settings["times"] or 50), run_of(folder, settings), 0, [], 0
    with Stack(folder, run, settings, LOSSY) as stack, Display(times, "flights") as display:
        stack.begin("twin", "guard", "policy")
        stack.await_all()
        for k in range(times):
            stack.take_off()
            stack.start()
            stack.stay(ROUND_S)
            crashes += stack.crashed()
            lost += stack.owner != "policy"
            errors.append(rms(stack.errors(SETTLED_S)) if stack.owner == "policy" else math.nan)
            stack.demand("policy/stop")
            stack.stay(1.0)
            stack.home()
            display.update(k + 1, {"crashes": crashes, "rmse_m": errors[-1]})
    return (
        f"{times} flights with 5 % loss, 10 ms of jitter and {1e3 * float(settings['delay_s']):g} ms of delay: "
        f"{crashes} crashes; in {lost} the policy had lost authority before the end; RMSE of the others "
        f"{np.nanmedian(errors):.4f} m at the median, {np.nanmax(errors):.4f} m at most."
    )


def killed(folder: Path, settings: Settings) -> str:
    times, run, rng = int(settings["times"] or 50), run_of(folder, settings), np.random.default_rng(0)
    outside, crashes, unflown, far, settled = 0, 0, 0, [], []
    with Stack(folder, run, settings) as stack, Display(times, "kills") as display:
        stack.begin("twin", "guard")
        fence = fence_of()
        stack.wait(lambda: stack.state, "the guard's first state")
        for k in range(times):
            stack.take_off()
            stack.begin("policy")
            stack.call("policy/stop")
            try:
                stack.start()
            except TrialError:  # the guard had the vehicle land before, mostly because the machine stood still
                unflown += 1
                stack.kill("policy")
                stack.home()
                stack.stay(8.0)
                continue
            stack.stay(float(rng.uniform(RAMP_S, RAMP_S + PERIOD_S)))
            stack.clear()
            stack.kill("policy")
            stack.wait(lambda: stack.owner == "", "the guard has noticed", 5.0)
            stack.stay(3.0)
            place = np.stack([t.position for t in stack.heard.truth])
            outside += bool(((place < fence[0]) | (place > fence[1])).any())
            crashes += stack.crashed()
            far.append(float(np.linalg.norm(place - place[0], axis=1).max()))
            settled.append(float(np.linalg.norm(stack.heard.truth[-1].velocity)))
            display.update(k + 1, {"outside": outside, "crashes": crashes, "far_m": far[-1]})
            stack.home()
            stack.stay(8.0)  # until the graph has forgotten the killed one
    return (
        f"kill -9 of the policy in flight, {len(far)} times ({unflown} not flown): outside the fence {outside} times, "
        f"crashed {crashes} times; {np.median(far):.2f} m from the place of the kill at the median, {max(far):.2f} m "
        f"at most; 3 s later it moves at {max(settled):.2f} m/s at most."
    )


def fence_of() -> tuple[Any, Any]:
    import yaml

    limits = yaml.safe_load((share_dir() / SITE).read_text())["/**"]["ros__parameters"]["limits"]
    return np.array(limits["fence_lower_m"]), np.array(limits["fence_upper_m"])


def run_of(folder: Path, settings: Settings) -> str:
    """The run that is named, or a bundle of the geometric controller."""
    if settings["run"]:
        return settings["run"]
    _world.discover()
    env = _world.make_env(config.entry("task", "crazyflie_track").config(),
                          config.entry("backend", "quadrotor").config(), 1, "cpu", 0)  # fmt: skip
    policy = GeometricPolicy(env.policy_spec(), config_of(env.robot.quadrotor))
    bundle.save(folder / "geometric", bundle.Bundle(policy, env.robot))
    env.close()
    return str(folder / "geometric")


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


PARTS = {"eight": eight, "losses": losses, "killed": killed}


def main(words: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = dict(word.split("=", 1) for word in words if "=" in word)
    parts = [word for word in words if "=" not in word] or list(PARTS)
    wrong = [*(given.keys() - SETTINGS.keys()), *(set(parts) - PARTS.keys())]
    if wrong:
        raise SystemExit(f"error: no '{wrong[0]}'; there are {', '.join([*PARTS, *(f'{k}=' for k in SETTINGS)])}")
    settings = SETTINGS | given
    number = int(settings["domain"]) if settings["domain"] else None
    with tempfile.TemporaryDirectory() as name, own_domain(number):
        for part in parts:
            try:
                print(PARTS[part](Path(name), settings) + "\n", flush=True)
            except TrialError as error:
                said = Path(name) / "guard.log"
                last = said.read_text().splitlines()[-5:] if said.is_file() else []
                raise SystemExit("\n".join([f"error: {part}: {error}; the guard said last:", *last])) from None


if __name__ == "__main__":
    main(sys.argv[1:])
