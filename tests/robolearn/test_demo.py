"""The demo: continues where it stopped, and its page holds what was measured."""

import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robolearn import config
from robolearn.cli import _plots, _report, _video, _world, main, train
from robolearn.errors import ConfigError
from robolearn.loops.evaluate import wilson

SMALL = (
    "experiments=cartpole_ppo,crazyflie_hover_rpm_ppo",
    "num_envs=8",
    "total_steps=3000",
    "task.episode_length_s=1",
)
SMALL += ("eval_episodes=8", "episodes=8", "second_episodes=2", "video_envs=1", "sysid=false", "seed=3")
FOLDERS = Path("d/cartpole_ppo"), Path("d/crazyflie_hover_rpm_ppo")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What training was asked to do, call by call; it is really done."""
    asked: list[list[str]] = []
    real = train.main
    monkeypatch.setattr(train, "main", lambda words, began: asked.append(words) or real(words, began))
    return asked


def test_demo_makes_everything_once(tmp_path: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in ("mujoco", "pybullet", "warp", "av", "matplotlib", "onnxruntime"):
        pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    monkeypatch.setattr(_video, "WIDTH_PX", 120)  # without a GPU a film's time is its pixels'
    assert main.main(["demo", "out=d", *SMALL]) == 0
    files = "film.mp4", "policy.onnx", "episodes_pybullet.json", "run/bundle/bundle.json"
    made = {p: p.stat().st_mtime_ns for folder in FOLDERS for p in (folder / f for f in files)}
    page = Path("d/report.html").read_text()
    for folder, engine in zip(FOLDERS, ("mujoco", "quadrotor"), strict=True):
        assert f"success in {engine}, 95 % interval {_interval(folder, engine, 8)}, 8 episodes<" in page
        assert f"success in pybullet, 95 % interval {_interval(folder, 'pybullet', 2)}, 2 episodes; it" in page
        assert f'href="#{folder.name}"' in page and f'id="{folder.name}"' in page
    assert page.count("<svg") == 11  # twice curves, engines and time; two histograms and three
    assert page.count("data:video/mp4;base64,") == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "cart_position" in page and "steady error" in page and "the last 4" in page
    assert "on 3 CPU cores" in page and ", 3 cores" in page

    assert main.main(["demo", "out=d", *SMALL]) == 0
    assert len(runs) == 2 and all(p.stat().st_mtime_ns == t for p, t in made.items())
    assert main.main(["demo", "out=d", *SMALL[:-1], "seed=4"]) == ConfigError.exit_code


def _interval(folder: Path, engine: str, episodes: int) -> str:
    rows = json.loads((folder / f"episodes_{engine}.json").read_text())["rows"]
    assert len(rows["success"]) == episodes
    low, high = wilson(round(sum(rows["success"])), episodes)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def test_interrupted_training_is_resumed(
    tmp_path: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robolearn.cli import demo
    from robolearn.loops.online import Trainer

    monkeypatch.chdir(tmp_path)
    whole, calls = Trainer._iterate, []

    def interrupted(self: Trainer) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C in the middle of an iteration
        return whole(self)

    monkeypatch.setattr(Trainer, "_iterate", interrupted)
    words = ["out=d", *SMALL[1:], "experiments=cartpole_ppo", "second_backend="]
    assert main.main(["demo", *words]) == main.INTERRUPTED
    run = FOLDERS[0] / "run"
    assert not (run / "bundle").exists()
    options = demo.DemoCfg(seed=3)
    demo._trained(FOLDERS[0], "cartpole_ppo", options, [w for w in words if w.partition("=")[0] not in vars(options)])
    assert runs[1] == [f"resume={run}"]
    assert (run / "bundle/bundle.json").is_file()


def test_the_second_training_is_not_charged_with_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robolearn.cli import demo

    monkeypatch.setattr(train, "_process_age", lambda: 1e6)
    words = ["num_envs=8", "total_steps=1000", "eval_episodes=0"]
    demo._trained(tmp_path / "a", "cartpole_ppo", demo.DemoCfg(), words)
    scores = json.loads((tmp_path / "a/run/bundle/bundle.json").read_text())["scores"]
    assert 0.0 < scores["train_seconds"] < 1e5


@pytest.mark.parametrize(
    "word, said",
    [
        ("total_stepz=5", "total_steps"),
        ("experiments=cartpole_ppo,cartpole_ppo", "different names"),
        ("experiments=cartpole_pppo", "cartpole_ppo"),
        ("second_backend=quadrotor", "franka is no quadrotor"),
    ],
)
def test_a_wrong_setting_leaves_nothing_behind(
    word: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["demo", word]) == ConfigError.exit_code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, shown",
    [
        ("position_error_m", ("position error", "mm", 1000.0)),
        ("rotation_error_rad", ("rotation error", "degrees", pytest.approx(57.29578))),
        ("force_n", ("force", "N", 1.0)),
        ("body_rate_radps", ("body rate", "degrees/s", pytest.approx(57.29578))),
        ("steady_error_m", ("steady error", "mm", 1000.0)),
        ("clip_rate", ("clip rate", "", 1.0)),
        ("length", ("length", "", 1.0)),
    ],
)
def test_metrics_are_named_in_readable_units(name: str, shown: tuple[str, str, Any]) -> None:
    assert _plots.metric(name) == shown


def test_limits_of_success_are_found_by_name() -> None:
    task = SimpleNamespace(success_position_m=0.02, success_rotation_rad=0.2, episode_length_s=3.0)
    assert _report.limit(task, "position_error_m") == 0.02
    assert _report.limit(task, "rotation_error_rad") == 0.2
    assert _report.limit(task, "position_error_rad") is None
    assert _report.limit(task, "length") is None


def test_smoothing_narrows_at_the_ends() -> None:
    assert _plots.smooth([0.0, 3.0, 6.0, 0.0], width=3) == [1.5, 3.0, 3.0, 3.0]


def test_figures_of_one_page_share_no_identifiers() -> None:
    pytest.importorskip("matplotlib")
    values = {"mujoco": [0.01, 0.02, 0.03], "pybullet": [0.015]}
    one, two = (_plots.histogram("position_error_m", values, 0.02) for _ in range(2))
    clips = [set(re.findall(r'<clipPath id="([^"]+)"', svg)) for svg in (one, two)]
    assert clips[0] and not clips[0] & clips[1]
    assert "mujoco, median 20 mm" in one and "pybullet, median 15 mm" in one
    assert "limit 20 mm" in one and _plots.INK not in one and "currentColor" in one


def test_films_of_flights_show_the_goal() -> None:
    for extra in ("mujoco", "warp"):
        pytest.importorskip(extra)
    _world.discover()
    task = config.entry("task", "crazyflie_hover_rpm").config()
    env = _video.world(SimpleNamespace(task=task, backend=_world.backend_config("quadrotor", None), device="cpu"), 2, 0)
    env.reset()
    assert env.backend.goals(1)["goal"][:3] == [0.0, 0.0, 1.0]
