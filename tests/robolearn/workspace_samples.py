"""A sourced ROS 2 workspace, for the tests of launch files, which several files share."""

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTHING = "#!/bin/sh\n"
OURS = dict.fromkeys(re.findall(r'"(\w+) = [\w.]+:main"', (ROOT / "setup.py").read_text()), NOTHING)
"""Every command of robolearn, as a program that does nothing."""


def install(prefix: Path, package: str = "robolearn", programs: Mapping[str, str] = OURS) -> Path:
    """Below `prefix` (AMENT_PREFIX_PATH), the package with these programs; robolearn's files are those of this tree."""
    marker = prefix / "share/ament_index/resource_index/packages" / package
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    if package == "robolearn":
        (prefix / "share/robolearn").symlink_to(ROOT)
    else:
        (prefix / "share" / package).mkdir()
    for name, text in programs.items():
        program = prefix / "lib" / package / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    return prefix
