"""A bag as `ros2 bag record` makes one: a folder of files, one after the other, and metadata.yaml (version 9)."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real.recording.mcap import McapFile
from real.recording.sqlite import SqliteFile
from real.recording.topic import Topic, dumped
from robolearn.errors import ConfigError, UserError, unknown

FILES: dict[str, type[McapFile] | type[SqliteFile]] = {"mcap": McapFile, "sqlite3": SqliteFile}
"""By rosbag2's names of its storage plugins."""
VERSION = 9
MB = 10**6
LEAST_SPLIT_MB = 1.0
METADATA = "metadata.yaml"
RECORDING = {"state": "recording"}
"""Noted in the metadata until the bag is ended."""
WHEN_FULL = "stop", "drop_oldest"
DISK_ERRORS = OSError, sqlite3.Error


class BagFullError(UserError):
    """A bag must not grow further; the message says why."""


@dataclass(frozen=True)
class BagCfg:
    """Sizes of 0 are no limits."""

    storage: str = "mcap"
    zstd: bool = False
    split_mb: float = 0.0
    split_s: float = 0.0
    limit_mb: float = 0.0
    """Of the whole bag."""
    when_full: str = "stop"
    """drop_oldest: the oldest file goes, as often as is needed."""
    reserve_mb: float = 500.0
    """That stay free on the disk."""

    def __post_init__(self) -> None:
        if self.storage not in FILES:
            raise ConfigError(unknown("storage", self.storage, sorted(FILES)))
        if self.when_full not in WHEN_FULL:
            raise ConfigError(unknown("when_full", self.when_full, WHEN_FULL))
        if self.zstd and self.storage != "mcap":
            raise ConfigError("zstd is for storage mcap only")
        for name in ("split_mb", "split_s", "limit_mb", "reserve_mb"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"{name} must be 0 (none) or more, got {getattr(self, name)}")
        if 0.0 < self.split_mb < LEAST_SPLIT_MB:
            raise ConfigError(f"split_mb must be at least {LEAST_SPLIT_MB:g}, got {self.split_mb}")
        if self.when_full == "drop_oldest" and not 0.0 < 2.0 * self.split_mb <= self.limit_mb:
            raise ConfigError("when_full drop_oldest needs limit_mb, and a split_mb of at most half of it")


@dataclass
class Part:
    """A file of a bag; times in ns since 1970."""

    path: Path
    first_ns: int = 0
    last_ns: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.counts.total()


class Bag:
    """Writes into a new folder. One thread at a time."""

    def __init__(self, path: Path, cfg: BagCfg):
        """Raises ConfigError if the folder exists or cannot be made, BagFullError if the disk is nearly full."""
        self.path, self.cfg, self.topics = path, cfg, dict[str, Topic]()
        self.bytes = 0
        """Of the messages, all together."""
        self.dropped_files = 0
        self._notes, self._lost = dict(RECORDING), dict[str, str]()
        self._numbers: dict[str, int] = {}
        self._next, self._closed_bytes, self._closed_sizes = 0, 0, list[int]()
        self._parts: list[Part] = []
        try:
            _demand_space(path.absolute().parent, cfg)
            path.mkdir(parents=True)
            self._open()
        except FileExistsError:
            raise ConfigError(f"{path} exists already: a bag is never written over") from None
        except DISK_ERRORS as error:
            raise ConfigError(f"{path} cannot be made: {getattr(error, 'strerror', None) or error}") from None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._closed_bytes + self._file.size

    # --- messages ---

    def add_topic(self, topic: Topic) -> None:
        """A topic that is known already keeps what was said of it first, as rosbag2 has it."""
        if topic.name not in self.topics:
            self.topics[topic.name] = topic
            self._numbers[topic.name] = len(self._numbers) + 1
            self._file.add_topic(self._numbers[topic.name], topic)
            self.write_metadata()

    def write(self, name: str, log_ns: int, publish_ns: int, data: bytes | memoryview) -> None:
        """Raises BagFullError instead if there is no room for it."""
        part, cfg = self._parts[-1], self.cfg
        large = cfg.split_mb and part.counts and self._file.size + len(data) > cfg.split_mb * MB
        if large or (cfg.split_s and part.counts and log_ns - part.first_ns >= cfg.split_s * 1e9):
            self.split()
            part = self._parts[-1]
        if cfg.limit_mb and self.size + len(data) > cfg.limit_mb * MB:
            self._make_room(len(data))
        self._file.write(self._numbers[name], log_ns, publish_ns, data)
        part.first_ns = min(part.first_ns, log_ns) if part.counts else log_ns
        part.last_ns = max(part.last_ns, log_ns)
        part.counts[name] += 1
        self.bytes += len(data)

    def _make_room(self, needed: int) -> None:
        while self.cfg.when_full == "drop_oldest" and len(self._parts) > 1:
            self._parts.pop(0).path.unlink()
            self._closed_bytes -= self._closed_sizes.pop(0)
            self.dropped_files += 1
            self.write_metadata()
            if self.size + needed <= self.cfg.limit_mb * MB:
                return
        raise BagFullError(f"{self.path} has reached its limit of {self.cfg.limit_mb:g} MB")

    def flush(self) -> None:
        """Hand all to the system. Raises BagFullError when the disk is nearly full."""
        self._file.flush()
        _demand_space(self.path, self.cfg)

    # --- files ---

    def _open(self) -> None:
        make = FILES[self.cfg.storage]
        path = self.path / f"{self.path.name}_{self._next}{make.SUFFIX}"
        self._next += 1
        self._file = make(path, self.cfg.zstd)
        self._parts.append(Part(path))
        for name, topic in self.topics.items():
            self._file.add_topic(self._numbers[name], topic)
        self.write_metadata()

    def split(self) -> None:
        """Go on in a new file."""
        self._close_file()
        self._open()

    def _close_file(self) -> None:
        self._file.close(dumped(self.metadata()))
        self._closed_sizes.append(self._parts[-1].path.stat().st_size)
        self._closed_bytes += self._closed_sizes[-1]

    def note_lost(self, lost: Mapping[str, int]) -> None:
        """Messages of each topic that came and could not be written, for the metadata."""
        self._lost = {f"lost {name}": str(count) for name, count in lost.items() if count}

    def close(self, lost: Mapping[str, int] | None = None) -> None:
        """`lost`: see `note_lost`."""
        self.note_lost(lost or {})
        self._notes = {}
        self._close_file()
        self.write_metadata()

    def abandon(self) -> Counter[str]:
        """Leave all as it is, after an error of the system; how many messages of each topic were written here and had
        not reached the file. They do not count as written any more."""
        names = {number: name for name, number in self._numbers.items()}
        lost = Counter({names[number]: count for number, count in self._file.abandon().items()})
        self._parts[-1].counts -= lost
        return lost

    # --- metadata ---

    def metadata(self) -> dict[str, Any]:
        """rosbag2's, as far as it is known now."""
        filled = [part for part in self._parts if part.count]
        first = min((part.first_ns for part in filled), default=0)
        last = max((part.last_ns for part in filled), default=0)
        return {
            "version": VERSION,
            "storage_identifier": self.cfg.storage,
            "duration": {"nanoseconds": last - first},
            "starting_time": {"nanoseconds_since_epoch": first},
            "message_count": sum(part.count for part in self._parts),
            "topics_with_message_count": [self._about(topic) for topic in self.topics.values()],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [part.path.name for part in self._parts],
            "files": [
                {
                    "path": part.path.name,
                    "starting_time": {"nanoseconds_since_epoch": part.first_ns},
                    "duration": {"nanoseconds": part.last_ns - part.first_ns},
                    "message_count": part.count,
                }
                for part in self._parts
            ],
            "custom_data": self._notes | self._lost or None,
            "ros_distro": os.environ.get("ROS_DISTRO", ""),
        }

    def _about(self, topic: Topic) -> dict[str, Any]:
        return {
            "topic_metadata": {
                "name": topic.name,
                "type": topic.type,
                "serialization_format": "cdr",
                "offered_qos_profiles": topic.offers_list,
                "type_description_hash": topic.hash,
            },
            "message_count": sum(part.counts[topic.name] for part in self._parts),
        }

    def write_metadata(self) -> None:
        """The whole file, or what was there before."""
        path = self.path / METADATA
        part = path.with_suffix(".part")
        part.write_text(dumped({"rosbag2_bagfile_information": self.metadata()}))
        part.replace(path)


def _demand_space(folder: Path, cfg: BagCfg) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < cfg.reserve_mb * MB:
        raise BagFullError(
            f"the disk of {folder} has {free / MB:.0f} MB left, and {cfg.reserve_mb:g} MB (reserve_mb) stay free"
        )
