"""Trainings with a simulated person, through the command line: resumed exactly, refused where they make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robolearn import config
from robolearn.cli import _world, train
from robolearn.cli._loops.people import accompanied
from robolearn.config import ConfigError
from robolearn.loops import checkpoint

_world.discover()
TASK = ["task=cartpole", "task.episode_length_s=1", "backend.threads=1"]
SMALL = ["num_envs=4", "eval_episodes=0", "algo.hidden=[16]", "algo.batch=16", "algo.report_steps=40",
         "algo.warmup_steps=40", "algo.ratio=0.25", "algo.capacity=400"]  # fmt: skip
TINY = [*TASK, *SMALL, "algo=td3"]
RANDOM = ["person=at_random", "person.share=0.4", "person.hold_s=0.1", "person.delay_s=0.1"]


def left(folder: Path) -> dict[str, Tensor]:
    state = checkpoint.read_newest(folder / "checkpoints")
    return checkpoint.flatten({k: state[k] for k in ("algo", "generator", "env", "obs")})[0]


def figures(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("labels", ["hil_serl", "rlif"])
def test_a_training_with_a_person_resumes_exactly(tmp_path: Path, labels: str) -> None:
    words = [*TINY, *RANDOM, f"algo.labels={labels}"]
    assert train.main([*words, "total_steps=240", f"run_dir={tmp_path / 'whole'}"]) == 0
    assert train.main([*words, "total_steps=120", f"run_dir={tmp_path / 'half'}"]) == 0
    assert train.main([f"resume={tmp_path / 'half'}", "total_steps=240"]) == 0
    whole, resumed = left(tmp_path / "whole"), left(tmp_path / "half")
    assert whole.keys() == resumed.keys() and {"env/person/own/acting", "env/person/hand/strategy"} <= whole.keys()
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []
    assert 0.1 < whole["algo/replay/slots/human"].float().mean() < 0.8
    shown = [f["env/intervened"] for f in figures(tmp_path / "whole") if "env/intervened" in f]
    assert len(shown) == 6 and 0.1 < sum(shown) / 6 < 0.7


@pytest.mark.parametrize("rule", ["margin", "advantage"])
def test_critics_of_another_run_say_when_to_take_over(tmp_path: Path, rule: str) -> None:
    assert train.main([*TINY, "total_steps=80", f"run_dir={tmp_path / 'critic'}"]) == 0
    words = [*TINY, f"person={rule}", f"person.critic={tmp_path / 'critic'}", "person.margin=0", "person.delay_s=0"]
    cfg = config.load(train.TrainCfg, words)
    env = _world.make_env(cfg.task, cfg.backend, 4, "cpu", 0)
    world = accompanied(env, cfg)
    obs, _ = world.reset()
    algo = config.build(cfg.algo, spec=env.policy_spec(), num_envs=4, device=env.device, generator=torch.Generator())
    algo.load_networks(checkpoint.read_newest(tmp_path / "critic" / "checkpoints")["algo"])
    one, other = torch.zeros(4, 1), torch.ones(4, 1)
    assert torch.equal(world.person.value(obs, one), algo.value(obs, one))  # type: ignore[attr-defined]
    assert not torch.equal(algo.value(obs, one), algo.value(obs, other))
    acted = [world.step(other)[-1]["intervened"] for _ in range(30)]
    assert torch.stack(acted).any()
    env.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algo=ppo", "person=late"], r"person=late: from interventions learn td3 and sac"),
        (["algo=td3", "person=lat"], r"no person 'lat'.*late"),
        (["algo=td3", "person=margin"], r"it needs person\.critic=RUN"),
        (["algo=td3", "person=late", "task=crazyflie_hover", "backend=quadrotor"], r"has no scripted expert"),
    ],
    ids=lambda v: v[1] if isinstance(v, list) else "",
)
def test_what_makes_no_sense_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        train.main(["task=cartpole", *words, f"run_dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_critic_of_another_task_is_refused(tmp_path: Path) -> None:
    small = [*SMALL, "algo=td3", "num_envs=1", "total_steps=40"]
    assert train.main(["task=franka_lift", *small, f"run_dir={tmp_path / 'critic'}"]) == 0
    with pytest.raises(ConfigError, match="judges another task's actions"):
        train.main([*TINY, "person=margin", f"person.critic={tmp_path / 'critic'}", f"run_dir={tmp_path / 'run'}"])
