"""The demo's flight: what is flown, and what the page says of it."""

import json
import math
from types import SimpleNamespace as Bag

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
from robolearn.cli import _fly_report, _fly_trial

TIMES = [10.0 + 0.02 * k for k in range(400)]
FOUND = {
    "errors_m": [0.03, 0.04, 0.0, 0.05],
    "latency_ms": [10.0 + k % 7 for k in range(200)],
    "times_s": TIMES,
    "poses": [[math.sin(t), math.cos(t), 1.0, 0.0, 0.0, 0.0, 1.0] for t in TIMES],
    "speeds_mps": [1.0 if t < 15.5 else 0.05 for t in TIMES],
    "goals": [[t, math.sin(t), math.cos(t), 1.0] for t in TIMES[:250]],
    "states": [[9.0, "flying"], [16.2, "landing"], [17.5, "grounded"]],
    "killed_s": 15.0,
    "load": 1.0,
    "counts": {"guard: tilt": 3, "guard: stale": 0},
}


def text_of(found):
    text = _fly_report.section(found, 0.025, "<video></video>")
    assert text.count("<svg") == 3 and "<video></video>" in text
    return text


def test_the_page_tells_the_error_beside_the_simulators_and_how_it_ended():
    text = text_of(FOUND)
    assert "RMS error of 35 mm (25 mm in the engine" in text  # sqrt((9 + 16 + 25) / 4) = 3.54 cm
    assert "hover, at most 1.11 m from there" in text  # the chord of 1.18 rad
    assert "asked to land (landing after 1.2 s, then grounded after 2.5 s)" in text
    assert "slower than 0.1 m/s from 0.5 s on" in text
    assert "guard: tilt" in text and "guard: stale" not in text and "kept this machine busy" not in text


def test_a_busy_machine_is_told():
    assert "kept this machine busy" in text_of(FOUND | {"load": 1e3})


def test_what_was_not_flown_is_no_section(tmp_path):
    assert _fly_report.read(tmp_path) is None
    (tmp_path / _fly_trial.FILE).write_text(json.dumps(FOUND))
    assert _fly_report.read(tmp_path) == FOUND


@pytest.mark.parametrize(
    ("robot", "function", "flies"),
    [("crazyflie", "attitude", True), ("crazyflie", "rotor_speed", False), ("racer", "attitude", False)],
)
def test_only_attitudes_of_a_robot_with_a_site_are_flown(robot, function, flies):
    packed = Bag(spec=Bag(robot=robot, action=Bag(function=function)))
    assert _fly_trial.can_fly(packed) is flies
