"""`robolearn new` writes packages that install, are found, train and pass their own tests, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robolearn import config
from robolearn.cli import new
from robolearn.config import ConfigError

NAME = {"task": "go_there", "robot": "twolink", "algo": "weighted"}
LISTED = {"task": "go_there", "robot": "twolink_reach", "algo": "weighted"}
EXPERIMENT = {"task": "go_there_ppo", "robot": "twolink_reach_ppo", "algo": "cartpole_weighted"}


def run(*command: object, cwd: Path, site: Path | None = None) -> str:
    """What it printed; `site` holds installed packages."""
    environ = os.environ | {"PYTHONPATH": str(site or ""), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def robolearn(*words: object) -> tuple[object, ...]:
    return (sys.executable, "-m", "robolearn.cli.main", *words)


@pytest.fixture(scope="module", params=sorted(NAME))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Kind, the written folder, and a folder where it is installed."""
    home = tmp_path_factory.mktemp(request.param)
    run(*robolearn("new", request.param, NAME[request.param], f"into={home}"), cwd=home)
    folder = home / f"robolearn_{NAME[request.param]}"
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "install", *options, "--target", home / "site", folder, cwd=home)
    return request.param, folder, home / "site"


def test_package_is_listed_as_a_plugin(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    kind, folder, site = made
    kinds = {"task": ["tasks"], "robot": ["robots", "tasks"], "algo": ["algos"]}[kind]
    listed = run(*robolearn("list", *kinds, "experiments"), cwd=tmp_path, site=site)
    for name in (NAME[kind], LISTED[kind], EXPERIMENT[kind]):
        lines = [line for line in listed.splitlines() if line.split()[:1] == [name]]
        assert len(lines) == 1 and lines[0].endswith(f"(plugin {folder.name})"), listed


def test_experiment_trains_as_written(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    kind, _, site = made
    short = ("total_steps=2000", "eval_episodes=4", "backend.threads=1", f"run_dir={tmp_path / 'run'}")
    run(*robolearn("train", f"experiment={EXPERIMENT[kind]}", *short), cwd=tmp_path, site=site)
    assert json.loads((tmp_path / "run/scores.json").read_text())["train_steps"] >= 2000
    assert (tmp_path / "run/bundle/bundle.json").is_file()


def test_written_test_passes(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    _, folder, site = made
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder, cwd=tmp_path, site=site)


def test_written_code_is_in_our_style(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    """Except for the length of lines, which the chosen name changes."""
    pytest.importorskip("ruff")
    settings = Path(__file__).parents[2] / "pyproject.toml"
    options = ("--no-cache", "--ignore", "E501", "--config", settings)
    run(sys.executable, "-m", "ruff", "check", *options, made[1], cwd=tmp_path)


def test_doctor_loads_the_plugin(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    from robolearn.cli._probes import PLUGIN, Child

    kind, _, site = made
    good, said = Child(60.0)(PLUGIN, NAME[kind], PYTHONPATH=str(site))
    assert good and f"{kind} {NAME[kind]}" in said, said


@pytest.mark.slow
def test_written_algorithm_solves_cartpole(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    kind, _, site = made
    if kind != "algo":
        pytest.skip("the algorithm's own")
    words = (f"experiment={EXPERIMENT[kind]}", f"run_dir={tmp_path / 'run'}", "eval_episodes=100")
    run(*robolearn("train", *words), cwd=tmp_path, site=site)
    assert json.loads((tmp_path / "run/scores.json").read_text())["success"] > 0.9


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("My-Task", "like my_task"),
        ("class", ""),
        ("2fast", "like fast"),
        ("", "like my_task"),
        ("a__b", "like a_b"),
    ],
)
def test_bad_name_is_refused(name: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' cannot name a Python module.*{near}"):
        new.main(["task", name, f"into={tmp_path}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task", "cartpole"], "the task 'cartpole' exists already"),
        (["robot", "franka"], "the robot 'franka' exists already"),
        (["algo", "ppo"], "the algo 'ppo' exists already"),
        (["tusk", "lift"], "no kind 'tusk'; did you mean task"),
        (["task"], "give a kind and a name"),
        (["task", "lift", "inot=."], "no key 'inot'; did you mean into"),
    ],
)
def test_unusable_request_names_the_remedy_and_writes_nothing(words: list[str], message: str, tmp_path: Path) -> None:
    into = [] if "inot=." in words else [f"into={tmp_path}"]
    with pytest.raises(ConfigError, match=message):
        new.main([*words, *into])
    assert list(tmp_path.iterdir()) == []


def test_missing_and_existing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        new.main(["task", "lift_it", f"into={tmp_path / 'nowhere'}"])
    (tmp_path / "robolearn_lift_it").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        new.main(["task", "lift_it", f"into={tmp_path}"])
    assert [p.name for p in tmp_path.rglob("*")] == ["robolearn_lift_it"]


def test_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill, calls = new._fill, []

    def fails_late(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError("no space left on device")
        fill(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(new, "_fill", fails_late)
    with pytest.raises(OSError, match="no space"):
        new.write("task", "lift_it", tmp_path / "robolearn_lift_it")
    assert len(calls) == 3 and list(tmp_path.iterdir()) == []


def test_every_kind_leaves_the_registry_as_it_was(tmp_path: Path) -> None:
    before = config.names("task")
    new.main(["task", "lift_it", f"into={tmp_path}"])
    assert (tmp_path / "robolearn_lift_it/robolearn_lift_it/lift_it.py").is_file()
    assert "lift_it" not in config.names("task") and set(before) <= set(config.names("task"))
