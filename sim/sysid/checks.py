"""What a log must be before it is fitted: complete, in order, and in SI units. Each fault is one line with remedy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robolearn.errors import ConfigError
from robolearn.spec import QuadrotorSpec, RobotSpec
from sim.sysid.log import COLUMNS, Log, elements

SHORTEST_S = 2.0
GAP = 1.5
"""Periods."""
DEGREE = 57.3
CARRIED = 0.2
"""Of the weight, in the mean: less is no flight."""
FASTEST_MPS, FASTEST_YAW_RADPS = 100.0, 15.0


def checked(log: Log, spec: RobotSpec) -> Log:
    """The log at an even rate. ConfigError for what cannot be right."""
    _columns(log, spec)
    _finite(log)
    _time(log)
    (_flight_units if spec.quadrotor else _arm_units)(log, spec)
    return _even(log)


def _columns(log: Log, spec: RobotSpec) -> None:
    if log.time_s.ndim != 1:
        raise ConfigError(f"the log's time_s has the shape {log.time_s.shape}; give one number a row")
    unknown = sorted(set(log.columns) - set(COLUMNS))
    if unknown:
        raise ConfigError(f"the log's columns {', '.join(unknown)} are not known; there are {', '.join(COLUMNS)}")
    if spec.quadrotor:
        needed = ["position", "rotation", "velocity", "rates"]
        if ("attitude_command" in log.columns) == ("rotor_command" in log.columns):
            raise ConfigError("a quadrotor's log needs attitude_command or rotor_command, one of them")
    else:
        needed = ["joint_target", "joint_pos"]
        strange = [n for n in log.joints if n not in spec.joint_names]
        if strange or not log.joints:
            have = ", ".join(strange) or "no joints"
            raise ConfigError(f"the log has {have}; {spec.name}'s joints are {', '.join(spec.joint_names)}")
        missing = [n for n in spec.arm_joints if n not in log.joints]
        if missing:
            raise ConfigError(f"the log has no {', '.join(missing)}; record all joints of the arm of {spec.name}")
    lacking = [n for n in needed if n not in log.columns]
    if lacking:
        raise ConfigError(f"the log has no {', '.join(lacking)}; docs/sysid.md says what a log holds")
    for name, value in log.columns.items():
        shape = len(log.time_s), len(elements(log, name))
        if value.shape != shape:
            raise ConfigError(f"the log's {name} has the shape {value.shape}; with its rows and elements it is {shape}")


def _finite(log: Log) -> None:
    for name, value in {"time_s": log.time_s, **log.columns}.items():
        wrong = ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            raise ConfigError(
                f"the log's {name} is not a number in {wrong.sum()} rows, first in row {row}; cut them off"
            )


def _time(log: Log) -> None:
    if len(log.time_s) < 10:
        raise ConfigError(f"the log has {len(log.time_s)} rows; at least {SHORTEST_S:g} s of motion are needed")
    steps = np.diff(log.time_s)
    if (steps <= 0.0).any():
        row = int((steps <= 0.0).argmax()) + 1
        raise ConfigError(f"the log's time_s does not increase at row {row} ({log.time_s[row]:g}); sort or cut it")
    period = log.period_s
    if period > 0.2:
        guess = "milliseconds" if period < 1e3 else "microseconds or nanoseconds"
        raise ConfigError(f"the log's time_s goes by {period:g} a row, which looks like {guess}; give seconds")
    wide = steps > GAP * period
    if wide.any():
        row = int(wide.argmax())
        raise ConfigError(
            f"the log has {wide.sum()} gaps in time, the first of {steps[row]:.3g} s after {log.time_s[row]:.3f} s "
            f"(its period is {period:.3g} s); record again or cut the log at the gap"
        )
    length = float(log.time_s[-1] - log.time_s[0])
    if length < SHORTEST_S:
        raise ConfigError(f"the log lasts {length:.2f} s; at least {SHORTEST_S:g} s of motion are needed")


def _arm_units(log: Log, spec: RobotSpec) -> None:
    low, high = (np.array(spec.of(side, log.joints)) for side in ("lower", "upper"))
    for name in ("joint_target", "joint_pos"):
        value = log.columns[name]
        beyond = np.maximum(low - value, value - high).max(axis=0)
        worst = int(beyond.argmax())
        if beyond[worst] > 0.3:
            fits = bool((np.maximum(low - value / DEGREE, value / DEGREE - high) < 0.3).all())
            hint = "it looks like degrees, give rad" if fits else "give rad, in the order of the joints"
            raise ConfigError(
                f"the log's {name} of {log.joints[worst]} is up to {beyond[worst]:.3g} rad beyond its limits "
                f"[{low[worst]:g}, {high[worst]:g}]; {hint}"
            )
    if not np.ptp(log.columns["joint_pos"], axis=0).any():
        raise ConfigError("the log's joint_pos never changes; record while the robot moves, with sensors that report")
    if "joint_effort" in log.columns:
        _effort_units(log, spec)
    if "joint_vel" in log.columns:
        _same_rate(log, "joint_vel", np.gradient(log.columns["joint_pos"], log.time_s, axis=0), 0.3)


def _effort_units(log: Log, spec: RobotSpec) -> None:
    limit = np.array(spec.of("effort_limit", log.joints))
    most = np.abs(log.columns["joint_effort"]).max(axis=0)
    worst = int((most - 2.0 * limit).argmax())
    if most[worst] > 2.0 * limit[worst] > 0.0:
        raise ConfigError(
            f"the log's joint_effort of {log.joints[worst]} goes to {most[worst]:.4g}, its limit is {limit[worst]:g} "
            "N m; is it in N mm or per cent? give N m"
        )


def _flight_units(log: Log, spec: RobotSpec) -> None:
    vehicle, columns = spec.quadrotor, log.columns
    assert vehicle is not None
    norms = np.linalg.norm(columns["rotation"], axis=1)
    if np.abs(norms - 1.0).max() > 0.05:
        raise ConfigError(f"the log's rotation has a norm of {norms.max():.3g}; give unit quaternions x, y, z, w")
    if "rotor_command" in columns:
        _rotor_units(columns["rotor_command"], vehicle)
    else:
        _attitude_units(columns["attitude_command"], vehicle)
    fastest = np.abs(columns["velocity"]).max()
    if fastest > FASTEST_MPS:
        raise ConfigError(f"the log's velocity goes to {fastest:.4g} m/s; is it in millimetres? give SI units")
    _same_rate(log, "velocity", np.gradient(columns["position"], log.time_s, axis=0), 0.2)
    turn = np.gradient(np.unwrap(_heading(columns["rotation"])), log.time_s)[:, None]
    _same_rate(replace(log, columns={"rates": columns["rates"][:, 2:]}), "rates", turn, 0.5)


def _rotor_units(command: np.ndarray, vehicle: QuadrotorSpec) -> None:
    if command.max() > 1.5 * vehicle.max_speed_radps:
        raise ConfigError(
            f"the log's rotor_command goes to {command.max():.4g}, full speed is {vehicle.max_speed_radps:.4g} rad/s; "
            "it looks like rpm or counts, give rad/s"
        )
    if command.mean() < CARRIED**0.5 * vehicle.hover_speed_radps:
        raise ConfigError(
            f"the log's rotor_command is {command.mean():.4g} in the mean, which cannot carry the vehicle; give rad/s "
            f"(hovering takes {vehicle.hover_speed_radps:.4g}), and cut off what is not flight"
        )


def _attitude_units(command: np.ndarray, vehicle: QuadrotorSpec) -> None:
    angle, turn, thrust = np.abs(command[:, :2]).max(), np.abs(command[:, 2]).max(), command[:, 3]
    if angle > np.pi / 2:
        raise ConfigError(f"the log's attitude_command has roll or pitch of {angle:.3g}; give rad, not degrees")
    if turn > FASTEST_YAW_RADPS:
        raise ConfigError(f"the log's attitude_command has a yaw rate of {turn:.3g}; give rad/s, not degrees")
    if thrust.max() > 2.0 * vehicle.full_thrust_n:
        raise ConfigError(
            f"the log's attitude_command has a thrust of {thrust.max():.4g}, all rotors give "
            f"{vehicle.full_thrust_n:.3g} N; it looks like motor counts, give N"
        )
    if thrust.mean() < CARRIED * 9.81 * vehicle.mass_kg:
        raise ConfigError("the log's thrust cannot carry the vehicle; give N, and cut off what is not flight")


def _heading(q: np.ndarray) -> np.ndarray:
    x, y, z, w = q.T
    return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def _same_rate(log: Log, name: str, derivative: np.ndarray, least: float) -> None:
    """The measured rate is the derivative of what it is the rate of: their ratio, by regression, with three standard
    errors. `least`: deviation below which nothing moves, where nothing can be said."""
    rate = log.columns[name] - log.columns[name].mean(axis=0)
    slope = float((rate * derivative).sum() / max((rate**2).sum(), 1e-12))
    error = float(np.sqrt(((derivative - derivative.mean(0) - slope * rate) ** 2).mean() / max((rate**2).sum(), 1e-12)))
    if rate.std() <= least:
        return
    if slope + 3.0 * error < 0.2 and slope < 5e-4:
        raise ConfigError(
            f"the log's {name} does not go with what the positions change by; check signs and frames (quaternions are "
            "x, y, z, w, body to world)"
        )
    if slope - 3.0 * error > 5.0:
        raise ConfigError(
            f"the log's positions change by {slope:.0f} times its {name}; are they in degrees or millimetres? give SI "
            "units"
        )
    if slope + 3.0 * error < 0.2:
        raise ConfigError(
            f"the log's {name} is {1 / max(slope, 1e-3):.0f} times what the positions change by; is it in degrees or "
            "millimetres? give SI units"
        )


def _even(log: Log) -> Log:
    """At its median period: linear in between, quaternions normalised."""
    period = log.period_s
    if np.abs(np.diff(log.time_s) / period - 1.0).max() < 0.02:
        return log
    count = int((log.time_s[-1] - log.time_s[0]) / period + 1e-6) + 1
    time = log.time_s[0] + period * np.arange(count)
    columns = {}
    for name, value in log.columns.items():
        if name == "rotation":
            flips = np.cumprod(np.where((value[1:] * value[:-1]).sum(1) < 0.0, -1.0, 1.0))
            value = value * np.concatenate(([1.0], flips))[:, None]
        columns[name] = np.stack([np.interp(time, log.time_s, v) for v in value.T], axis=1)
    if "rotation" in columns:
        columns["rotation"] = columns["rotation"] / np.linalg.norm(columns["rotation"], axis=1, keepdims=True)
    return replace(log, time_s=time, columns=columns)
