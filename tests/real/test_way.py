"""The way that an arm has come, and whether it is stuck."""

import torch

from real.way import Stuck, Way


def joints(*numbers):
    return torch.tensor(numbers)


def test_the_way_back_begins_at_the_last_point_that_is_near():
    way = Way()
    assert way.back(joints(0.0, 0.0)) == []
    way.add(joints(5.0, 5.0))  # before an episode
    way.begin(joints(0.0, 0.0))
    for at in (joints(0.5, 0.0), joints(0.51, 0.0), joints(1.0, 0.0), joints(1.0, 1.0)):
        way.add(at)
    found = way.back(joints(1.0, 0.2))
    assert [p.tolist() for p in found] == [[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]]
    assert way.back(joints(2.0, 2.0)) == []
    way.begin(joints(2.0, 2.0))
    assert [p.tolist() for p in way.back(joints(2.0, 2.1))] == [[2.0, 2.0]]


def test_it_is_stuck_when_it_has_not_moved_for_two_seconds():
    now = [0.0]
    stuck, found = Stuck(lambda: now[0]), []
    for now[0], at in ((0.0, 0.0), (1.5, 0.005), (2.1, 0.005), (2.2, 0.1), (4.1, 0.1), (4.3, 0.1)):
        found.append(stuck(joints(at)))
    assert found == [False, False, True, False, False, True]
