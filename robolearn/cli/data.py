"""Look into a set of recorded episodes, find what is broken in it, convert it.

usage: robolearn data info PATH
       robolearn data check PATH [--repair]
       robolearn data view PATH [out=FILE.html] [episodes="0 7"]

PATH is the folder of a set in the LeRobot v3.0 layout (docs/data.md).

  info     features, episodes, instructions, labels and size
  check    reads everything; names each episode that is broken, and why. The exit code is 1 if there is one.
           --repair leaves these episodes out from now on, changes none, and puts the rest right
  view     one page: pictures as films, numbers as curves, statistics
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from robolearn import config
from robolearn.cli import _options
from robolearn.cli._options import option
from robolearn.config import ConfigError
from robolearn.errors import unknown

log = logging.getLogger(__name__)
ACTIONS = "info", "check", "view"
REPAIR = "--repair"


@dataclass
class DataCfg:
    out: str = option("", "view: file of the page; beside the set, with its name, if not given")
    episodes: str = option("", "view: numbers separated by spaces; the first ones if not given")


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(DataCfg)}"


def main(argv: list[str]) -> int:
    words = [word for word in argv if word != REPAIR]
    action, path, rest = _parse(words)
    options = config.parse(DataCfg, rest)
    if len(words) < len(argv) and action != "check":
        raise ConfigError(f"{REPAIR} is for robolearn data check")
    if action == "check":
        return _check(path, len(words) < len(argv))
    print(_info(path) if action == "info" else _view(path, options))
    return 0


def _parse(argv: list[str]) -> tuple[str, Path, list[str]]:
    if not argv or "=" in argv[0]:
        raise ConfigError(f"what shall be done? {', '.join(ACTIONS)}")
    if argv[0] not in ACTIONS:
        raise ConfigError(unknown("action", argv[0], ACTIONS))
    if len(argv) < 2 or "=" in argv[1]:
        raise ConfigError(f"which episodes? robolearn data {argv[0]} PATH")
    return argv[0], Path(argv[1]), argv[2:]


def _info(path: Path) -> str:
    from robolearn.cli import _data_page
    from robolearn.data.read import Episodes

    return _data_page.describe(Episodes(path))


def _view(path: Path, options: DataCfg) -> str:
    from robolearn.cli import _data_page
    from robolearn.data.read import Episodes

    out = Path(options.out) if options.out else path.absolute().with_name(path.absolute().name + ".html")
    if out.suffix != ".html":
        raise ConfigError(f"out must be a .html file, got {out}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {out} does not exist")
    words = options.episodes.split()
    if strange := [word for word in words if not word.isdigit()]:
        raise ConfigError(f"episodes are numbers separated by spaces, got '{strange[0]}'")
    _data_page.write(out, Episodes(path), [int(word) for word in words])
    return str(out)


def _check(path: Path, mend: bool) -> int:
    from robolearn.data import layout
    from robolearn.data.check import check, repair
    from robolearn.loops.log import Display

    rows = layout.read_rows(path) if layout.read_info(path) else []
    skipped = layout.read_skipped(path)
    with Display(max(1, len(rows) - len(skipped)), "check episodes") as display:
        found = check(path, lambda done: display.update(done, {}))
    for finding in found:
        print(finding)
    broken = {f.episode for f in found if f.episode is not None}
    if mend and (found or skipped):
        left_out = repair(path, found)
        print(f"{path}: {len(rows) - len(left_out)} of {len(rows)} episodes are read from now on"
              + (f"; left out: {layout.spans(left_out)}" if left_out else ""))  # fmt: skip
        return 0
    print(f"{path}: {len(rows)} episodes, {len(broken)} broken"
          + (f", {len(skipped)} left out ({layout.spans(skipped)})" if skipped else "")
          + (f"; robolearn data check {path} {REPAIR} " + ("leaves them out" if broken else "puts that right")
             if found else ""))  # fmt: skip
    return 1 if found else 0
