"""Where packages are: in ROS 2's ament index where a workspace is sourced, else in this Python's environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from robolearn.errors import ConfigError
from robolearn.paths import share_dir

OURS = "robolearn"


def share(package: str) -> Path:
    """Its share folder, as `$(find-pkg-share PACKAGE)`; of robolearn without an index, the one of this code."""
    for prefix in _prefixes(package):
        return prefix / "share" / package
    if package == OURS:
        return share_dir()
    raise ConfigError(f"no package '{package}' in AMENT_PREFIX_PATH or {sys.prefix}; is the workspace sourced?")


def executable(package: str, name: str) -> Path:
    """The program NAME of a package: in lib/PACKAGE of a ROS 2 workspace, or among pip's scripts."""
    folders = [prefix / "lib" / package for prefix in _prefixes(package)]
    if package == OURS or find_spec(package.replace("-", "_")) or _in(Path(sys.prefix), package):
        folders += [share(package).parent.parent / "bin"] if package == OURS else []
        folders += [Path(sys.executable).parent]
    elif not folders:
        raise ConfigError(f"no package '{package}' in AMENT_PREFIX_PATH or this Python; is the workspace sourced?")
    for folder in folders:
        if os.access(folder / name, os.X_OK) and (folder / name).is_file():
            return folder / name
    places = ", ".join(map(str, folders))
    raise ConfigError(f"package '{package}' has no program '{name}' in {places}; install it again with pip or colcon")


def _prefixes(package: str) -> Iterator[Path]:
    """The ament prefixes that hold a package, the one to use first; a wheel may make this Python's prefix one."""
    for prefix in [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]:
        if prefix and _in(Path(prefix), package):
            yield Path(prefix)


def _in(prefix: Path, package: str) -> bool:
    marker = prefix / "share/ament_index/resource_index/packages" / package
    return "/" not in package and marker.is_file()
