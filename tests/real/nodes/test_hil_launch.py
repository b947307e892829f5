"""All of `robolearn launch hil` as processes, on a twin, with a simulated person who has nothing but the joystick's
messages: episodes are made, and the learner counts their steps."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from workspace_samples import NOTHING, ROOT, install

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
pytest.importorskip("grpc", reason="grpc is not installed (extra distributed)")
from robolearn.loops import checkpoint

NODES = ("twin", "guard", "teleop")
WAIT_S = 240.0


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """As after an installation, with this Python."""
    modules = {f"{n}_node": f"real.nodes.{n}" for n in NODES} | {"robolearn": "robolearn.cli.main"}
    programs = {name: f'{NOTHING}exec {sys.executable} -m {module} "$@"\n' for name, module in modules.items()}
    prefix = install(tmp_path / "install", programs=programs)
    for name, value in {"AMENT_PREFIX_PATH": prefix, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": 1}.items():
        monkeypatch.setenv(name, str(value))
    site = tmp_path / "busy.yaml"  # for a machine that does other things, too
    site.write_text((ROOT / "configs/site/franka.yaml").read_text() +
                    "\n    command_rate_hz: 200.0\n    joy.timeout_s: 1.0\n    object_timeout_s: 1.0\n")  # fmt: skip
    return site


@contextlib.contextmanager
def launched(log, *words):
    with log.open("w") as out:
        command = [sys.executable, "-m", "robolearn.cli.main", "launch", "hil", *words]
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60.0)
            finally:
                process.kill()


def counted(run):
    """What the learner has learned from, as its last checkpoint says."""
    with contextlib.suppress(Exception):  # there is none yet
        return checkpoint.read_newest(run / "checkpoints")
    return None


def test_a_person_by_the_joystick_brings_episodes_to_success_and_the_learner_counts_them(
    one_at_a_time, domain, workspace, tmp_path
):
    run, log = tmp_path / "run", tmp_path / "log"
    words = f"data.path='' run_dir={run} algo.hidden='[16]' algo.warmup_steps=50 algo.batch=16 checkpoint_every_s=1"
    with launched(log, "twin:=true", "simulated:=true", "reset:=person", f"site:={workspace}", f"words:={words}",
                  "person_words:=person.patience_s=1") as process:  # fmt: skip
        until, state = time.monotonic() + WAIT_S, None
        while state is None or not any(e["success"] for e in state["counters"]["recent"]):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.5)
            state = counted(run)
    ended = [e for e in state["counters"]["recent"] if e["success"]]
    slots = {k: v[0] for k, v in state["algo"]["replay"]["slots"].items()}
    human, acted = slots["human"].flatten().bool(), slots["acted"].bool()
    assert state["algo"]["counters"]["env_steps"] == int(acted.sum()) >= ended[0]["length"] > ended[0]["human"] > 5
    assert human[acted].any() and not human[acted].all()
    grip = slots["action"][human & acted][:, -1]
    assert bool((grip == 1.0).any() and (grip == -1.0).any())  # it opened, and closed
    assert slots["action"][human & acted][:, :6].abs().amax() > 0.3  # as far as the policy could have gone
    starts = slots["policy"][acted & (slots["t"] == 0)]
    assert "Traceback" not in log.read_text() and len(starts) >= 1
    assert os.path.exists(run / "journals")
