"""Where a quadrotor's policy is to be: a place that hovers, or a trajectory through it, as the commands that its
observation names."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robolearn import trajectories
from robolearn.errors import ConfigError, unknown
from robolearn.spec import ObservationSpec, QuadrotorSpec
from robolearn.state import SceneState
from robolearn.trajectories import Eased, Harmonics

KINDS = ("hover", "figure_eight", "circle")
RAMP_S = 3.0
"""A trajectory starts at rest, and is as fast as it is to be after that."""
GOAL_TERMS = ("position_error", "velocity_error", "acceleration")


class FlightGoals:
    """Set `begin` when an episode starts, `place` whenever it shall be somewhere else."""

    def __init__(self, spec: ObservationSpec, kind: str, size_m: float, period_s: float, vehicle: QuadrotorSpec,
                 tilt_rad: float):  # fmt: skip
        """`size_m`: half the length of a figure-eight, the radius of a circle; `period_s` below 0: the other way round.
        Raises ConfigError for a trajectory that the vehicle cannot fly."""
        if kind not in KINDS:
            raise ConfigError(unknown("trajectory", kind, list(KINDS)))
        if not (0.0 < size_m < math.inf and 0.0 < abs(period_s) < math.inf):
            raise ConfigError(f"size_m must be above 0 and period_s not 0, both finite, got {size_m} and {period_s}")
        terms = spec.terms("policy")
        self._goals = sorted({t.params["command"] for t in terms if t.function in GOAL_TERMS})
        self._previews = {t.params["command"]: t for t in terms if t.function == "preview"}
        self._path = _path(kind, size_m, period_s)
        if self._path is not None:
            rows = trajectories.table(self._path, 400, abs(period_s) / 400.0)
            rows[:, 2] += 1.0
            trajectories.require_feasible(rows, vehicle, tilt_rad, kind)
        self._origin, self._began_s = torch.zeros(3), 0.0
        self.known = False

    def begin(self, now_s: float, position: Tensor | None = None) -> None:
        """The trajectory starts now; at (3,) m, if that is given."""
        self._began_s = now_s
        if position is not None:
            self.place(position)

    def place(self, position: Tensor) -> None:
        """It is (or goes through) here: (3,) m."""
        self._origin, self.known = position.float(), True

    def at(self, times_s: Tensor) -> Tensor:
        """Position, velocity and acceleration (n, 9) at times (n,), on the clock of `begin`."""
        if self._path is None:
            return torch.cat((self._origin, torch.zeros(6))).expand(len(times_s), 9)
        since = (times_s - self._began_s).clamp_min(0.0)
        rows = Eased(self._path, RAMP_S)(since.float())
        return rows + torch.cat((self._origin - self._path(torch.zeros(1))[0, :3], torch.zeros(6)))

    def scene(self, now_s: float) -> SceneState:
        now = torch.tensor([now_s], dtype=torch.float64)
        commands = {name: self.at(now) for name in self._goals}
        for name, term in self._previews.items():
            steps = torch.arange(1, term.field.size // 3 + 1, dtype=torch.float64) * term.params.get("step_s", 0.1)
            commands[name] = self.at(now + steps)[:, :3].reshape(1, -1)
        return SceneState(commands=commands)


def _path(kind: str, size_m: float, period_s: float) -> Harmonics | None:
    centre = torch.zeros(3)
    if kind == "figure_eight":
        return trajectories.figure_eight(centre, 2.0 * size_m, size_m, period_s)
    return trajectories.circle(centre, size_m, period_s) if kind == "circle" else None
