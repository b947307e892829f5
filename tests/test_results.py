"""The result tables: what is done is not repeated, both engines stand beside each other, only markers are filled."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import episode_samples
import pytest

from robolearn.errors import ConfigError


def _load() -> Any:
    """The measurements are not installed."""
    path = Path(__file__).parent.parent / "benchmarks" / "results.py"
    spec = importlib.util.spec_from_file_location("benchmarks_results", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


results = _load()
rows = importlib.import_module("benchmarks.result_rows")
ARM = results.Row("franka_reach_ppo", seeds=2)
STREAMING = rows.imitation("peg_streaming", "peg", ("own", "ddim 16"))
CORRECTED = rows.corrected("peg_residual_td3", "peg_streaming", "peg", seeds=1)
FLIGHT = rows.flight("crazyflie_hover_rpm", "hover 40 s", ("total_steps=9",))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What the command line was asked; evaluations answer with scores that tell engine and force apart."""
    asked: list[tuple[str, ...]] = []

    def fake(*words: str) -> None:
        asked.append(words)
        given = dict(w.partition("=")[::2] for w in words[1:])
        if "run_dir" in given:
            Path(given["run_dir"]).mkdir(parents=True)
            (Path(given["run_dir"]) / "scores.json").write_text('{"train_seconds": 1.0}')  # as a training does
        if words[0] == "evaluate":
            other, calm = "backend" in given, "task.randomize.disturbance_force_n" in given
            success, rms = (0.5 if other else 0.99), (0.25 if other else 0.0625) / (1 + calm)
            error = {"mean": rms, "median": rms, "p95": rms, "rms": rms}
            scores = {"success": success, "episodes": int(given["episodes"]), "backend": "first"}
            scores |= {"steady_error_m": error, "clip_rate": error, "length": {"median": 31.0}}
            sampler = given.get("sampler", "streaming")
            calls = {"streaming": 5, "ddim": 16}[sampler]
            plan = {"p50": 1.0 * calls, "p95": 2.0 * calls, "p99": 3.0 * calls}
            scores |= {"chunk": {"sampler": sampler, "calls_per_chunk": calls, "execute": 8, "plan_ms": plan}}
            Path(given["json"]).write_text(json.dumps(scores))

    monkeypatch.setattr(results, "robolearn", fake)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return asked


def test_a_seed_is_trained_once_and_scored_once_in_each_engine_and_case(calls: list[tuple[str, ...]]) -> None:
    found = results.run(FLIGHT, 3)
    kinds = [words[0] for words in calls]
    assert kinds == ["train"] + 4 * ["evaluate"]
    assert {"experiment=crazyflie_hover_rpm_ppo", "seed=3", "total_steps=9"} <= set(calls[0])
    assert [("backend=pybullet" in c, "task.randomize.disturbance_force_n=0" in c) for c in calls[1:]] == [
        (False, False), (True, False), (False, True), (True, True),
    ]  # fmt: skip
    assert all("task.level_start=0" in c for c in calls[1:])
    assert results.run(FLIGHT, 3) == found and len(calls) == 5


def test_an_interrupted_training_is_resumed_and_not_timed(calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    checkpoints = tmp_path / "franka_reach_ppo" / "seed0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "000000001000.safetensors").touch()
    assert results.run(ARM, 0)["wall_s"] is None
    assert calls[0] == ("train", f"resume={tmp_path / 'franka_reach_ppo' / 'seed0'}")


def test_a_training_killed_before_its_first_checkpoint_begins_anew(
    calls: list[tuple[str, ...]], tmp_path: Path
) -> None:
    (tmp_path / "franka_reach_ppo" / "seed0" / "checkpoints").mkdir(parents=True)
    assert results.run(ARM, 0)["wall_s"] is not None
    assert "experiment=franka_reach_ppo" in calls[0]


def test_tables_hold_both_engines_and_the_baseline(calls: list[tuple[str, ...]]) -> None:
    found = {ARM: [results.run(ARM, s) | {"wall_s": 10.0 + s} for s in range(2)]}
    line = results.arms(found).splitlines()[-1]
    assert "| 2 of 2 at 98 % | 99.0 (99.0 to 99.0) | 50.0 (50.0 to 50.0) | 10 (10 to 11) |" in line
    lines = results.flights({FLIGHT: [results.run(FLIGHT, 0)]}).splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| hover 40 s", "with force"], ["| hover 40 s", "without"],
        ["| geometric on crazyflie_hover_rpm", "with force"], ["| geometric on crazyflie_hover_rpm", "without"],
    ]  # fmt: skip
    assert "| 99.00 | 50.0 | 0.062 | 0.250 |" in lines[0] and "| 99.00 | 50.0 | 0.031 | 0.125 |" in lines[3]
    assert sum("policy=geometric" in c for c in calls) == 4


def test_demonstrations_are_recorded_for_the_row_and_each_sampler_has_a_line(
    calls: list[tuple[str, ...]], tmp_path: Path
) -> None:
    found = {STREAMING: [results.run(STREAMING, s) | {"wall_s": 60.0} for s in range(2)]}
    words = [c[0] for c in calls]
    assert words == ["collect", "train", *3 * ["evaluate"], "collect", "train", *2 * ["evaluate"]]
    assert {"task=franka_peg_insert", "noise=1", f"out={tmp_path / 'data' / 'peg'}"} <= set(calls[0])
    assert f"data.path={tmp_path / 'data' / 'peg'}" in calls[1]
    assert [("sampler=ddim" in c, "backend=pybullet" in c) for c in calls[2:5]] == [
        (False, False), (False, True), (True, False),
    ]  # fmt: skip
    lines = results.imitations(found).splitlines()[2:]
    own = "| peg_streaming | streaming (own) | 50 | 99.0 (99.0 to 99.0) | 50.0 (50.0 to 50.0) | 60 (60 to 60) | 5 for 8"
    assert lines[0] == f"{own} | 5, 10, 15 |"
    assert lines[1].startswith("| peg_streaming | ddim 16 | 50 | 99.0 |  | 60")
    assert lines[1].endswith("| 16 for 8 | 16, 32, 48 |")
    assert [r.table for r in (ARM, FLIGHT, STREAMING)] == ["results", "flight", "imitation"]


def test_what_is_recorded_is_what_the_experiment_learns_from() -> None:
    """Task, and number of episodes."""
    from robolearn import config
    from robolearn.cli import _world
    from robolearn.cli.train import TrainCfg

    _world.discover()
    learning = [r for r in results.ROWS if r.data]
    assert len(learning) >= 5
    for row in learning:
        cfg = config.load(TrainCfg, [f"experiment={row.experiment}"])
        assert f"task={cfg.task.name}" in results.DATA[row.data]
        assert f"episodes={cfg.data.episodes}" in results.DATA[row.data]
        assert cfg.data.path == f"data/{row.data}"
        assert cfg.algo.loop == "offline" or hasattr(cfg.algo, "demo_share")


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- flight: begin -->\nold\n<!-- flight: end -->\nb\n")
    results.write(page, "flight", "new")
    assert page.read_text() == "a\n<!-- flight: begin -->\nnew\n<!-- flight: end -->\nb\n"
    with pytest.raises(ConfigError, match="results: begin"):
        results.write(page, "results", "new")


def test_rows_are_chosen_by_name_or_experiment() -> None:
    assert [r.label for r in results.chosen(["crazyflie_hover_rpm_ppo"], ["seeds=1"])] == [
        "crazyflie_hover_rpm 40 s", "crazyflie_hover_rpm 90 s",
    ]  # fmt: skip
    assert results.chosen(["cartpole_ppo"], ["seeds=1"])[0].seeds == 1
    with pytest.raises(ConfigError, match="cartpole_ppo"):
        results.chosen(["cartpole_pp"], [])


@pytest.mark.parametrize("setting", ["seed=3", "seeds=three", "seeds=0", "seeds="])
def test_a_setting_that_is_none_is_refused_with_those_there_are(setting: str) -> None:
    with pytest.raises(ConfigError, match="seeds, episodes, second_episodes"):
        results.chosen([], [setting])


def test_a_corrected_policys_base_is_trained_first_and_stands_beside_it(calls: list[tuple[str, ...]]) -> None:
    found = results.run(CORRECTED, 0)
    kinds = [words[0] for words in calls]
    assert kinds == ["collect", "collect", "train", "train", "evaluate", "evaluate", "evaluate"]
    base, own = (dict(w.partition("=")[::2] for w in words[1:]) for words in calls[2:4])
    assert base["experiment"] == "peg_streaming" and own["residual.base"] == base["run_dir"]
    assert own["data.path"].endswith("data/peg")
    text = results.residuals({CORRECTED: [found]})
    assert "| peg_residual_td3 | 1 of 1 at 95 % | 99.0 | 99.0 (97.7 to 99.6) | 50.0 | data only |" in text


def test_who_was_helped_stands_with_the_persons_share_at_the_end(calls: list[tuple[str, ...]]) -> None:
    """Of the last tenth of 20 reports: 0.25 and 0.15."""
    row = replace(next(r for r in results.ROWS if r.label == "lift_hil"), seeds=1)
    found = results.run(row, 0)
    folder = results.FOLDER / "lift_hil" / "seed0"
    shares = [0.9] * 18 + [0.25, 0.15]
    lines = [json.dumps({"step": k, "env/intervened": s}) for k, s in enumerate(shares)]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "scores.json").write_text('{"train_steps": 18000}')
    assert results._helped(row, 0) == pytest.approx(0.2)
    episode_samples.make(results.FOLDER / "data" / "lift_hil", range(3))
    middle = sorted(episode_samples.length_of(e) for e in range(3))[1]
    line = results.people({row: [found | {"wall_s": 60.0}]}).splitlines()[-1]
    assert line == f"| lift_hil | 1 of 1 at 95 % | 99 (94.6 to 99.8) | 50.0 | 20 | 31 ({middle}) | 18,000 | 60 |"


def test_who_learns_from_anothers_successes_has_them_recorded(calls: list[tuple[str, ...]]) -> None:
    results.train(rows.corrected("peg_finetuned", teacher="peg_streaming", seeds=1), 1, results.FOLDER / "x")
    recorded = next(w for w in calls if w[0] == "collect" and "keep=success" in w)
    assert any(w.startswith("policy=run:") and w.endswith("peg_streaming/seed1") for w in recorded)
    assert any(w.startswith("data.path=") and w.endswith("data/peg_streaming_seed1") for w in calls[-1])
