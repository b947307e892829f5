"""What users install: the wheel in an empty environment, and the colcon workspace."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import robolearn
from robolearn.paths import resolve, share_dir

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("robolearn", "sim", "real")
SHARED = ("launch", "configs")
LAUNCH = """launch:
  - executable: {cmd: echo share $(find-pkg-share robolearn)}
  - executable: {cmd: $(exec-in-pkg robolearn robolearn) --version}
  - executable: {cmd: ls $(exec-in-pkg guard_node robolearn) $(find-pkg-share robolearn)/launch}
"""
WHERE = "import robolearn, sim, real; from robolearn.paths import share_dir; print(share_dir())"


def run(*command: object, cwd: Path, **env: str) -> str:
    """Its output; fails with all it printed. The caller's PYTHONPATH stays outside."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "AMENT_PREFIX_PATH")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command} returned {done.returncode}:\n{done.stdout}"
    return done.stdout


def files_below(root: Path, *folders: str) -> set[str]:
    """What a release must hold of these folders: all but byte code and hidden files."""
    found = (p.relative_to(root) for folder in folders for p in (root / folder).rglob("*") if p.is_file())
    return {str(p) for p in found if not any(part.startswith((".", "__pycache__")) for part in p.parts)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, with the byte code and the tests that must not be released."""
    copy = tmp_path_factory.mktemp("source") / "robolearn"
    for name in (*PACKAGES, *SHARED, "resource", "tests"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name)
    for name in ("package.xml", "setup.py", "setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    (copy / "sim/__pycache__").mkdir(exist_ok=True)
    (copy / "sim/__pycache__/old.cpython-311.pyc").touch()
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    pytest.importorskip("build")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source.parent, cwd=source)
    return next(source.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def robot_computer(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bin/ of an environment that holds the wheel and its base requirements, from the package index."""
    home = tmp_path_factory.mktemp("robot_computer")
    run(sys.executable, "-m", "venv", home / "venv", cwd=home)
    python = home / "venv/bin/python"
    fast = {"PIP_COMPILE": "0"}
    run(ROOT / "tools/setup.sh", "torch", python, cwd=home, **fast)
    run(python, "-m", "pip", "install", wheel, cwd=home, **fast)
    yield python.parent
    shutil.rmtree(home)  # nearly a gigabyte, and pytest keeps the folders of three runs


def test_wheel_has_the_version_of_the_manifest(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert metadata["Version"] == robolearn.__version__


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(source: Path, wheel: Path) -> None:
    share = f"robolearn-{robolearn.__version__}.data/data/share"
    expected = files_below(source, *PACKAGES)
    expected |= {f"{share}/robolearn/{name}" for name in (*files_below(source, *SHARED), "package.xml")}
    expected |= {f"{share}/ament_index/resource_index/packages/robolearn"}
    with zipfile.ZipFile(wheel) as archive:
        assert {n for n in archive.namelist() if ".dist-info/" not in n} == expected


def test_wheel_runs_in_an_empty_environment(robot_computer: Path, tmp_path: Path) -> None:
    share = run(robot_computer / "python", "-c", WHERE, cwd=tmp_path).strip()
    assert Path(share) == robot_computer.parent / "share/robolearn"
    assert files_below(Path(share), *SHARED) == files_below(ROOT, *SHARED)
    assert "train" in run(robot_computer / "robolearn", "--help", cwd=tmp_path)


def launched(tmp_path: Path) -> Path:
    path = tmp_path / "places.launch.yaml"
    path.write_text(LAUNCH)
    return path


def test_wheel_launches_with_its_own_files(robot_computer: Path, tmp_path: Path) -> None:
    said = run(robot_computer / "robolearn", "launch", launched(tmp_path), cwd=tmp_path)
    assert f"[echo] share {robot_computer.parent}/share/robolearn\n" in said
    assert f"[robolearn] {robolearn.__version__}\n" in said
    assert f"[ls] {robot_computer}/guard_node\n" in said
    assert "[ls] deploy.launch.yaml\n" in said


@pytest.mark.parametrize("what", ["tasks", "algos", "robots", "backends", "experiments"])
def test_lists_need_no_simulator(robot_computer: Path, tmp_path: Path, what: str) -> None:
    run(
        robot_computer / "python",
        "-c",
        "import importlib.util as u; assert not u.find_spec('mujoco')",
        cwd=tmp_path,
    )
    assert run(robot_computer / "robolearn", "list", what, cwd=tmp_path).strip()


@pytest.mark.parametrize("linked", [False, True], ids=["copied", "symlinked"])
def test_colcon_workspace_runs(source: Path, tmp_path: Path, linked: bool) -> None:
    pytest.importorskip("colcon_core")
    colcon = Path(sys.executable).with_name("colcon")
    options = ["--symlink-install"] if linked else []
    (tmp_path / "src").mkdir()
    package = shutil.copytree(source, tmp_path / "src/robolearn")
    run(colcon, "build", *options, "--event-handlers", "console_direct-", cwd=tmp_path)

    def sourced(command: str) -> str:
        return run("bash", "-c", f". {tmp_path}/install/setup.bash && {command}", cwd=Path("/"))

    prefix = tmp_path / "install/robolearn"
    assert sourced("echo $AMENT_PREFIX_PATH").strip() == str(prefix)
    assert (prefix / "share/ament_index/resource_index/packages/robolearn").exists()
    assert files_below(prefix / "share/robolearn", *SHARED) == files_below(package, *SHARED)
    share = sourced(f"{sys.executable} -c '{WHERE}'").strip()
    assert Path(share) == (package if linked else prefix / "share/robolearn")
    assert sourced(f"{prefix}/lib/robolearn/robolearn list experiments").strip()
    said = sourced(f"{prefix}/lib/robolearn/robolearn launch {launched(tmp_path)}")
    assert f"[echo] share {prefix}/share/robolearn\n" in said
    assert f"[robolearn] {robolearn.__version__}\n" in said
    assert f"[ls] {prefix}/lib/robolearn/guard_node\n" in said


def test_import_loads_nothing_heavy() -> None:
    probe = "import sys, robolearn; print({'torch', 'numpy', 'hydra', 'xml'} & set(sys.modules))"
    assert run(sys.executable, "-c", probe, cwd=ROOT).strip() == "set()"


def test_resolve_finds_packages_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "armory").mkdir()
    (tmp_path / "armory/__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "armory/arm.urdf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("package://armory/arm.urdf") == tmp_path / "armory/arm.urdf"
    assert resolve("package://robolearn/configs") == share_dir() / "configs"
    assert resolve(str(tmp_path)) == tmp_path


def test_resolve_finds_the_share_of_a_ros_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "share/ur-description").mkdir(parents=True)
    (tmp_path / "share/ur-description/ur.urdf").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert resolve("package://ur-description/ur.urdf") == tmp_path / "share/ur-description/ur.urdf"


def test_resolve_names_what_it_tried() -> None:
    with pytest.raises(FileNotFoundError, match=f"tried: .*{ROOT}/robolearn/lost.urdf"):
        resolve("package://robolearn/lost.urdf")
    with pytest.raises(FileNotFoundError, match="'lost_robot' is installed"):
        resolve("package://lost_robot/lost.urdf")
