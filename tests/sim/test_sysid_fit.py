"""The estimator, on a system whose answers are known, and on robots recorded in another engine."""

import math

import numpy as np
import pytest
import torch

from robolearn import config
from robolearn.errors import ConfigError
from sim.sysid import checks, fit, log, ranges, record
from sim.sysid.arm import ArmReplay, set_point
from sim.sysid.fit import Estimate, Estimator, Fit, Parameter
from sim.sysid.flight import FlightReplay

config.discover(["robolearn.robots", "sim.backends"])
FRANKA, CRAZYFLIE = config.entry("robot", "franka").value, config.entry("robot", "crazyflie").value


class Decay:
    """x' = -rate x + bias, from a start for each window; `ghost` does nothing. Solved in closed form."""

    tries = 1
    parameters = (
        Parameter("rate", "1/s", 1.0, 0.1, 10.0, 0.01, log=True),
        Parameter("bias", "", 0.0, -3.0, 3.0, 0.01),
        Parameter("ghost", "", 0.5, 0.0, 1.0, 0.01),
    )
    channels = ("x",)
    start_step, start_spread = torch.tensor([0.01]), torch.tensor([10.0])

    def __init__(self, rate, bias, noise, windows=12, rows=40, seed=0, wobble=0.0):
        self.t = torch.linspace(0.0, 2.0, rows, dtype=torch.float64)
        g = torch.Generator().manual_seed(seed)
        start = 2.0 * torch.randn(windows, generator=g, dtype=torch.float64)
        clean = self.path(torch.tensor([rate]), torch.tensor([bias]), start[None])[0]
        common = wobble * torch.randn(windows, 1, 1, generator=g, dtype=torch.float64) * self.t[:, None]
        self.signal = clean + noise * torch.randn(clean.shape, generator=g, dtype=torch.float64) + common
        self.counted = torch.ones(rows, 1, dtype=torch.bool)

    def path(self, rate, bias, start):
        """(C, W, L, 1)."""
        k, rest = rate.double()[:, None, None], (bias / rate).double()[:, None, None]
        return (rest + (start[..., None] - rest) * torch.exp(-k * self.t))[..., None]

    def errors(self, theta, offset):
        return self.path(theta[:, 0], theta[:, 1], self.signal[:, 0, 0] + offset[..., 0]) - self.signal


def test_true_values_are_found_from_a_start_that_is_far_away():
    found = Estimator(Decay(3.0, 1.5, 1e-4))()
    assert found["rate"].value == pytest.approx(3.0, rel=1e-3)
    assert found["bias"].value == pytest.approx(1.5, rel=1e-3)
    assert found.noise["x"] == pytest.approx(1e-4, rel=0.2)


def test_a_value_beyond_its_range_is_said_to_be_at_the_edge():
    found = Estimator(Decay(14.0, 1.5, 1e-3))()  # 10 is thought possible
    assert found["rate"].at_edge
    assert not Estimator(Decay(3.0, 1.5, 1e-3))()["rate"].at_edge
    assert not Estimate(Parameter("friction", "", 0.5, 0.0, 1.0, 0.1), 0.0, 0.0, 0.1, True).at_edge


def test_what_the_log_does_not_show_is_not_identifiable():
    found = Estimator(Decay(3.0, 1.5, 0.01))()
    assert [e.identifiable for e in found.estimates] == [True, True, False]
    assert "ghost" not in ranges.randomize(found, FRANKA, 0.05)


def test_joint_intervals_hold_all_true_values_nineteen_times_out_of_twenty():
    held = 0
    for seed in range(60):
        found = Estimator(Decay(2.0, 0.5, 0.1, seed=seed))()
        held += all(e.low <= v <= e.high for e, v in zip(found.estimates, (2.0, 0.5, 0.5), strict=True))
    assert held >= 53  # 57 expected; fewer than 54 by chance in 3 %


def test_errors_that_go_together_within_a_window_widen_the_intervals():
    plain, wobbling = (Estimator(Decay(2.0, 0.5, 0.02, wobble=w, seed=1))()["bias"] for w in (0.0, 0.3))
    assert wobbling.high - wobbling.low > 2.0 * (plain.high - plain.low)
    assert wobbling.low <= 0.5 <= wobbling.high


def test_unknown_starts_widen_the_intervals_as_one_large_problem_does():
    estimator = Estimator(Decay(2.0, 0.5, 0.1, windows=4))
    x = torch.tensor([math.log(2.0), 0.5, 0.5], dtype=torch.float64)
    point = estimator._look(x, torch.zeros(4, 1, dtype=torch.float64))
    whole = torch.zeros(3 + 4, 3 + 4, dtype=torch.float64)  # no elimination: three parameters, four starts
    for w in range(4):
        jacobian = torch.zeros(40, 7, dtype=torch.float64)
        jacobian[:, :3], jacobian[:, 3 + w] = point.by_x[w], point.by_start[w, :, 0]
        whole += jacobian.T @ jacobian
    whole += torch.diag(torch.cat((estimator.prior**-2, torch.full((4,), 10.0**-2, dtype=torch.float64))))
    eliminated = estimator._normal(point, torch.ones(1, dtype=torch.float64)).hessian
    torch.testing.assert_close(torch.linalg.inv(eliminated), torch.linalg.inv(whole)[:3, :3])


def test_quantiles_are_those_of_tables():
    z, t = fit.quantiles(1, 10)
    assert z == pytest.approx(1.960, abs=1e-3)
    assert t == pytest.approx(2.228, abs=0.01)
    assert fit.quantiles(10, 1000)[0] == pytest.approx(2.80, abs=0.01)  # 1 - 0.95^(1/10) outside


def test_a_set_point_moves_to_a_command_until_the_next_row():
    command = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    at = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.75, 3.0, 9.0], dtype=torch.float64)
    assert set_point(command, at)[:, 0].tolist() == [0.0, 0.0, 0.5, 1.0, 2.5, 3.0, 3.0]


def fitted(**intervals):
    known = [
        Estimate(Parameter(n.replace("__", "."), "", 1.0, 0.0, 9.0, 0.1), (a + b) / 2, a, b, ok)
        for n, (a, b, ok) in intervals.items()
    ]
    return Fit(tuple(known), {}, torch.zeros(0), torch.zeros(0))


def test_intervals_become_ranges_trim_a_deviation_and_delay_periods():
    found = fitted(
        kp=(0.9, 1.1, True), kd=(0.5, 2.0, False), joint_friction=(0.0, 0.4, True), delay_s=(0.011, 0.06, True),
        trim__a=(-0.03, 0.01, True), trim__b=(0.02, 0.04, True),
    )  # fmt: skip
    values = ranges.randomize(found, FRANKA, 0.05)
    assert values == {
        "kp": [0.9, 1.1], "joint_friction": [0.0, 0.4], "action_delay": [0, 2],
        "actuator_trim": pytest.approx(math.sqrt((0.03**2 + 0.04**2) / 2), rel=1e-3),
    }  # fmt: skip


def test_a_quadrotors_link_takes_the_delay_where_it_is_shorter_than_a_period():
    found = fitted(delay_s=(0.004, 0.012, True))
    assert ranges.randomize(found, CRAZYFLIE, 0.02, attitude=True) == {"link_delay": [1.0, 3.0]}
    assert ranges.randomize(found, CRAZYFLIE, 0.01, attitude=True) == {"action_delay": [0, 2]}
    assert ranges.randomize(found, CRAZYFLIE, 0.01) == {"action_delay": [0, 2]}


# --- robots ----------------------------------------------------------------------------------------------


def engine(name):
    return config.entry("backend", name).config()


def identify(replay):
    try:
        return Estimator(replay)()
    finally:
        replay.close()


def outside(found, truth):
    return {e.parameter.name: (truth.get(e.parameter.name, 0.0), e.low, e.high) for e in found.estimates
            if not e.low <= truth.get(e.parameter.name, 0.0) <= e.high}  # fmt: skip


@pytest.mark.parametrize("weighed_kg", [27.0, 0.0027])
def test_a_mass_in_grams_is_refused(weighed_kg):
    made = record.record(CRAZYFLIE, engine("quadrotor"), 2.0, 100.0, {})
    with pytest.raises(ConfigError, match=r"mass_kg=.* is far from the 0.027 kg .* give kilograms"):
        FlightReplay(made, CRAZYFLIE, engine("quadrotor"), weighed_kg=weighed_kg)


def test_an_arm_recorded_in_pybullet_is_identified_in_mujoco():
    pytest.importorskip("pybullet")
    truth = {"delay_s": 0.015, "kp": 0.9, "kd": 1.1, "joint_damping": 0.8, "joint_friction": 0.7}
    truth |= {"trim.panda_joint2": 0.012, "trim.panda_joint6": -0.01}
    made = log.noisy(record.record(FRANKA, engine("pybullet"), 3.0, 60.0, truth), 0.1, np.random.default_rng(0))
    found = identify(ArmReplay(checks.checked(made, FRANKA), FRANKA, engine("mujoco")))
    assert outside(found, truth) == {}
    assert found["kp"].high < 1.0  # it is told from the nominal value
    assert found["joint_friction"].low > 0.3


@pytest.mark.parametrize("command", [pytest.param("attitude_command", marks=pytest.mark.slow), "rotor_command"])
def test_a_quadrotor_recorded_in_pybullet_is_identified_by_the_kernel(command):
    pytest.importorskip("pybullet")
    truth = {"delay_s": 0.01, "mass": 1.1, "thrust": 0.95, "inertia": 1.8, "reaction_torque": 1.2, "spin_up": 0.5,
             "spin_down": 0.8, "drag": 1.4}  # fmt: skip
    made = record.record(CRAZYFLIE, engine("pybullet"), 6.0, 100.0, truth, command=command)
    made = checks.checked(log.noisy(made, 0.1, np.random.default_rng(0)), CRAZYFLIE)
    found = identify(FlightReplay(made, CRAZYFLIE, engine("quadrotor"), weighed_kg=1.1 * 0.027))
    assert outside(found, truth) == {}
    assert found["inertia"].low > 1.0
    assert found["thrust"].high - found["thrust"].low < 0.1


def test_an_arm_at_rest_shows_no_parameters_but_its_trim():
    made = record.record(FRANKA, engine("mujoco"), 2.1, 60.0, {})
    still = {n: np.tile(v[:1], (len(v), 1)) for n, v in made.columns.items() if n != "joint_effort"}
    g = np.random.default_rng(0)
    for name in ("joint_pos", "joint_vel"):
        still[name] = still[name] + 1e-3 * g.standard_normal(still[name].shape)
    at_rest = log.Log(made.robot, made.joints, made.time_s, still)
    found = identify(ArmReplay(checks.checked(at_rest, FRANKA), FRANKA, engine("mujoco")))
    vague = {e.parameter.name for e in found.estimates if not e.identifiable}
    assert {"delay_s", "kd", "joint_damping"} <= vague
