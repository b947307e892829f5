"""Write a package of your own with a task, a robot or an algorithm in it, ready to train.

usage: robolearn new task|robot|algo NAME [into=DIR]

It writes DIR/robolearn_NAME/: the Python package, an experiment, a test and a README with the three commands
that install, train and evaluate it. It runs as it stands; then make it yours.
"""

from __future__ import annotations

import keyword
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template

from robolearn import config
from robolearn.cli import _options, _world
from robolearn.cli._options import option
from robolearn.config import ConfigError

TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".template"


@dataclass
class NewCfg:
    into: str = option(".", "existing folder to write into")


@dataclass(frozen=True)
class Kind:
    """What one kind of package is about, and the names it takes (NAME stands for the package's)."""

    summary: str
    experiment: str
    registers: tuple[tuple[str, str], ...]


KINDS = {
    "task": Kind("A cart that drives to a goal and keeps its pole upright.", "NAME_ppo", (("task", "NAME"),)),
    "robot": Kind(
        "An arm with two joints, and a task for it.",
        "NAME_reach_ppo",
        (("robot", "NAME"), ("task", "NAME_reach")),
    ),
    "algo": Kind("Advantage-weighted regression, an algorithm of a page.", "cartpole_NAME", (("algo", "NAME"),)),
}


def help_text() -> str:
    kinds = "\n".join(f"  {name:20} {kind.summary}" for name, kind in KINDS.items())
    return f"{__doc__}\nkinds, and what they start from:\n{kinds}\n\noptions:\n{_options.describe(NewCfg)}"


def main(argv: list[str]) -> int:
    words = [word for word in argv if "=" not in word]
    options = config.parse(NewCfg, [word for word in argv if "=" in word])
    if len(words) != 2:
        raise ConfigError(f"give a kind and a name: robolearn new {'|'.join(KINDS)} NAME")
    kind, name = words
    if kind not in KINDS:
        raise ConfigError(config.unknown("kind", kind, list(KINDS)))
    check_name(name)
    folder = _free_folder(Path(options.into), name)
    _world.discover()
    _check_free(KINDS[kind], name)
    write(kind, name, folder)
    _report(kind, name, folder)
    return 0


def check_name(name: str) -> None:
    """ConfigError unless it can be a module's, a class's and an experiment's name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789") or "my_task"
        raise ConfigError(
            f"'{name}' cannot name a Python module: use lower-case letters, digits and single underscores"
            + (f", like {near}" if near != name else "")
        )


def _free_folder(into: Path, name: str) -> Path:
    folder = into / f"robolearn_{name}"
    if not into.is_dir():
        raise ConfigError(f"the folder {into} does not exist")
    if folder.exists():
        raise ConfigError(f"{folder} exists already; choose another name or into=DIR")
    if find_spec(folder.name) is not None:
        raise ConfigError(f"a package {folder.name} is installed already; choose another name")
    return folder


def _check_free(kind: Kind, name: str) -> None:
    for group, pattern in kind.registers:
        if pattern.replace("NAME", name) in config.names(group):
            raise ConfigError(f"the {group} '{pattern.replace('NAME', name)}' exists already; choose another name")
    experiment = kind.experiment.replace("NAME", name)
    if experiment in config.experiments():
        raise ConfigError(f"the experiment '{experiment}' exists already; choose another name")


def write(kind: str, name: str, folder: Path) -> None:
    """Fill the templates into `folder`, which appears whole or not at all."""
    values = {
        "name": name,
        "Name": "".join(part.capitalize() for part in name.split("_")),
        "NAME": name.upper(),
        "kind": kind,
        "summary": KINDS[kind].summary,
        "experiment": KINDS[kind].experiment.replace("NAME", name),
    }
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for root in (TEMPLATES / "common", TEMPLATES / kind):
            for source in sorted(root.rglob(f"*{SUFFIX}")):
                _fill(source, part / _target(source.relative_to(root), name), values)
        part.chmod(0o755)  # mkdtemp's is for the user alone
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _target(template: Path, name: str) -> str:
    path = template.as_posix().removesuffix(SUFFIX).replace("NAME", name)
    return re.sub(r"^package/", f"robolearn_{name}/", path)


def _fill(source: Path, target: Path, values: dict[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(Template(source.read_text()).substitute(values))


def _report(kind: str, name: str, folder: Path) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        print(path)
    print(f"\npip install -e {folder}")
    print(f"robolearn train experiment={KINDS[kind].experiment.replace('NAME', name)}")
    print(f"robolearn evaluate run=last video={name}.mp4")
