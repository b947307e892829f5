"""launch/record.launch.yaml: one node, with every parameter of the recorder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workspace_samples import ROOT, install

from robolearn.cli import launch
from robolearn.cli._launch_plan import Plan, Process
from robolearn.errors import ConfigError


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sourced ROS 2 workspace that holds robolearn."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(install(tmp_path / "install")))


def started(**variables: str) -> Process:
    made = Plan(variables)
    made.include(launch._find("record"))
    (process,) = made.processes
    return process


def given(process: Process) -> dict[str, str]:
    return dict(word.split(":=", 1) for word in process.command if re.match(r"\w+:=", word) and "__" not in word)


def test_what_is_asked_for_reaches_the_recorder() -> None:
    process = started(topics="/a /b", storage="sqlite3", split_mb="500.0", zstd="false", namespace="left")
    values = given(process)
    assert process.name == "left/record" and process.required
    assert values["topics"] == '"/a /b"' and values["storage"] == '"sqlite3"'
    assert values["split_mb"] == "500.0" and values["zstd"] == "false" and values["name"] == '""'


def test_every_parameter_but_those_of_experts_is_an_argument() -> None:
    declared = set(re.findall(r'parameter\(self, "(\w+)"', (ROOT / "real/nodes/record.py").read_text()))
    from real.nodes.record import CFG

    assert declared | set(CFG) == set(given(started())) | {"queue_mb", "start"}


def test_a_storage_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="storage"):
        started(storage="rosbag1")
