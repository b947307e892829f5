"""The training command as its user meets it: contracts of the algorithms, exact resumption, kills."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robolearn import config
from robolearn.cli import _world, train
from robolearn.cli._loops.online import shorten
from robolearn.loops import checkpoint
from robolearn.loops.log import Writer, read_metrics

_world.discover()
SMALL = ["task=cartpole", "num_envs=16", "algo.hidden=[32,32]", "eval_episodes=0"]


def run(folder: Path, *overrides: str) -> None:
    assert train.main([*SMALL, f"run_dir={folder}", *overrides]) == 0


def weights(folder: Path) -> dict:
    state = checkpoint.read_newest(folder / "checkpoints")
    return checkpoint.flatten({k: state[k] for k in ("algo", "generator", "counters", "env", "obs")})[0]


ON_POLICY = [n for n in config.names("algo") if hasattr(config.entry("algo", n).config, "epochs")]


@pytest.mark.parametrize("algo", ON_POLICY)
def test_every_algorithm_solves_the_toy(tmp_path, algo):
    """Cartpole from scratch; the policy that comes out of the bundle balances at least nine times in ten."""
    run(tmp_path / "run", f"algo={algo}", "num_envs=64", "total_steps=100000", "eval_episodes=200")
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["success"] >= 0.9
    _, cfg, packed = _world.load_run(str(tmp_path / "run"))
    again = _world.score(packed.policy, cfg.task, cfg.backend, 200, cfg.seed + 10_000)
    assert again["success"] == scores["success"]
    assert again["return"] == scores["return"]


RANDOMISED = ["task.randomize.mass=[0.8,1.2]", "task.randomize.observation_delay=[0,2]",
              "task.randomize.action_delay=[0,1]", "task.randomize.observation_dropout=0.1",
              "task.randomize.observation_noise={velocities: 0.01}"]  # fmt: skip


@pytest.mark.parametrize("extra", [[], RANDOMISED], ids=["plain", "randomised"])
def test_resuming_equals_never_having_stopped(tmp_path, extra):
    """Weights, optimiser, normaliser, random numbers, counters and worlds: bit by bit."""
    extra = ["algo.schedule=constant", *extra]  # a linear one depends on total_steps
    run(tmp_path / "whole", "total_steps=3000", *extra)
    run(tmp_path / "half", "total_steps=1500", *extra)
    assert train.main([f"resume={tmp_path / 'half'}", "total_steps=3000"]) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "half")
    assert whole.keys() == resumed.keys() and len(whole) > 20
    different = [k for k in whole if not torch.equal(whole[k], resumed[k])]
    assert different == []


FLYING = ["task=crazyflie_hover", "backend=quadrotor", "num_envs=16", "algo.hidden=[16,16]", "eval_episodes=0",
          "short_episodes=0.5", "algo.schedule=constant"]  # fmt: skip


def test_resuming_a_flight_equals_never_having_stopped(tmp_path):
    """The world whose period is one kernel keeps all that the following steps depend on, too."""
    pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
    for name, steps in (("whole", 3000), ("half", 1500)):
        assert train.main([*FLYING, f"run_dir={tmp_path / name}", f"total_steps={steps}"]) == 0
    assert train.main([f"resume={tmp_path / 'half'}", "total_steps=3000"]) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "half")
    assert whole.keys() == resumed.keys() and [k for k in whole if not torch.equal(whole[k], resumed[k])] == []


@pytest.mark.parametrize(("seconds", "periods"), [(0.25, 25), (20.0, 500), (float("inf"), 500)])
def test_short_episodes_are_never_longer_than_the_tasks(seconds, periods):
    """A flight's table of goals ends with the episode."""
    pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
    env = _world.make_env(config.entry("task", "crazyflie_hover").config(),
                          config.entry("backend", "quadrotor").config(), 4, "cpu", 0)  # fmt: skip
    shorten(env, train.TrainCfg(short_episodes=0.5, short_episode_s=seconds))
    assert env.episode_limit_buf.tolist() == [periods, periods, 500, 500]


def test_a_time_limit_ends_the_training_and_its_schedule(tmp_path, caplog):
    caplog.set_level("INFO", "robolearn")
    words = [*SMALL, f"run_dir={tmp_path / 'run'}", "total_steps=1000000000", "time_limit_s=4"]
    assert train.main(words, time.monotonic()) == 0  # this process is old
    last = read_metrics(tmp_path / "run")[-1]
    assert 4.0 <= last["time/seconds"] < 15.0 and last["step"] < 1e6
    assert last["learn/learning_rate"] < 1e-3  # 2e-3 at the start, falling with the time
    shown = [r.getMessage() for r in caplog.records if r.getMessage().startswith("train ")]
    assert shown[-1].startswith(f"train {last['step']}/{last['step']} ") and "  0 s left" in shown[-1]


def test_the_last_line_has_the_time_that_ended_the_training(tmp_path, monkeypatch):
    """However long a line takes to write: the limit passes while the one before the last is written."""
    write = Writer.write

    def slowly(self, step: int, figures: dict[str, float]) -> None:
        write(self, step, figures)
        time.sleep(max(0.0, 6.0 - figures["time/seconds"]))

    monkeypatch.setattr(Writer, "write", slowly)
    words = [*SMALL, f"run_dir={tmp_path / 'run'}", "total_steps=1000000000", "time_limit_s=6"]
    assert train.main(words, time.monotonic()) == 0
    assert read_metrics(tmp_path / "run")[-1]["time/seconds"] >= 6.0


def test_the_same_seed_gives_the_same_policy_and_another_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, "total_steps=1500", f"seed={seed}")
    a, b, c = (weights(tmp_path / n)["algo/policy/mean.0.weight"] for n in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_killed_training_resumes(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "robolearn.cli.main", "train", *SMALL, f"run_dir={folder}"]
    process = subprocess.Popen([*command, "total_steps=100000000", "checkpoint_every_s=0.2"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list((folder / "checkpoints").glob("*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = checkpoint.read_newest(folder / "checkpoints")["counters"]["env_steps"]
    assert done > 0
    assert train.main([f"resume={folder}", f"total_steps={done + 1000}"]) == 0
    assert checkpoint.read_newest(folder / "checkpoints")["counters"]["env_steps"] >= done + 1000
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] >= done + 1000


def test_an_interrupt_ends_between_iterations_and_resuming_is_exact(tmp_path):
    """Ctrl-C somewhere inside an iteration: the checkpoint is that iteration's end, and what follows from it equals a
    training that was never interrupted."""
    folder, constant = tmp_path / "run", "algo.schedule=constant"
    command = [sys.executable, "-m", "robolearn.cli.main", "train", *SMALL, constant, f"run_dir={folder}"]
    process = subprocess.Popen([*command, "total_steps=100000000"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"robolearn train resume={folder}" in errors
    assert "Traceback" not in errors
    done = checkpoint.read_newest(folder / "checkpoints")["counters"]["env_steps"]
    assert done > 0 and done % (16 * 32) == 0
    assert train.main([f"resume={folder}", f"total_steps={done + 1000}"]) == 0
    run(tmp_path / "whole", f"total_steps={done + 1000}", constant)
    resumed, whole = weights(folder), weights(tmp_path / "whole")
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []


def test_metrics_of_a_resumed_run_are_told_once(tmp_path):
    run(tmp_path / "run", "total_steps=2000")
    path = tmp_path / "run" / "metrics.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows, json.dumps({"step": 999999}), '{"step": 10']))  # a kill after the checkpoint
    assert train.main([f"resume={tmp_path / 'run'}", "total_steps=4000"]) == 0
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == sorted(set(steps)) and len(steps) > len(rows)


def test_settings_that_do_not_fit_the_checkpoint_leave_the_run_as_it_was(tmp_path):
    run(tmp_path / "run", "total_steps=500")
    before = (tmp_path / "run" / "config.yaml").read_text()
    for change in ("num_envs=32", "algo.hidden=[8]"):
        with pytest.raises(config.ConfigError, match="does not fit these settings"):
            train.main([f"resume={tmp_path / 'run'}", change, "total_steps=1000"])
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    assert train.main([f"resume={tmp_path / 'run'}", "total_steps=1000"]) == 0


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    run(tmp_path / "run", "total_steps=500")
    with train.exclusive(tmp_path / "run"):
        other = [sys.executable, "-m", "robolearn.cli.main", "train", f"resume={tmp_path / 'run'}", "total_steps=900"]
        done = subprocess.run(other, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "being trained by another process" in done.stderr


def test_learning_that_diverges_ends_with_an_error_and_no_bundle(tmp_path, monkeypatch):
    from robolearn.algos.ppo import PPO
    from robolearn.loops.online import LearningDiverged

    update = PPO.update

    def broken(self, obs, progress):
        return update(self, obs, progress) | ({"value_loss": float("nan")} if progress > 0.4 else {})

    monkeypatch.setattr(PPO, "update", broken)
    with pytest.raises(LearningDiverged, match=r"diverged at step .*value_loss"):
        run(tmp_path / "run", "total_steps=3000", "checkpoint_every_s=0")
    assert not (tmp_path / "run" / "bundle").exists()
    assert checkpoint.read_newest(tmp_path / "run" / "checkpoints")["counters"]["env_steps"] < 3000


def test_tensorboard_gets_the_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "run", "total_steps=3000")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = [(e.step, e.value) for e in events.Scalars("learn/value_loss")]
    assert values == [(row["step"], pytest.approx(row["learn/value_loss"])) for row in lines]


def test_a_run_is_not_overwritten(tmp_path):
    run(tmp_path / "run", "total_steps=500")
    with pytest.raises(config.ConfigError, match="resume="):
        run(tmp_path / "run", "total_steps=500")


def test_nothing_to_resume_is_said_so(tmp_path):
    run(tmp_path / "run", "total_steps=500")
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(config.ConfigError, match="cannot be resumed"):
        train.main([f"resume={tmp_path / 'run'}"])


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused_before_a_folder_is_made(tmp_path, device):
    with pytest.raises(config.ConfigError, match=f"device={device} cannot be used here"):
        run(tmp_path / "run", f"device={device}")
    assert not (tmp_path / "run").exists()


def test_an_unfinished_run_says_how_to_finish_it(tmp_path):
    run(tmp_path / "run", "total_steps=500")
    shutil.rmtree(tmp_path / "run" / "bundle")
    with pytest.raises(config.ConfigError, match=r"no bundle.*train resume="):
        _world.load_run(str(tmp_path / "run"))


def test_a_policy_for_another_environment_is_refused_by_field(tmp_path):
    run(tmp_path / "run", "total_steps=500")
    _, cfg, packed = _world.load_run(str(tmp_path / "run"))
    cfg.task.decimation = 8
    with pytest.raises(config.ConfigError, match=r"rate_hz: 30.0 != 15.0"):
        _world.score(packed.policy, cfg.task, cfg.backend, 2, 0)
