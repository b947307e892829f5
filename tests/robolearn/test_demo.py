"""The demo: continues where it stopped, and its page holds what was measured."""

import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robolearn.cli import _plots, _report, main, train
from robolearn.errors import ConfigError

SMALL = (
    "experiment=cartpole_ppo",
    "num_envs=8",
    "total_steps=3000",
    "task.episode_length_s=1",
    "backend.threads=1",
)
SMALL += ("eval_episodes=8", "episodes=8", "video_envs=1", "seed=3")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What training was asked to do, call by call; it is really done."""
    asked: list[list[str]] = []
    real = train.main
    monkeypatch.setattr(train, "main", lambda words: asked.append(words) or real(words))
    return asked


def test_demo_makes_everything_once(tmp_path: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in ("mujoco", "av", "matplotlib", "onnxruntime"):
        pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert main.main(["demo", "out=d", *SMALL]) == 0
    made = {p: p.stat().st_mtime_ns for p in map(Path, ("d/film.mp4", "d/policy.onnx", "d/episodes.json"))}
    page = Path("d/report.html").read_text()
    rows = json.loads(Path("d/episodes.json").read_text())["rows"]
    rate = 100 * sum(rows["success"]) / len(rows["success"])
    assert f"the policy succeeds in {rate:.1f} % of 8 fresh" in page
    assert page.count("<svg") == 5 and "data:video/mp4;base64," in page  # curves, three histograms, time
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "cart_position" in page and "pole_angle" in page
    assert "of the commands were cut back by the robot's limits" in page
    assert "on 3 CPU cores" in page and ", 3 cores" in page

    assert main.main(["demo", "out=d", *SMALL]) == 0
    assert len(runs) == 1 and all(p.stat().st_mtime_ns == t for p, t in made.items())
    assert main.main(["demo", "out=d", *SMALL[:-1], "seed=4"]) == ConfigError.exit_code


def test_interrupted_training_is_resumed(
    tmp_path: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robolearn.cli import demo
    from robolearn.loops.on_policy import Trainer

    monkeypatch.chdir(tmp_path)
    whole, calls = Trainer._iterate, []

    def interrupted(self: Trainer) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C in the middle of an iteration
        return whole(self)

    monkeypatch.setattr(Trainer, "_iterate", interrupted)
    assert main.main(["demo", "out=d", *SMALL]) == main.INTERRUPTED
    assert not Path("d/run/bundle").exists()
    options = demo.DemoCfg(out="d", experiment="cartpole_ppo", seed=3)
    words = [w for w in SMALL if w.partition("=")[0] not in vars(options)]
    demo._trained(Path("d"), options, words)
    assert runs[1] == ["resume=d/run"]
    assert Path("d/run/bundle/bundle.json").is_file()


def test_a_wrong_setting_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["demo", "total_stepz=5"]) == ConfigError.exit_code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, shown",
    [
        ("position_error_m", ("position error", "mm", 1000.0)),
        ("rotation_error_rad", ("rotation error", "degrees", pytest.approx(57.29578))),
        ("force_n", ("force", "n", 1.0)),
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
    one, two = (_plots.histogram("position_error_m", [0.01, 0.02, 0.03], 0.02) for _ in range(2))
    clips = [set(re.findall(r'<clipPath id="([^"]+)"', svg)) for svg in (one, two)]
    assert clips[0] and not clips[0] & clips[1]
    assert "limit 20 mm" in one and _plots.INK not in one and "currentColor" in one
