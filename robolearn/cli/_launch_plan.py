"""From a launch file and its arguments to the processes to start: everything is decided before the first one is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robolearn.cli import _launch_file, _launch_places, _launch_text
from robolearn.cli._launch_file import Action, fault
from robolearn.cli._launch_text import Template
from robolearn.errors import ConfigError, unknown

TRUE, FALSE = ("true", "1"), ("false", "0")
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Process:
    """One program to run: `name` is the label of its output, `required` brings all down when it ends, even well."""

    name: str
    command: list[str]
    env: dict[str, str]
    cwd: str | None
    required: bool
    sigterm_after_s: float
    sigkill_after_s: float


@dataclass
class Plan:
    """What a launch file makes of its arguments, and the state in which the next action is read.

    As in ROS 2, an included file sees the variables of the file that includes it and may set them; only a group
    keeps its changes to itself.
    """

    variables: dict[str, str]
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    processes: list[Process] = field(default_factory=list)
    declared: dict[str, Action] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def include(self, path: Path) -> None:
        """Read a launch file and do what it says."""
        if path.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"{path}: only YAML launch files can be read without ROS 2")
        if path.resolve() in self.files:
            raise ConfigError(f"{path} includes itself")
        self.files = (*self.files, path.resolve())
        self.do(_launch_file.read(path))
        self.files = self.files[:-1]

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if action.kind == "arg":
                self.declared.setdefault(action.fields["name"], action)
            if self._wanted(action):
                ACTIONS[action.kind](self, action)

    def text(self, template: Template, where: str) -> str:
        try:
            return _launch_text.fill(template, self._functions())
        except ConfigError as error:
            raise fault(where, str(error)) from None

    def _functions(self) -> dict[str, Callable[..., str]]:
        return {
            "var": self._variable,
            "env": self._environment,
            "find-pkg-share": lambda package: str(_launch_places.share(package)),
            "exec-in-pkg": lambda name, package: str(_launch_places.executable(package, name)),
        }

    def _variable(self, name: str, default: str | None = None) -> str:
        value = self.variables.get(name, default)
        if value is None:
            raise ConfigError(unknown("variable", name, sorted(self.variables)))
        return value

    def _environment(self, name: str, default: str | None = None) -> str:
        value = self.env.get(name, default)
        if value is None:
            raise ConfigError(f"the environment variable {name} is not set, and no default is given")
        return value

    def _wanted(self, action: Action) -> bool:
        for key, wanted in (("if", TRUE), ("unless", FALSE)):
            if key in action.fields:
                value = self.text(action.fields[key], action.where).strip().lower()
                if value not in TRUE + FALSE:
                    raise fault(action.where, f"'{key}' needs true, false, 1 or 0, got '{value}'")
                return value in wanted
        return True


# --- actions -----------------------------------------------------------------------------------------------


def _arg(plan: Plan, action: Action) -> None:
    name, fields = action.fields["name"], action.fields
    if name not in plan.variables:
        if "default" not in fields:
            about = f" ({fields['description']})" if "description" in fields else ""
            raise fault(action.where, f"the argument '{name}'{about} is missing: give {name}:=VALUE")
        plan.variables[name] = plan.text(fields["default"], action.where)
    choices = [c.fields["value"] for c in fields.get("choice", ())]
    if choices and plan.variables[name] not in choices:
        raise fault(action.where, unknown(f"choice of '{name}'", plan.variables[name], choices))


def _let(plan: Plan, action: Action) -> None:
    name, value = (plan.text(action.fields[key], action.where) for key in ("name", "value"))
    plan.variables[name] = value


def _set_env(plan: Plan, action: Action) -> None:
    name, value = (plan.text(action.fields[key], action.where) for key in ("name", "value"))
    plan.env[name] = value


def _include(plan: Plan, action: Action) -> None:
    path = Path(plan.text(action.fields["file"], action.where))
    for argument in action.fields.get("arg", ()):
        _let(plan, argument)
    try:
        plan.include(path)
    except ConfigError as error:
        raise ConfigError(f"{error}\n  included from {action.where}") from None


def _group(plan: Plan, action: Action) -> None:
    kept = dict(plan.variables), dict(plan.env)
    plan.do(action.fields["children"])
    if action.fields.get("scoped", True):
        plan.variables, plan.env = kept


def _executable(plan: Plan, action: Action) -> None:
    command = [plan.text(word, action.where) for word in action.fields["cmd"]]
    if not command or not command[0]:
        raise fault(action.where, "the command is empty")
    _add(plan, action, command, plan.text(action.fields.get("name", ()), action.where) or Path(command[0]).name)


def _node(plan: Plan, action: Action) -> None:
    fields, where = action.fields, action.where
    try:
        package, name = plan.text(fields["pkg"], where), plan.text(fields["exec"], where)
        program = str(_launch_places.executable(package, name))
    except ConfigError as error:
        raise error if str(error).startswith(where) else fault(where, str(error)) from None
    command = [program, *(plan.text(w, where) for w in fields.get("args", ()))]
    if "ros_args" in fields:
        command += ["--ros-args", *(plan.text(w, where) for w in fields["ros_args"])]
    command.append("--ros-args")
    label = name
    if "name" in fields:
        label = plan.text(fields["name"], where)
        command += ["-r", f"__node:={label}"]
    if "namespace" in fields:
        namespace = "/" + plan.text(fields["namespace"], where).strip("/")
        command += ["-r", f"__ns:={namespace}"]
        label = f"{namespace}/{label}".strip("/")
    command += _parameters(plan, fields.get("param", ()))
    for remap in fields.get("remap", ()):
        old, new = (plan.text(remap.fields[key], remap.where) for key in ("from", "to"))
        command += ["-r", f"{old}:={new}"]
    _add(plan, action, command, label)


ACTIONS: dict[str, Callable[[Plan, Action], None]] = {
    "arg": _arg,
    "let": _let,
    "set_env": _set_env,
    "include": _include,
    "group": _group,
    "executable": _executable,
    "node": _node,
}


# --- processes ---------------------------------------------------------------------------------------------


def _add(plan: Plan, action: Action, command: list[str], label: str) -> None:
    fields, env = action.fields, dict(plan.env)
    for pair in fields.get("env", ()):
        name, value = (plan.text(pair.fields[key], pair.where) for key in ("name", "value"))
        env[name] = value
    cwd = plan.text(fields["cwd"], action.where) if "cwd" in fields else None
    if cwd is not None and not Path(cwd).is_dir():
        raise fault(action.where, f"the folder {cwd} does not exist")
    program = shutil.which(Path(cwd or ".", command[0]) if "/" in command[0] else command[0], path=env.get("PATH"))
    if program is None:
        raise fault(action.where, f"'{command[0]}' is no program, or not on PATH")
    count = sum(p.name.rpartition("-")[0] == label or p.name == label for p in plan.processes)
    process = Process(
        name=f"{label}-{count + 1}" if count else label,
        command=[str(Path(program).absolute()), *command[1:]],
        env=env,
        cwd=cwd,
        required="on_exit" in fields,
        sigterm_after_s=fields.get("sigterm_timeout", TIMEOUT_S),
        sigkill_after_s=fields.get("sigkill_timeout", TIMEOUT_S),
    )
    plan.processes.append(process)


def _parameters(plan: Plan, parameters: list[Action]) -> list[str]:
    words: list[str] = []
    for param in parameters:
        if "from" in param.fields:
            path = plan.text(param.fields["from"], param.where)
            if not Path(path).is_file():
                raise fault(param.where, f"the parameter file {path} does not exist")
            words += ["--params-file", path]
        else:
            value = _typed(plan, param.fields["value"], param.fields.get("type"), param.where)
            words += ["-p", f"{param.fields['name']}:={_as_yaml(value)}"]
    return words


def _typed(plan: Plan, value: Any, kind: str | None, where: str) -> Any:
    """A parameter's value as ROS 2's launch types it: text made by substitutions is read as YAML."""
    if not isinstance(value, tuple):
        return value
    text = plan.text(value, where)
    if kind == "str" or (kind is None and all(isinstance(part, str) for part in value)) or not text:
        return text
    try:
        found = _READ[kind](text)
    except (ValueError, yaml.YAMLError):
        raise fault(where, f"'{text}' is no {kind or 'value of a parameter'}; type: str keeps text") from None
    if kind is None and not isinstance(found, (str, bool, int, float, list)):
        raise fault(where, f"'{text}' is no value of a parameter; type: str keeps text")
    return found


def _truth(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ValueError(text)
    return text.lower() in TRUE


_READ: dict[str | None, Callable[[str], Any]] = {"int": int, "float": float, "bool": _truth, None: yaml.safe_load}


def _as_yaml(value: Any) -> str:
    """On one line; text always quoted: unquoted, `on` and `1e3` are text to one YAML reader and not to another."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return yaml.safe_dump(value).split()[0]
