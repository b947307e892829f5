"""What `robolearn launch camera` starts."""

import sys
from pathlib import Path

import pytest

from robolearn.cli import _launch_places, launch
from robolearn.cli._launch_plan import Plan, Process


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_launch_places, "executable", lambda package, program: Path(sys.executable))


def started(**variables: str) -> list[Process]:
    plan = Plan(variables)
    plan.include(launch._find("camera"))
    return plan.processes


def test_a_device_is_a_camera_alone() -> None:
    (camera,) = started(device="/dev/video2", name="wrist", calibration="wrist.yaml")
    assert {'device:="/dev/video2"', 'name:="wrist"', 'calibration:="wrist.yaml"', "width:=640"} <= set(camera.command)
    assert not any("simulated" in word for word in camera.command)


def test_objects_are_looked_for_if_asked_by_the_table_and_the_mounting() -> None:
    camera, tags = started(find="true", hand_eye="mount.yaml", name="wrist", namespace="left")
    assert (camera.name, tags.name) == ("left/camera", "left/tags")
    assert {'hand_eye:="mount.yaml"', 'camera:="wrist"'} <= set(tags.command)
    assert any(word.endswith("configs/camera/cube.yaml") for word in tags.command)


def test_beside_a_twin_the_camera_is_simulated_and_both_keep_the_truth_apart() -> None:
    twin, camera, tags = started(twin="true", find="true", scene="franka_lift", hand_eye="mount.yaml")
    assert [p.name for p in (twin, camera, tags)] == ["twin", "camera", "tags"]
    assert "simulated:=true" in camera.command and 'scene:="franka_lift"' in camera.command
    for process in (twin, camera):
        assert "objects/cube:=truth/cube" in process.command
    assert not any("truth" in word for word in tags.command)


def test_clouds_are_made_if_asked_and_on_the_twin_the_camera_draws_their_depth() -> None:
    _, camera, cloud = started(twin="true", cloud="true", hand_eye="mount.yaml", name="view")
    assert "depth:=true" in camera.command and cloud.name == "cloud"
    assert {'camera:="view"', 'hand_eye:="mount.yaml"'} <= set(cloud.command)
    assert any(word.endswith("configs/camera/cloud.yaml") for word in cloud.command)
    driver_apart = started(cloud="true", hand_eye="mount.yaml")[0]
    assert not any("depth" in word for word in driver_apart.command)
