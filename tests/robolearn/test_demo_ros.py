"""The demo's trial through ROS 2: really run, on a policy that moves the arm without having learned anything."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from robolearn import bundle, config
from robolearn.cli import _deploy_report, _deploy_trial, _world, main, train
from robolearn.cli import demo as cli_demo
from robolearn.loops.evaluate import summarize, wilson

NAME = "franka_reach_ppo"
TRAINING = ("num_envs=8", "total_steps=500", "eval_episodes=0", "task.episode_length_s=1")
WORDS = (
    f"experiments={NAME}", "seed=3", "episodes=2", "second_backend=", "sysid=false", "ros_episodes=2", *TRAINING,
)  # fmt: skip
STARTED = re.compile(r"\[launch\] \[\w+\] started, process (\d+)")


def wait_for(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"not within {timeout_s} s"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def processes(folder: Path) -> list[int]:
    """Of the nodes that the last trial started."""
    return [int(pid) for log in folder.glob("ros2_*.log") for pid in STARTED.findall(log.read_text())]


pytestmark = pytest.mark.usefixtures("one_at_a_time")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A demo's folder with everything but the trial, film and export by name only; its policy pushes all joints one
    way."""
    for extra in ("real.ros", "mujoco", "matplotlib"):
        pytest.importorskip(extra)
    here, out = Path.cwd(), tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        run = Path("d", NAME, "run")
        train.main([f"experiment={NAME}", "seed=3", f"run_dir={run}", *TRAINING], time.monotonic())
        packed = bundle.load(run / "bundle")
        torch.nn.init.constant_(packed.policy.mean[-1].bias, 0.5)
        shutil.rmtree(run / "bundle")
        bundle.save(run / "bundle", packed)
        for name in ("film.mp4", "policy.onnx"):
            (run.parent / name).write_bytes(b"made elsewhere")
        asked = {"experiment": NAME, "seed": 3, "training": list(TRAINING)}
        (run.parent / "demo.json").write_text(json.dumps(asked))
        yield out
    assert Path.cwd() == here


def test_the_demo_deploys_an_arm_kills_its_policy_and_tells(demo: Path) -> None:
    folder = Path("d", NAME)
    assert main.main(["demo", "out=d", *WORDS]) == 0
    found = json.loads((folder / "ros2.json").read_text())
    assert found["engine"] == "mujoco" and found["seed"] == 20_003
    assert len(found["rows"]["success"]) == len(found["rows"]["position_error_m"]) == 2
    assert len(found["latency_ms"]) > 20 and all(0.0 < x < 1000.0 for x in found["latency_ms"])
    assert found["launch_code"] == 137
    commanded, measured = found["stop"]["commanded"], found["stop"]["measured"]
    assert max(v for t, v in commanded if t < 0.0) > 0.3 and commanded[-1][1] == 0.0
    assert measured[-1][0] > 0.9 and measured[-1][1] < 0.1  # the arm goes on telling, and stands
    pids = processes(folder)
    assert len(pids) == 3 and not any(map(running, pids))

    page = Path("d/report.html").read_text()
    low, high = wilson(round(sum(found["rows"]["success"])), 2)
    assert f"success through ROS 2, 95 % interval {100 * low:.1f} to {100 * high:.1f} %, 2 episodes<" in page
    assert "kill -9 of the policy" in page and "exit code 137" in page and "state to command" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)

    made = (folder / "ros2.json").stat().st_mtime_ns
    assert cli_demo._tried(folder, cli_demo.DemoCfg(seed=3, ros_episodes=2))
    assert (folder / "ros2.json").stat().st_mtime_ns == made


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_demo_that_is_stopped_leaves_no_process(demo: Path, how: signal.Signals) -> None:
    folder = Path("d", NAME)
    for file in folder.glob("ros2*"):
        file.unlink()
    with Path("demo.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "robolearn.cli.main", "demo", "out=d", *WORDS], stdout=log, stderr=log
        )
    said = folder / "ros2_deploy.log"
    wait_for(lambda: process.poll() is not None or (said.is_file() and "has authority" in said.read_text()))
    assert process.poll() is None, Path("demo.log").read_text()
    pids = processes(folder)
    assert len(pids) == 3 and all(map(running, pids))
    os.kill(process.pid, how)
    assert process.wait(timeout=40) == (main.INTERRUPTED if how == signal.SIGINT else -how)
    wait_for(lambda: not any(map(running, pids)), 40.0)
    assert not (folder / "ros2.json").exists()


# --- without processes ---------------------------------------------------------------------------------------


def test_only_arms_with_a_profile_and_a_site_are_tried() -> None:
    _world.discover()
    site = _deploy_trial.site_of("franka")
    assert site is not None and site[0] == "franka" and site[1].robot == "franka"
    assert _deploy_trial.site_of("cartpole") is None and _deploy_trial.site_of("crazyflie") is None


def test_without_ros_the_demo_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "real.ros", None)
    monkeypatch.delattr("real.ros", raising=False)
    assert "pip install 'robolearn[ros]'" in str(_deploy_trial.obstacle(_packed("franka_reach")))


def test_a_task_with_objects_is_not_tried() -> None:
    assert "cube" in str(_deploy_trial.obstacle(_packed("franka_lift")))


def _packed(task: str) -> SimpleNamespace:
    _world.discover()
    made = config.build(config.entry("task", task).config())
    return SimpleNamespace(spec=SimpleNamespace(observation=made.observation_spec()))


def test_an_arm_is_judged_as_the_task_does_on_the_joints_that_it_reported() -> None:
    pytest.importorskip("mujoco")
    _world.discover()
    env = _world.make_env(
        config.entry("task", "franka_reach").config(), _world.backend_config("mujoco", None), 2, "cpu", 0
    )
    robot = env.robot
    rest = torch.tensor(robot.of("default_joint_pos", robot.arm_joints))
    there = env.chain.pose(torch.tensor([robot.default_joint_pos]))
    away = there.clone()
    away[0, 0] += 0.03  # 2 cm are allowed
    found = _deploy_trial.judged(env, torch.stack((rest, rest)), {"goal": torch.cat((there, away))})
    env.close()
    assert found["success"].tolist() == [1.0, 0.0]
    assert found["position_error_m"].tolist() == pytest.approx([0.0, 0.03], abs=1e-6)


@pytest.mark.parametrize(("followed", "kept", "repeated"), [([6, 19], 19, 1), ([15], 15, 0), ([6, 7, 8], 8, 2)])
def test_an_episode_in_which_the_policy_was_hardly_followed_is_run_again(
    followed: list[int], kept: int, repeated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 periods; the third try counts, however it went."""
    trial = pytest.importorskip("real.trial")
    tries = iter(followed)
    monkeypatch.setattr(trial, "run_episode", lambda *_: SimpleNamespace(latency_s=[0.01] * next(tries)))
    made = _deploy_trial._Trial.__new__(_deploy_trial._Trial)
    made.env = SimpleNamespace(max_episode_length=20, max_episode_length_s=1.0)
    made.starts, made.commands, made.repeated, made.title = [None], {}, 0, "trial"
    assert len(made._episode(SimpleNamespace(trouble=str), 0).latency_s) == kept
    assert made.repeated == repeated and next(tries, None) is None


def test_rest_is_for_good() -> None:
    series = [(-0.1, 0.5), (0.0, 0.4), (0.1, 0.0), (0.2, 0.06), (0.3, 0.05), (0.4, 0.0)]
    assert _deploy_report.rest_s(series, 0.05) == 0.3
    assert _deploy_report.rest_s(series, 0.0) == 0.4
    assert _deploy_report.rest_s(series[:-1], 0.0) is None


FOUND = {
    "rows": {"success": [1.0, 0.0, 1.0], "position_error_m": [0.001, 0.05, 0.002]},
    "latency_ms": [4.0, 5.0, 6.0],
    "stop": {"commanded": [[-0.1, 0.5], [0.06, 0.0]], "measured": [[-0.1, 0.4], [0.1, 0.2], [0.3, 0.01]]},
    "launch_code": 137,
    "not_killed": "",
    "held": [1],
    "repeated": 0,
    "state_ms": 4.2,
    "load": 0.5,
    "counts": {"policy: proposals": 180, "guard: stale": 0},
}


def test_the_section_says_what_was_measured() -> None:
    pytest.importorskip("matplotlib")
    deployed = _deploy_report.Deployed(FOUND)
    text = _deploy_report.section(deployed, summarize(deployed.rows), 50.0)
    assert "66.7 % success" in text and "in 1 episode, of which 1 failed" in text
    assert "half within 5.0 ms" in text and "every 4.2 ms" in text
    assert "rest after 60 ms" in text and "after 300 ms (below 3 degrees/s)" in text
    assert "policy: proposals" in text and "guard: stale" not in text and "busy" not in text


def test_the_section_says_why_there_is_no_stop_and_that_the_machine_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(_deploy_report, "usable_cores", lambda: 2)
    deployed = _deploy_report.Deployed(
        FOUND | {"stop": None, "launch_code": None, "not_killed": "it stood", "load": 7.9}
    )
    text = _deploy_report.section(deployed, summarize(deployed.rows), 50.0)
    assert (
        "no stop after a kill to be seen: it stood" in text
        and text.count("<svg") == 1
        and "a load of 7.9 on 2 cores" in text
    )
