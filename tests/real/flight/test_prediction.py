"""A vehicle's future, by what it was told: against a simulated one, whose rotors and drag are not known to it."""

import numpy as np
import pytest
import torch

from real.flight.prediction import REMEMBERED_S, Prediction
from real.flight.state import Flight, rotation_between
from real.nodes.twin_drone import ROBOT, Drone
from robolearn.robots.crazyflie import CRAZYFLIE

VEHICLE = CRAZYFLIE.quadrotor
LEVEL = np.array([0.0, 0.0, 0.0, 1.0])
HOVER_N = VEHICLE.mass_kg * 9.81


def still(stamp_s=0.0, rates=(0.0, 0.0, 0.0), velocity=(0.0, 0.0, 0.0)):
    return Flight(stamp_s, np.zeros(3), LEVEL, np.array(velocity), np.array(rates))


def test_with_no_set_point_it_goes_on_as_it_did():
    ahead = Prediction(VEHICLE, 0.02, 0.01)
    found = ahead(still(5.0, rates=(0.0, 0.0, 1.0), velocity=(1.0, 0.0, 0.0)), 5.03)  # 20, 30 and 10 ms
    assert found.position == pytest.approx([0.06, 0.0, 0.0])
    assert found.yaw_rad == pytest.approx(0.06)
    assert found.stamp_s == pytest.approx(5.04)


def test_a_set_point_counts_from_when_the_vehicle_has_it():
    ahead = Prediction(VEHICLE, 0.0, 0.02)
    late_s = 0.02 + VEHICLE.firmware.link_delay_s
    ahead.sent(1.0, np.array([0.0, 0.0, 0.0, 2.0 * HOVER_N]))
    assert ahead(still(0.9), 1.0 + late_s - 0.02).velocity[2] == pytest.approx(0.0, abs=0.03)
    moved = ahead(still(1.0), 1.05)  # 70 ms from the pose on, of which it hears for 46
    assert moved.velocity[2] == pytest.approx(9.81 * (0.07 - late_s), rel=0.1)


def test_an_old_pose_is_not_carried_on_for_ever():
    ahead = Prediction(VEHICLE, 0.0, 0.0)
    assert ahead(still(0.0, velocity=(1.0, 0.0, 0.0)), 60.0).position[0] == pytest.approx(REMEMBERED_S)
    assert ahead(still(9.0, velocity=(1.0, 0.0, 0.0)), 8.0).position[0] == 0.0  # a clock that went back


def test_it_knows_better_than_constant_rates_what_a_vehicle_does():
    drone, rng, ticks = Drone(CRAZYFLIE, "quadrotor"), np.random.default_rng(0), 5  # of 10 ms
    everyone, spinning = torch.ones(1, dtype=torch.bool), VEHICLE.speed_radps(HOVER_N / 4.0)
    drone.backend.write_pose(ROBOT, torch.tensor([[0.0, 0.0, 2.0, *LEVEL.tolist()]]), torch.zeros(1, 6), everyone)
    drone.backend.write_joints(ROBOT, torch.zeros(1, 4), torch.full((1, 4), spinning), everyone)
    ahead, truth, told, constant = Prediction(VEHICLE, 0.0, 0.0), [], [], []
    for k in range(200):
        pose, velocity, rates = drone.measured()
        truth.append(Flight(0.01 * k, pose[:3], pose[3:], velocity, rates))
        if k >= ticks:
            told.append(ahead(truth[k - ticks], 0.01 * k))
            constant.append(truth[k - ticks].ahead(0.01 * ticks, 9.81))
        if k % ticks == 0:
            tilts = rng.uniform(-0.4, 0.4, 2)
        setpoint = np.array([*tilts, 0.0, HOVER_N])
        ahead.sent(0.01 * k, setpoint)
        drone.backend.write_attitude(ROBOT, torch.tensor(setpoint[None], dtype=torch.float32))
        drone.backend.step(round(0.01 / drone.dt))
    wrong, before = (np.stack([missed(*pair) for pair in zip(f, truth[ticks:], strict=True)]) for f in (told, constant))
    turn, rate, speed = (np.sqrt((wrong**2).mean(axis=0)) / np.sqrt((before**2).mean(axis=0))).tolist()
    assert turn < 0.6 and rate < 0.5 and speed < 1.0


def missed(found, truth):
    """By how much in attitude (rad), body rates and velocity."""
    turned = rotation_between(truth.turn, found.turn), found.rates - truth.rates, found.velocity - truth.velocity
    return [float(np.linalg.norm(v)) for v in turned]


def test_a_clock_that_goes_back_forgets_what_was_sent():
    one = Prediction(VEHICLE, 0.0, 0.0)
    one.sent(100.0, np.zeros(4))
    one.sent(40.0, np.zeros(4))
    assert [sent_s for sent_s, _ in one._sent] == [40.0]
