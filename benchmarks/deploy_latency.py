"""`latency` of benchmarks.deploy: from the stamp of a state to the first guarded command that uses what the policy
proposed from it, by the guard's own measure (it ends when the command and its copy on guard/target have been written);
and the policy's period, from tick to tick, by its own."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.deploy_stack import GOAL, Stack
from real.listener import TrialError

POLICY_HZ, STATE_HZ = 100.0, 1000.0
SETTLE_S = 2.0
"""After the start; what was measured before is left out."""
NODES = ("twin", "guard", "policy")


def latency(folder: Path, run: str, seconds: float) -> str:
    """`run` is a bundle at POLICY_HZ."""
    recorded = ("benchmarks.deploy_nodes", "record", "{}")
    with Stack(folder, run) as stack:
        stack.start("twin", words=["-p", f"rate_hz:={STATE_HZ}"])
        for name in ("guard", "policy"):
            stack.start(name, module=recorded, words=["-p", f"record:={folder / name}.json"])
        stack.begin(stack.rest, GOAL)
        time.sleep(SETTLE_S)  # and listens to nothing, which would take a third of a core
        before = {name: cpu_s(stack.processes[name].pid) for name in NODES}
        time.sleep(seconds)
        share = {name: (cpu_s(stack.processes[name].pid) - before[name]) / seconds for name in NODES}
        stack.stay(0.5)
        if stack.state != "active":
            raise TrialError(f"the guard did not follow the policy to the end: it is {stack.state}")
        stack.end("policy", "guard")
    found = {k: v for name in ("guard", "policy") for k, v in json.loads((folder / f"{name}.json").read_text()).items()}
    return table(found, share)


def table(found: dict[str, list[float]], share: dict[str, float]) -> str:
    """`found`: seconds, by the nodes' names for them."""
    first = round(SETTLE_S * POLICY_HZ)
    off = [abs(period - 1.0 / POLICY_HZ) for period in found["periods"]]
    rows = {
        "state stamp -> guarded command": (found["latency"], (2.0, 5.0)),
        f"policy's period, from {1e3 / POLICY_HZ:g}": (off, (None, 1.0)),
        "age of the state that it observes": (found["ages"], (None, None)),
        "its tick, with inference": (found["thinking"], (None, None)),
    }  # fmt: skip
    lines = ["| ms | n | p50 | target | p99 | target | max |", "|---|---|---|---|---|---|---|"]
    for name, (values, targets) in rows.items():
        ms = 1e3 * np.array(values[first:])
        cells = [
            f"{np.percentile(ms, q):.2f} | {'' if target is None else f'<= {target:g}'}"
            for q, target in zip((50, 99), targets, strict=True)
        ]
        lines.append(f"| {name} | {len(ms)} | {' | '.join(cells)} | {ms.max():.2f} |")
    cores = ", ".join(f"{name} {100 * s:.0f} %" for name, s in share.items())
    return "\n".join([*lines, "", f"CPU, of a core: {cores}."])


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
