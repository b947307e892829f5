"""The demo's identification: a simulated robot that is not as specified is recorded in the second engine, and the
parameters that make the first one do the same are found from that log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.cli import _page, sysid
from robolearn.spec import RobotSpec

FILE, TRUE = "sysid/fit.json", "sysid/truth.json"
SECONDS, NOISE = 6.0, 0.1
"""Of the log, and its noise: of each signal's own standard deviation."""
ARM = {"delay_s": 0.02, "kp": 0.85, "kd": 1.2, "joint_damping": 1.0, "joint_friction": 0.8}
QUADROTOR = {"delay_s": 0.008, "mass": 1.1, "inertia": 1.4, "drag": 1.5, "spin_up": 0.8}
"""What is true of the recorded robot; the rest is as specified. Units and names are those of `robolearn sysid`."""


def possible(robot: RobotSpec) -> bool:
    """A quadrotor, or an arm that is commanded by positions."""
    return bool(robot.quadrotor) or any(robot.of("kp", robot.arm_joints))


def measure(path: Path, name: str, engine: str, seed: int) -> None:
    """Write what `robolearn sysid` writes of the named robot, and what is true, into the path's folder."""
    robot: RobotSpec = config.entry("robot", name).value
    folder, truth = path.parent, QUADROTOR if robot.quadrotor else ARM
    folder.mkdir(exist_ok=True)
    log, spec = folder / "log.npz", f"robot={robot.name}"
    words = [f"truth.{name}={value}" for name, value in truth.items()]
    sysid.main(
        [spec, f"record={log}", f"backend={engine}", f"seconds={SECONDS}", f"noise={NOISE}", f"seed={seed}", *words]
    )
    (folder / Path(TRUE).name).write_text(json.dumps(truth))
    weighed = [f"mass_kg={truth['mass'] * robot.quadrotor.mass_kg}"] if robot.quadrotor else []
    sysid.main([spec, f"log={log}", f"out={folder}", f"seed={seed}", *weighed])


def section(folder: Path, engine: str) -> str:
    """HTML; nothing where nothing was identified."""
    path = folder / FILE
    if not path.is_file():
        return ""
    from robolearn.cli import _sysid_report

    rows, truth = json.loads(path.read_text())["estimates"], json.loads((folder / TRUE).read_text())
    truth = {row["name"]: truth.get(row["name"], row["nominal"]) for row in rows if row["name"] != "delay_s"} | truth
    known = [row for row in rows if row["identifiable"]]
    inside = sum(row["low"] <= truth[row["name"]] <= row["high"] for row in known)
    cells = [_cells(row, truth[row["name"]]) for row in rows]
    told = (
        f"A robot that is not as specified was recorded in {engine}, with {NOISE:.0%} of noise; <code>robolearn sysid"
        f"</code> found what makes the other engine do the same. {inside} of {len(known)} true values lie in their "
        "intervals, which are to hold all of them in 95 of 100 logs."
    )
    return (
        f"<section><h2>Identified from a log</h2><p>{told}</p><figure>{_sysid_report.intervals(rows, truth)}"
        "<figcaption>Blue: estimate and interval; green: the true value; cross: as specified.</figcaption></figure>"
        + _page.table(("parameter", "unit", "true", "found", "from", "to"), cells)
        + f'<p class="soft small">The curves are in {folder.name}/sysid/report.html.</p></section>'
    )


def _cells(row: dict[str, Any], truth: float) -> tuple[str, ...]:
    found = (f"{row[k]:.4g}" for k in ("value", "low", "high")) if row["identifiable"] else ("not identifiable", "", "")
    return (row["name"], row["unit"], f"{truth:.4g}", *found)
