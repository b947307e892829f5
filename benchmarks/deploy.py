"""Deployment, measured on real processes over DDS: `python -m benchmarks.deploy [PART ...] [key=value ...]`.

- stops: what becomes of the arm when the policy is killed or frozen, the state topic stops, or proposals are NaN;
- watchdog: what the twin's driver does when the guard is killed;

The arm is the twin (MuJoCo), a Franka with its profile's own limits; guard and driver run at the profile's rates. The
policy is an MLP that keeps all joints moving, or `run=PATH`. `times=20` is how often, `domain=N` the DDS domain (a free
one is looked for).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import deploy_stack, deploy_stops

SETTINGS = {"times": "20", "run": "", "domain": ""}


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words if "=" in word)
    parts = [word for word in words if "=" not in word] or list(PARTS)
    wrong = [*(given.keys() - SETTINGS.keys()), *(set(parts) - PARTS.keys())]
    if wrong:
        raise SystemExit(f"error: no '{wrong[0]}'; there are {', '.join([*PARTS, *(f'{k}=' for k in SETTINGS)])}")
    settings = SETTINGS | given
    number = int(settings["domain"]) if settings["domain"] else None
    with tempfile.TemporaryDirectory() as name, deploy_stack.domain(number):
        folder = Path(name)
        for part in parts:
            print(PARTS[part](folder, settings), flush=True)


def stops(folder: Path, settings: dict[str, str]) -> str:
    run = settings["run"] or str(deploy_stack.restless(folder))
    return deploy_stops.stops(folder, run, int(settings["times"]), note)


def watchdog(folder: Path, settings: dict[str, str]) -> str:
    run = settings["run"] or str(deploy_stack.restless(folder))
    return deploy_stops.watchdog(folder, run, int(settings["times"]), note)


PARTS: dict[str, Callable[[Path, dict[str, str]], str]] = {"stops": stops, "watchdog": watchdog}


def note(what: str, done: int) -> None:
    """That something is under way, where a person watches."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done}\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
