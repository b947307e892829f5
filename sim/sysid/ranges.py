"""What was identified, as randomisation: the intervals are the ranges."""

from __future__ import annotations

import math
from typing import Any

from robolearn.spec import QuadrotorSpec, RobotSpec
from sim.randomize import ABSENT_AT_ZERO, PARAMS
from sim.scene import ADDED
from sim.sysid.fit import Fit

LEAST = 1e-3
"""Of a scale that must not be zero."""


def randomize(fit: Fit, spec: RobotSpec, step_dt_s: float, attitude: bool = False) -> dict[str, Any]:
    """Values for `task.randomize` at this control period; `attitude`: a quadrotor's firmware was commanded. What was
    not identifiable is left out: it stays as the experiment has it."""
    known = [e for e in fit.estimates if e.identifiable]
    out: dict[str, Any] = {}
    for e in known:
        if e.parameter.name in PARAMS:
            zero = e.parameter.name in (*ABSENT_AT_ZERO, *ADDED)
            out[e.parameter.name] = [_short(max(e.low, 0.0 if zero else LEAST)), _short(e.high)]
    trims = [max(abs(e.low), abs(e.high)) for e in known if e.parameter.name.startswith("trim.")]
    if trims:
        out["actuator_trim"] = _short(math.sqrt(sum(t * t for t in trims) / len(trims)))
    delays = [e for e in known if e.parameter.name == "delay_s"]
    if delays:
        out |= _delay(delays[0].low, delays[0].high, spec.quadrotor if attitude else None, step_dt_s)
    return out


def _delay(low: float, high: float, vehicle: QuadrotorSpec | None, step_dt_s: float) -> dict[str, Any]:
    """A firmware's link has a delay of its own; what it cannot hold, and all else, is in whole periods."""
    firmware = vehicle.firmware if vehicle else None
    if firmware and firmware.link_delay_s > 0.0 and high < step_dt_s:
        return {"link_delay": [_short(low / firmware.link_delay_s), _short(high / firmware.link_delay_s)]}
    return {"action_delay": [math.floor(low / step_dt_s + 1e-9), math.ceil(high / step_dt_s - 1e-9)]}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def words(values: dict[str, Any]) -> str:
    """For the command line."""
    return " ".join(f"task.randomize.{k}={str(v).replace(' ', '')}" for k, v in values.items())


def text(values: dict[str, Any], experiment: str, about: list[str]) -> str:
    """An experiment's YAML: another one with these ranges; without a name, the part that any experiment takes."""
    lines = [f"# {line}" for line in about]
    if experiment:
        lines = ["# @package _global_", *lines, "defaults:", f"  - {experiment}", "  - _self_", ""]
    lines += ["task:", "  randomize:" if values else "  randomize: {}", *(f"    {k}: {v}" for k, v in values.items())]
    return "\n".join(lines) + "\n"
