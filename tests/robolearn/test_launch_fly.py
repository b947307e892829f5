"""launch/fly.launch.yaml, and a camera in deploy.launch.yaml: what is started with which parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspace_samples import install

from robolearn.cli import launch
from robolearn.cli._launch_plan import Plan, Process


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sourced ROS 2 workspace that holds robolearn."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(install(tmp_path / "install")))


def ours(name: str, **variables: str) -> list[Process]:
    made = Plan(variables)
    made.include(launch._find(name))
    return made.processes


@pytest.mark.parametrize(("twin", "names"), [("false", ["guard", "policy"]), ("true", ["twin", "guard", "policy"])])
def test_fly_starts_guard_and_policy_and_a_twin_if_asked(twin: str, names: list[str]) -> None:
    processes = ours("fly", twin=twin, namespace="cf231", run="runs/7", trajectory="circle", size_m="0.5")
    assert [p.name for p in processes] == [f"cf231/{name}" for name in names]
    assert all("__ns:=/cf231" in p.command for p in processes)
    assert [p.required for p in processes] == [True] * (len(names) - 1) + [False]  # without a policy it hovers
    programs = [Path(p.command[0]).name for p in processes]
    assert programs == [f"{'flight_' if n != 'policy' else ''}{n}_node" for n in names]
    for process in processes:
        assert process.command[process.command.index("--params-file") + 1].endswith("configs/site/crazyflie.yaml")
    assert {'run:="runs/7"', 'trajectory:="circle"', "size_m:=0.5", "period_s:=5.5", "start:=false"} <= set(
        processes[-1].command
    )


def test_deploy_brings_a_camera_and_who_finds_objects_if_asked() -> None:
    processes = ours("deploy", camera="true", calibration="lens.yaml", hand_eye="mount.yaml", namespace="left")
    assert [p.name for p in processes] == ["left/camera", "left/tags", "left/guard", "left/policy"]
    camera, tags, *_ = processes
    assert {'device:="/dev/video0"', 'calibration:="lens.yaml"'} <= set(camera.command)
    assert 'hand_eye:="mount.yaml"' in tags.command
