"""Figures of a classifier, by hand."""

from __future__ import annotations

import pytest
import torch

from robolearn.rewards import scores
from robolearn.rewards.debounce import Debounce, debounced

P = torch.tensor([0.9, 0.8, 0.8, 0.6, 0.4, 0.1])
DONE = torch.tensor([True, True, False, True, False, False])


def test_precision_and_recall_at_a_threshold() -> None:
    assert scores.precision_recall(P, DONE, 0.8) == (2 / 3, 2 / 3)  # 0.9, 0.8 right, 0.8 wrong; 0.6 missed
    assert scores.precision_recall(P, DONE, 0.95) == (None, 0.0)
    assert scores.precision_recall(P, torch.zeros(6, dtype=torch.bool), 0.5) == (0.0, None)


def test_curve_says_equal_probabilities_together() -> None:
    precision, recall, values = scores.curve(P, DONE)
    assert values.tolist() == pytest.approx([0.1, 0.4, 0.6, 0.8, 0.9])
    assert precision.tolist() == pytest.approx([3 / 6, 3 / 5, 3 / 4, 2 / 3, 1.0])
    assert recall.tolist() == pytest.approx([1.0, 1.0, 1.0, 2 / 3, 1 / 3])


def test_threshold_is_the_smallest_with_the_precision_and_not_below_the_least() -> None:
    assert scores.choose_threshold(P, DONE, 0.7, 0.0) == pytest.approx(0.5)  # of 0.4 and 0.6; from 0.8 on it is less
    assert scores.choose_threshold(P, DONE, 0.5, 0.0) == 0.0
    assert scores.choose_threshold(P, DONE, 0.5, 0.45) == 0.45  # nothing lies between it and 0.6
    assert scores.choose_threshold(P, DONE, 0.95, 0.5) == pytest.approx(0.85)
    assert scores.choose_threshold(P, ~DONE, 0.95, 0.0) is None


def test_calibration_error_by_hand() -> None:
    """Two bins: [0.1, 0.4] of which none is done, mean 0.25; [0.6 to 0.9] of which 3 of 4, mean 0.775."""
    assert scores.calibration_error(P, DONE, bins=2) == pytest.approx((2 * 0.25 + 4 * 0.025) / 6)
    (low, high) = scores.reliability(P, DONE, bins=2)
    assert low == (pytest.approx(0.25), 0.0, 2) and high == (pytest.approx(0.775), 0.75, 4)
    assert scores.reliability(torch.ones(3), torch.ones(3, dtype=torch.bool)) == [(1.0, 1.0, 3)]


def bits(word: str) -> torch.Tensor:
    return torch.tensor([c == "1" for c in word])


@pytest.mark.parametrize(
    ("first", "hits", "said"),
    [
        ("0", "0110111100", "0000111110"),  # 0110 is too few, 1101 enough; the last four in a row outlive their end
        ("0", "1010101", "0000000"),
        ("0", "111", "001"),
        ("1", "11111", "00000"),  # so from the first sight on: nobody saw it happen
        ("1", "110111", "000001"),  # gone for a step: only what comes after it counts
    ],
)
def test_three_of_four(first: str, hits: str, said: str) -> None:
    assert debounced(bits(hits), bits(first)[0], 3, 4).tolist() == bits(said).tolist()


def test_a_reset_forgets_its_environments_and_no_others() -> None:
    memory, no, yes = Debounce(2, 2, 2), torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    assert memory(yes).tolist() == memory(yes).tolist() == [False, False]  # no episode has begun
    memory.reset(yes, no)
    assert memory(yes).tolist() == [False, False]
    memory.reset(bits("10"), no)
    assert memory(yes).tolist() == [False, True]
    assert memory(yes).tolist() == [True, True]
    memory.reset(bits("10"), bits("11"))
    assert memory(yes).tolist() == [False, True] and memory(yes).tolist() == [False, True]
    assert memory(no).tolist() == [False, False]
    memory(yes)
    assert memory(yes).tolist() == [True, True]
