"""`robolearn parity`: each engine in its own process, a page, a JSON and a verdict."""

import json
import re
import sys

import pytest

from robolearn.cli import main as cli
from robolearn.cli import parity

pytest.importorskip("pybullet", reason="pybullet is not installed (extra bullet)")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")


def run(capsys, *words):
    code = cli.main(["parity", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_two_engines_agree_and_leave_a_page_that_loads_nothing(tmp_path, capfd):
    out = tmp_path / "deep" / "parity"
    code, said, _ = run(capfd, "robot=cartpole", f"out={out}", f"python.pybullet={sys.executable}")
    assert code == 0, said
    about = json.loads((out / "parity.json").read_text())
    assert (about["passed"], about["backends"], about["robot"]) == (True, ["mujoco", "pybullet"], "cartpole")
    assert len(about["checks"]) == said.count("passed  ") == 14
    assert about["tolerances"]["weight"] == 0.01
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5
    assert page.count('<td class="yes">') == 14
    assert "slider" in page
    assert not re.search(r"""(src|href)=["']?(?!["']?#)|url\((?!["']?#)""", page)
    assert {p.name for p in out.iterdir()} == {
        "report.html",
        "parity.json",
        "mujoco.safetensors",
        "pybullet.safetensors",
    }


def test_a_difference_is_exit_code_1_and_named(tmp_path, capfd, monkeypatch):
    from sim import parity as experiments

    tight = experiments.Tolerances(slide=1e-4)
    monkeypatch.setattr(experiments, "Tolerances", lambda: tight)
    monkeypatch.setattr(parity, "_record", lambda engine, options, out: experiments.record(engine, "cartpole", 0))
    code, said, _ = run(capfd, "robot=cartpole", f"out={tmp_path}")
    assert code == 1
    assert said.count("FAILED  sliding") == 6
    assert json.loads((tmp_path / "parity.json").read_text())["passed"] is False


def test_a_difference_that_is_not_a_number_is_null_in_the_json(tmp_path):
    from sim.parity import Check

    nan = Check("weight", "mujoco", "what", float("nan"), 0.01, "of m g")
    parity._write(tmp_path / "parity.json", {"passed": False}, [nan], {})
    (check,) = json.loads((tmp_path / "parity.json").read_text())["checks"]
    assert (check["value"], check["passed"]) == (None, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["robot=panda"], "no robot 'panda'"),
        (["robot=crazyflie"], "crazyflie has no fixed base"),
        (["backends=mujoco"], "backends must be two or more different engines, got 'mujoco'"),
        (["backends=mujoco,mujoco"], "backends must be two or more different engines"),
        (["backends=mujoco,bullet"], "no backend 'bullet'; did you mean pybullet?"),
        (["python.pybullet=/nowhere/python"], "python.pybullet: /nowhere/python is no interpreter"),
        (["python.mujoco_warp=/bin/sh"], "no engine of this comparison 'mujoco_warp'"),
        (["python.warp=/bin/sh"], "no backend 'warp'"),
        (["seed=-1"], "seed must be 0 to 2147483647, got -1"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("robolearn parity: ") and said in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_an_engines_process_refuses_is_said_once(tmp_path, capfd):
    code, _, err = run(capfd, "robot=cartpole", "backends=quadrotor,mujoco", f"out={tmp_path}")
    assert code == 2
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("robolearn parity: ")


def test_a_process_that_breaks_is_named(tmp_path, capfd):
    code, _, err = run(capfd, "robot=cartpole", f"out={tmp_path}", "python.mujoco=/bin/false")
    assert code == 1
    assert "mujoco was not recorded: /bin/false ended with exit code 1" in err


def test_help_names_the_experiments():
    assert all(word in parity.help_text() for word in ("free motion", "weight", "sliding", "python.pybullet="))
