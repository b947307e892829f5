"""Deployment, measured on real processes over DDS: `python -m benchmarks.deploy [PART ...] [key=value ...]`.

- stops: what becomes of the arm when the policy is killed or frozen, the state topic stops, or proposals are NaN;
- watchdog: what the twin's driver does when the guard is killed;
- latency: state to guarded command with a policy at 100 Hz, its jitter, and the processor time of each node;
- launch: from `robolearn launch deploy` to the first guarded command, and where that time goes;
- success: a trained policy through ROS 2 and straight in the simulator, in pairs; takes `run=PATH`.

The arm is the twin (MuJoCo), a Franka with its profile's own limits; the guard runs at the profile's rate (success: at
`guard_hz=`, if that is given). The policy is an MLP that swings all joints, or `run=PATH`. `times=20` is how often
(launch: 5), `seconds=30` the length of latency, `episodes=500` those of success (3.3 s each; `domains=2` does them side
by side and takes three cores: where there are fewer the guard stalls, and stops the arm), `domain=N` the DDS domain of
the others (a free one is looked for).
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import deploy_latency, deploy_launch, deploy_stack, deploy_stops, deploy_success
from real.domain import own_domain
from robolearn import bundle, runs

SETTINGS = {"times": "", "run": "", "domain": "", "seconds": "30", "episodes": "500", "domains": "1", "guard_hz": "0"}
Settings = dict[str, str]


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
            print(PARTS[part](Path(name), settings) + "\n", flush=True)


def policy_of(folder: Path, settings: Settings) -> str:
    return settings["run"] or str(deploy_stack.restless(folder))


def stops(folder: Path, settings: Settings) -> str:
    return deploy_stops.stops(folder, policy_of(folder, settings), int(settings["times"] or 20), note)


def watchdog(folder: Path, settings: Settings) -> str:
    return deploy_stops.watchdog(folder, policy_of(folder, settings), int(settings["times"] or 20), note)


def latency(folder: Path, settings: Settings) -> str:
    """A trained policy runs at the measurement's rate too: what it does then is not what it learned."""
    rate_hz = deploy_latency.POLICY_HZ
    if not settings["run"]:
        return deploy_latency.latency(folder, str(deploy_stack.restless(folder, rate_hz)), float(settings["seconds"]))
    packed = runs.load_bundle(settings["run"])[1]
    packed.policy.spec = replace(packed.policy.spec, rate_hz=rate_hz)
    return deploy_latency.latency(folder, str(bundle.save(folder / "fast.zip", packed)), float(settings["seconds"]))


def launch(folder: Path, settings: Settings) -> str:
    return deploy_launch.launch(folder, policy_of(folder, settings), int(settings["times"] or 5), note)


def success(folder: Path, settings: Settings) -> str:
    if not settings["run"]:
        raise SystemExit("error: success needs run=PATH of a trained policy")
    return deploy_success.success(folder, settings["run"], int(settings["episodes"]), int(settings["domains"]),
                                  float(settings["guard_hz"]))  # fmt: skip


PARTS: dict[str, Callable[[Path, Settings], str]] = {
    "stops": stops, "watchdog": watchdog, "latency": latency, "launch": launch, "success": success,
}  # fmt: skip


def note(what: str, done: int) -> None:
    """That something is under way, where a person watches."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done}\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
