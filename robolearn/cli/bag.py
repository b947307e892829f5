"""Look into a recorded bag: what is in it, its curves as one page, its pictures as a film.

usage: robolearn bag info PATH
       robolearn bag plot PATH [out=FILE.html] [fields="/topic.field /topic.field[2] ..."]
       robolearn bag video PATH [out=FILE.mp4] [topics="/camera/image_raw ..."]
       robolearn bag recover PATH [out=FOLDER]

PATH is the folder of a rosbag2 bag (MCAP or SQLite) or one of its files, of ours or of `ros2 bag record`. A bag whose
recorder was killed, or that is cut off, is read as far as it is whole, and that is said.

  info     topics with types, counts, rates, gaps and losses; duration and size
  plot     joints, commands beside measurements, states over time, poses, and how old messages were on arrival
  video    image topics side by side, in their own time
  recover  a new bag of what is whole, for tools that want every bag to have been ended
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robolearn import config
from robolearn.cli import _options
from robolearn.cli._options import option
from robolearn.config import ConfigError
from robolearn.errors import unknown

if TYPE_CHECKING:
    from real.recording.read import Recording

log = logging.getLogger(__name__)
ACTIONS = "info", "plot", "video", "recover"
Update = Callable[[int], None]
SUFFIXES = {"plot": ".html", "video": ".mp4", "recover": "_recovered"}
MB = 10**6


@dataclass
class BagCfg:
    out: str = option(
        "", "file of the page or the film, folder of the new bag; beside the bag, with its name, if not given"
    )
    topics: str = option("", "video: image topics, separated by spaces; all of them if not given")
    fields: str = option("", "plot: further numbers, /topic.field or /topic.field[2].x, separated by spaces")


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(BagCfg)}"


def main(argv: list[str]) -> int:
    action, path, rest = _parse(argv)
    options = config.parse(BagCfg, rest)
    out = _out(action, path, options.out)
    from real.recording.read import open_bag

    with open_bag(path) as recording:
        with progress(recording, "film" if action == "video" else "read") as update:
            said = DO[action](recording, out, options, update)
        print(said)
        _tell(recording)
    return 0


def _info(recording: Recording, out: Path, options: BagCfg, update: Update) -> str:
    from robolearn.cli import _bag_info

    return _bag_info.describe(recording, update)


def _plot(recording: Recording, out: Path, options: BagCfg, update: Update) -> str:
    from robolearn.cli import _bag_page

    _bag_page.write(out, recording, options.fields.split(), update)
    return str(out)


def _video(recording: Recording, out: Path, options: BagCfg, update: Update) -> str:
    from robolearn.cli import _bag_video

    return f"{out}: {_bag_video.write(out, recording, options.topics.split(), update)} frames"


def _recover(recording: Recording, out: Path, options: BagCfg, update: Update) -> str:
    from real.recording.recover import recover

    return f"{out}: {recover(recording, out, update)} messages"


DO = {"info": _info, "plot": _plot, "video": _video, "recover": _recover}


def _parse(argv: list[str]) -> tuple[str, Path, list[str]]:
    if not argv or "=" in argv[0]:
        raise ConfigError(f"what shall be done? {', '.join(ACTIONS)}")
    if argv[0] not in ACTIONS:
        raise ConfigError(unknown("action", argv[0], ACTIONS))
    if len(argv) < 2 or "=" in argv[1]:
        raise ConfigError(f"which bag? robolearn bag {argv[0]} PATH")
    return argv[0], Path(argv[1]), argv[2:]


def _out(action: str, path: Path, given: str) -> Path:
    suffix = SUFFIXES.get(action, "")
    if path.name in ("", ".."):  # `.`: the name that stands beside it is that of the folder
        path = Path(os.path.abspath(path))
    out = Path(given) if given else path.parent / ((path.name if path.is_dir() else path.stem) + suffix)
    if suffix.startswith(".") and out.suffix != suffix:
        raise ConfigError(f"out must be a {suffix} file, got {out}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {out} does not exist")
    return out


@contextmanager
def progress(recording: Recording, title: str) -> Iterator[Callable[[int], None]]:
    """Takes the bytes that were read."""
    from robolearn.loops.log import Display

    total, last = max(1, recording.size // MB), 0
    with Display(total, f"{title} MB") as display:

        def update(done: int) -> None:
            nonlocal last
            if (now := min(done // MB, total)) > last:
                last = now
                display.update(now, {})

        yield update


def _tell(recording: Recording) -> None:
    """What is wrong with the bag."""
    if not recording.complete:
        log.warning("its recorder did not end it (killed?): it is read as far as it is whole")
    for text in recording.trouble:
        log.warning("%s", text)
