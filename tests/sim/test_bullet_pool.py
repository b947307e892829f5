"""The PyBullet backend's processes and memory: saved states, death, too little memory, and nothing left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from mujoco_worlds import CARTPOLE, FRANKA, UPRIGHT, cube, everyone

from robolearn import memory
from robolearn.config import ConfigError
from robolearn.rotations import from_rotation_vector
from sim.backends import bullet_pool
from sim.backends.bullet_pool import WorkerDiedError
from sim.scene import ContactSensorCfg, Cylinder, ObjectCfg, RobotCfg

pytest.importorskip("pybullet", reason="pybullet is not installed (extra bullet)")
TIPPED = from_rotation_vector(torch.tensor([0.3, 0.1, 0.5])).tolist()


def tumbling():
    """Things that touch each other, the ground and the arm for seconds."""
    return {
        "cube": cube(0.3, 0.2), "other": cube(0.5, 0.1),
        "can": ObjectCfg(Cylinder(0.03, 0.12), 0.2, (0.03, 0.02, 0.8, *UPRIGHT)),
    }  # fmt: skip


# --- state ---------------------------------------------------------------------------------------------------


def test_a_state_put_back_continues_to_the_bit_with_contacts_and_in_other_processes(bullet):
    sensors = {"cube": ContactSensorCfg("cube")}
    first = bullet({"robot": RobotCfg(FRANKA)}, tumbling(), num_envs=3, workers=1, contact_sensors=sensors)
    other = bullet({"robot": RobotCfg(FRANKA)}, tumbling(), num_envs=3, workers=2, contact_sensors=sensors)
    rest = torch.tensor(FRANKA.default_joint_pos).expand(3, -1)
    pose = torch.tensor([[0.45 + 0.02 * i, 0.0, 0.3, *TIPPED] for i in range(3)])
    first.write_joints("robot", rest, torch.zeros(3, 9), everyone(first))
    first.write_pose("cube", pose, torch.zeros(3, 6), everyone(first))
    push = torch.tensor([[0.5, 0.1, 0.0, 0.0, 0.0, 0.0]]).expand(3, 6)
    first.apply_wrench("cube", None, push)

    def onward(backend):
        states = []
        for k in range(40):
            backend.write_targets("robot", rest + 0.02 * (k % 7))
            backend.step(12)
            states.append(backend.get_state())
        return states

    onward(first)
    saved = first.get_state()
    assert (first.contact_force("cube").norm(dim=1) > 0.1).any()
    expected = onward(first)
    for backend in (first, other):
        backend.set_state(saved)
        assert torch.equal(backend.time_s, saved[:, 0].float())
        assert all(torch.equal(a, b) for a, b in zip(onward(backend), expected, strict=True))
    assert not torch.equal(expected[0], expected[-1])


def test_masks_leave_the_others_alone_bit_by_bit(bullet):
    backend = bullet(objects={"cube": cube(1.0)}, num_envs=3)
    start = backend.get_state()
    backend.step(5)
    before, only = backend.get_state(), torch.tensor([False, True, False])
    away = torch.tensor([[0.0, 0.0, 2.0, *TIPPED]]).expand(3, 7)
    backend.write_pose("cube", away, torch.ones(3, 6), only)
    backend.write_joints("robot", torch.full((3, 2), 0.1), torch.ones(3, 2), only)
    assert torch.equal(backend.get_state()[~only], before[~only])
    torch.testing.assert_close(backend.pose("cube")[1], away[1])
    backend.set_state(start, only)
    assert torch.equal(backend.get_state(), torch.where(only[:, None], start, before))
    with pytest.raises(ValueError, match=r"shape \(2, 3\) is not of this scene's 3 environments"):
        backend.set_state(torch.zeros(2, 3, dtype=torch.float64))


def test_nothing_of_the_old_episode_is_left_after_a_write(bullet):
    sensors = {"c": ContactSensorCfg("cube")}
    backend = bullet({"robot": RobotCfg(CARTPOLE)}, {"cube": cube(0.05)}, contact_sensors=sensors)
    backend.write_targets("robot", effort=torch.full((2, 2), 7.0))
    backend.step(20)
    assert backend.joint_effort("robot")[:, 0].tolist() == [7.0, 7.0]
    assert (backend.contact_force("c")[:, 2] > 1.0).all()
    backend.write_joints("robot", torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([True, False]))
    assert backend.joint_effort("robot")[:, 0].tolist() == [0.0, 7.0]
    assert backend.contact_force("c")[0].tolist() == [0.0, 0.0, 0.0]
    backend.step(1)
    assert backend.joint_effort("robot")[:, 0].tolist() == [0.0, 7.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_what_diverged_is_not_finite_and_lives_again_after_a_reset(bullet, bad):
    backend, twin = (bullet({"robot": RobotCfg(CARTPOLE)}, num_envs=2) for _ in range(2))
    speed = torch.tensor([[0.0, bad], [0.0, 0.0]])
    backend.write_joints("robot", torch.zeros(2, 2), speed, everyone(backend))
    backend.step(3)
    assert backend.finite().tolist() == [False, True]
    for b in (backend, twin):
        b.write_joints("robot", torch.zeros(2, 2), torch.ones(2, 2), everyone(b))
        b.step(7)
    assert backend.finite().all()
    assert torch.equal(backend.joint_pos("robot"), twin.joint_pos("robot"))


def test_an_explosion_inside_the_engine_leaves_nothing_behind(bullet):
    backend, twin = (bullet(objects={"cube": cube(1.0)}, num_envs=1) for _ in range(2))
    backend.apply_wrench("cube", None, torch.tensor([[1e38, 0.0, 0.0, 1e38, 1e38, 0.0]]))
    backend.step(9)
    assert backend.finite().tolist() == [False]
    backend.set_state(twin.get_state())
    for b in (backend, twin):
        b.step(60)
    assert torch.equal(backend.get_state(), twin.get_state())


def test_a_nan_in_the_engine_leaves_nothing_behind(bullet):
    backend, twin = (bullet({"robot": RobotCfg(FRANKA)}, {"cube": cube(0.3)}, num_envs=1) for _ in range(2))
    backend.write_targets("robot", effort=torch.full((1, 9), torch.nan))
    backend.step(3)
    assert backend.finite().tolist() == [False]
    backend.set_state(twin.get_state())
    for b in (backend, twin):
        b.step(120)
    assert torch.equal(backend.get_state(), twin.get_state())


# --- processes -----------------------------------------------------------------------------------------------


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def gone(pids, seconds=5.0):
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, pids))


def pids_of(backend):
    return [w.process.pid for w in backend.pool.workers]


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)


def test_a_killed_worker_is_named_with_its_environments_and_the_others_end(bullet, two_cores):
    backend = bullet(num_envs=5, workers=2)
    pids = pids_of(backend)
    os.kill(pids[1], signal.SIGKILL)
    start = time.monotonic()
    said = r"worker 1 \(environments 2 to 4\) was killed by signal 9 \(SIGKILL, memory may have run out\); the other"
    with pytest.raises(WorkerDiedError, match=said) as caught:
        backend.step(4)
    assert time.monotonic() - start < 2.0
    assert caught.value.exit_code == 1
    assert gone(pids)
    with pytest.raises(WorkerDiedError, match="were ended"):
        backend.step(1)


def test_a_worker_that_dies_in_the_middle_of_a_step_is_missed_at_once(bullet, two_cores):
    backend = bullet(num_envs=2, workers=2)
    pids = pids_of(backend)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # neither can answer, and neither takes the killer's processor
    killer = threading.Timer(0.5, os.kill, (pids[0], signal.SIGKILL))
    killer.start()
    start = time.monotonic()
    with pytest.raises(WorkerDiedError, match=r"worker 0 \(environments 0 to 0\) was killed by signal 9"):
        backend.step(1)
    assert 0.4 < time.monotonic() - start < 5.0
    killer.join()
    assert gone(pids[:1])


def test_a_worker_that_fails_says_its_last_line(bullet, monkeypatch):
    monkeypatch.setattr(bullet_pool, "START", "import sys; sys.stderr.write('no such luck'); sys.exit(3) #{path}")
    with pytest.raises(WorkerDiedError, match=r"worker 0 .* ended with exit code 3; it said: no such luck"):
        bullet()


def test_too_many_environments_are_refused_with_how_many_fit(bullet, monkeypatch):
    monkeypatch.setattr(bullet_pool, "available_bytes", lambda: 400 * 2**20)
    with pytest.raises(ConfigError, match=r"40 environments do not fit: one takes \d+ MiB .* set num_envs=\d+ or less"):
        bullet({"robot": RobotCfg(FRANKA)}, num_envs=40)


def test_an_interrupted_request_ends_the_workers_and_no_answer_is_taken_for_another(bullet, two_cores, monkeypatch):
    def interrupted(connections):
        raise KeyboardInterrupt

    backend = bullet(num_envs=2, workers=2)
    pids = pids_of(backend)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(bullet_pool, "wait", interrupted)
        backend.step(1)
    assert gone(pids)
    with pytest.raises(WorkerDiedError, match="were ended"):
        backend.step(1)


def test_a_containers_limit_counts_and_its_cache_of_files_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUPS", ((str(tmp_path), "memory.max", "memory.current"),))
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 3000\n")
    (tmp_path / "memory.current").write_text("9000\n")
    (tmp_path / "memory.max").write_text("10000\n")
    assert memory.available_bytes() == 10_000 - 9_000 + 3_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 2**24


def test_memory_that_is_available_is_found():
    assert 2**24 < memory.available_bytes() < 2**50


PARENT = """
import json, os, signal, sys, time
import torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it may be ignored
from robolearn import config
config.discover(["robolearn.robots", "sim.backends"])
from sim.backends.pybullet import Pybullet, PybulletCfg
from sim.scene import RobotCfg, SceneCfg
scene = SceneCfg({"robot": RobotCfg(config.entry("robot", "cartpole").value)})
backend = Pybullet(PybulletCfg(workers=2), scene, 2, torch.device("cpu"), 0)
print(json.dumps([w.process.pid for w in backend.pool.workers]), flush=True)
while True:
    backend.step(100)
"""


@contextlib.contextmanager
def ended(parent):
    """Whatever the test finds, nothing of its process group is left at work."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_parent_however_it_ends(how):
    before = set(os.listdir("/dev/shm"))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    with ended(parent):
        pids = json.loads(parent.stdout.readline())
        assert all(map(alive, pids))
        time.sleep(0.2)
        os.killpg(parent.pid, how)  # as a terminal's Ctrl-C does
        _, said = parent.communicate(timeout=20)
        assert gone(pids)
    assert set(os.listdir("/dev/shm")) <= before
    assert said.count("Traceback") == (how == signal.SIGINT)  # the parent's own
    assert "bullet_worker" not in said


def test_an_interrupt_that_the_parent_handles_leaves_the_workers_at_work():
    code = PARENT.replace(
        "while True:\n    backend.step(100)",
        """
import signal
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
while not heard:
    backend.step(100)
backend.step(100)
print("still here")
""",
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    with ended(parent):
        pids = json.loads(parent.stdout.readline())
        os.killpg(parent.pid, signal.SIGINT)
        out, _ = parent.communicate(timeout=20)
        assert (out, parent.returncode) == ("still here\n", 0)
        assert gone(pids)


def test_workers_start_without_torch():
    code = "import sys, sim.backends.bullet_worker; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_closed_backend_has_no_workers_left(bullet):
    backend = bullet(num_envs=2, workers=2)
    pids = pids_of(backend)
    backend.close()
    assert gone(pids)
    backend.close()  # twice is once


def test_environments_in_this_process_do_bit_by_bit_what_those_in_another_do():
    import torch

    from robolearn.robots.crazyflie import CRAZYFLIE
    from sim.backends.pybullet import Pybullet, PybulletCfg
    from sim.scene import RobotCfg, SceneCfg

    scene = SceneCfg({"robot": RobotCfg(CRAZYFLIE, (0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))}, physics_dt_s=0.002)
    ends = []
    for alone in (True, False):
        backend = Pybullet(PybulletCfg(workers=1, alone=alone), scene, 2, torch.device("cpu"), 0)
        command = torch.tensor([[0.1, 0.0, 0.3, 0.3], [0.0, -0.2, 0.0, 0.25]])
        for _ in range(20):
            backend.write_attitude("robot", command)
            backend.step(5)
        ends.append(backend.get_state())
        backend.close()
    assert torch.equal(*ends) and ends[0].abs().sum() > 1.0
