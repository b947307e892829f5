"""What can be named: tasks, algos, robots, backends, experiments.

usage: robolearn list [KIND]

Plugins are listed too: packages with the entry point group `robolearn.plugins`; `robolearn new` writes one.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robolearn import config
from robolearn.cli import _world
from robolearn.cli._table import table
from robolearn.config import ConfigError, Entry

OURS = ("robolearn", "sim", "real")
Row = tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """One list: what it is, its columns between name and description, and how to fill them."""

    summary: str
    columns: tuple[str, ...]
    rows: Callable[[], list[Row]]


def help_text() -> str:
    return f"{__doc__}\nkinds:\n{_kinds()}"


def main(argv: list[str]) -> int:
    if not argv:
        print(f"{_kinds()}\n\nusage: robolearn list KIND")
        return 0
    unknown = [word for word in argv if word not in KINDS]
    if unknown:
        raise ConfigError(config.unknown("list of", unknown[0], list(KINDS)))
    _world.discover()
    for i, name in enumerate(argv):
        kind = KINDS[name]
        print("\n" * (i > 0) + table(kind.rows(), ("name", *kind.columns, "description")))
    return 0


def _kinds() -> str:
    return table([(f"  {name}", kind.summary) for name, kind in KINDS.items()])


# --- the rows ----------------------------------------------------------------------------------------------


def _tasks() -> list[Row]:
    return [(name, *_task_figures(item), describe(item)) for name, item in _entries("task")]


def _task_figures(item: Entry) -> Row:
    """Robot, rate and sizes of a task with its default settings; question marks where it cannot be made."""
    assert item.config is not None
    try:
        cfg = item.config()
        task = item.value(cfg)
        sizes = (task.observation_spec().dim("policy"), task.action_spec().dim)
    except Exception as error:  # a plugin's, or one whose files are elsewhere: the list goes on
        return "?", "?", "?", type(error).__name__
    return task.robot.name, f"{1.0 / cfg.step_dt_s:.0f} Hz", *map(str, sizes)


def _robots() -> list[Row]:
    return [
        (name, str(item.value.dof), f"{item.value.max_rate_hz:.0f} Hz", describe(item))
        for name, item in _entries("robot")
    ]


def _backends() -> list[Row]:
    return [
        (name, "GPU" if item.value.capabilities.gpu else "CPU", describe(item)) for name, item in _entries("backend")
    ]


def _algos() -> list[Row]:
    return [(name, describe(item)) for name, item in _entries("algo")]


def _persons() -> list[Row]:
    return [(name, describe(item)) for name, item in _entries("person")]


def _experiments() -> list[Row]:
    return [_experiment(name, path) for name, path in sorted(config.experiments().items())]


def _experiment(name: str, path: Path) -> Row:
    text = path.read_text()
    chosen = _choices(text)
    comments = [line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")]
    first = next((c for c in comments if not c.startswith("@package")), "")
    package = path.parent.parent.parent
    mark = f" (plugin {package.name})" if (package / "__init__.py").is_file() else ""
    return name, chosen.get("task", ""), chosen.get("algo", "(default)"), first + mark


def _choices(text: str) -> dict[str, str]:
    """Group -> name that an experiment's `defaults` choose, those of the experiment that it continues included."""
    continued = [n for n in re.findall(r"^\s*- *(\w+)\s*$", text, re.MULTILINE) if n in config.experiments()]
    inherited = {k: v for n in continued for k, v in _choices(config.experiments()[n].read_text()).items()}
    return inherited | dict(re.findall(r"^\s*- *(?:override )?/(\w+): *(\w+)", text, re.MULTILINE))


def _entries(group: str) -> list[tuple[str, Entry]]:
    return [(name, config.entry(group, name)) for name in config.names(group)]


def describe(item: Entry) -> str:
    """First sentence of its own docstring where its module registers several things, else of the module's."""
    alone = sum(other.module == item.module for g in GROUPS for _, other in _entries(g)) == 1
    own = inspect.isclass(item.value) and not alone
    text = item.value.__doc__ if own else sys.modules[item.module].__doc__
    package = item.module.partition(".")[0]
    return sentence(text or "") + ("" if package in OURS else f" (plugin {package})")


def sentence(docstring: str) -> str:
    """First sentence, headings left out, on one line and without the full stop."""
    lines = [line for line in inspect.cleandoc(docstring).splitlines() if not line.startswith("#")]
    paragraph = "\n".join(lines).strip().partition("\n\n")[0]
    return re.split(r"\.(?: (?=[A-Z])|$)", " ".join(paragraph.split()), maxsplit=1)[0]


GROUPS: Sequence[str] = ("task", "algo", "robot", "backend", "person")
KINDS = {
    "tasks": Kind("what can be learned", ("robot", "rate", "observation", "action"), _tasks),
    "algos": Kind("how it can be learned", (), _algos),
    "robots": Kind("whose specifications are known", ("joints", "max rate"), _robots),
    "backends": Kind("physics engines", ("runs on",), _backends),
    "persons": Kind("who takes over at times in a simulated training", (), _persons),
    "experiments": Kind("ready choices of all of these, with what differs", ("task", "algo"), _experiments),
}
