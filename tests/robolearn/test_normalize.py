"""Fixed normalisers map as they say and give back what went in."""

import pytest
import torch

from robolearn.errors import ConfigError
from robolearn.nets.normalize import FixedNormalizer, statistics_of

SCALES = torch.tensor([1e-3, 1.0, 50.0, 1e6, 0.0])
OFFSETS = torch.tensor([0.0, -3.0, 1e3, 2e6, 0.7])


def data() -> torch.Tensor:
    return OFFSETS + SCALES * torch.rand(500, 5, generator=torch.Generator().manual_seed(0))


def fitted(mode: str) -> FixedNormalizer:
    made = FixedNormalizer(5, mode)
    made.fit(statistics_of(data()), "action")
    return made


@pytest.mark.parametrize("mode", ["range", "deviation"])
def test_the_inverse_is_exact_but_for_roundings(mode):
    made, x = fitted(mode), torch.cat((data(), data() * 3 - 1))
    back = made.inverse(made(x))
    place = torch.maximum(x.abs(), made.centre.abs())  # two roundings where the numbers lie
    assert ((back - x).abs() <= 2.4e-7 * place).all()


def test_the_range_becomes_minus_one_to_one():
    out = fitted("range")(data())
    torch.testing.assert_close(out.amin(0)[:4], -torch.ones(4))
    torch.testing.assert_close(out.amax(0)[:4], torch.ones(4))


def test_the_deviation_becomes_one():
    out = fitted("deviation")(data())
    torch.testing.assert_close(out.mean(0), torch.zeros(5), rtol=0, atol=1e-3)
    torch.testing.assert_close(out.std(0, correction=0)[:4], torch.ones(4), rtol=1e-3, atol=0)


def test_a_constant_is_shifted_and_what_moves_little_is_not_blown_up():
    made = fitted("range")
    assert made.spread[4] == 1.0
    assert made(data())[:, 4].abs().max() == 0.0
    assert abs(float(made(data() + 0.1)[0, 4]) - 0.1) < 1e-6


@pytest.mark.parametrize("mode", ["range", "deviation"])
def test_a_thing_at_rest_stays_small(mode):
    """A height that jitters by 0.03 mm while it rests: 5 mm more when the thing is lifted are 5 mm, not 300."""
    made = FixedNormalizer(1, mode)
    made.fit(statistics_of(0.5 + 3e-5 * torch.rand(500, 1)), "observation.policy")
    assert made(torch.tensor([[0.505]])).abs() < 0.006


def test_by_hand():
    made = FixedNormalizer(2)
    made.fit({"min": torch.tensor([-1.0, 2.0]), "max": torch.tensor([3.0, 2.5])}, "x")
    assert made(torch.tensor([[2.0, 2.0]])).tolist() == [[0.5, -1.0]]
    assert made.inverse(torch.tensor([[0.5, -1.0]])).tolist() == [[2.0, 2.0]]


def test_bad_statistics_are_named():
    made, stats = FixedNormalizer(3), statistics_of(torch.tensor([[0.0, float("nan"), 1.0], [1.0, 0.0, float("inf")]]))
    with pytest.raises(ValueError, match=r"of action is not finite in elements \[1, 2\]: look for NaN"):
        made.fit(stats, "action")
    with pytest.raises(ValueError, match=r"observation\.policy has 5 numbers in the data, the policy reads 3"):
        made.fit(statistics_of(data()), "observation.policy")
    with pytest.raises(ConfigError, match="did you mean range"):
        FixedNormalizer(3, "ranges")
