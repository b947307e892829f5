"""How much memory there is, and what will not fit into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from robolearn.errors import ConfigError

SPARE = 0.8
"""Part of the memory that is available that something large may take."""
CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Versions 2 and 1: folder, limit, use."""


def available_bytes() -> int:
    """Memory that can be had without swapping, within the limits of a container."""
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with open("/proc/meminfo") as file:
        free = [int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable")] or free
    for folder, limit, used in CGROUPS:
        try:
            room = int(Path(folder, limit).read_text()) - int(Path(folder, used).read_text())
            stat = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such limit: "max" is no number
            continue
        free.append(room + int(stat.get("total_inactive_file", stat.get("inactive_file", 0))))  # files' cache can go
    return max(0, min(free))


def refuse_beyond(size: float, what: str, device: Any = "cpu") -> None:
    """ConfigError if `size` bytes, of what the setting `what` asks for, are more than there is to have on a device of
    torch."""
    if str(device).startswith("cuda"):
        import torch

        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = available_bytes()
    if size > SPARE * free:
        raise ConfigError(f"{what} would take {size / 1e9:.1f} GB, and {SPARE * free / 1e9:.1f} GB can be had: make it "
                          f"smaller")  # fmt: skip
