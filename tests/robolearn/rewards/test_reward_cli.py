"""`robolearn reward`: from recording to a judged classifier, a person's keys in a real terminal, and refusals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reward_samples import LENGTH, SMALL, make

from robolearn import config
from robolearn.cli import _collect, _keys, _reward_record, _reward_review, _world, main, reward
from robolearn.cli.collect import CollectCfg
from robolearn.data import labels
from robolearn.data.read import Episodes
from robolearn.errors import ConfigError, UserError
from robolearn.rewards.drafts import Draft

pytest.importorskip("pyarrow")
pytest.importorskip("av")
STARTS = [3, 2, 4, 3, 2, None, None, 3]
QUICK = [*SMALL, "reward.updates=60", "reward.batch=16", "reward.learning_rate=0.01"]
SHORT = ["task=cartpole", "task.episode_length_s=0.5", "num_envs=2", "backend.threads=1", "policy=random"]
_world.discover()


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main.main(["reward", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data, and the folder of what was learned from them."""
    folder = tmp_path_factory.mktemp("trained")
    data = make(folder / "set", STARTS)
    assert main.main(["reward", "train", f"data={data}", f"out={folder / 'reward'}", *QUICK]) == 0
    return data, folder / "reward"


# --- learning and judging ----------------------------------------------------------------------------------


def test_training_leaves_a_reward_its_figures_and_a_picture_of_them(trained) -> None:
    data, out = trained
    assert {p.name for p in out.iterdir()} == {"reward.json", "weights.safetensors", "figures.json", "figures.png"}
    figures = json.loads((out / "figures.json").read_text())
    assert figures["held_out"]["precision"] == 1.0 and figures["label_versions"] == {str(data): 1}
    assert (out / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_evaluation_names_every_mistake_and_what_to_do(trained, tmp_path: Path, capsys) -> None:
    """The other set's label is shifted in one episode: success is said two steps too early, by the label."""
    other = make(tmp_path / "other", [3, None, 2], seed=4)
    code, out, _ = run("evaluate", f"source={trained[1]}", f"data={other}", capsys=capsys)
    assert code == 0 and "no step is wrong" in out and "precision              100.0 %" in out
    labels.write(other, "success", {0: np.arange(LENGTH) >= 5, 1: np.zeros(LENGTH, bool), 2: np.arange(LENGTH) >= 1})
    plot = tmp_path / "plot.png"
    code, out, _ = run("evaluate", f"source={trained[1]}", f"data={other}", f"out={plot}", capsys=capsys)
    rows = [line.split() for line in out.splitlines()]
    assert [str(other), "0", "3-4", "-"] in rows and [str(other), "2", "-", "1"] in rows
    assert "precision              71.4 %   of 18 steps, 6 of which show success" in out  # 5 of 7
    assert "recall                 83.3 %" in out  # 5 of 6
    assert "episodes with success  2 of 3; told of 2, 1.5 steps after it began (median)" in out
    assert f'robolearn reward correct data={other} episode=0 steps="3-4" success=true' in out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_correction_is_one_command(tmp_path: Path, capsys) -> None:
    data = make(tmp_path / "set", [3])
    code, out, _ = run("correct", f"data={data}", "episode=0", "steps=3 4-4", capsys=capsys)
    assert code == 0 and "success@2 is what the next training learns from" in out
    assert Episodes(data).column("success")[:, 0].tolist() == [False] * 5 + [True]


def test_labels_are_columns_that_a_learner_reads(trained, tmp_path: Path, capsys) -> None:
    data = make(tmp_path / "set", [2, None], seed=5)
    assert run("label", f"source={trained[1]}", f"data={data}", "name=seen", capsys=capsys)[0] == 0
    column = Episodes(data, {"next.reward": "seen@1"}).column("next.reward")[:, 0]
    assert column.tolist() == [0, 0, 0, 1, 1, 1] + [0] * LENGTH
    assert run("label", "source=time_penalty", f"data={data}", capsys=capsys)[0] == 0
    assert Episodes(data).column("time_penalty")[:LENGTH, 0].tolist() == [-1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "what shall be done? record, train"),
        (["trian"], "no action 'trian'; did you mean train"),
        (["train", "data=nowhere", "out=x"], "nowhere is not a set of episodes"),
        (["train", "out=x"], "missing: data="),
        (["train", "data=nowhere", "out=tests"], "tests is there and holds no reward"),
        (["train", "data=x", "out=y", "reward.upd=1"], "no key 'reward.upd'"),
        (["train", "data=x", "out=y", "reward.k=9"], "reward.k must be 1 to reward.n"),
        (["evaluate", "source=nowhere", "data=x"], "nowhere holds no reward"),
        (["evaluate", "source=classifier", "data=x"], "the reward classifier is learned"),
        (["evaluate", "source=sparse", "data=x"], "sparse is a sparse, which has no precision"),
        (["evaluate", "source=sparse", "data=x", "out=x.svg"], "out must be a .png file"),
        (["label", "source=sparse", "data=a b"], "a is not a set"),
        (["correct", "data=x", "episode=0", "steps=3-"], "x is not a set"),
        (["record", *SHORT, "out=x", "keep=success"], "holds failures too"),
        (["record", *SHORT, "out=x", "linger_s=-1"], "linger_s must be at least 0"),
        (["record", *SHORT, "out=x", "label=key", "num_envs=1"], "keys are read from a terminal"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)  # fmt: skip
def test_mistakes_are_answered_in_a_line(words, said, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/notes.txt").touch()
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    code, _, err = run(*words, capsys=capsys)
    assert code in (1, 2) and said in err and "Traceback" not in err


def test_spans() -> None:
    assert reward._steps("3 7-9, 12") == [3, 7, 8, 9, 12]
    for wrong in ("", "x", "3-", "-3", "1-x"):
        with pytest.raises(ConfigError, match="3 7-12"):
            reward._steps(wrong)


# --- recording ---------------------------------------------------------------------------------------------


def test_labels_are_the_tasks_own_at_each_observation(tmp_path: Path, capsys) -> None:
    """Cartpole's success is of the state alone: the recorded observation tells."""
    data = tmp_path / "set"
    assert run("record", *SHORT, "episodes=3", f"out={data}", capsys=capsys)[0] == 0
    found = Episodes(data)
    label, env = found.column("success")[:, 0], _env()
    for episode in found.ids:
        env.reset(seed=_collect.batch_seed(0, episode // 2))
        mine = found.episode(episode)
        expected = [bool(env.task.metrics(*env.states())["success"][episode % 2])]
        others = torch.zeros(2, 1)
        for action in mine["action"][:-1]:
            others[episode % 2] = action
            extras = env.step(others)[4]
            expected.append(bool(extras["episode"]["success"][episode % 2]))
        assert mine["success"][:, 0].tolist() == expected
    assert 0 < int(label.sum()) <= len(label)
    env.close()


def _env() -> Any:
    words = [w for w in SHORT if not w.startswith(("num_envs", "policy"))]
    cfg = config.load(CollectCfg, [*words, "num_envs=2", "policy=random", "out=x"])
    return _collect.Collector(cfg).env


def test_recording_goes_on_and_keeps_earlier_labels(tmp_path: Path, capsys) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run("record", *SHORT, "episodes=5", f"out={whole}", capsys=capsys)
    for count in (2, 3, 5):
        run("record", *SHORT, f"episodes={count}", f"out={parts}", capsys=capsys)
    assert labels.versions(parts) == {"success": [1, 2, 3]} and not list((parts / "labels").glob(".draft*"))
    for key in ("observation.state", "action", "success"):
        assert torch.equal(Episodes(whole).column(key), Episodes(parts).column(key)), key
    Draft(parts, {"record": "success"}).put(
        5, {"success": np.ones(3, bool)}
    )  # killed before the episode was in the set
    out = run("record", *SHORT, "episodes=5", f"out={parts}", capsys=capsys)[1]
    assert "5 episodes are there already" in out and labels.versions(parts)["success"][-1] == 3


def test_a_kill_leaves_no_episode_without_its_label(tmp_path: Path, capsys) -> None:
    data, whole = tmp_path / "set", tmp_path / "whole"
    command = [sys.executable, "-m", "robolearn.cli.main", "reward", "record", *SHORT, f"out={data}"]
    process = subprocess.Popen([*command, "episodes=100000"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end, info = time.monotonic() + 100, data / "meta/info.json"
    while not (info.exists() and json.loads(info.read_text())["total_episodes"] >= 3):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "success" not in labels.versions(data)
    count = len(Episodes(data)) + 1
    assert run("record", *SHORT, f"episodes={count}", f"out={data}", capsys=capsys)[0] == 0
    run("record", *SHORT, f"episodes={count}", f"out={whole}", capsys=capsys)
    for key in ("action", "success"):
        assert torch.equal(Episodes(data).column(key), Episodes(whole).column(key)), key


def test_an_episode_that_success_ends_lingers_in_it() -> None:
    """Success from step 3 on: without lingering the episode would end there, and no picture would show it."""
    task = _Task()
    env = type("Env", (), {"task": task, "num_envs": 2, "device": torch.device("cpu")})()
    _reward_record.linger(env, 2)
    ends = []
    for t in range(8):
        task.success = torch.tensor([t >= 3, t == 3])
        ends.append(env.task.terminated(None, None).tolist())
    assert [e[0] for e in ends] == [False] * 5 + [True] * 3  # 3, 4 and then it ends at 5
    assert not any(e[1] for e in ends)  # gone again: the count begins anew
    task.success, task.lost = torch.tensor([False, False]), torch.tensor([True, False])
    assert env.task.terminated(None, None).tolist() == [True, False]  # a failure ends at once


class _Task:
    success, lost = torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)

    def terminated(self, robot: Any, scene: Any) -> torch.Tensor:
        return self.success | self.lost

    def metrics(self, robot: Any, scene: Any) -> dict[str, torch.Tensor]:
        return {"success": self.success.float()}


# --- keys in a terminal ------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, Any]]:
    """Both ends of a terminal: a person's, and the program's standard input."""
    person, program = pty.openpty()
    with os.fdopen(program, "r", closefd=True) as file:
        yield person, file
    os.close(person)


def typed(keys: _keys.Keys, person: int, text: str) -> None:
    """It is there to be read."""
    import select

    os.write(person, text.encode())
    assert select.select([keys._number], [], [], 10.0)[0]


def test_a_key_is_held_until_it_has_been_silent(terminal) -> None:
    person, file = terminal
    now = 0.0
    with _keys.Keys(file) as keys:
        held = _keys.HeldKey(keys, " ", 0.6, lambda: now)
        assert not held.held()
        typed(keys, person, " ")
        assert held.held()
        now = 0.5  # before the first repetition
        assert held.held()
        typed(keys, person, "  ")
        assert held.held()
        now = 1.05
        assert held.held()
        now = 1.11  # 0.61 after the last one
        assert not held.held()
        typed(keys, person, "x\n")
        assert not held.held()


def test_the_terminal_is_given_back_as_it_was(terminal) -> None:
    import termios

    _, file = terminal
    before = termios.tcgetattr(file.fileno())
    with _keys.Keys(file):
        during = termios.tcgetattr(file.fileno())
        assert not during[3] & termios.ICANON and not during[3] & termios.ECHO and during[3] & termios.ISIG
    assert termios.tcgetattr(file.fileno()) == before
    with open(os.devnull) as nothing, pytest.raises(ConfigError, match="the input is none"):
        _keys.Keys(nothing)


def test_a_terminal_that_is_gone_is_said() -> None:
    person, program = pty.openpty()
    with os.fdopen(program, "r") as file:
        keys = _keys.Keys(file)
        os.close(person)
        with pytest.raises(UserError, match="the terminal is gone"):
            keys.one_of(("y",))


def test_a_picture_is_two_rows_of_pixels_a_line() -> None:
    shown = _keys.blocks(np.array([[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]], [[0, 0, 0]]], np.uint8))
    assert shown.splitlines()[0] == "\x1b[38;2;1;2;3m\x1b[48;2;4;5;6m\u2580\x1b[0m" and len(shown.splitlines()) == 2
    assert _keys.blocks(np.zeros((84, 84, 3), np.uint8), 42).count("\u2580") == 42 * 21


def test_one_key_answers_a_dispute(trained, tmp_path: Path, terminal, monkeypatch, capsys) -> None:
    """The label lacks steps 3 and 4 of one episode, has two too many in another, and lacks the end of a third."""
    data = make(tmp_path / "set", [3, None, 2], seed=6)
    wrong = {
        0: np.arange(LENGTH) >= 5,
        1: np.arange(LENGTH) >= 4,
        2: (np.arange(LENGTH) >= 2) & (np.arange(LENGTH) < 5),
    }
    labels.write(data, "success", wrong)
    person, file = terminal
    monkeypatch.setattr("sys.stdin", file)
    source = reward._classifier(reward.JudgeCfg(str(trained[1]), str(data)))
    assert _reward_review.disputes(source, Episodes(data), 0) == [(0, 3, 4, True), (1, 4, 5, False), (2, 5, 5, True)]
    assert _reward_review.disputes(source, Episodes(data), 5) == [(1, 5, 5, False), (2, 5, 5, True)]
    before = _keys.Keys(file)  # as a terminal is whose user types ahead: no line that waits for its end
    os.write(person, b"y?ns")
    code, out, err = run("review", f"source={trained[1]}", f"data={data}", capsys=capsys)
    before.close()
    assert code == 0 and "3 places, 3 looked at; success@3" in out
    assert "1 of 3: episode 0, steps 3 to 4; the classifier says success, the label not" in err and "\u2580" in err
    found = Episodes(data).column("success")[:, 0].reshape(3, LENGTH).int().tolist()
    assert found == [[0, 0, 0, 1, 1, 1], [0] * LENGTH, [0, 0, 1, 1, 1, 0]]


def test_a_person_labels_by_holding_the_space_bar(tmp_path: Path, terminal, monkeypatch, capsys) -> None:
    """From the third observation on the bar is down, and repeats; the clock is the test's."""
    person, file = terminal
    monkeypatch.setattr("sys.stdin", file)
    shown: list[int] = []

    def show(self: _keys.Screen, picture: Any, step_s: float) -> bool:
        shown.append(1)
        if len(shown) >= 3:
            typed(self._keys, person, " ")
        return self._key.held()

    monkeypatch.setattr(_keys.Screen, "show", show)
    words = [w for w in SHORT if "num_envs" not in w and "length" not in w]
    data = tmp_path / "set"
    code, out, _ = run("record", *words, "task.episode_length_s=0.334", "label=key", "hold_s=1000", "episodes=1",
                       f"out={data}", capsys=capsys)  # fmt: skip
    length = Episodes(data).length(0)  # the pole may fall before
    assert code == 0 and length > 4 and f"{length - 2} steps show success" in out
    assert Episodes(data).column("success")[:, 0].tolist() == [False] * 2 + [True] * (length - 2)
    assert labels.read(data, "success", 1)[0].about["by"] == "key"


def test_the_screen_waits_for_the_end_of_a_step(terminal) -> None:
    import io

    person, file = terminal
    out = io.StringIO()
    screen = _keys.Screen(1000.0, file, out)
    start = time.monotonic()
    assert not any(screen.show(np.zeros((4, 4, 3), np.uint8), 0.02) for _ in range(3))
    assert time.monotonic() - start >= 0.05
    typed(screen._keys, person, " ")
    assert screen.show(None, 0.0) and "SUCCESS" in out.getvalue() and "hold the space bar" in out.getvalue()
    screen.close()
