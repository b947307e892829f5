"""The memory of a process that keeps time, held in RAM.

A system that pages out what has been quiet for a while makes a control loop tens of milliseconds late when it goes on.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CURRENT, FUTURE, ONFAULT = 1, 2, 4
"""Of <sys/mman.h>, on x86-64 and aarch64."""
IPC_LOCK = 14
"""Bit of the capability that is above the limit."""


def lock() -> str:
    """Hold all pages that this process has touched, and those that it will; nothing where it returns why not.

    Not where there is a limit, however large: a mapping beyond it, a new thread's stack for one, would fail some time.
    """
    if not sys.platform.startswith("linux"):
        return f"{sys.platform} is not Linux"
    if not may_lock():
        return "operation not permitted: it takes ulimit -l unlimited, or CAP_IPC_LOCK"
    try:
        failed = ctypes.CDLL(None, use_errno=True).mlockall(CURRENT | FUTURE | ONFAULT)
    except (OSError, AttributeError) as error:
        return f"no mlockall: {error}"
    return os.strerror(ctypes.get_errno()) if failed else ""


def may_lock() -> bool:
    """Whether as much as one likes: without a limit, or privileged. A container's root need not be."""
    import resource

    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    held = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> IPC_LOCK & 1)
