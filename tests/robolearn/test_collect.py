"""Recording: what a step holds, the same episodes whatever the number of processes, going on, and refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn import config
from robolearn.cli import _collect, _world, collect, main, train
from robolearn.data.contract import element_names, require
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.errors import ConfigError, UserError
from robolearn.loops.collect import attempts
from robolearn.spec import ActionSpec, Field, ObservationSpec, TermSpec

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
_world.discover()
SHORT = ["task=cartpole", "task.episode_length_s=1", "num_envs=4", "backend.threads=1"]


def run(out: Path, *words: str) -> Episodes:
    assert collect.main([*SHORT, f"out={out}", *words]) == 0
    return Episodes(out)


def same(a: Episodes, b: Episodes) -> bool:
    keys = a.info.vectors
    return keys == b.info.vectors and all(torch.equal(a.column(k), b.column(k)) for k in keys)


# --- what is recorded --------------------------------------------------------------------------------------


def test_a_row_is_the_observation_before_its_action_and_what_came_after(tmp_path):
    """Against the environment itself, stepped with the recorded actions from the recorded seed."""
    found = run(tmp_path / "set", "policy=expert", "episodes=4", "noise=0.5")
    env = _collect.Collector(collect.CollectCfg(**_plain(seed=0))).env
    obs, _ = env.reset(seed=_collect.batch_seed(0, 0))
    episodes = [found.episode(e) for e in range(4)]
    for step in range(30):
        rows = [{k: v[step] for k, v in e.items()} for e in episodes]
        assert torch.equal(torch.stack([r["observation.state"] for r in rows]), obs["policy"])
        obs, reward, terminated, truncated, extras = env.step(torch.stack([r["action"] for r in rows]))
        for key, value in (("next.reward", reward), ("next.terminated", terminated), ("next.truncated", truncated)):
            assert torch.equal(torch.stack([r[key] for r in rows])[:, 0], value), key
        assert torch.equal(torch.stack([r["action.applied"] for r in rows]), extras["applied_action"])
    env.close()
    assert [len(e["action"]) for e in episodes] == [30] * 4 and bool(truncated.all())
    for episode in episodes:
        assert episode["next.success"][:, 0].tolist() == [False] * 29 + [True]
        assert len(set(episode["strategy"][:, 0].tolist())) == 1


def _plain(**given):
    cfg = config.load(collect.CollectCfg, [*SHORT, "policy=random", "out=x", *(f"{k}={v}" for k, v in given.items())])
    return {name: getattr(cfg, name) for name in cfg.__dataclass_fields__ if name != "defaults"}


def test_the_set_says_what_its_numbers_mean(tmp_path):
    found = run(tmp_path / "set", "policy=random", "episodes=2")
    assert found.fps == 30 and found.info.robot == "cartpole" and found.task(0) == "balance the pole"
    assert found.info.about["task"] == "cartpole"
    assert found.info.about["action"]["function"] == "joint_effort"
    assert found.info.features["observation.state"].names == (
        "cart_position", "pole_angle[0]", "pole_angle[1]", "velocities[0]", "velocities[1]",
    )  # fmt: skip
    assert found.info.features["action"].names == ("slider",)
    assert "strategy" not in found.info.features


def test_names_of_frames_in_a_history():
    terms = (TermSpec(Field("q", (2,)), "joint_pos", history=2), TermSpec(Field("x", (1,)), "command"))
    spec = ObservationSpec({"policy": terms})
    assert element_names(spec) == ("q[0]@-1", "q[1]@-1", "q[0]", "q[1]", "x")
    twice = ObservationSpec({"policy": terms[1:]}, {"policy": 2})
    assert element_names(twice) == ("x@-1", "x")
    both = element_names(ObservationSpec({"policy": terms}, {"policy": 2}))
    assert len(set(both)) == 10


class Uneven:
    """Environment i ends after i + 1 steps, and then every i + 1 steps; only the first end of 2 is a success."""

    num_envs, device = 3, torch.device("cpu")
    action_spec = ActionSpec("joint_position", ("a",), "rad")

    def reset(self, seed=None):
        self.t = torch.zeros(3)
        return self._obs(), {}

    def _obs(self):
        grey = self.t.to(torch.uint8).view(3, 1, 1, 1).expand(3, 4, 4, 3)
        return {"policy": self.t[:, None].clone(), "policy/front": grey, "critic": self.t[:, None]}

    def step(self, action):
        self.t = self.t + 1
        done = self.t % torch.tensor([1.0, 2.0, 3.0]) == 0
        success = ((self.t == 3) & (torch.arange(3) == 2)).float()
        extras = {"applied_action": action / 2, "episode": {"success": success}}
        no = torch.zeros(3, dtype=torch.bool)
        return self._obs(), self.t, done, no, extras


class Loud:
    strategy = None

    def begin(self, seed):
        pass

    def act(self, obs):
        return torch.full((3, 1), 7.0)


def test_each_environment_gives_its_first_episode_and_no_more():
    """Taking what ends first would give three of length one. Commands are kept inside their bounds."""
    found = attempts(Uneven(), Loud(), 0)
    assert [len(e) for e in found] == [1, 2, 3]
    assert [e.success for e in found] == [False, False, True]
    assert found[2].columns["observation.state"][:, 0].tolist() == [0.0, 1.0, 2.0]
    assert found[2].columns["observation.images.front"].shape == (3, 4, 4, 3)
    assert found[2].columns["observation.images.front"][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert found[2].columns["next.reward"][:, 0].tolist() == [1.0, 2.0, 3.0]
    assert found[2].columns["action"].max() == 1.0 and found[2].columns["action.applied"].max() == 0.5
    assert not any(key.endswith("critic") for key in found[0].columns)
    assert attempts(Uneven(), Loud(), 0, lambda: True) == []


# --- the same again ----------------------------------------------------------------------------------------


def test_two_processes_record_what_one_does(tmp_path):
    words = ("policy=expert", "noise=1", "episodes=10", "seed=3")
    one, two = run(tmp_path / "one", *words), run(tmp_path / "two", *words, "workers=2")
    assert same(one, two) and len(one) == 10
    assert one.column("origin")[:, 1].unique().tolist() == list(range(10))
    assert not torch.equal(one.episode(0)["action"], one.episode(1)["action"])
    other = run(tmp_path / "other", *words[:-1], "seed=4")
    assert not torch.equal(one.column("action")[:30], other.column("action")[:30])


def test_a_set_that_is_gone_on_with_is_the_one_that_was_made_at_once(tmp_path, capsys):
    words = ("policy=random", "task.episode_length_s=0.5")
    whole = run(tmp_path / "whole", *words, "episodes=11")
    for count in (3, 7, 11):
        parts = run(tmp_path / "parts", *words, f"episodes={count}")
        assert len(parts) == count
    assert same(whole, parts)
    capsys.readouterr()
    assert same(run(tmp_path / "parts", *words, "episodes=5"), whole)  # more are there: nothing is done
    assert "11 episodes" in capsys.readouterr().out
    more = run(tmp_path / "parts", *words, "episodes=12", "seed=1")
    assert more.column("origin")[-1].tolist() == [1, 0]


def test_a_batch_does_not_depend_on_the_ones_before():
    """Contacts, held objects, whether a part was placed: nothing of it is left when the next batch begins."""
    words = ["task=franka_two_part", "task.episode_length_s=1.5", "num_envs=2", "backend.threads=1", "policy=expert"]
    cfg = config.load(collect.CollectCfg, [*words, "noise=1", "out=x"])
    used, fresh = _collect.Collector(cfg), _collect.Collector(cfg)
    used.batch(0, lambda: False)
    for one, other in zip(used.batch(1, lambda: False), fresh.batch(1, lambda: False), strict=True):
        assert all(np.array_equal(one.columns[k], other.columns[k]) for k in one.columns) and len(one) == 30
    used.close(), fresh.close()


def test_pictures_of_a_contact_task_are_recorded_and_fit_the_task(tmp_path):
    words = ["task=franka_stack", "task.cameras=[wrist]", "task.episode_length_s=0.1", "num_envs=1"]
    assert collect.main([*words, "policy=random", "episodes=1", f"out={tmp_path / 'set'}"]) == 0
    found, cfg = Episodes(tmp_path / "set"), config.load(train.TrainCfg, [*words[:2], "algo=bc"])
    require(found, _world.spec_of(cfg.task), "franka_stack")
    seen = found.pictures("observation.images.wrist", 0, [0, 1])
    assert seen.shape == (2, 84, 84, 3) and seen.float().std() > 5.0
    assert found.column("observation.state").shape == (2, 27)
    with pytest.raises(DataError, match="does not fit franka_stack"):
        require(found, _world.spec_of(config.load(train.TrainCfg, words[:1]).task), "franka_stack")


def test_a_trained_policy_is_recorded(tmp_path):
    assert train.main(["task=cartpole", "num_envs=8", "total_steps=500", "algo.hidden=[16]", "eval_episodes=0",
                       f"run_dir={tmp_path / 'run'}"]) == 0  # fmt: skip
    found = run(tmp_path / "set", f"policy=run:{tmp_path / 'run'}", "episodes=3")
    policy = _world.load_run(str(tmp_path / "run"))[2].policy
    steps = found.episode(1)
    with torch.no_grad():
        commanded = policy.act({"policy": steps["observation.state"]}).clamp(-1.0, 1.0)
    assert torch.allclose(commanded, steps["action"], atol=1e-6)


def test_a_policy_of_poses_records_pictures_from_the_true_state(tmp_path):
    """As it acts where it sees the poses itself, but for their noise, which is off here."""
    words = ["task=franka_peg_insert", "num_envs=2", "task.episode_length_s=1"]
    small = ["total_steps=32", "algo.horizon=16", "algo.hidden=[16]", "eval_episodes=0", f"run_dir={tmp_path / 'run'}"]
    assert train.main([*words, *small]) == 0
    calm = [f"task.randomize.observation_noise.{k}=0" for k in ("joint_pos", "hole_position_ee")]
    words += [f"policy=run:{tmp_path / 'run'}", "episodes=2", *calm]
    state, seen = (run(tmp_path / n, *words, *more) for n, more in (("state", []), ("seen", ["task.cameras=[front]"])))
    assert seen.info.videos and not state.info.videos
    assert torch.allclose(state.column("action"), seen.column("action"), atol=1e-5)
    assert state.column("action").std() > 0.0
    with pytest.raises(ConfigError, match=r"does not fit this environment .*rate_hz: .* != "):
        run(tmp_path / "other", *words, "task.cameras=[front]", "task.decimation=48")
    stack = [w.replace("franka_peg_insert", "franka_stack") for w in words if "observation_noise" not in w]
    with pytest.raises(ConfigError, match=r"does not fit this environment .*peg_position_ee"):
        run(tmp_path / "other", *stack, "task.cameras=[front]")


def test_failures_are_left_out_of_an_experts_set_and_counted(tmp_path, capsys, monkeypatch):
    from sim.tasks.toy.cartpole import CartpoleExpert

    act = CartpoleExpert.act  # it lets the pole fall on the left
    monkeypatch.setattr(CartpoleExpert, "act", lambda self, r, s: act(self, r, s) * self.strategy[:, None])
    kept = run(tmp_path / "kept", "policy=expert", "episodes=6", "task.episode_length_s=2")
    assert kept.column("next.success").sum() == 6 and set(kept.column("strategy").flatten().tolist()) == {1}
    out = capsys.readouterr().out
    tried = int(kept.column("origin")[-1, 1]) + 1
    assert tried > 6 and f"{tried}, of which 6 are kept, {tried - 6} failed" in out
    assert f"left                 0 of {tried - 6}" in out and "right                6 of 6" in out
    everything = run(tmp_path / "all", "policy=expert", "episodes=6", "task.episode_length_s=2", "keep=all")
    assert 0 < everything.column("next.success").sum() < 6
    with pytest.raises(UserError, match=r"of 8 attempts succeeded, too few for episodes=100; what is kept is in"):
        run(tmp_path / "few", "policy=expert", "episodes=100", "task.episode_length_s=2", "tries=8")


# --- interrupted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_keeps_what_is_whole_and_says_how_to_go_on(tmp_path, workers):
    out = tmp_path / "set"
    command = [sys.executable, "-m", "robolearn.cli.main", "collect", *SHORT, "policy=random", f"out={out}"]
    process = subprocess.Popen([*command, "episodes=100000", f"workers={workers}"], stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    _wait_for_episodes(out, 6)
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "go on with the same command" in said and f"{out}: " in shown
    there = Episodes(out)
    assert len(there) >= 6
    again = run(out, "policy=random", f"episodes={len(there) + 2}")
    whole = run(tmp_path / "whole", "policy=random", f"episodes={len(again)}")
    assert same(again, whole)


def test_a_kill_breaks_nothing(tmp_path):
    out = tmp_path / "set"
    command = [sys.executable, "-m", "robolearn.cli.main", "collect", *SHORT, "policy=random", f"out={out}"]
    process = subprocess.Popen([*command, "episodes=100000"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _wait_for_episodes(out, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = len(Episodes(out))
    again = run(out, "policy=random", f"episodes={there + 1}")
    assert same(again, run(tmp_path / "whole", "policy=random", f"episodes={there + 1}"))


def _wait_for_episodes(out: Path, count: int) -> None:
    end = time.monotonic() + 100
    while time.monotonic() < end:
        info = out / "meta/info.json"
        if info.exists() and json.loads(info.read_text())["total_episodes"] >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no episodes")


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["policy=export"], "no policy 'export'; did you mean expert"),
        (["policy=run:"], "no policy 'run:'"),
        (["policy=run:nowhere"], "no run 'nowhere'"),
        (["policy=random", "noise=1"], "noise is of the expert; policy=random has none"),
        (["policy=random", "keep=none"], "keep must be success or all, got none"),
        (["policy=random", "codec=h265"], "no codec 'h265'; did you mean h264"),
        (["policy=random", "episodes=0"], "episodes must be 1 to"),
        (["policy=random", "workers=0"], "workers must be 1 to"),
        (["policy=random", "experiment=cartpole_ppo"], "experiment=cartpole_ppo is for training"),
        (["policy=random", "nosie=1"], "no key 'nosie'; did you mean noise"),
        (["policy=expert", "task=crazyflie_hover", "backend=quadrotor"], "task crazyflie_hover has no scripted expert"),
        (["policy=random", "backend=quadrotor"], ""),
        ([], "missing: policy=..."),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_mistake_ends_with_code_2_and_leaves_nothing(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["collect", "task=cartpole", "out=set", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"robolearn collect: {said}") and captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_other_data_than_what_is_there_are_refused_with_both(tmp_path, capsys):
    run(tmp_path / "set", "policy=random", "episodes=1")
    capsys.readouterr()
    words = ["task=cartpole", "policy=random", f"out={tmp_path / 'set'}", "task.force_n=10", "task.decimation=8"]
    assert main.main(["collect", *words]) == 1
    said = capsys.readouterr().err
    assert "has other data (there != here)" in said and "fps: 30.0 != 15.0" in said
    assert "[20.0] != [10.0]" in said and len(Episodes(tmp_path / "set")) == 1
    assert main.main(["collect", "task=cartpole", "policy=expert", f"out={tmp_path / 'set'}"]) == 1
    assert "strategy" in capsys.readouterr().err


def test_seeds_of_batches_are_an_environments():
    seeds = [_collect.batch_seed(s, k) for s in (0, 1, 2**31 - 1) for k in range(200)]
    assert len(set(seeds)) == 600 and all(0 <= s < 2**31 for s in seeds)
    assert np.std(seeds) > 5e8
