"""What a quadrotor's guard can be doing, what leads from one of that to another, and what it tells the vehicle: see
`real.safety.flight`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from real.flight.state import Floats

State = Literal["grounded", "taking_off", "flying", "landing", "emergency"]
Event = Literal["takeoff", "found_flying", "risen", "land", "landed", "cut", "reset"]
STATES: tuple[State, ...] = ("grounded", "taking_off", "flying", "landing", "emergency")
TRANSITIONS: dict[tuple[State, Event], State] = {
    ("grounded", "takeoff"): "taking_off",
    ("grounded", "found_flying"): "flying",
    ("taking_off", "risen"): "flying",
    ("taking_off", "land"): "landing",
    ("flying", "land"): "landing",
    ("landing", "landed"): "grounded",
    ("emergency", "reset"): "grounded",
    **{(state, "cut"): "emergency" for state in STATES},
}
"""What is not here does not happen."""


@dataclass(frozen=True)
class Order:
    """A call of one of the vehicle's services."""

    service: Literal["arm", "disarm", "notify_setpoints_stop", "takeoff", "go_to", "land", "emergency"]
    goal_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of go_to; the third is the height of takeoff and land."""
    yaw_rad: float = 0.0
    duration_s: float = 0.0


@dataclass(frozen=True)
class FlightDecision:
    setpoint: Floats | None
    """In the order of SETPOINTS; None: nothing is sent."""
    orders: tuple[Order, ...]
    """To be called, each when the one before it has been answered."""
    state: State
    reasons: tuple[str, ...]
