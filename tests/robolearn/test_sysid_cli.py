"""`robolearn sysid` from a recording to an experiment that trains with what was found."""

import json
from pathlib import Path

import pytest
import yaml

from robolearn import config
from robolearn.cli import _world
from robolearn.cli import main as cli


def run(*words):
    return cli.main(["sysid", *map(str, words)])


def test_a_recording_is_fitted_and_its_ranges_load_as_an_experiment(tmp_path, capsys, monkeypatch):
    log, out = tmp_path / "cf.npz", tmp_path / "found"
    assert run("robot=crazyflie", f"record={log}", "truth.inertia=1.5", "noise=0.05", "seconds=4") == 0
    words = ["mass_kg=0.027", "experiment=crazyflie_hover_ppo", f"out={out}"]
    assert run("robot=crazyflie", f"log={log}", *words) == 0
    said = capsys.readouterr().out
    assert "task.randomize.inertia=[" in said
    fit = json.loads((out / "fit.json").read_text())
    inertia = next(e for e in fit["estimates"] if e["name"] == "inertia")
    assert inertia["low"] < 1.5 < inertia["high"]
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "task.randomize.inertia" in page

    made = tmp_path / "configs" / "experiment" / "my_crazyflie.yaml"
    made.parent.mkdir(parents=True)
    made.write_text((out / "ranges.yaml").read_text())
    _world.discover()
    monkeypatch.setattr("robolearn.registry._PLUGIN_CONFIGS", [made.parents[1]])
    monkeypatch.setattr("robolearn.config._PLUGIN_CONFIGS", [made.parents[1]])
    from robolearn.cli.train import TrainCfg

    loaded = config.load(TrainCfg, ["experiment=my_crazyflie"])
    assert list(loaded.task.randomize.inertia) == fit["randomize"]["inertia"]
    assert loaded.task.name == "crazyflie_hover"
    words = said[said.index("task.randomize") :].splitlines()[0].split()
    pasted = config.load(TrainCfg, ["experiment=crazyflie_hover_ppo", *words])
    assert pasted.task.randomize == loaded.task.randomize


def test_a_true_trim_is_recorded(tmp_path):
    import numpy as np

    files = [tmp_path / "plain.npz", tmp_path / "trimmed.npz"]
    for file, words in zip(files, ([], ["trim.panda_joint4=0.05"]), strict=True):
        assert run("robot=franka", f"record={file}", "seconds=2", *words) == 0
    plain, trimmed = (np.load(file)["joint_pos"] for file in files)
    apart = (trimmed - plain)[60:].mean(0)
    assert apart[3] == pytest.approx(0.05, abs=0.005)
    assert np.abs(np.delete(apart, 3)).max() < 0.005


def test_without_an_experiment_the_yaml_is_the_part_that_any_takes(tmp_path):
    from sim.sysid.ranges import text

    part = yaml.safe_load(text({"kp": [0.9, 1.1]}, "", ["about"]))
    assert part == {"task": {"randomize": {"kp": [0.9, 1.1]}}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["robot=franka"], "give log=FILE to fit one, or record=FILE to make one"),
        (["robot=frank", "log=a.npz"], "no robot 'frank'"),
        (["robot=franka", "log=nothing.npz"], "there is no log nothing.npz"),
        (["robot=franka", "log=a.txt"], "there is no log a.txt"),
        (["robot=franka", "record=a.npz", "truth.kpp=2"], "kpp"),
        (["robot=franka", "record=a.npz", "truth.kp=-1"], "the true kp must be a finite number above 0, got -1"),
        (
            ["robot=franka", "record=a.npz", "trim.panda_joint1=nan"],
            "trim.panda_joint1 must be a finite number, got nan",
        ),
        (
            ["robot=crazyflie", "record=a.npz", "truth.delay_s=-0.1"],
            "the true delay_s must be a finite number of at least 0",
        ),
        (["robot=franka", "record=a.npz", "command=rotor_command"], "command is for quadrotors; franka is none"),
        (["robot=franka", "record=a.csv"], "record must be a .npz file"),
        (["robot=franka", "record=nowhere/a.npz"], "the folder of nowhere/a.npz does not exist"),
        (["robot=franka", "log=a.npz", "experiment=cartpole_ppo"], "experiment cartpole_ppo is for cartpole"),
        (["robot=crazyflie", "log=a.npz", "mass_kg=-1"], "mass_kg must be above 0"),
        (["robot=crazyflie", "log=a.npz", "mass_kg=nan"], "mass_kg must be above 0"),
    ],
)
def test_bad_words_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words) != 0
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(Path().iterdir())
