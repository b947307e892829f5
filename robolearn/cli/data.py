"""Look into a set of recorded episodes, find what is broken in it, convert it.

usage: robolearn data info PATH
       robolearn data check PATH [--repair]
       robolearn data view PATH [out=FILE.html] [episodes="0 7"]
       robolearn data convert FROM TO [format=robomimic|isaaclab|minari] [fps=HZ] [task="..."] [codec=NAME]
       robolearn data convert BAG TO fps=HZ [topics="KEY=/TOPIC[:FIELD] ..."] [gap_s=0.5] [gaps=split] [task="..."]

PATH is the folder of a set in the LeRobot v3.0 layout (docs/data.md).

  info     features, episodes, instructions, labels and size
  check    reads everything; names each episode that is broken, and why. The exit code is 1 if there is one.
           --repair leaves these episodes out from now on, changes none, and puts the rest right
  view     one page: pictures as films, numbers as curves, statistics
  convert  a file of robomimic or Isaac Lab (HDF5) or the folder of a Minari data set becomes a set, or is appended to
           one; a set becomes a file or folder of that format. A rosbag2 bag, or each bag of a folder, becomes an
           episode at fps: measured numbers on the line between their neighbours (quaternions: on the arc), commands
           and pictures the last ones at or before each step
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.cli import _options
from robolearn.cli._options import option
from robolearn.config import ConfigError
from robolearn.errors import unknown

log = logging.getLogger(__name__)
ACTIONS = "info", "check", "view", "convert"
FORMATS = {"robomimic": "hdf5", "isaaclab": "isaaclab", "minari": "minari"}
BAG = "rosbag2"
REPAIR = "--repair"


@dataclass
class DataCfg:
    out: str = option("", "view: file of the page; beside the set, with its name, if not given")
    episodes: str = option("", "view: numbers separated by spaces; the first ones if not given")
    format: str = option("", "convert: the other format; seen of a FROM that is not a set", (*FORMATS, BAG))
    fps: float = option(0.0, "convert: Hz of a FROM that does not say it, and of what a bag becomes")
    task: str = option("", "convert: the instruction, in words")
    codec: str = option("h264", "convert: of the pictures", ("h264", "h264_lossless", "ffv1", "av1"))
    topics: str = option("", "convert a bag: KEY=/TOPIC or KEY=/TOPIC:FIELD, separated by spaces; a key given twice "
                         "holds one after the other. Joints, command and cameras if not given")  # fmt: skip
    stamps: str = option("header", "convert a bag: times of the messages' own, or of their reception",
                         ("header", "receive"))  # fmt: skip
    gap_s: float = option(0.5, "convert a bag: longest time between two measurements, and age of a picture")
    gaps: str = option("refuse", "convert a bag: what becomes of one with longer gaps", ("refuse", "split"))

    def __post_init__(self) -> None:
        _options.check_choices(self if self.format else replace(self, format=BAG))  # none is no choice, but legal


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(DataCfg)}"


def main(argv: list[str]) -> int:
    words = [word for word in argv if word != REPAIR]
    action, path, rest = _parse(words)
    target = rest.pop(0) if action == "convert" and rest and "=" not in rest[0] else ""
    options = config.parse(DataCfg, rest)
    if len(words) < len(argv) and action != "check":
        raise ConfigError(f"{REPAIR} is for robolearn data check")
    if action == "check":
        return _check(path, len(words) < len(argv))
    if action == "convert":
        if not target:
            raise ConfigError("where to? robolearn data convert FROM TO")
        print(_convert(path, Path(target), options))
    else:
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


def _convert(source: Path, target: Path, options: DataCfg) -> str:
    from robolearn.data import layout
    from robolearn.data.read import Episodes
    from robolearn.data.video import VideoCfg

    if not source.exists():
        raise ConfigError(f"{source} does not exist")
    if (source / layout.INFO).exists():
        if options.format not in FORMATS:
            raise ConfigError(f"{source} is a set of episodes: name the format= to make of it, {' or '.join(FORMATS)}")
        count = _converter(options.format).save(Episodes(source), target)
        return f"{target}: {count} episodes of {source}"
    kind, video = options.format or _kind(source), VideoCfg(options.codec)
    if kind == BAG:
        return _convert_bag(source, target, options, video)
    count = _converter(kind).load(source, target, fps=options.fps, task=options.task, video=video)
    return f"{target}: {count} episodes of {source}"


def _convert_bag(source: Path, target: Path, options: DataCfg, video: Any) -> str:
    from robolearn.cli import _data_bag

    rules = _data_bag.BagRules(options.fps, options.topics, options.stamps, options.gap_s, options.gaps)
    count, said = _data_bag.load(source, target, rules, options.task, video)
    return f"{target}: {count} episodes of {source} ({said})"


def _kind(source: Path) -> str:
    """Of what is not a set."""
    from robolearn.cli import _data_bag

    if _data_bag.is_bag(source) or (source.is_dir() and _data_bag.bags(source)):
        return BAG
    return "minari" if source.is_dir() else "robomimic"


def _converter(name: str) -> Any:
    return importlib.import_module(f"robolearn.data.{FORMATS[name]}")


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
