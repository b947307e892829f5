"""The command line: quick help that names every option, lists, and errors that name the remedy."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from robolearn.cli import list as listing
from robolearn.cli import main as cli
from robolearn.cli._table import table

HEAVY = (
    "torch",
    "mujoco",
    "hydra",
    "omegaconf",
    "pybullet",
    "warp",
    "matplotlib",
    "rich",
    "tensorboard",
    "av",
    "pyarrow",
)
COMMANDS = cli.commands()
WITHOUT_MUJOCO = """
import sys
sys.modules["mujoco"] = None
from robolearn.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def python(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], [], *([c, "--help"] for c in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from robolearn.cli.main import main; assert main(sys.argv[1:]) == 0; "
        f"print('LOADED', sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = python(code, *words)
    assert done.stdout.splitlines()[-1] == "LOADED []", done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_command_explains_itself_and_every_option(command: str) -> None:
    module = importlib.import_module(f"robolearn.cli.{command}")
    text = module.help_text()
    assert cli.summary(command).endswith((".", "!")) and f"usage: robolearn {command}" in text
    own = [c for c in vars(module).values() if dataclasses.is_dataclass(c) and c.__module__ == module.__name__]
    options = [f for c in own if c.__name__.endswith("Cfg") for f in dataclasses.fields(c) if f.name != "defaults"]
    unexplained = [f.name for f in options if not f.metadata.get("help")]
    assert unexplained == []
    assert [f.name for f in options if f"  {f.name}=" not in text] == []


def test_usage_lists_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("--help", capsys=capsys)
    assert code == 0 and {"train", "evaluate", "list", "doctor", "new"} <= set(COMMANDS)
    for command in COMMANDS:
        assert [line for line in out.splitlines() if line.split() == [command, *cli.summary(command).split()]]


def test_version_is_the_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    from robolearn.paths import version

    assert run("--version", capsys=capsys)[:2] == (0, version() + "\n")


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "robolearn trian: no command 'trian'; did you mean train?"),
        (["lst"], "robolearn lst: no command 'lst'; did you mean list?"),
        (["zzzzzz"], "robolearn zzzzzz: no command 'zzzzzz'; there is "),
        (["list", "task"], "robolearn list: no list of 'task'; did you mean tasks?"),
        (["evaluate", "rnu=last"], "robolearn evaluate: no key 'rnu'; did you mean run?"),
        (["evaluate"], "robolearn evaluate: missing: run=..."),
        (["evaluate", "run=nowhere"], "robolearn evaluate: no run 'nowhere'"),
        (["evaluate", "run=x", "seed=10000000000000000"], "robolearn evaluate: seed must be 0 to 2147483647, got 1000"),
        (["evaluate", "run=x", "video_envs=101"], "robolearn evaluate: video_envs must be 1 to 100, got 101"),
        (["play", "run=x", "seed=-1"], "robolearn play: seed must be 0 to 2147483647, got -1"),
        (["play", "run=x", "num_envs=101"], "robolearn play: num_envs must be 1 to 100, got 101"),
        (["demo", "seed=2147483648"], "robolearn demo: seed must be 0 to 2147483647, got 2147483648"),
        (["demo", "video_envs=0"], "robolearn demo: video_envs must be 1 to 100, got 0"),
        (["demo", "episodes=0"], "robolearn demo: episodes must be 1 to"),
        (["doctor", "timeout_s=0"], "robolearn doctor: timeout_s must be above 0"),
        (["new", "task"], "robolearn new: give a kind and a name"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistake_is_one_line_and_code_2(
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words, capsys=capsys)
    assert (code, out) == (2, "") and err.startswith(said) and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


INTERRUPTED = """
import sys
class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise KeyboardInterrupt
from robolearn.cli.main import main
sys.meta_path.insert(0, Impatient())
sys.exit(main(["list", "tasks"]))
"""


@pytest.mark.parametrize("module", ["robolearn.config", "robolearn.cli.list", "torch"])
def test_an_interrupt_during_the_imports_is_one_line_and_code_130(module: str, tmp_path: Path) -> None:
    done = python(INTERRUPTED, module, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "robolearn list: interrupted\n")


def test_missing_optional_package_names_its_extra(tmp_path: Path) -> None:
    done = python(WITHOUT_MUJOCO, "train", "experiment=cartpole_ppo", "num_envs=2", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "pip install 'robolearn[mujoco]'" in done.stderr.splitlines()[-1]


def test_lists_need_no_simulator(tmp_path: Path) -> None:
    done = python(WITHOUT_MUJOCO, "list", *listing.KINDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"cartpole", "ppo", "mujoco", "franka"} <= {line.split()[0] for line in done.stdout.splitlines() if line}


# --- lists -------------------------------------------------------------------------------------------------


def rows(kind: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    code, out, _ = run("list", kind, capsys=capsys)
    assert code == 0
    return {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()[1:]}


def test_list_alone_shows_the_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("list", capsys=capsys)
    assert code == 0 and [line.split()[0] for line in out.splitlines()[: len(listing.KINDS)]] == list(listing.KINDS)


def test_tasks_are_listed_with_robot_rate_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert rows("tasks", capsys)["cartpole"] == "cartpole 30 Hz 5 1 Balance a pole on a cart"


def test_robots_are_listed_with_joints_and_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert rows("robots", capsys)["franka"].startswith("9 1000 Hz Franka Emika Panda")


def test_algos_backends_and_experiments_are_listed_with_their_first_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert rows("algos", capsys)["ppo"].startswith("Proximal policy optimisation (Schulman et al. 2017) with")
    assert rows("backends", capsys)["mujoco"].startswith("CPU MuJoCo")
    assert rows("experiments", capsys)["cartpole_ppo"].startswith("cartpole ppo Balance a pole")


def test_sentence_skips_headings_and_keeps_abbreviations() -> None:
    assert listing.sentence("## Description\n  One by A et al. 2016, of\n  two lines. More.") == (
        "One by A et al. 2016, of two lines"
    )


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table([("a", "bbb", "x"), ("aaaa", "b", "")], ("n", "m", "last")) == (
        "n     m    last\na     bbb  x\naaaa  b"
    )
