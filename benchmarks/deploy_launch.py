"""`launch` of benchmarks.deploy: from `robolearn launch deploy` to the first guarded command, and where the time goes.

The policy starts by itself; its goal is on the topic before. All times are from before the launcher was started, on
this process's clock; a node's "built" is the stamp of the line that it logs when it is. The second table is of the
nodes alone, without the launcher, one at a time and all together.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.deploy_stack import GOAL, SIGNS, Stack, median
from real.listener import TrialError

STARTED = re.compile(r"\[launch\] \[(\w+)\] started")
LOGGED = re.compile(r"\[INFO\] \[(\d+\.\d+)\] \[(\w+)\]: (.*)")
FIRST = "first that follows the policy"
"""The guard says that it is active in the tick of that command, after it."""
WITHIN_S = 5.0
Note = Callable[[str, int], None]


def launch(folder: Path, run: str, times: int, note: Note) -> str:
    found = []
    for k in range(times):
        found.append(one(folder, run))
        note("robolearn launch deploy", k + 1)
    lines = ["| seconds after the start of the launcher | median | max |", "|---|---|---|"]
    for event in sorted(found[0], key=lambda e: median([f[e] for f in found])):
        values = [f[event] for f in found]
        lines.append(f"| {event} | {median(values):.2f} | {max(values):.2f} |")
    worst = max(f[FIRST] for f in found)
    lines.append(f"\n{times} times; target {WITHIN_S:g} s: {'met' if worst <= WITHIN_S else 'missed'}\n")
    return "\n".join([*lines, starts(folder, run, times, note)])


def one(folder: Path, run: str) -> dict[str, float]:
    """Seconds from the start of the launcher to each event."""
    lines = list[tuple[float, str]]()
    with Stack(folder, run) as stack:
        stack.set_goal("goal", GOAL["goal"])
        stack.stay(0.5)
        words = ["launch", "deploy", "twin:=true", "start:=true", f"run:={run}"]
        clock_s, began_s = time.time(), time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "robolearn.cli.main", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        try:
            stack.wait(lambda: stack.state == "active" or process.poll() is not None, "the guard follows the policy")
            stack.stay(0.2)  # for the lines that are still on their way
        except TrialError as error:
            raise TrialError(f"{error}\n{''.join(line for _, line in lines)}") from None
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30.0)
    heard, active = stack.heard, [at_s for at_s, state in stack.heard.states if state == "active"]
    if not active:
        raise TrialError("robolearn launch ended: " + "".join(line for _, line in lines))
    first = {"first joint state": heard.joints[0].at_s, "first proposal": heard.proposals[0].at_s,
             "first command of the guard": heard.targets[0].at_s, FIRST: active[0]}  # fmt: skip
    return events(lines, clock_s) | {name: at_s - began_s for name, at_s in first.items()}


def events(lines: list[tuple[float, str]], clock_s: float) -> dict[str, float]:
    """What the launch printed, (time of the clock, line) each, as seconds since `clock_s`."""
    found: dict[str, float] = {}
    for time_s, line in lines:
        if match := STARTED.search(line):
            found[f"{match[1]} started"] = time_s - clock_s
        elif match := LOGGED.search(line):
            stamp_s, name, text = float(match[1]) - clock_s, match[2], match[3]
            if name in SIGNS and SIGNS[name] in text:
                found[f"{name} built"] = stamp_s
            elif "policy has authority" in text:
                found["authority granted"] = stamp_s
    return found


def _read(pipe: Any, lines: list[tuple[float, str]]) -> None:
    for line in pipe:
        lines.append((time.time(), line))


# --- the nodes alone -----------------------------------------------------------------------------------------


def starts(folder: Path, run: str, times: int, note: Note) -> str:
    lines = ["| node | imports, s | joining the domain, s | building, s | all, s | all, s, three at once |"]
    lines.append("|---|---|---|---|---|---|")
    alone: dict[str, list[list[float]]] = {name: [] for name in SIGNS}
    together: dict[str, list[float]] = {name: [] for name in SIGNS}
    for k in range(times):
        for name in SIGNS:
            alone[name].append(_parts(_begin(name, run)))
        for name, begun in [(name, _begin(name, run)) for name in SIGNS]:
            together[name].append(sum(_parts(begun)))
        note("nodes alone", k + 1)
    for name, rows in alone.items():
        parts = [median([row[i] for row in rows]) for i in range(3)]
        cells = [*parts, median([sum(row) for row in rows]), median(together[name])]
        lines.append(f"| {name} | {' | '.join(f'{c:.2f}' for c in cells)} |")
    return "\n".join(lines)


def _begin(name: str, run: str) -> tuple[float, subprocess.Popen[str]]:
    words = ["--ros-args", "-p", "robot:=franka", "-p", f"run:={run}"]
    command = [sys.executable, "-m", "benchmarks.deploy_nodes", "start", name, *words]
    return time.time(), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _parts(begun: tuple[float, subprocess.Popen[str]]) -> list[float]:
    """Seconds until it was imported, from there until ROS was up, from there until it was built."""
    began_s, process = begun
    assert process.stdout is not None
    imported, joined, built = json.loads(process.stdout.readline())
    process.kill()
    process.communicate()
    return [imported - began_s, joined - imported, built - joined]
