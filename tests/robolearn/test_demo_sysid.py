"""The demo's identification: what the page tells of it."""

import json

import pytest

from robolearn import config
from robolearn.cli import _sysid_trial, _world

pytest.importorskip("matplotlib")


def row(name, low, value, high, nominal=1.0, identifiable=True):
    return {
        "name": name, "unit": "x specified", "identifiable": identifiable, "value": value if identifiable else None,
        "low": low, "high": high, "nominal": nominal, "least": 0.25, "most": 5.0,
    }  # fmt: skip


def test_the_page_counts_the_true_values_that_are_inside(tmp_path):
    (tmp_path / "sysid").mkdir()
    rows = [
        row("inertia", 1.3, 1.4, 1.5),
        row("drag", 0.5, 0.8, 0.9),
        row("spin_up", 0.1, 0.2, 0.3, identifiable=False),
    ]
    (tmp_path / _sysid_trial.FILE).write_text(json.dumps({"estimates": rows}))
    (tmp_path / _sysid_trial.TRUE).write_text(json.dumps({"inertia": 1.4}))  # the rest is as specified
    page = _sysid_trial.section(tmp_path, "pybullet")
    assert "1 of 2 true values lie in their intervals" in page
    assert page.count("<svg") == 1 and "not identifiable" in page
    assert _sysid_trial.section(tmp_path / "elsewhere", "pybullet") == ""


@pytest.mark.parametrize(
    "robot, can", [("franka", True), ("crazyflie", True), ("cartpole", False)]
)  # one is driven by force
def test_who_can_be_identified(robot, can):
    _world.discover()
    assert _sysid_trial.possible(config.entry("robot", robot).value) == can
