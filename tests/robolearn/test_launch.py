"""What launch files mean: every construct, every refusal with its line; nothing is started here."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from workspace_samples import NOTHING, ROOT, install

from robolearn.cli import _launch_file, _launch_places, _launch_text, launch
from robolearn.cli._launch_plan import Plan, Process
from robolearn.errors import ConfigError
from robolearn.paths import share_dir


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sourced ROS 2 workspace that holds the package `armory` with the program `aim`, and robolearn with ours."""
    prefix = install(install(tmp_path / "install"), "armory", {"aim": NOTHING})
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{prefix}")
    return prefix


def plan(folder: Path, text: str, **variables: str) -> list[Process]:
    """The processes of a launch file with this body below `launch:`."""
    path = folder / "a.launch.yaml"
    path.write_text("launch:\n" + text)
    made = Plan(variables)
    made.include(path)
    return made.processes


def echoed(folder: Path, text: str, **variables: str) -> list[list[str]]:
    """The arguments of each process."""
    return [process.command[1:] for process in plan(folder, text, **variables)]


ECHO = "  - executable: {cmd: echo "


# --- substitutions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", ""),
        ("plain $ text (so)", "plain $ text (so)"),
        ("$(var a)", "A"),
        ("x$(var a)y$(var b)", "xAyB B"),
        ("$(var $(var key))", "A"),
        ("$(var none default)", "default"),
        ("$(var none 'two words')", "two words"),
        ("$(var none '')", ""),
        ('$(var none "$(var b)")', "B B"),
        ("$(var none $(var a)/$(var a))", "A/A"),
        (r"\$(var a)", "$(var a)"),
        (r"a\\b", r"a\b"),
        (r"\\$(var a)", r"\$(var a)"),
        (r"$(var none a\)b)", "a)b"),
    ],
)
def test_substitutions(text: str, filled: str) -> None:
    values = {"a": "A", "b": "B B", "key": "a"}
    functions = {"var": lambda name, default="?": values.get(name, default)}
    assert _launch_text.fill(_launch_text.parse(text), functions) == filled


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$(vra a)", "did you mean var"),
        ("$(var)", "1 or 2 arguments"),
        ("$(var a b c)", "1 or 2 arguments"),
        ("$(find-pkg-share)", "takes 1 arguments"),
        ("$(var a", "not closed"),
        ("$(var  a)", "separated by one space"),
        ("$()", "name is missing"),
        ("$(var 'a)", "not closed"),
    ],
)
def test_wrong_substitutions_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        _launch_text.parse(text)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("a b", ["a", "b"]),
        ("a 'b c' \"d\" e", ["a", "b c", "d", "e"]),
        ("a $(var two) b", ["a", "1 2", "b"]),
        ("$(var two)$(var two)", ["1 21 2"]),
        ("$(var two) $(var two)", ["1 2", "1 2"]),
        ("k=$(var two)/x y", ["k=1 2/x", "y"]),
        ("a $(var none) b", ["a", "", "b"]),
        ("a  ", ["a"]),
    ],
)
def test_a_command_is_split_at_its_own_spaces_only(command: str, words: list[str]) -> None:
    values = {"two": "1 2", "none": ""}
    template = _launch_text.split(_launch_text.parse(command))
    assert [_launch_text.fill(word, {"var": values.__getitem__}) for word in template] == words


def test_a_quotation_around_a_substitution_is_refused_as_by_ros() -> None:
    with pytest.raises(ConfigError, match="must not enclose a substitution"):
        _launch_text.split(_launch_text.parse("a '$(var b)'"))
    with pytest.raises(ConfigError, match="begins with a space"):
        _launch_text.split(_launch_text.parse(" $(var b)"))


# --- refusals ----------------------------------------------------------------------------------------------

NODE = "  - node:\n      pkg: armory\n      exec: aim\n"
REFUSED = [
    ("  - timer: {period: 1.0}\n", 2, "no action 'timer'"),
    ("  - nod: {pkg: a, exec: b}\n", 2, "did you mean node?"),
    (NODE + "      respawn: 'true'\n", 5, "in node: no key 'respawn'"),
    (NODE + "      unles: 'true'\n", 5, "did you mean unless?"),
    (NODE + "      output: log\n", 5, "only screen or both"),
    (NODE + "      on_exit: restart\n", 5, "only shutdown"),
    (NODE + "      sigterm_timeout: 5\n", 5, "with a decimal point"),
    (NODE + "      sigterm_timeout: .nan\n", 5, "seconds are expected"),
    (NODE + "      param: []\n", 5, "at least one entry"),
    (NODE + "      param:\n        - {name: a}\n", 6, "either name and value"),
    (NODE + "      param:\n        - {name: a, value: 1, from: b}\n", 6, "only from"),
    (NODE + "      param:\n        - {name: a, value: 1, type: float}\n", 6, "type float, but the value is 1"),
    (NODE + "      param:\n        - {name: a, value: [1, b]}\n", 6, "all of one type"),
    (NODE + "      param:\n        - {name: a, value: {b: 1}}\n", 6, "a parameter is a number"),
    (NODE + "      param:\n        - {from: $(find-pkg-share armory)/no.yaml}\n", 6, "no.yaml does not exist"),
    (NODE + "      env:\n        - {name: A, valu: b}\n", 6, "did you mean value?"),
    (NODE + "      remap:\n        - {from: a}\n", 6, "remap needs 'to'"),
    (NODE + "      args: $(vra a)\n", 5, "did you mean var?"),
    (NODE + "      args: it's\n", 5, "No closing quotation"),
    (NODE + "      pkg: armory\n", 5, "'pkg' is given twice"),
    ("  - node: {pkg: armory}\n", 2, "node needs 'exec'"),
    ("  - node: {pkg: armory, exec: fire}\n", 2, "no program 'fire'"),
    ("  - node: {pkg: lost, exec: aim}\n", 2, "no package 'lost'"),
    ("  - executable: {cmd: no-such-program}\n", 2, "not on PATH"),
    ("  - executable: {cmd: ''}\n", 2, "the command is empty"),
    ("  - executable: {cmd: echo, cwd: /no/folder}\n", 2, "/no/folder does not exist"),
    ("  - executable: {cmd: echo, shell: true}\n", 2, "no key 'shell'"),
    ("  - arg: {name: a, default: 0}\n", 2, "YAML reads int 0: quote it"),
    ("  - arg: {name: a, default: 2024-01-02}\n", 2, "quote it"),
    ("  - arg: {name: a, default: 2024-13-45}\n", 2, "month"),
    ("  - arg: {name: $(var b)}\n", 2, "no substitution can stand here"),
    ("  - arg: {name: a}\n", 2, "the argument 'a' is missing: give a:=VALUE"),
    ("  - arg: {name: a, description: the hand}\n", 2, "the hand"),
    ("  - arg: {name: a, default: c, choice: [{value: b}]}\n", 2, "no choice of 'a' 'c'; there is b"),
    ("  - let: {name: a, value: $(var b)}\n", 2, "no variable 'b'"),
    ("  - let: {name: a, value: $(env NO_SUCH_THING)}\n", 2, "NO_SUCH_THING is not set"),
    ("  - let: {name: a, value: $(find-pkg-share lost)}\n", 2, "no package 'lost'"),
    ("  - group:\n      scoped: maybe\n      children: []\n", 3, "true or false is expected"),
    ("  - group: {if: 'false', children: [{timer: 1}]}\n", 2, "no action 'timer'"),
    ("  - group: {if: maybe, children: []}\n", 2, "'if' needs true, false, 1 or 0, got 'maybe'"),
    ("  - group: {if: true, children: []}\n", 2, "quote it"),
    ("  - group: {if: 'true', unless: 'true', children: []}\n", 2, "cannot stand together"),
    ("  - include: {file: /no/such.launch.yaml}\n", 0, "/no/such.launch.yaml: No such file"),
    ("  - include: {file: /a.launch.py}\n", 0, "only YAML launch files"),
    ("  - let: &one {name: a, value: b}\n  - let: *one\n", 3, "aliases"),
    ("  - let: !python {name: a}\n", 2, "action is expected|pairs|could not determine|needs 'value'"),
    ("  - let: {name: a\n", 3, "expected"),
    ("  let: 1\n", 2, "list of actions"),
    ("  - let\n", 2, "an action is one key"),
]


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(("text", "line", "said"), REFUSED)
def test_refused_with_file_and_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said if "|" in said else re.escape(said)) as error:
        plan(tmp_path, text)
    if line:
        assert str(error.value).startswith(f"{tmp_path}/a.launch.yaml:{line}: ")


@pytest.mark.parametrize(
    "content", [b"", b"# nothing\n", b"\xff\xfe", b"lunch: []", b"- a", b"a: [", b"[" * 5000, b"\0"]
)
def test_files_that_are_no_launch_file_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.launch.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"b\.launch\.yaml"):
        _launch_file.read(path)


# --- meaning -----------------------------------------------------------------------------------------------


def test_an_argument_is_given_or_has_its_default(tmp_path: Path) -> None:
    text = "  - arg: {name: a, default: x}\n  - arg: {name: b, default: $(var a)y}\n" + ECHO + "$(var a) $(var b)}\n"
    assert echoed(tmp_path, text) == [["x", "xy"]]
    assert echoed(tmp_path, text, a="1") == [["1", "1y"]]


def test_conditions(tmp_path: Path) -> None:
    text = "".join(f"  - executable: {{cmd: echo {w}, if: '{w}'}}\n" for w in ("true", "1", "TRUE", "false", "0"))
    text += "  - executable: {cmd: echo unless, unless: 'False'}\n"
    assert echoed(tmp_path, text) == [["true"], ["1"], ["TRUE"], ["unless"]]


@pytest.mark.parametrize(("scoped", "after"), [("", "old outer"), ("scoped: false, ", "new inner")])
def test_a_group_keeps_its_variables_and_environment_to_itself(tmp_path: Path, scoped: str, after: str) -> None:
    inner = "[{let: {name: a, value: new}}, {set_env: {name: B, value: inner}}, {executable: {cmd: %s}}]"
    inner %= "echo $(var a) $(env B)"
    text = (
        "  - let: {name: a, value: old}\n  - set_env: {name: B, value: outer}\n"
        f"  - group: {{{scoped}children: {inner}}}\n" + ECHO + "$(var a) $(env B)}\n"
    )
    assert echoed(tmp_path, text) == [["new", "inner"], after.split()]


def test_a_group_may_be_a_plain_list(tmp_path: Path) -> None:
    assert echoed(tmp_path, "  - group:\n      - executable: {cmd: echo a}\n") == [["a"]]


def test_an_included_file_takes_arguments_and_leaves_its_variables_behind(tmp_path: Path) -> None:
    (tmp_path / "b.launch.yaml").write_text(
        "launch: [{arg: {name: a}}, {let: {name: c, value: $(var a)2}}, {executable: {cmd: echo $(var a)}}]"
    )
    text = f"  - include:\n      file: {tmp_path}/b.launch.yaml\n      arg: [{{name: a, value: '1'}}]\n"
    assert echoed(tmp_path, text + ECHO + "$(var a) $(var c)}\n") == [["1"], ["1", "12"]]


def test_a_fault_in_an_included_file_names_both(tmp_path: Path) -> None:
    (tmp_path / "b.launch.yaml").write_text("launch: [{arg: {name: a}}]")
    with pytest.raises(ConfigError, match=r"b\.launch\.yaml:1: .*missing.*\n.*included from .*a\.launch\.yaml:2"):
        plan(tmp_path, f"  - include: {{file: {tmp_path}/b.launch.yaml}}\n")


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="includes itself"):
        plan(tmp_path, f"  - include: {{file: {tmp_path}/a.launch.yaml}}\n")


def test_the_environment_of_a_process(tmp_path: Path) -> None:
    (process,) = plan(
        tmp_path, "  - let: {name: a, value: x}\n  - executable: {cmd: echo, env: [{name: Q, value: $(var a)y}]}\n"
    )
    assert process.env["Q"] == "xy"
    assert "PATH" in process.env


@pytest.mark.usefixtures("workspace")
def test_the_command_of_a_node(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").touch()
    (process,) = plan(
        tmp_path,
        f"""  - let: {{name: v, value: '20'}}
  - node:
      pkg: armory
      exec: aim
      name: aimer
      namespace: left
      args: --fast 'a b'
      ros_args: --log-level debug
      remap:
        - {{from: joint_states, to: /other}}
      param:
        - from: {tmp_path}/p.yaml
        - {{name: number, value: $(var v)}}
        - {{name: text, value: $(var v), type: str}}
        - {{name: real, value: $(var v), type: float}}
        - {{name: truth, value: '1', type: bool}}
        - {{name: quoted, value: '20'}}
        - {{name: small, value: 1.0e-5}}
        - {{name: list, value: [a, b]}}
        - {{name: made, value: '[1, $(var v)]'}}
""",
    )
    assert Path(process.command[0]) == tmp_path / "install/lib/armory/aim"
    assert process.command[1:] == [
        "--fast", "a b", "--ros-args", "--log-level", "debug",
        "--ros-args", "-r", "__node:=aimer", "-r", "__ns:=/left",
        "--params-file", f"{tmp_path}/p.yaml",
        "-p", "number:=20", "-p", 'text:="20"', "-p", "real:=20.0", "-p", "truth:=true", "-p", 'quoted:="20"',
        "-p", "small:=1.0e-05", "-p", 'list:=["a", "b"]', "-p", "made:=[1, 20]",
        "-r", "joint_states:=/other",
    ]  # fmt: skip
    assert process.name == "left/aimer"


@pytest.mark.usefixtures("workspace")
def test_a_value_of_another_type_is_refused(tmp_path: Path) -> None:
    for kind in ("int", "float", "bool"):
        with pytest.raises(ConfigError, match=f":2: 'fast' is no {kind}"):
            plan(tmp_path, f"  - node: {{pkg: armory, exec: aim, param: [{{name: a, value: fast, type: {kind}}}]}}\n")


def test_two_of_one_name_are_told_apart(tmp_path: Path) -> None:
    assert [p.name for p in plan(tmp_path, (ECHO + "a}\n") * 3)] == ["echo", "echo-2", "echo-3"]


# --- places ------------------------------------------------------------------------------------------------


def test_share_in_a_source_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    assert _launch_places.share("robolearn") == share_dir()


def test_share_in_a_sourced_workspace(workspace: Path) -> None:
    assert _launch_places.share("robolearn") == workspace / "share/robolearn"
    assert _launch_places.share("armory") == workspace / "share/armory"
    assert _launch_places.executable("robolearn", "guard_node") == workspace / "lib/robolearn/guard_node"


def test_a_program_without_an_index_is_a_script_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    assert _launch_places.executable("robolearn", "robolearn") == Path(sys.executable).with_name("robolearn")


# --- our files ---------------------------------------------------------------------------------------------


def ours(name: str, **variables: str) -> list[Process]:
    made = Plan(variables)
    made.include(launch._find(name))
    return made.processes


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(("twin", "names"), [("false", ["guard", "policy"]), ("true", ["twin", "guard", "policy"])])
def test_deploy_starts_guard_and_policy_and_a_twin_if_asked(twin: str, names: list[str]) -> None:
    processes = ours("deploy", twin=twin, namespace="left", run="runs/7", robot="ur5e")
    assert [p.name for p in processes] == [f"left/{name}" for name in names]
    assert all(p.required for p in processes)
    for process in processes:
        site = process.command[process.command.index("--params-file") + 1]
        assert site.endswith("configs/site/ur5e.yaml")
        assert "__ns:=/left" in process.command
    assert 'run:="runs/7"' in processes[-1].command


@pytest.mark.usefixtures("workspace")
def test_train_hands_its_arguments_on() -> None:
    (process,) = ours("train", seed="7")
    assert process.command[1:] == ["train", "experiment=franka_reach_ppo", "seed=7"]
    assert process.required


@pytest.mark.usefixtures("workspace")
def test_twin_takes_delay_jitter_and_loss() -> None:
    (process,) = ours("twin", delay_s="0.01", loss="0.1")
    assert {"delay_s:=0.01", "jitter_s:=0.0", "loss:=0.1", 'backend:="mujoco"'} <= set(process.command)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/site").glob("*.yaml")), ids=lambda p: p.stem)
def test_site_files_are_ros_parameter_files(path: Path) -> None:
    ((node, content),) = yaml.safe_load(path.read_text()).items()
    assert node == "/**"
    assert list(content) == ["ros__parameters"]
    assert content["ros__parameters"]["robot"] == path.stem


# --- the command line --------------------------------------------------------------------------------------


def test_help_lists_the_launch_files() -> None:
    assert {"train", "twin", "deploy"} <= {line.split()[0] for line in launch.help_text().splitlines() if line.strip()}


def test_help_of_a_file_lists_its_arguments() -> None:
    text = launch.help_for(["deploy", "run:=last"])
    assert "A trained policy on a robot" in text
    assert "twin:=" in text
    assert "(true, false); default false" in text
    assert "default $(find-pkg-share robolearn)/configs/site/$(var robot).yaml" in text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "which launch file"),
        (["a:=b"], "which launch file"),
        (["trian"], "did you mean train"),
        (["train", "seed=1"], "write name:=value"),
        (["train", "seed:="], "write name:=value"),
        (["train", "sed:=1"], "no argument 'sed'; did you mean seed"),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_wrong_words_are_refused(argv: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        launch.main(argv)


def test_a_file_that_starts_nothing_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.launch.yaml"
    path.write_text("launch: [{executable: {cmd: echo, if: '0'}}]")
    with pytest.raises(ConfigError, match="starts no process"):
        launch.main([str(path)])
