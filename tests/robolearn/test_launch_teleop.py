"""launch/teleop.launch.yaml: what is started, and that what it sets are parameters of the node."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workspace_samples import ROOT, install

from robolearn.cli import launch
from robolearn.cli._launch_plan import Plan, Process


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sourced ROS 2 workspace that holds robolearn."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(install(tmp_path / "install")))


def started(**variables: str) -> list[Process]:
    made = Plan(variables)
    made.include(launch._find("teleop"))
    return made.processes


def test_it_starts_a_guard_where_there_is_none_and_a_twin_if_asked() -> None:
    assert [p.name for p in started(twin="true", namespace="left")] == ["left/twin", "left/guard", "left/teleop"]
    (alone,) = started(guard="false")
    assert alone.name == "teleop" and alone.required


def test_what_it_sets_are_parameters_of_the_node() -> None:
    (process,) = started(guard="false", devices="[joy, keyboard]", speed_mps="0.2", keyboard_path="/dev/input/event3")
    words = dict(w.split(":=", 1) for w in process.command if re.match(r"[\w.]+:=", w) and "__" not in w)
    assert words["devices"] in ("[joy, keyboard]", '["joy", "keyboard"]') and words["speed_mps"] == "0.2"
    assert words["keyboard.path"] == '"/dev/input/event3"'
    node = "".join((ROOT / f"real/nodes/{name}.py").read_text() for name in ("teleop", "person"))
    for name in words:
        device, _, field = name.rpartition(".")
        where = (ROOT / f"real/teleop/{device}.py").read_text() if device else node
        assert re.search(rf'"{field}"|\n    {field}: ', where), name
