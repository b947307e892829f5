"""Learning from episodes by the command line: the toy is solved, a resumed run is the whole one, what does not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from robolearn import config
from robolearn.cli import _chunks, _world, collect, evaluate, main, train
from robolearn.loops import checkpoint
from robolearn.policies.base import Policy

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
_world.discover()
OFFLINE = [n for n in config.names("algo") if config.entry("algo", n).config.loop == "offline"]
CHUNK = ["algo.horizon=8", "algo.execute=4", "algo.warmup=20"]
TINY = {
    "bc": [*CHUNK, "algo.hidden=[64,64]", "algo.learning_rate=2e-3", "batch=64"],
    "diffusion": [*CHUNK, "algo.network=transformer", "algo.width=32", "algo.layers=2", "algo.heads=2", "batch=64",
                  "algo.learning_rate=3e-3", "algo.noise_levels=40", "algo.sampler=flow", "algo.steps=4",
                  "algo.ema_power=0.7"],
}  # fmt: skip
STREAMING = ["algo.sampler=streaming", "algo.steps=10"]
LENGTH = {"bc": 400, "diffusion": 600}
CALLS = {"bc": 1, "diffusion": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """30 expert episodes of 2 s, a little uneven."""
    out = tmp_path_factory.mktemp("data") / "cartpole"
    assert collect.main(["task=cartpole", "task.episode_length_s=2", "policy=expert", "noise=0.3", "episodes=30",
                         f"out={out}", "backend.threads=1"]) == 0  # fmt: skip
    return out


def run(data: Path, folder: Path, algo: str, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights and all else that the end of a training left."""
    words = ["task=cartpole", "task.episode_length_s=2", f"algo={algo}", f"data.path={data}", f"run_dir={folder}"]
    assert train.main([*words, *TINY[algo], "eval_episodes=0", *overrides]) == 0
    return left(folder)


def left(folder: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.read_newest(folder / "checkpoints")
    return checkpoint.flatten({k: state[k] for k in ("algo", "generator")})[0]


@pytest.mark.parametrize("algo", OFFLINE)
def test_every_algorithm_learns_the_toy_from_demonstrations(tmp_path, data, algo):
    """And the bundle's policy is what was evaluated, on the same episodes."""
    folder = tmp_path / "run"
    run(data, folder, algo, f"updates={LENGTH[algo]}", "eval_episodes=40", "seed=1")
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["success"] >= 0.8  # the pole has fallen long before the end if nobody acts
    assert scores["episodes"] == 40 and scores["train_updates"] == LENGTH[algo] and scores["data_steps"] == 1800
    assert evaluate.main([f"run={folder}", "episodes=40", f"json={tmp_path / 'again.json'}"]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["return"] == scores["return"]
    chunk = again["chunk"]
    assert chunk["execute"] == 4 and chunk["calls_per_chunk"] == CALLS[algo]
    assert 0.0 < chunk["plan_ms"]["p50"] <= chunk["plan_ms"]["p95"] <= chunk["plan_ms"]["p99"]


@pytest.mark.parametrize("algo", OFFLINE)
def test_resuming_equals_never_having_stopped(tmp_path, data, algo, monkeypatch):
    """An interrupt in the middle; the set grows meanwhile, which is none of its business."""
    grown = shutil.copytree(data, tmp_path / "set")
    whole = run(data, tmp_path / "whole", algo, "updates=60")
    _interrupt_at(monkeypatch, 25)
    with pytest.raises(KeyboardInterrupt):
        run(grown, tmp_path / "half", algo, "updates=60")
    monkeypatch.undo()
    assert not (tmp_path / "half" / "bundle").exists()
    assert checkpoint.read_newest(tmp_path / "half" / "checkpoints")["algo"]["updates"] == 25
    assert collect.main(["task=cartpole", "policy=expert", "episodes=31", f"out={grown}", "num_envs=1"]) == 0
    assert train.main([f"resume={tmp_path / 'half'}"]) == 0
    resumed = left(tmp_path / "half")
    assert whole.keys() == resumed.keys() and len(whole) > 10
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []
    assert (tmp_path / "half" / "bundle").exists()


def _interrupt_at(monkeypatch, update: int) -> None:
    from robolearn.loops.offline import OfflineTrainer

    interval = OfflineTrainer._interval

    def counting(self):
        learn = self.algo.update

        def once(windows):
            figures = learn(windows)
            self._interrupt.wanted = self.algo.updates == update
            return figures

        self.algo.update = once
        return interval(self)

    monkeypatch.setattr(OfflineTrainer, "_interval", counting)


def test_another_seed_is_another_policy(tmp_path, data):
    a, b, c = (run(data, tmp_path / n, "bc", "updates=20", f"seed={s}") for n, s in (("a", 1), ("b", 1), ("c", 2)))
    key = "algo/policy/mean.0.weight"
    assert torch.equal(a[key], b[key]) and not torch.equal(a[key], c[key])


def test_only_the_episodes_that_are_asked_for(tmp_path, data):
    run(data, tmp_path / "run", "bc", "updates=5", "data.episodes=3")
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert (scores["episodes"], scores["data_steps"]) == (3, 180)
    stored = config.reload(train.TrainCfg, tmp_path / "run" / "config.yaml")
    assert stored.data.episodes == 3 and stored.algo.loop == "offline"


def test_one_network_is_tried_with_other_samplers(tmp_path, data, capsys, monkeypatch):
    monkeypatch.setattr(_chunks, "PLANS", 2)
    run(data, tmp_path / "run", "diffusion", "updates=5", *STREAMING)
    command = [f"run={tmp_path / 'run'}", "episodes=2", "task.episode_length_s=0.5", f"json={tmp_path / 's.json'}"]
    for words, calls in (([], 5), (["sampler=ddim", "steps=8"], 8), (["sampler=ddpm"], 40), (["steps=20"], 10)):
        assert evaluate.main([*command, *words]) == 0
        assert json.loads((tmp_path / "s.json").read_text())["chunk"]["calls_per_chunk"] == calls
    assert "network calls for 4 steps" in capsys.readouterr().out
    for words, said in (
        (["sampler=flow"], "this network was trained for the sampler streaming; flow cannot use it"),
        (["sampler=dimd"], "no sampler 'dimd'; did you mean ddim"),
        (["sampler=ddpm", "steps=3"], "sampler ddpm has no setting steps"),
        (["steps=-1"], "steps must be at least 1"),
    ):
        assert main.main(["evaluate", *command, *words]) == 2
        assert said in capsys.readouterr().err


def test_a_policy_without_chunks_has_no_plans_to_measure():
    class Plain(Policy):
        def act(self, obs):
            return obs["policy"]

    assert _chunks.measure(Plain.__new__(Plain)) == {}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "missing: data.path=..., a set of episodes; make one with: robolearn collect task=cartpole"),
        (["data.path=nowhere"], 2, "data.path=nowhere holds no set of episodes"),
        (["task.force_n=10", "DATA"], 1, "does not fit cartpole (data != here): action.scale.0: 20.0 != 10.0"),
        (["task.decimation=8", "DATA"], 1, "rate_hz: 30.0 != 15.0"),
        (["task=franka_reach", "DATA"], 1, "robot: 'cartpole' != 'franka'"),
        (["data.episodes=31", "DATA"], 1, "has 30 episodes, 31 are asked for"),
        (["time_limit_s=3", "DATA"], 2, "time_limit_s: algo=bc learns from data; its length is updates="),
        (["updates=0", "DATA"], 2, "updates and batch must be at least 1"),
        (["data.preload=maybe", "DATA"], 2, "data.preload must be one of auto, true, false"),
        (["data.paht=x"], 2, "no key 'data.paht'; did you mean data.path"),
        (["backend=pybulet", "DATA"], 2, "no backend 'pybulet'; did you mean pybullet"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    words, code, said, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    given = [f"data.path={data}" if w == "DATA" else w for w in words]
    assert main.main(["train", "task=cartpole", "algo=bc", *given]) == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
