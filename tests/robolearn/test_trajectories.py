"""Trajectories: consistent derivatives, their sizes by hand, and refusal of what no vehicle can follow."""

import math

import pytest
import torch

from robolearn.errors import ConfigError
from robolearn.robots.crazyflie import CRAZYFLIE
from robolearn.trajectories import Eased, Harmonics, circle, figure_eight, random_smooth, require_feasible, table

CENTRE = torch.tensor([0.1, -0.2, 1.0])
VEHICLE = CRAZYFLIE.quadrotor


def doubled(trajectory: Harmonics) -> Harmonics:
    """In float64, for differences."""
    return Harmonics(
        *(t.double() for t in (trajectory.amplitude, trajectory.frequency, trajectory.phase, trajectory.centre))
    )


TRAJECTORIES = {
    "circle": circle(CENTRE, 0.5, 3.0, phase=0.4),
    "figure_eight": figure_eight(CENTRE, 2.0, 1.0, -5.5, phase=0.4),
    "random": random_smooth(CENTRE, (1.0, 1.0, 0.3), 1.8, torch.Generator().manual_seed(3)),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_velocity_and_acceleration_are_the_derivatives(name):
    trajectory, h = doubled(TRAJECTORIES[name]), 1e-4
    t = torch.linspace(0.0, 6.0, 50, dtype=torch.float64)
    before, now, after = (trajectory(t + s * h) for s in (-1, 0, 1))
    torch.testing.assert_close((after - before)[:, :3] / (2 * h), now[:, 3:6], atol=1e-6, rtol=0.0)
    torch.testing.assert_close((after - before)[:, 3:6] / (2 * h), now[:, 6:], atol=1e-6, rtol=0.0)


def test_a_figure_eight_of_two_by_one_metres_in_five_and_a_half_seconds():
    rows = table(figure_eight(CENTRE, 2.0, 1.0, 5.5), 5501, 0.001)
    torch.testing.assert_close(rows[-1], rows[0], atol=1e-4, rtol=0.0)
    span = (rows[:, :3].max(0).values - rows[:, :3].min(0).values).tolist()
    assert span == pytest.approx([2.0, 1.0, 0.0], abs=1e-4)
    middle = rows[100:-100, 1] - CENTRE[1]  # without the start and end, on the crossing
    assert int((middle[:-1].sign() != middle[1:].sign()).sum()) == 3  # y goes up and down twice
    # fastest at the crossing: both axes at their full pace, 2 pi / 5.5 * (1, 2 * 0.5)
    assert rows[:, 3:6].norm(dim=1).max().item() == pytest.approx(math.sqrt(2) * math.tau / 5.5, rel=1e-4)


def test_a_circle_keeps_its_radius_and_turns_counter_clockwise():
    rows = table(circle(CENTRE, 0.5, 3.0), 300, 0.01)
    away = rows[:, :3] - CENTRE
    torch.testing.assert_close(away.norm(dim=1), torch.full((300,), 0.5))
    pace = math.tau / 3.0
    torch.testing.assert_close(rows[:, 6:], -(pace**2) * away, atol=1e-5, rtol=1e-5)
    assert (torch.linalg.cross(away, rows[:, 3:6])[:, 2] > 0.0).all()
    back = table(circle(CENTRE, 0.5, -3.0), 300, 0.01)
    assert (torch.linalg.cross(back[:, :3] - CENTRE, back[:, 3:6])[:, 2] < 0.0).all()


def test_random_trajectories_keep_their_box_and_speed():
    for seed in range(50):
        rows = table(random_smooth(CENTRE, (1.0, 0.8, 0.3), 1.5, torch.Generator().manual_seed(seed)), 2000, 0.01)
        assert ((rows[:, :3] - CENTRE).abs() <= torch.tensor([1.0, 0.8, 0.3]) + 1e-5).all()
        assert rows[:, 3:6].abs().max() <= 1.5 + 1e-5
    one, other = (random_smooth(CENTRE, (1.0,) * 3, 1.5, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not torch.equal(one.phase, other.phase)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 0, 1.0, 0, 0, 0, 9.81, 0, 0], r"trajectory it needs a tilt \(rad\) of 0.785, the vehicle has 0.6"),
        ([0, 0, 1.0, 0, 0, 0, 0, 0, 15.0], r"needs a thrust \(N\) of 0.67, the vehicle has 0.536"),
        ([0, 0, 0.01, 0, 0, 0, 0, 0, 0], "comes down to 0.01 m, into the ground"),
    ],
)
def test_what_cannot_be_flown_is_refused(row, message):
    fine = torch.tensor([[0.0, 0.0, 1.0] + [0.0] * 6])
    require_feasible(fine, VEHICLE, 0.6, "it")
    with pytest.raises(ConfigError, match=message):
        require_feasible(torch.cat((fine, torch.tensor([row]))), VEHICLE, 0.6, "it")


def test_an_eased_trajectory_starts_at_rest_and_is_the_same_path_later():
    path = figure_eight(torch.zeros(3), 2.0, 1.0, 5.5)
    eased = Eased(path, 3.0)
    start = eased(torch.zeros(1))[0]
    assert start[:3].tolist() == path(torch.zeros(1))[0, :3].tolist() and not start[3:].any()
    assert torch.allclose(eased(torch.tensor([7.0])), path(torch.tensor([5.5])), atol=1e-5)  # half the ramp late


def test_an_eased_trajectorys_velocity_and_acceleration_are_its_derivatives():
    eased, h = Eased(circle(torch.zeros(3), 0.7, 4.0), 2.0), 1e-3
    t = torch.tensor([0.3, 1.0, 1.7, 3.0], dtype=torch.float64)
    before, now, after = eased(t - h), eased(t), eased(t + h)
    assert torch.allclose(now[:, 3:6], (after[:, :3] - before[:, :3]) / (2 * h), atol=1e-4)
    assert torch.allclose(now[:, 6:], (after[:, 3:6] - before[:, 3:6]) / (2 * h), atol=1e-3)
