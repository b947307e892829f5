"""What is in configs/, and every settable key: choices and differences only; no mistake goes unnoticed."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from robolearn import config
from robolearn.cli import _world, main
from robolearn.cli.train import TrainCfg
from robolearn.config import ConfigError

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted((ROOT / "configs/experiment").glob("*.yaml"))
GROUPS = ("task", "algo", "backend", "person")
_world.discover()
CHOICES = [(group, name) for group in GROUPS for name in config.names(group)]


def choose(group: str, name: str) -> list[str]:
    return [f"{group}={name}"] + (["task=cartpole"] if group != "task" else [])


def keys(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a dataclass with their types, groups left out."""
    for field in dataclasses.fields(cls):
        kind = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(kind):
            yield from keys(kind, f"{prefix}{field.name}.")
        elif field.name not in ("name", "defaults", *GROUPS):
            yield prefix + field.name, kind


def wrong_value(kind: Any) -> str | None:
    """A text that is not of this type; None where every text is."""
    if kind is str or kind == str | None:
        return None
    return "3" if typing.get_origin(kind) in (tuple, list, dict) else "abc"


def typo(key: str) -> str:
    """With its last letter twice."""
    return key + key[-1]


def restated(path: Path) -> list[str]:
    """Keys to which the experiment gives the value that they have without it."""
    content = yaml.safe_load(path.read_text())
    chosen = []
    for item in content.pop("defaults", []):
        if isinstance(item, dict):
            chosen += [f"{re.sub('^(override )?/', '', key)}={name}" for key, name in item.items()]
        elif item != "_self_":  # another experiment that this one continues
            chosen.append(f"experiment={item}")
    plain = config.to_plain(config.load(TrainCfg, chosen))
    return [key for key, value in leaves(content) if lookup(plain, key) == value]


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def lookup(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part, {})
    return tree


# --- experiments -------------------------------------------------------------------------------------------


def test_there_are_experiments() -> None:
    assert {"cartpole_ppo", "franka_reach_ppo"} <= {p.stem for p in EXPERIMENTS}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_experiment_loads_and_survives_saving(path: Path, tmp_path: Path) -> None:
    cfg = config.load(TrainCfg, [f"experiment={path.stem}"])
    config.save(cfg, tmp_path / "config.yaml")
    assert config.reload(TrainCfg, tmp_path / "config.yaml") == cfg


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_experiment_says_what_it_is_and_repeats_no_default(path: Path) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert first == "# @package _global_" and re.match(r"# \w", second)
    assert restated(path) == []


def test_a_repeated_default_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    default = TrainCfg().num_envs
    path.write_text(
        f"defaults:\n  - override /task: cartpole\nnum_envs: {default}\nseed: 5\n"
        "algo:\n  hidden: [128, 128]\n  gamma: 0.5\ntask:\n  randomize:\n    mass: [1.0, 1.0]\n"
    )
    assert restated(path) == ["num_envs", "algo.hidden", "task.randomize.mass"]


# --- every key ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_registered_name_is_the_configs_own(group: str, name: str) -> None:
    """`reload` finds the class by it."""
    cls = config.entry(group, name).config
    assert cls is not None and cls().name == name


@pytest.mark.parametrize(("group", "name"), [("", ""), *CHOICES])
def test_typo_and_wrong_type_are_refused_at_every_key(group: str, name: str) -> None:
    cls = config.entry(group, name).config if group else TrainCfg
    words, prefix = (choose(group, name), f"{group}.") if group else (["task=cartpole"], "")
    found = list(keys(cls, prefix))
    assert found or group == "backend" or name == "nobody"
    for key, kind in found:
        with pytest.raises(ConfigError, match=f"no key '{typo(key)}'; did you mean .*{key}"):
            config.load(TrainCfg, [*words, f"{typo(key)}=1"])
        wrong = wrong_value(kind)
        if wrong is not None:
            with pytest.raises(ConfigError, match=f"^{key} must be .*, got {wrong}$"):
                config.load(TrainCfg, [*words, f"{key}={wrong}"])


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_survives_saving(group: str, name: str, tmp_path: Path) -> None:
    cfg = config.load(TrainCfg, choose(group, name))
    config.save(cfg, tmp_path / "config.yaml")
    assert config.reload(TrainCfg, tmp_path / "config.yaml") == cfg
    assert getattr(cfg, group) == config.entry(group, name).config()  # type: ignore[misc]


def test_defaults_randomise_nothing() -> None:
    """Lists in place of tuples once made every parameter count as randomised."""
    assert config.load(TrainCfg, ["task=cartpole"]).task.randomize.params == ()


# --- before anything starts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=cartpol"], "no task 'cartpol'; did you mean cartpole"),
        (["task=cartpole", "backend=mujocco"], "no backend 'mujocco'; did you mean mujoco"),
        (["task=cartpole", "algo=pppo"], "no algo 'pppo'; did you mean ppo"),
        (["experiment=cartpole"], "no experiment 'cartpole'; did you mean cartpole_ppo"),
        (["experiment=cartpole_ppo", "num_env=3"], "no key 'num_env'; did you mean num_envs"),
        (["experiment=cartpole_ppo", "num_envs=many"], "num_envs must be an integer, got many"),
        (["experiment=cartpole_ppo", "num_envs=0"], "num_envs and total_steps must be at least 1"),
        (["experiment=cartpole_ppo", "task.randomize.mass=[2,1]"], "randomize.mass must be"),
        (["resume=nowhere"], "no run 'nowhere'"),
        ([], "no task chosen"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistake_ends_with_code_2_and_leaves_nothing(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["train", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"robolearn train: {said}") and captured.out == ""
    assert list(tmp_path.iterdir()) == []
