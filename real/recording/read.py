"""Bags as they are found: of ours and of `ros2 bag`, with and without metadata, cut off where a recorder was killed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from real.recording.bag import METADATA, RECORDING
from real.recording.read_mcap import McapReader
from real.recording.read_sqlite import SqliteReader
from real.recording.topic import Message, Topic, UnbegunError
from robolearn.errors import ConfigError, unknown

NUMBER = re.compile(r"(\d+)$")


class Reader(Protocol):
    """One file of a bag. Raises ConfigError if it is none."""

    topics: dict[str, Topic]
    trouble: list[str]
    """What is wrong with the file; it is read as far as it is whole."""
    complete: bool
    """Whether the recorder ended it."""

    def __init__(self, path: Path): ...

    def messages(self, topics: Collection[str], progress: Callable[[int], object]) -> Iterator[Message]:
        """`progress` is told the bytes that were read, now and then."""

    def headers(self, progress: Callable[[int], object]) -> Iterator[tuple[str, int, int, int]]:
        """(topic, log ns, publish ns, bytes) of all messages, without reading what is in them where that can be."""

    def close(self) -> None: ...


READERS: dict[str, type[Reader]] = {".mcap": McapReader, ".db3": SqliteReader}


def nothing(done: int) -> None:
    """For who wants no progress."""


@dataclass
class Recording:
    """A bag that is open for reading. Files are read one after the other, each in the order of reception."""

    path: Path
    files: list[Path]
    readers: list[Reader]
    metadata: dict[str, Any] | None
    """rosbag2's, of metadata.yaml."""
    topics: dict[str, Topic] = field(default_factory=dict)
    unbegun: list[str] = field(default_factory=list)
    """Files into which nothing was written: the recorder was killed when it made them."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def _noted(self) -> dict[str, Any]:
        noted = (self.metadata or {}).get("custom_data")
        return noted if isinstance(noted, dict) else {}

    @property
    def complete(self) -> bool:
        """Whether the recorder ended it."""
        ended = not RECORDING.items() <= self._noted.items() and not self.unbegun
        return ended and all(reader.complete for reader in self.readers)

    @property
    def trouble(self) -> list[str]:
        found = [f"{f.name}: {text}" for f, r in zip(self.files, self.readers, strict=True) for text in r.trouble]
        return found + [f"{name}: is empty" for name in self.unbegun]

    @property
    def lost(self) -> dict[str, int]:
        """Messages that the recorder could not write, by topic, where it could say so."""
        return {k[5:]: int(v) for k, v in self._noted.items() if str(k).startswith("lost ") and str(v).isdigit()}

    def messages(self, topics: Collection[str] = (), progress: Callable[[int], object] = nothing) -> Iterator[Message]:
        """Of these topics, or all. ConfigError for one that is not there."""
        for name in topics:
            if name not in self.topics:
                raise ConfigError(f"{self.path}: {unknown('topic', name, sorted(self.topics))}")
        for before, reader in self._each():
            yield from reader.messages(topics or self.topics, lambda n, b=before: progress(b + n))  # type: ignore[misc]

    def headers(self, progress: Callable[[int], object] = nothing) -> Iterator[tuple[str, int, int, int]]:
        for before, reader in self._each():
            yield from reader.headers(lambda n, b=before: progress(b + n))  # type: ignore[misc]

    def _each(self) -> Iterator[tuple[int, Reader]]:
        """Readers, and the bytes of the files before each."""
        before = 0
        for file, reader in zip(self.files, self.readers, strict=True):
            yield before, reader
            before += file.stat().st_size

    def close(self) -> None:
        for reader in self.readers:
            reader.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_bag(path: Path) -> Recording:
    """A bag's folder, or one of its files. Raises ConfigError."""
    if not path.exists():
        raise ConfigError(f"there is no {path}")
    if path.is_file():
        if path.name == METADATA:
            return open_bag(path.parent)
        if path.suffix not in READERS:
            raise ConfigError(f"{path} is no file of a bag: {' or '.join(READERS)} expected")
        reader = READERS[path.suffix](path)
        return Recording(path, [path], [reader], None, dict(reader.topics))
    metadata = _metadata(path / METADATA)
    files = _files(path)
    if not files:
        packed = sorted(file.name for file in path.glob("*.zstd"))
        hint = f"; {packed[0]} is compressed as a whole: unpack it first (unzstd)" if packed else ""
        raise ConfigError(f"{path} is no bag: it holds no {' or '.join(f'*{s}' for s in READERS)}{hint}")
    if (metadata or {}).get("compression_mode", "").lower() == "message":
        raise ConfigError(f"{path}: messages compressed one by one are not read here; use ros2 bag convert")
    readers, unbegun = dict[Path, Reader](), list[str]()
    for file in files:
        try:
            readers[file] = READERS[file.suffix](file)
        except UnbegunError:
            unbegun.append(file.name)
    recording = Recording(path, list(readers), list(readers.values()), metadata, unbegun=unbegun)
    for reader in recording.readers:
        recording.topics |= {name: t for name, t in reader.topics.items() if name not in recording.topics}
    return recording


def _files(folder: Path) -> list[Path]:
    """Of the kind that there are most of, in the order of their numbers."""
    mcap, sqlite = ([file for file in folder.iterdir() if file.suffix == suffix] for suffix in READERS)

    def number(file: Path) -> tuple[int, str]:
        found = NUMBER.search(file.stem)
        return int(found[1]) if found else -1, file.name

    return sorted(mcap if len(mcap) >= len(sqlite) else sqlite, key=number)


def _metadata(path: Path) -> dict[str, Any] | None:
    """None if there is none, or a part of one."""
    try:
        read = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return read if isinstance(read, dict) else None
