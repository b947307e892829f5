"""What a quadrotor's policy is told to be: a place, or a trajectory from where it is."""

import math

import pytest
import torch

from real.flight.goals import RAMP_S, FlightGoals
from robolearn.errors import ConfigError
from robolearn.robots.crazyflie import CRAZYFLIE
from robolearn.spec import Field, ObservationSpec, TermSpec

TERMS = (
    TermSpec(Field("position_error", (3,)), "position_error", {"command": "goal"}),
    TermSpec(Field("ahead", (6,)), "preview", {"command": "ahead", "step_s": 0.2}),
)
SPEC = ObservationSpec({"policy": TERMS})


def goals(kind, size_m=1.0, period_s=5.5):
    return FlightGoals(SPEC, kind, size_m, period_s, CRAZYFLIE.quadrotor, 0.6)


def test_hovering_is_a_place_that_can_be_moved():
    one = goals("hover")
    one.begin(100.0, torch.tensor([1.0, 2.0, 1.0]))
    scene = one.scene(105.0)
    assert scene.commands["goal"].tolist() == [[1.0, 2.0, 1.0, *[0.0] * 6]]
    assert scene.commands["ahead"].tolist() == [[1.0, 2.0, 1.0, 1.0, 2.0, 1.0]]
    one.place(torch.tensor([0.0, 0.0, 1.5]))
    assert one.scene(106.0).commands["goal"][0, :3].tolist() == [0.0, 0.0, 1.5]


@pytest.mark.parametrize("kind", ["figure_eight", "circle"])
def test_a_trajectory_starts_where_it_begins_at_rest(kind):
    one = goals(kind, 0.8)
    one.begin(1e9, torch.tensor([1.0, 2.0, 1.0]))
    start = one.at(torch.tensor([1e9], dtype=torch.float64))[0]
    assert start[:3].tolist() == pytest.approx([1.0, 2.0, 1.0], abs=1e-6) and not start[3:].any()


def test_what_is_ahead_is_the_goal_of_then():
    one = goals("figure_eight")
    one.begin(1e9, torch.zeros(3))
    now = 1e9 + 4.0
    ahead = one.scene(now).commands["ahead"].reshape(2, 3)
    for k, row in enumerate(ahead, start=1):
        assert torch.allclose(row, one.scene(now + 0.2 * k).commands["goal"][0, :3], atol=1e-4)


def test_a_round_of_the_figure_eight_takes_its_period():
    one = goals("figure_eight", 1.0, 5.5)
    one.begin(0.0, torch.zeros(3))
    times = torch.tensor([RAMP_S / 2 + 5.5, RAMP_S / 2 + 11.0], dtype=torch.float64)  # the ramp costs half of it
    assert torch.allclose(one.at(times)[:, :3], torch.zeros(2, 3), atol=1e-4)
    quarter = one.at(torch.tensor([RAMP_S / 2 + 1.25 * 5.5], dtype=torch.float64))[0]
    assert quarter[:2].tolist() == pytest.approx([1.0, 0.0], abs=1e-3)


@pytest.mark.parametrize(
    ("size_m", "period_s"), [(math.nan, 5.5), (0.0, 5.5), (math.inf, 5.5), (1.0, 0.0), (1.0, math.nan), (1.0, math.inf)]
)
def test_a_size_or_a_period_that_is_none_is_refused(size_m, period_s):
    with pytest.raises(ConfigError, match="size_m must be above 0"):
        goals("circle", size_m, period_s)


def test_a_trajectory_that_it_cannot_fly_is_refused():
    with pytest.raises(ConfigError, match="slower"):
        goals("figure_eight", 1.0, 2.0)
    with pytest.raises(ConfigError, match="figure_eight"):
        goals("figure_eigth")
