"""Delays, drop-outs, noise, pushes and drawn parameters, one by one."""

import math

import pytest
import torch

from robolearn.errors import ConfigError
from robolearn.spec import Field, ObservationSpec, TermSpec
from sim.randomize import ABSENT_AT_ZERO, PARAMS, Delay, Pushes, RandomizeCfg, Sensor, draw_params, uniform
from sim.scene import ADDED

CPU = torch.device("cpu")
B = 4
EVERYONE, NOBODY = torch.ones(B, dtype=torch.bool), torch.zeros(B, dtype=torch.bool)
TERMS = (
    TermSpec(Field("q", (2,), "rad"), "joint_pos"),
    TermSpec(Field("goal", (1,), "m"), "command", sensed=False),
    TermSpec(Field("error", (1,), "m"), "pose_error"),
)
SPEC = ObservationSpec({"policy": TERMS, "critic": TERMS})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ticks(period, dim=1):
    """(B, dim) that tell the period and the environment: 0.0, 100.0, 200.0 ... + period."""
    return (100.0 * torch.arange(B) + period)[:, None].expand(B, dim)


def sensor(num_envs=B, seed=0, **cfg):
    return Sensor(SPEC, RandomizeCfg(**cfg), num_envs, seeded(seed))


def frames(value, num_envs=B):
    value = torch.as_tensor(value, dtype=torch.float32).expand(num_envs, 4)
    return {"policy": value, "critic": value.clone()}


# --- delay --------------------------------------------------------------------------------------------------


def test_delay_hands_out_each_environments_value_of_d_periods_ago():
    delay = Delay((0, 3), B, 1, CPU)
    delay.reset(EVERYONE, seeded())
    delay.steps = torch.tensor([0, 1, 2, 3])
    out = torch.stack([delay(ticks(p)) for p in range(8)])[..., 0]
    for env in range(B):  # the first value stands in for those before it
        expected = [100.0 * env + max(0, p - env) for p in range(8)]
        assert out[:, env].tolist() == expected


def test_delays_are_drawn_from_the_range_both_ends_included():
    delay = Delay((1, 3), 400, 1, CPU)
    delay.reset(torch.ones(400, dtype=torch.bool), seeded())
    assert delay.steps.unique().tolist() == [1, 2, 3]


def test_delay_is_fresh_after_a_reset_and_the_others_go_on():
    delay = Delay((2, 2), B, 1, CPU)
    delay.reset(EVERYONE, seeded())
    for p in range(5):
        delay(ticks(p))
    only = torch.tensor([False, True, False, False])
    delay.reset(only, seeded())
    out = [delay(ticks(p))[:, 0].tolist() for p in range(5, 8)]
    assert [row[1] for row in out] == [105.0, 105.0, 105.0]  # nothing from before the reset
    assert [row[0] for row in out] == [3.0, 4.0, 5.0]


def test_a_masked_period_neither_takes_nor_ages_the_others():
    delay, twin = (Delay((1, 1), B, 1, CPU) for _ in range(2))
    for d in (delay, twin):
        d.reset(EVERYONE, seeded())
        d(ticks(0))
    only = torch.tensor([True, False, False, False])
    delay(ticks(50), only)
    assert delay(ticks(1))[:, 0].tolist() == [50.0, *twin(ticks(1))[1:, 0].tolist()]


def test_no_delay_is_the_value_itself():
    value = ticks(3)
    assert Delay((0, 0), B, 1, CPU)(value) is value


# --- sensor -------------------------------------------------------------------------------------------------


def test_noise_has_the_standard_deviation_of_its_term_and_no_bias():
    n = 20_000
    seen = sensor(n, observation_noise={"q": 0.1, "error": 0.5})(frames([1.0, 2.0, 3.0, 4.0], n))["policy"]
    off = seen - torch.tensor([1.0, 2.0, 3.0, 4.0])
    std = off.std(0)
    assert std[:2].tolist() == pytest.approx([0.1, 0.1], rel=0.03)
    assert std[3].item() == pytest.approx(0.5, rel=0.03)
    assert off.mean(0).abs().max() < 4 * 0.5 / math.sqrt(n)


def test_what_the_controller_knows_and_what_the_critic_sees_stay_true():
    s = sensor(
        observation_noise={"q": 1.0, "goal": 1.0, "error": 1.0},
        observation_delay=(2, 2),
        observation_dropout=0.5,
    )
    s.reset(EVERYONE, seeded())
    for p in range(6):
        value = torch.full((4,), float(p))
        seen = s(frames(value))
        assert seen["policy"][:, 2].tolist() == [p] * B
        assert torch.equal(seen["critic"], frames(value)["critic"])
        assert (seen["policy"][:, 0] != p).all()


def test_dropout_shows_the_last_measurement_again_at_its_rate():
    n = 2_000
    s = sensor(n, observation_dropout=0.3)
    everyone = torch.ones(n, dtype=torch.bool)
    s.reset(everyone, seeded())
    seen = torch.stack([s(frames(float(p), n))["policy"][:, 0] for p in range(20)])
    assert seen[0].tolist() == [0.0] * n  # the first always arrives
    stale = seen[1:] != torch.arange(1.0, 20.0)[:, None]
    assert torch.equal(seen[1:][stale], seen[:-1][stale])
    assert stale.float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_after_a_reset_nothing_of_the_old_episode_is_seen():
    s = sensor(observation_dropout=0.9, observation_delay=(2, 2))
    s.reset(EVERYONE, seeded())
    for p in range(5):
        s(frames(float(p)))
    s.reset(EVERYONE, seeded())
    assert s(frames(50.0))["policy"][:, 0].tolist() == [50.0] * B


def test_a_sensor_without_faults_hands_frames_through():
    given = frames(1.0)
    assert sensor()(given) is given


def test_noise_for_an_unknown_term_lists_the_terms():
    with pytest.raises(ConfigError, match=r"observation_noise: no term 'p'; there is q, goal, error"):
        sensor(observation_noise={"p": 0.1})


def test_a_masked_look_with_its_own_generator_leaves_the_next_noise_alone():
    s, twin = (sensor(observation_noise={"q": 1.0}, observation_dropout=0.3) for _ in range(2))
    for one in (s, twin):
        one.reset(EVERYONE, seeded())
        one(frames(0.0))
    s(frames(7.0), torch.tensor([True, False, False, False]), seeded(5))
    assert torch.equal(s(frames(1.0))["policy"][1:], twin(frames(1.0))["policy"][1:])


# --- pushes -------------------------------------------------------------------------------------------------


def pushes(n=B, **cfg):
    return Pushes(RandomizeCfg(**{"push_force_n": 3.0, "push_probability": 0.05, "push_periods": 4} | cfg), n, seeded())


def test_pushes_last_their_periods_with_one_force():
    p = pushes(200)
    out = torch.stack([p() for _ in range(100)])
    assert not out[..., 3:].any()
    pushing, lengths = out[..., :3].abs().sum(-1) > 0, []
    for env in range(200):
        previous, length = torch.zeros(6), 0
        for wrench, on in zip(out[:, env], pushing[:, env], strict=True):
            if on and torch.equal(wrench, previous):
                length += 1
            else:
                lengths += [length] if length else []
                length = int(on)
            previous = wrench
    assert set(lengths) == {4}


def test_pushes_begin_at_their_rate_with_their_strength():
    p = pushes(4_000, push_periods=1)
    out = torch.stack([p() for _ in range(50)])[..., :3]
    on = out.abs().sum(-1) > 0
    assert on.float().mean().item() == pytest.approx(0.05, abs=0.003)
    assert out[on].std(0).tolist() == pytest.approx([3.0] * 3, rel=0.05)


def test_a_push_ends_with_the_episode():
    p = pushes(push_probability=1.0)
    first = p()
    p.reset(torch.tensor([True, False, False, False]))
    p.cfg.push_probability = 0.0
    second = p()
    assert not second[0].any()
    assert torch.equal(second[1:], first[1:])


# --- parameters ---------------------------------------------------------------------------------------------


class Recorder:
    """Stands in for an engine and keeps what was set."""

    num_envs = 500

    def __init__(self):
        self.calls = []

    def set_param(self, *call):
        self.calls.append(call)


def test_parameters_are_drawn_uniformly_inside_their_range_for_the_mask_only():
    engine, mask = Recorder(), torch.arange(500) % 2 == 0
    draw_params(engine, "robot", RandomizeCfg(mass=(0.5, 2.0), kd=(0.9, 0.9)), mask, seeded())
    assert [(asset, param) for asset, param, _, _ in engine.calls] == [("robot", "mass"), ("robot", "kd")]
    (_, _, mass, first), (_, _, kd, second) = engine.calls
    assert torch.equal(first, mask)
    assert torch.equal(second, mask)
    assert 0.5 <= mass.min() < 0.52
    assert 1.98 < mass.max() <= 2.0
    assert mass.mean().item() == pytest.approx(1.25, abs=0.07)
    assert kd.unique().tolist() == pytest.approx([0.9])


def test_draws_do_not_depend_on_the_mask():
    engines = [Recorder(), Recorder()]
    for engine, mask in zip(
        engines, (torch.ones(500, dtype=torch.bool), torch.zeros(500, dtype=torch.bool)), strict=True
    ):
        draw_params(engine, "robot", RandomizeCfg(mass=(0.5, 2.0), friction=(0.5, 1.5)), mask, seeded())
    for (_, _, a, _), (_, _, b, _) in zip(engines[0].calls, engines[1].calls, strict=True):
        assert torch.equal(a, b)


def test_nothing_varies_by_default():
    assert RandomizeCfg().params == ()
    assert RandomizeCfg(friction=(0.5, 1.0)).params == ("friction",)
    assert RandomizeCfg(joint_friction=(1.0, 1.0), joint_damping=(0.0, 0.0)).params == ("joint_friction",)


def test_uniform_keeps_its_bounds():
    draws = uniform((10_000,), -2.0, 3.0, seeded())
    assert draws.min() >= -2.0
    assert draws.max() <= 3.0
    assert draws.mean().item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("bad", [(1.2, 0.8), (0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_ranges_out_of_order_are_refused(name, bad):
    absent = name in (*ABSENT_AT_ZERO, *ADDED)
    if bad == (0.0, 1.0) and absent:
        assert getattr(RandomizeCfg(**{name: bad}), name) == bad
        return
    with pytest.raises(ValueError, match=rf"randomize\.{name} must be 0 {'<=' if absent else '<'} low <= high"):
        RandomizeCfg(**{name: bad})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"action_delay": (2, 1)}, "action_delay must be 0 <= low <= high, got 2, 1"),
        ({"observation_delay": (-1, 1)}, "observation_delay must be 0 <= low <= high, got -1, 1"),
        ({"observation_dropout": 1.0}, r"observation_dropout must be in \[0, 1\), got 1.0"),
        ({"push_probability": 1.5}, r"push_probability must be in \[0, 1\], got 1.5"),
        ({"push_periods": 0}, "push_periods must be at least 1, got 0"),
        ({"push_force_n": -1.0}, "push_force_n must be at least 0, got -1.0"),
        ({"actuator_trim": -0.1}, "actuator_trim must be at least 0, got -0.1"),
        ({"initial_joint_pos": math.nan}, "initial_joint_pos must be at least 0, got nan"),
        ({"initial_joint_vel": -1.0}, "initial_joint_vel must be at least 0, got -1.0"),
        ({"observation_noise": {"q": -0.1}}, r"observation_noise\.q must be at least 0, got -0.1"),
    ],
)
def test_settings_without_meaning_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        RandomizeCfg(**setting)
