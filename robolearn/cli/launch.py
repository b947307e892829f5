"""Start the processes of a launch file: ROS 2's YAML launch files, without ROS 2.

usage: robolearn launch NAME|FILE [argument:=value ...]
       robolearn launch NAME --help        the file's arguments, their defaults and what they mean

The same files run under ROS 2 with: ros2 launch robolearn NAME.launch.yaml [argument:=value ...]

Every process prints under its own name. Ctrl-C asks all to end (SIGINT; SIGTERM after 5 s, SIGKILL after 10 s); a
second Ctrl-C goes on to SIGTERM at once, a third to SIGKILL. A process that fails brings the rest down, and its exit
code becomes that of the launch. A file may be anywhere; what of ROS 2's format is known is in docs/launch.md, and
anything else is refused with file and line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from robolearn.cli import _launch_file, _launch_places
from robolearn.cli._launch_file import Action
from robolearn.errors import ConfigError, unknown

SUFFIX = ".launch.yaml"


def main(argv: list[str]) -> int:
    from robolearn.cli._launch_output import Output
    from robolearn.cli._launch_plan import Plan
    from robolearn.cli._launch_run import Launch

    path, variables = _parse(argv)
    plan = Plan(dict(variables))
    plan.include(path)
    for name in variables:
        _require_known(name, path, [*plan.declared, *(a.fields["name"] for a in _arguments(path))])
    if not plan.processes:
        raise ConfigError(f"{path} starts no process with these arguments")
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    sys.stdout.flush()
    return Launch(Output(sys.stdout.fileno(), colour)).run(plan.processes)


def help_for(argv: list[str]) -> str:
    """Of the launch file that is named, if one is."""
    named = [word for word in argv if ":=" not in word]
    return _describe(_find(named[0])) if named else help_text()


def help_text() -> str:
    files = "\n".join(f"  {name:10} {_comment(path)}" for name, path in sorted(_known().items()))
    return f"{__doc__}\nlaunch files:\n{files}"


def _parse(argv: list[str]) -> tuple[Path, dict[str, str]]:
    """The launch file and the arguments for it."""
    if not argv or ":=" in argv[0]:
        raise ConfigError(f"which launch file? {', '.join(sorted(_known()))}, or the path of one")
    variables = {}
    for word in argv[1:]:
        name, mark, value = word.partition(":=")
        if not (name and mark and value):  # an empty value is what `ros2 launch` refuses
            raise ConfigError(f"'{word}' is no argument; write name:=value")
        variables[name] = value
    return _find(argv[0]), variables


def _find(name: str) -> Path:
    """A launch file of ours by its name, any other by its path."""
    known = _known()
    if name.removesuffix(SUFFIX) in known and not Path(name).is_file():
        return known[name.removesuffix(SUFFIX)]
    if Path(name).is_file():
        return Path(name).absolute()
    raise ConfigError(unknown("launch file", name, sorted(known)))


def _known() -> dict[str, Path]:
    folder = _launch_places.share(_launch_places.OURS) / "launch"
    return {path.name.removesuffix(SUFFIX): path for path in folder.glob(f"*{SUFFIX}")}


def _require_known(name: str, path: Path, known: list[str]) -> None:
    if name not in known:
        raise ConfigError(f"{path.name}: {unknown('argument', name, list(dict.fromkeys(known)))}")


def _describe(path: Path) -> str:
    lines = [f"{path}", *([_comment(path)] if _comment(path) else []), "", "arguments (name:=value):"]
    found = list(_arguments(path))
    for action in found:
        fields = action.fields
        choices = [c.fields["value"] for c in fields.get("choice", ())]
        about = fields.get("description", "") + (f" ({', '.join(choices)})" if choices else "")
        default = f"default {_written(fields['default'])}" if "default" in fields else "required"
        lines.append(f"  {fields['name'] + ':=':14} {about + '; ' if about else ''}{default}")
    return "\n".join(lines if found else [*lines, "  none"])


def _arguments(path: Path) -> Iterator[Action]:
    """What the file declares itself; includes are not followed."""
    yield from _arguments_in(_launch_file.read(path))


def _arguments_in(actions: list[Action]) -> Iterator[Action]:
    for action in actions:
        if action.kind == "arg":
            yield action
        elif action.kind == "group":
            yield from _arguments_in(action.fields["children"])


def _written(template: tuple) -> str:
    """A default as it stands in the file."""
    return (
        "".join(p if isinstance(p, str) else f"$({' '.join([p.name, *map(_written, p.arguments)])})" for p in template)
        or "''"
    )


def _comment(path: Path) -> str:
    """The file's first line, if it is a comment: what the file is for."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    return first.removeprefix("#").strip() if first.startswith("#") else ""
