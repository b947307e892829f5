"""Where configs, launch files and assets are, however the package was installed."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

_SCHEME = "package://"


def share_dir() -> Path:
    """The folder with `package.xml`, `configs/` and `launch/`.

    The source tree where it is used from there (editable, colcon --symlink-install), else the share/robolearn
    of the installation (pip into an environment, --user or --target, colcon).
    """
    source = Path(__file__).resolve().parent.parent  # resolved: colcon's --symlink-install links the packages
    installed = [parent / "share" / "robolearn" for parent in Path(__file__).absolute().parents]
    for folder in (source, *installed):
        if (folder / "package.xml").is_file() and (folder / "configs").is_dir():
            return folder
    raise FileNotFoundError(
        f"robolearn's configs are missing: no package.xml and configs/ in {source}, "
        f"nor in share/robolearn above it. Install again with pip or colcon."
    )


def version() -> str:
    """The version in package.xml, the only place where it is written."""
    text = ElementTree.parse(share_dir() / "package.xml").findtext("version")
    if text is None:
        raise ValueError(f"{share_dir() / 'package.xml'} has no <version>")
    return text


def resolve(uri: str) -> Path:
    """The existing file or folder of `package://NAME/path` or of a plain path.

    NAME is a Python package (found, not imported) or a ROS 2 package in AMENT_PREFIX_PATH.
    """
    if uri.startswith(_SCHEME):
        name, _, path = uri.removeprefix(_SCHEME).partition("/")
        tried = [root / path for root in _package_roots(name)]
    else:
        tried = [Path(uri).expanduser()]
    for candidate in tried:
        if candidate.exists():
            return candidate
    places = ", ".join(map(str, tried)) or f"no Python or ROS 2 package {name!r} is installed"
    raise FileNotFoundError(f"{uri} not found; tried: {places}")


def _package_roots(name: str) -> Iterator[Path]:
    spec = find_spec(name) if name.isidentifier() else None
    yield from map(Path, (spec and spec.submodule_search_locations) or [])
    if name == "robolearn":
        yield share_dir()
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        share = Path(prefix) / "share" / name
        if share.is_dir():
            yield share
