"""launch/hil.launch.yaml: what is started, with which words, and that moving to hardware changes the site alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from workspace_samples import ROOT, install

from robolearn import config, registry
from robolearn.cli import _world, hil, launch
from robolearn.cli._launch_plan import Plan, Process

_world.discover()


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sourced ROS 2 workspace that holds robolearn."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(install(tmp_path / "install")))


def started(**variables: str) -> dict[str, Process]:
    made = Plan(variables)
    made.include(launch._find("hil"))
    return {p.name: p for p in made.processes}


def loaded(process: Process) -> hil.HilCfg:
    """As the command reads its words."""
    return hil._load(hil._split(process.command[2:]))


def test_a_twin_a_person_a_camera_and_a_page_only_where_they_are_asked_for() -> None:
    assert list(started()) == ["guard", "teleop", "hil"]
    whole = started(twin="true", simulated="true", camera="true", page="true", namespace="left")
    assert set(whole) == {f"left/{n}" for n in ("twin", "guard", "teleop", "camera", "tags", "page")} | {
        "hil",
        "person",
    }
    assert whole["hil"].required and not whole["person"].required and not whole["left/page"].required


def test_from_simulation_to_hardware_the_site_alone_changes(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text((ROOT / "configs/site/franka.yaml").read_text())
    twin, robot = started(twin="true", words="seed=3"), started(site=str(mine), words="seed=3")
    assert set(twin) - set(robot) == {"twin"}
    for name, process in robot.items():
        theirs = [w.replace(str(mine), "SITE") for w in process.command]
        assert theirs == [w.replace(str(launch._find("hil").parents[1] / "configs/site/franka.yaml"), "SITE")
                          for w in twin[name].command]  # fmt: skip


def test_its_words_are_those_of_the_command() -> None:
    words = started(twin="true", simulated="true", reset="person", words="total_steps=500 algo.hidden='[16]'",
                    person_words="person.patience_s=2.5", namespace="left")  # fmt: skip
    learning, person = loaded(words["hil"]), loaded(words["person"])
    assert (learning.total_steps, learning.algo.hidden, learning.reset) == (500, (16,), "person")
    assert learning.person.name == "nobody" and learning.namespace == "left" and learning.role == "both"
    assert (person.role, person.person.name, person.person.patience_s) == ("person", "late", 2.5)
    assert person.person.strategy == "sides" and person.total_steps == 500
    assert person.task == learning.task and person.site == learning.site


def test_a_run_goes_on_by_the_launch_files_words(tmp_path: Path) -> None:
    """Which say that nobody is simulated on the robot, and beside it may start somebody who is."""
    run = tmp_path / "run"
    run.mkdir()
    hil._save(config.load(hil.HilCfg, ["task=franka_reach", "algo=sac", "total_steps=500", "algo.hidden=[16]",
                                       "person=watchful"]), run)  # fmt: skip
    words = started(twin="true", simulated="true", experiment="", words=f"resume={run} seed=7",
                    person_words="person.patience_s=2.5")  # fmt: skip
    (learning, folder), (person, _) = (hil._read(hil._split(words[n].command[2:])) for n in ("hil", "person"))
    assert (folder, learning.total_steps, learning.algo.hidden, learning.seed) == (run, 500, (16,), 7)
    assert (learning.role, learning.person.name) == ("both", "nobody") and learning.site.endswith("franka.yaml")
    assert (person.role, person.person.name, person.person.patience_s) == ("person", "late", 2.5)
    with pytest.raises(config.ConfigError, match="person=late is for simulated worlds"):
        hil._load(["site=franka", "person=late"], run)


def test_a_simulated_run_goes_on_with_another_person(tmp_path: Path) -> None:
    hil._save(config.load(hil.HilCfg, ["task=cartpole", "algo=td3", "person=watchful", "person.delay_s=3"]), tmp_path)
    same, other = hil._load(["person=watchful"], tmp_path), hil._load(["person=late"], tmp_path)
    assert (same.person.name, same.person.delay_s) == ("watchful", 3.0)
    assert other.person == config.entry("person", "late").config()
    with pytest.raises(config.ConfigError, match="person 'lat'"):
        hil._load(["person=lat"], tmp_path)


def test_a_full_deflection_means_as_much_to_the_person_as_to_the_node_and_the_policy() -> None:
    words = started(twin="true", simulated="true")
    person = loaded(words["person"])
    told = dict(w.split(":=") for w in words["teleop"].command if w.startswith(("speed_mps:=", "turn_radps:=")))
    assert (person.tool_mps, person.tool_radps) == (float(told["speed_mps"]), float(told["turn_radps"])) == (0.5, 1.0)
    spec = _world.spec_of(person.task)
    assert [s * spec.rate_hz for s in spec.action.scale] == pytest.approx([0.5] * 3 + [1.0] * 3)


def parameters(process: Process) -> dict[str, str]:
    return dict(w.split(":=", 1) for w in process.command if re.match(r"[\w.]+:=", w) and "__" not in w)


def test_the_page_shows_the_run_and_the_camera_that_were_started_beside_it() -> None:
    nodes = started(page="true", camera="true")
    shown, camera = parameters(nodes["page"]), parameters(nodes["camera"])
    assert yaml.safe_load(shown["run"]) == "last"
    assert yaml.safe_load(shown["cameras"]) == [yaml.safe_load(camera["name"])]
    assert camera["compressed"] == "true" and parameters(started(camera="true")["camera"])["compressed"] == "false"
    other = parameters(started(page="true", run="runs/lift", cameras="[front, side]")["page"])
    assert (yaml.safe_load(other["run"]), yaml.safe_load(other["cameras"])) == ("runs/lift", ["front", "side"])
    node = (ROOT / "real/nodes/page.py").read_text()
    assert all(f'parameter(self, "{name}"' in node for name in shown)


@pytest.mark.parametrize(("words", "said"), [
    (["person=late", "site=franka"], "person=late is for simulated worlds"),
    (["role=person", "person=late"], "role=person needs site="),
    (["reset_limit_s=0"], "above 0"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=said):
        hil.main(["task=franka_lift", "algo=sac", f"run_dir={tmp_path / 'run'}", *words])


@pytest.mark.parametrize("person", ["watchful", "margin", "advantage"])
def test_a_person_who_watches_the_policy_has_no_place_beside_a_twin(person: str) -> None:
    with pytest.raises(config.ConfigError, match=f"person={person} watches what the policy would do, which no topic"):
        hil.main(["role=person", "task=franka_lift", "algo=sac", "task.action=ee_delta", f"person={person}",
                  "site=franka"])  # fmt: skip


def test_docs_and_help_start_a_person_who_can_be_beside_a_twin() -> None:
    for text in ((ROOT / "docs/hil.md").read_text(), hil.help_text()):
        (line,) = [line for line in text.splitlines() if "hil role=person" in line]
        name = re.findall(r" person=(\w+)", line)[-1]
        assert not config.entry("person", name).value.watches, line


def test_help_names_every_person() -> None:
    said = re.search(r"\(person=([\w|]+);", hil.help_text())
    assert said and set(said[1].split("|")) == set(registry.names("person")) - {"nobody"}
