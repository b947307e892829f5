"""A policy that learned with a person, alone through ROS 2.

`python -m benchmarks.hil_twin run=RUN [experiment=lift_hil] [episodes=100]`. Twin, guard (at 250 Hz, for two
processors), teleop node and a simulated person are processes; the policy acts through `RobotEnv`, as a HIL actor does,
but without exploring. The person puts the objects where the task draws them, says when an episode has succeeded or
failed by the task's own criterion, and does not help. What differs from `robolearn evaluate` are delays, the guard,
noise-free measurements, and a start in the default posture.
"""

from __future__ import annotations

import logging
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from real import ros
from real.domain import own_domain
from real.env import RobotEnv
from real.link import RobotError
from robolearn import config
from robolearn.cli import _world, hil
from robolearn.cli._hil_robot import robot_env
from robolearn.errors import UserError
from robolearn.loops.evaluate import wilson
from robolearn.loops.log import Display
from robolearn.paths import share_dir
from robolearn.policies.base import Policy

log = logging.getLogger(__name__)
CLI = (sys.executable, "-m", "robolearn.cli.main")
GUARD_HZ = 250.0
AGAIN, SKIP_S = 10, 2.0
"""Resets in a row that may fail, and between two."""


@contextmanager
def bench(folder: Path, experiment: str, task: str) -> Iterator[hil.HilCfg]:
    """All but the policy; configuration of its end."""
    site = folder / "site.yaml"
    facts = yaml.safe_load((share_dir() / "configs" / "site" / "franka.yaml").read_text())
    facts["/**"]["ros__parameters"]["command_rate_hz"] = GUARD_HZ
    site.write_text(yaml.safe_dump(facts))
    words = [f"experiment={experiment}", "data.path=", f"site={site}", "reset=person"]
    commands = {
        "nodes": ("launch", "teleop", "twin:=true", f"site:={site}", f"scene:={task}", "devices:=[joy]",
                  "speed_mps:=0.5", "turn_radps:=1.0"),
        "person": ("hil", "role=person", *words[:3], "person=late", "person.patience_s=1000"),
    }  # fmt: skip
    running = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("w") as out:
                running.append(subprocess.Popen([*CLI, *command], stdout=out, stderr=out))
        yield config.load(hil.HilCfg, words)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60.0)


def begin(env: RobotEnv) -> dict[str, torch.Tensor]:
    for tries in range(AGAIN):
        try:
            return env.reset()[0]
        except RobotError as error:
            log.info("no episode yet (%d): %s", tries + 1, error)
            env.listen(SKIP_S)
    raise SystemExit(f"error: {AGAIN} resets in a row have failed")


@torch.no_grad()
def episode(env: RobotEnv, policy: Policy) -> tuple[bool, int, str]:
    """Success, steps, and what the guard was doing at the end."""
    obs, over = begin(env), False
    while not over:
        obs, _, _, _, extras = env.step(policy.act(obs))
        over = extras["awaiting_reset"]
    return bool(extras["episode"]["success"]), int(extras["episode"]["length"]), str(extras["guard"])


def main(words: list[str]) -> None:
    given = {"run": "", "experiment": "lift_hil", "episodes": "100"} | dict(w.split("=", 1) for w in words if "=" in w)
    if not given["run"] or len(given) > 3 or not given["episodes"].isdecimal() or not int(given["episodes"]):
        raise SystemExit("error: run=RUN [experiment=lift_hil] [episodes=100]")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _world.discover()
    try:
        folder, cfg, packed = _world.load_run(given["run"], "", [])
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    count, found = int(given["episodes"]), list[tuple[bool, int, str]]()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as where,
        own_domain(None),
        bench(Path(where), given["experiment"], cfg.task.name) as made,
        robot_env(made, packed.spec, lambda: not ros.ok()) as env,
        Display(count, "through ROS 2") as shown,
    ):
        while len(found) < count:
            found.append(episode(env, packed.policy))
            shown.update(len(found), {"success": statistics.mean(f[0] for f in found)})
    good = sum(f[0] for f in found)
    low, high = wilson(good, count)
    steps = statistics.median(f[1] for f in found if f[0]) if good else float("nan")
    stopped = sum(f[2] not in ("active", "idle") for f in found)
    print(f"{folder}: {good} of {count} through ROS 2 ({100 * low:.1f} to {100 * high:.1f} %), {steps:g} steps a "
          f"success; in {stopped} episodes the guard stopped the arm")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
