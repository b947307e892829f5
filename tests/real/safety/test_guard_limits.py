"""Limits that can only be tightened."""

import dataclasses
import math

import pytest

from robolearn import config
from robolearn.errors import ConfigError

config.discover(["robolearn.robots", "real.robots"])
LIMITS = config.entry("profile", "franka").value.limits


def test_a_site_tightens_by_name_and_one_number_stands_for_every_joint():
    tight = LIMITS.tightened({"joint_velocity_radps": 0.5, "box_lower_m": [0, 0, 0.1], "tool_speed_mps": 1})
    assert tight.joint_velocity_radps == (0.5,) * 7
    assert tight.box_lower_m == (0.0, 0.0, 0.1) and tight.tool_speed_mps == 1.0
    assert tight.joint_jerk_radps3 == LIMITS.joint_jerk_radps3


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(LIMITS)])
def test_every_limit_refuses_a_looser_value_and_names_both(name):
    had = getattr(LIMITS, name)
    first = had[0] if isinstance(had, tuple) else had
    upwards = name in ("joint_lower_rad", "box_lower_m", "floor_m", "clearance_m")
    looser = first - 0.005 if upwards else first + 0.005
    value = (looser, *had[1:]) if isinstance(had, tuple) else looser
    with pytest.raises(ConfigError, match="can only be tightened") as error:
        LIMITS.tightened({name: value})
    assert f"= {looser}" in str(error.value) and str(first) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tool_sped_mps": 1.0}, "tool_speed_mps"),
        ({"tool_speed_mps": math.nan}, "tool_speed_mps must be finite and above 0, got nan"),
        ({"tool_speed_mps": 0.0}, "must be finite and above 0"),
        ({"tool_speed_mps": None}, "must be numbers, got None"),
        ({"tool_speed_mps": True}, "must be numbers, got True"),
        ({"tool_speed_mps": [1.0]}, "must be one number"),
        ({"box_upper_m": [1.0, 1.0]}, "must be 3 numbers"),
        ({"box_upper_m": "123"}, "must be numbers"),
        ({"joint_velocity_radps": [0.1, -0.1, 0.1, 0.1, 0.1, 0.1, 0.1]}, r"joint_velocity_radps\[1\] must be"),
        ({"box_lower_m": [0.95, 0.0, 0.0]}, r"box_lower_m\[0\] = 0.95 must be below box_upper_m\[0\] = 0.95"),
        ({"stop_after_s": 0.01}, "hold_after_s = 0.08 must not exceed stop_after_s = 0.01"),
    ],
)
def test_what_is_no_limit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        LIMITS.tightened(changes)
