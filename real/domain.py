"""A DDS domain for processes that must not be heard by, and must not hear, anybody else's."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robolearn.errors import ConfigError

DOMAINS = 100
"""1 to 100: the ports of higher ones lie among those that systems give out."""
CHANGED = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS", "CYCLONEDDS_URI")


@contextmanager
def own_domain(number: int | None = None) -> Iterator[int]:
    """A ROS_DOMAIN_ID on this machine alone, in the environment meanwhile; a free one if none is given. Free is what
    nobody holds who asks in this way, as the tests do. Raises ConfigError."""
    found, lock = _lock([number] if number is not None else range(DOMAINS, 0, -1))
    before = {name: os.environ.pop(name) for name in CHANGED if name in os.environ}
    os.environ |= {"ROS_DOMAIN_ID": str(found), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    try:
        yield found
    finally:
        os.close(lock)
        for name in CHANGED:
            os.environ.pop(name, None)
        os.environ |= before


def _lock(numbers: list[int] | range) -> tuple[int, int]:
    """The first that can be had, and the open file that holds it."""
    for number in numbers:
        try:
            file = os.open(Path(tempfile.gettempdir()) / f"robolearn-test-domain-{number}", os.O_RDWR | os.O_CREAT)
        except OSError:  # another user's
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number, file
        except OSError:
            os.close(file)
    raise ConfigError(f"no free ROS 2 domain among {numbers[0]} to {numbers[-1]}: what uses them all?")
