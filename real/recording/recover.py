"""A whole bag of what is left of one whose recorder was killed: for tools that want every file to be ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from real.recording.bag import FILES, Bag, BagCfg
from real.recording.read import Recording
from robolearn.errors import ConfigError


def recover(recording: Recording, path: Path, update: Callable[[int], object]) -> int:
    """Write a new bag of the same kind; how many messages it has. Raises ConfigError if there is one already."""
    if not recording.files:
        raise ConfigError(f"{recording.path} holds nothing to recover")
    (storage,) = {name for name, kind in FILES.items() if recording.files[0].suffix == kind.SUFFIX}
    bag, count = Bag(path, BagCfg(storage=storage)), 0
    for topic in recording.topics.values():
        bag.add_topic(topic)
    for message in recording.messages((), update):
        bag.write(*message)
        count += 1
    bag.close(recording.lost)
    return count
