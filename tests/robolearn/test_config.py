"""Configuration: choices, values, types, and what is said about mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from robolearn import config, registry
from robolearn.config import ConfigError


@dataclass
class InnerCfg:
    scale: tuple[float, float] = (1.0, 1.0)
    noise: dict[str, float] = field(default_factory=dict)


@dataclass
class PushCfg:
    name: str = "push"
    distance_m: float = 0.3
    inner: InnerCfg = field(default_factory=InnerCfg)

    def __post_init__(self) -> None:
        if self.distance_m <= 0.0:
            raise ValueError(f"gadget.distance_m must be above 0, got {self.distance_m}")


@dataclass
class PullCfg:
    name: str = "pull"
    rope_m: float = 1.0


@dataclass
class RootCfg:
    defaults: list[Any] = field(default_factory=lambda: [{"gadget": "???"}, "_self_", {"optional experiment": None}])
    gadget: Any = field(default="???", metadata={"group": True})
    count: int = 3
    rate_hz: float = 30.0
    fast: bool = False
    label: str = ""
    sizes: tuple[int, ...] = (8, 8)


@dataclass
class OptionsCfg:
    run: str = "???"
    episodes: int = 5


class Push:
    """Pushes."""

    def __init__(self, cfg: PushCfg, force_n: float = 0.0):
        self.cfg, self.force_n = cfg, force_n


@pytest.fixture(autouse=True)
def gadgets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two things in a group of their own."""
    monkeypatch.setitem(registry._REGISTRY, "gadget", {})
    config.register("gadget", "push", PushCfg)(Push)
    config.register("gadget", "pull", PullCfg)(type("Pull", (), {}))
    yield


def load(*words: str) -> RootCfg:
    return config.load(RootCfg, words)


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*words)
    assert caught.value.exit_code == 2
    return str(caught.value)


def experiment(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "trial") -> None:
    """A plugin's folder with one experiment."""
    (folder / "configs/experiment").mkdir(parents=True, exist_ok=True)
    (folder / f"configs/experiment/{name}.yaml").write_text("# @package _global_\n" + text)
    monkeypatch.setattr(registry, "_PLUGIN_CONFIGS", [folder / "configs"])
    monkeypatch.setattr(config, "_PLUGIN_CONFIGS", [folder / "configs"])


# --- values ------------------------------------------------------------------------------------------------


def test_defaults_come_from_the_dataclasses() -> None:
    cfg = load("gadget=push")
    assert cfg == RootCfg(gadget=PushCfg())
    assert cfg.gadget.inner.scale == (1.0, 1.0) and isinstance(cfg.sizes, tuple)


@pytest.mark.parametrize(
    ("word", "get", "value"),
    [
        ("count=7", lambda c: c.count, 7),
        ("count=1e3", lambda c: c.count, 1000),
        ("rate_hz=2", lambda c: c.rate_hz, 2.0),
        ("rate_hz=3e-4", lambda c: c.rate_hz, 3e-4),
        ("fast=true", lambda c: c.fast, True),
        ("label=a b=(c),[d", lambda c: c.label, "a b=(c),[d"),
        ("label=007", lambda c: c.label, "007"),
        ("label=", lambda c: c.label, ""),
        ("label=on", lambda c: c.label, "on"),
        ("sizes=[1,2,3]", lambda c: c.sizes, (1, 2, 3)),
        ("gadget.inner.scale=[0.8,1.2]", lambda c: c.gadget.inner.scale, (0.8, 1.2)),
        ("gadget.inner.noise.joint_pos=0.1", lambda c: c.gadget.inner.noise, {"joint_pos": 0.1}),
        ("count=${gadget.distance_m}", None, "must be|converted"),
        ("rate_hz=${gadget.distance_m}", lambda c: c.rate_hz, 0.3),
    ],
)
def test_value_is_read_as_its_type(word: str, get: Any, value: Any) -> None:
    if get is None:
        with pytest.raises(ConfigError, match=value):
            load("gadget=push", word)
        return
    found = get(load("gadget=push", word))
    assert found == value and type(found) is type(value)


def test_build_gives_the_config_and_what_else_is_needed() -> None:
    gadget = config.build(load("gadget=push", "gadget.distance_m=0.5").gadget, force_n=2.0)
    assert (type(gadget), gadget.cfg.distance_m, gadget.force_n) == (Push, 0.5, 2.0)
    with pytest.raises(ConfigError, match="nothing registered is configured by InnerCfg"):
        config.build(InnerCfg())


def test_saved_configuration_is_read_back_equal(tmp_path: Path) -> None:
    cfg = load("gadget=push", "gadget.inner.scale=[0.5,2]", "gadget.inner.noise.a=1.5", "label=a: b", "sizes=[1]")
    config.save(cfg, tmp_path / "config.yaml")
    assert config.reload(RootCfg, tmp_path / "config.yaml") == cfg
    assert config.reload(RootCfg, tmp_path / "config.yaml", ["count=9"]).count == 9
    assert "defaults" not in (tmp_path / "config.yaml").read_text()


def test_reload_refuses_what_this_version_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("gadget: {name: push, distnce_m: 1.0}\n")
    with pytest.raises(ConfigError, match=r"not from this version: no key 'gadget.distnce_m'.*distance_m"):
        config.reload(RootCfg, path)
    path.write_text("gadget: {name: shove}\n")
    with pytest.raises(ConfigError, match="no gadget 'shove'"):
        config.reload(RootCfg, path)
    path.write_text("gadget: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.reload(RootCfg, path)
    with pytest.raises(ConfigError, match=r"is .* a run"):
        config.reload(RootCfg, tmp_path / "none.yaml")


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gadget=push", "cuont=3"], "no key 'cuont'; did you mean count?"),
        (["gadget=push", "gadget.distanc_m=3"], "no key 'gadget.distanc_m'; did you mean gadget.distance_m?"),
        (["gadget=push", "distance_m=3"], "no key 'distance_m'; did you mean gadget.distance_m?"),
        (["gadget=pull", "gadget.distance_m=3"], "no key 'gadget.distance_m'; gadget has rope_m"),
        (["gadget=push", "gadget.inner.zzz=3"], "no key 'gadget.inner.zzz'; gadget.inner has scale, noise"),
        (["gadget=push", "gadget.zzz.scale=3"], "no key 'gadget.zzz'; gadget has distance_m, inner"),
        (["gadget=push", "defaults=3"], "no key 'defaults'; the top level has gadget, count"),
        (["gadget=push", "gadget.name=pull"], "gadget.name cannot be set; choose with gadget=NAME"),
        (["gadget=push", "gadget.inner=3"], "gadget.inner holds several settings; set one of them (gadget."),
        (["gadget=psh"], "no gadget 'psh'; did you mean push? (pull, push)"),
        (["gadget=push", "experiment=zzz"], "no experiment 'zzz'; there is cartpole_ppo"),
        ([], "no gadget chosen: give gadget=NAME (pull, push) or experiment=NAME"),
        (["gadget=push", "count"], "'count' is not key=value"),
        (["gadget=push", "--count=3"], "'--count=3' is not key=value: settings have no dashes, count=3"),
        (["push"], "'push' is not key=value; did you mean gadget=push?"),
        (["gadget=push", "+count=3"], "'+count=3' is not key=value"),
        (["gadget=push", "~count"], "'~count' is not key=value"),
        (["gadget=push", "count=abc"], "count must be an integer, got abc"),
        (["gadget=push", "count=1.5"], "count must be an integer, got 1.5"),
        (["gadget=push", "count="], "count must be an integer, got nothing"),
        (["gadget=push", "count=1,2"], "count must be an integer, got 1,2"),
        (["gadget=push", "count=[1,2"], "count must be an integer, got [1,2"),
        (["gadget=push", "rate_hz=quick"], "rate_hz must be a number, got quick"),
        (["gadget=push", "fast=maybe"], "fast must be true or false, got maybe"),
        (["gadget=push", "sizes=3"], "sizes must be a list of integers, got 3"),
        (["gadget=push", "sizes=[a]"], "sizes must be a list of integers, got [a]"),
        (["gadget=push", "gadget.inner.scale=[1,2,3]"], "gadget.inner.scale must be a list of 2 numbers"),
        (["gadget=push", "gadget.inner.noise=3"], "gadget.inner.noise must be numbers by name"),
        (["gadget=push", "gadget.inner.noise.a=x"], "gadget.inner.noise.a must be a number, got x"),
        (["gadget=push", "gadget.distance_m=-1"], "gadget.distance_m must be above 0, got -1.0"),
        (["gadget=push", "count=${nothing}"], "Interpolation key 'nothing' not found"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)  # fmt: skip
def test_mistake_is_explained(words: list[str], said: str) -> None:
    assert refusal(*words).startswith(said)


def test_no_message_lists_more_than_one_group() -> None:
    assert "rope_m" not in refusal("gadget=push", "gadget.zzz=1")
    assert len(refusal("gadget=push", "zzz=1")) < 200


# --- experiments -------------------------------------------------------------------------------------------


def test_experiment_chooses_and_the_command_line_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment(tmp_path / "a folder", monkeypatch, "defaults:\n  - override /gadget: push\ncount: 5\nrate_hz: 9\n")
    cfg = load("experiment=trial", "rate_hz=1")
    assert (cfg.gadget.name, cfg.count, cfg.rate_hz) == ("push", 5, 1.0)
    assert load("experiment=trial", "gadget=pull").gadget == PullCfg()


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("defaults:\n  - override /gadget: push\ncuont: 5", [], "gadget=push: no key 'cuont'; did you mean"),
        ("defaults:\n  - override /gadget: push\ncount: many", [], "count must be an integer, got 'many'"),
        ("defaults:\n  - override /gadget: psh", [], "no gadget 'psh'; did you mean push"),
        ("defaults:\n  - override /gadget: push\ngadget:\n  distance_m: 1", ["gadget=pull"],
         "'trial' does not fit gadget=pull: no key 'gadget.distance_m'; gadget has rope_m"),
        ("count: [", [], "is not YAML"),
    ],
)  # fmt: skip
def test_mistake_in_an_experiment_names_the_file(
    text: str, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment(tmp_path, monkeypatch, text)
    with pytest.raises(ConfigError, match=said) as caught:
        load("experiment=trial", *words)
    assert "trial.yaml" in str(caught.value)


def test_our_experiments_win_over_a_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment(tmp_path, monkeypatch, "count: 5", name="cartpole_ppo")
    assert tmp_path not in config.experiments()["cartpole_ppo"].parents


# --- options of a command ----------------------------------------------------------------------------------


def test_options_are_parsed_without_groups() -> None:
    assert config.parse(OptionsCfg, ["run=2026-11-21", "episodes=9"]) == OptionsCfg("2026-11-21", 9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "missing: run=..."),
        (["rnu=a"], "no key 'rnu'; did you mean run?"),
        (["run=a", "episodes=x"], "episodes must be an integer, got x"),
        (["run=a", "episodes"], "'episodes' is not key=value"),
    ],
)
def test_wrong_option_is_explained(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(OptionsCfg, words)
    assert str(caught.value).startswith(said)


# --- the registry ------------------------------------------------------------------------------------------


def test_a_name_can_be_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"config": config, "__name__": "elsewhere"}
    with pytest.raises(ConfigError, match=r"two gadgets are called 'push': in .*test_config and in else"):
        exec("config.register('gadget', 'push')(object())", other)
    config.register("gadget", "push", PushCfg)(Push)  # the same module again: a reload


def test_a_package_is_imported_with_all_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "zoo_of_gadgets"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "deep/__init__.py").touch()
    (package / "deep/lever.py").write_text("from robolearn.config import register\nregister('gadget', 'lever')(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.load_plugin(EntryPoint("zoo", "zoo_of_gadgets", registry.PLUGIN_GROUP))
    assert config.entry("gadget", "lever").module == "zoo_of_gadgets.deep.lever"
    assert registry.registered_by("zoo_of_gadgets") == [("gadget", "lever")]


def test_a_broken_plugin_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_gadgets.py").write_text("import robolearn.nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"'gone' failed to import: ModuleNotFoundError.*pip uninstall"):
        registry.load_plugin(EntryPoint("gone", "broken_gadgets", registry.PLUGIN_GROUP))


def test_a_folder_that_hides_a_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m` does from the folder that holds the project's folder, called like the package in it."""
    (tmp_path / "hidden_gadgets").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path}/hidden_gadgets hides it"):
        registry.load_plugin(EntryPoint("hidden", "hidden_gadgets", registry.PLUGIN_GROUP))
