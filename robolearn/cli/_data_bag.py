"""Bags of ROS 2 messages as episodes: topics to features, resampled to one rate. See docs/data.md for the rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.cli import _bag_message, _bag_video
from robolearn.cli._bag_message import Entry
from robolearn.cli._bag_video import COMPRESSED, IMAGE
from robolearn.data import resample
from robolearn.data.layout import DataError, Feature
from robolearn.data.resample import Stream
from robolearn.data.video import VideoCfg
from robolearn.data.write import Writer
from robolearn.errors import ConfigError, unknown

if TYPE_CHECKING:
    from real.recording.read import Recording

log = logging.getLogger(__name__)
OBSERVATION, PICTURES, STATE, ACTION = "observation.", "observation.images.", "observation.state", "action"
JOINTS, TARGET = "sensor_msgs/msg/JointState", "guard/target"
SUFFIXES = ".mcap", ".db3"


@dataclass(frozen=True)
class BagRules:
    """What becomes of a bag."""

    fps: float
    topics: str = ""
    """`KEY=/TOPIC` or `KEY=/TOPIC:FIELD` words; a key given twice holds one after the other."""
    stamps: str = "header"
    """header: a message's own stamp where it has one; receive: when it was received."""
    gap_s: float = 0.5
    gaps: str = "refuse"

    def __post_init__(self) -> None:
        if not self.fps > 0.0:
            raise ConfigError("a bag has many rates: give fps=, that of the episodes")
        if not self.gap_s > 0.0:
            raise ConfigError(f"gap_s must be above 0, got {self.gap_s}")


@dataclass(frozen=True)
class Source:
    """A field of a topic's messages that becomes (a part of) a feature."""

    key: str
    topic: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.key}={self.topic}" + (f":{self.field}" if self.field else "")

    @property
    def picture(self) -> bool:
        return self.key.startswith(PICTURES)


@dataclass
class Track:
    """What was read of a source."""

    times_ns: list[int] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    first: Entry | None = None
    size: tuple[int, ...] = ()
    """Of a picture."""


# --- which bags, which topics ---


def is_bag(path: Path) -> bool:
    if path.is_dir():
        return any(child.suffix in SUFFIXES for child in path.iterdir())
    return path.suffix in SUFFIXES


def bags(path: Path) -> list[Path]:
    """The bag itself, or the bags in a folder, by name."""
    return [path] if is_bag(path) else sorted(p for p in path.iterdir() if p.is_dir() and is_bag(p))


def sources_of(recording: Recording, topics: str) -> list[Source]:
    """Raises ConfigError for a topic that is not there, and for defaults that are not clear."""
    found = [_source(word, recording) for word in topics.split()] if topics else _defaults(recording)
    if twice := [str(s) for k, s in enumerate(found) if s in found[:k]]:
        raise ConfigError(f"topics: {twice[0]} is given twice")
    for source in found:
        kind = recording.topics[source.topic].type
        if source.picture != (kind in (IMAGE, COMPRESSED)):
            raise ConfigError(f"topics: {source.topic} holds {kind}: pictures, and nothing else, go to {PICTURES}NAME")
    return found


def _source(word: str, recording: Recording) -> Source:
    key, _, rest = word.partition("=")
    topic, _, path = rest.partition(":")
    if not key or not topic:
        raise ConfigError(f"topics: '{word}' is not KEY=/TOPIC or KEY=/TOPIC:FIELD")
    if topic not in recording.topics:
        raise ConfigError(f"{recording.path}: {unknown('topic', topic, sorted(recording.topics))}")
    return Source(key, topic, path)


def _defaults(recording: Recording) -> list[Source]:
    """What our recorder finds on a robot: its joints, the command that the guard sends, every camera in colour."""
    from real.robots.base import COMMANDS

    counts: dict[str, int] = {}
    for name, *_ in recording.headers():
        counts[name] = counts.get(name, 0) + 1
    kinds = {name: topic.type for name, topic in recording.topics.items() if counts.get(name)}
    states = [n for n, k in kinds.items() if k == JOINTS and not n.endswith(TARGET)]
    commands = [n for n, k in kinds.items() if any(n.endswith(c.topic) and k == c.type for c in COMMANDS.values())]
    commands = commands or [n for n in kinds if n.endswith(TARGET)]
    for key, topics in ((STATE, states), (ACTION, commands)):
        if len(topics) > 1:
            raise ConfigError(f"{recording.path}: {', '.join(sorted(topics))} could each be {key}: say it in topics=")
    images = [n for n, k in kinds.items() if k in (IMAGE, COMPRESSED) and "depth" not in n.lower()]
    images = [n for n in images if n.removesuffix("/compressed") == n or n.removesuffix("/compressed") not in images]
    found = [*(Source(STATE, n) for n in states), *(Source(ACTION, n) for n in commands),
             *(Source(PICTURES + _camera(n), n) for n in sorted(images))]  # fmt: skip
    if not found:
        raise ConfigError(f"{recording.path} has neither joints nor pictures: say what to take in topics= "
                          f"({', '.join(sorted(kinds)) or 'it is empty'})")  # fmt: skip
    return found


def _camera(topic: str) -> str:
    """`/front/image_raw/compressed` is front."""
    words = topic.strip("/").split("/")
    plain = [w for w in words if w not in ("image_raw", "image", "image_rect", "image_color", "compressed")]
    return "_".join(plain or words)


# --- reading ---


def load(source: Path, target: Path, rules: BagRules, task: str = "", video: VideoCfg | None = None) -> tuple[int, str]:
    """Append a bag, or every bag in a folder, to the set at `target`, which is made if it is not there; how many
    episodes, and what was taken. Raises ConfigError or DataError, naming bag, topic and moment."""
    found = bags(source)
    if not found:
        raise ConfigError(f"{source} holds no bag")
    count, said = 0, ""
    for path in found:
        added, said = _append(path, target, rules, task, video)
        count += added
    return count, said


def _append(path: Path, target: Path, rules: BagRules, task: str, video: VideoCfg | None) -> tuple[int, str]:
    from real.recording.read import open_bag
    from robolearn.cli import bag

    with open_bag(path) as recording:
        sources = sources_of(recording, rules.topics)
        try:
            with bag.progress(recording, "read") as update:
                tracks = _tracks(recording, sources, rules, update)
            streams, orders = _streams(sources, tracks, rules)
            resampled = resample.runs_of(list(streams.values()), rules.fps, rules.gaps == "split")
            said = " ".join(map(str, sources))
            about = {"rosbag2": {"topics": said, "stamps": rules.stamps, "gap_s": rules.gap_s}}
            features = _features(sources, tracks, streams)
            with Writer(target, rules.fps, features, about=about, video=video) as writer:
                pictures = _pictures(recording, {s: orders[s] for s in sources if s.picture}, streams, resampled.runs)
                for ticks in resampled.runs:
                    _write(writer, task, streams, ticks, pictures)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        bag._tell(recording)
    for text in resampled.left_out:
        log.warning("%s: %s, and is split there", path, text)
    return len(resampled.runs), said


def _tracks(recording: Recording, sources: Sequence[Source], rules: BagRules,
            update: Callable[[int], object]) -> dict[Source, Track]:  # fmt: skip
    """One pass over the bag. Of pictures only times are kept: all of them would not fit into memory."""
    tracks = {s: Track() for s in sources}
    for source, log_ns, message in _messages(recording, sources, update):
        track = tracks[source]
        with _Where(source.topic, log_ns, recording):
            if source.picture:
                track.size = track.size or _bag_video.pixels(message).shape
                row: np.ndarray | None = np.zeros(0)
            else:
                entry = _bag_message.entry(message, source.field)
                track.first = track.first or entry
                row = _bag_message.like(entry, track.first)
        if row is not None:
            track.times_ns.append(_bag_message.time_ns(message, log_ns, rules.stamps))
            track.rows.append(row)
    for source, track in tracks.items():
        if not track.rows:
            raise DataError(f"{source.topic} has no message")
    return tracks


def _messages(
    recording: Recording, sources: Sequence[Source], update: Callable[[int], object] = lambda n: None
) -> Iterator[tuple[Source, int, Any]]:
    """Source, time of reception and message."""
    from real.recording.decode import Decoder

    names = list(dict.fromkeys(s.topic for s in sources))
    decode = Decoder([recording.topics[n] for n in names])
    for m in recording.messages(names, update) if names else ():
        with _Where(m.topic, m.log_ns, recording):
            message = decode(m.data, recording.topics[m.topic].type)
        yield from ((source, m.log_ns, message) for source in sources if source.topic == m.topic)


@dataclass
class _Where:
    """Turns an error about a message into one that says which."""

    topic: str
    log_ns: int
    recording: Recording

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, (ConfigError, IndexError)):
            text = str(error) if isinstance(error, ConfigError) else f"a list has no element {error}"
            raise DataError(f"{self.topic}, message received at {self.log_ns * 1e-9:.3f} s: {text}") from None


def _streams(
    sources: Sequence[Source], tracks: dict[Source, Track], rules: BagRules
) -> tuple[dict[Source, Stream], dict[Source, np.ndarray]]:
    """And which message of its topic each value of a stream is."""
    streams, orders = dict[Source, Stream](), dict[Source, np.ndarray]()
    for source in sources:
        track = tracks[source]
        values, first = np.stack(track.rows), track.first
        line = first is not None and first.values.dtype.kind == "f" and source.key.startswith(OBSERVATION)
        streams[source], orders[source] = resample.stream(
            source.topic, "line" if line else "hold", track.times_ns, values, first.quaternions if first else (),
            rules.gap_s if line or source.picture else 0.0,
        )  # fmt: skip
    return streams, orders


# --- writing ---


def _features(sources: Sequence[Source], tracks: dict[Source, Track], streams: dict[Source, Stream]) -> dict:
    found: dict[str, Feature] = {}
    for key in dict.fromkeys(s.key for s in sources):
        mine = [s for s in sources if s.key == key]
        if mine[0].picture and len(mine) > 1:
            raise ConfigError(f"topics: {key} is given {len(mine)} times")
        if mine[0].picture:
            found[key] = Feature("video", tracks[mine[0]].size)
            continue
        names = [name for s in mine for name in (tracks[s].first or Entry()).names]
        size = sum(streams[s].values.shape[1] for s in mine)
        found[key] = Feature(_dtype([streams[s] for s in mine]), (size,), tuple(names) if len(names) == size else None)
    return found


def _dtype(streams: Sequence[Stream]) -> str:
    """float32 for what is or was made float; integers and truth values stay."""
    kinds = {s.values.dtype for s in streams}
    return next(iter(kinds)).name if len(kinds) == 1 and streams[0].values.dtype.kind != "f" else "float32"


def _write(writer: Writer, task: str, streams: dict[Source, Stream], ticks: np.ndarray, pictures: Iterator) -> None:
    parts: dict[str, list[np.ndarray]] = {}
    for source, found in streams.items():
        if not source.picture:
            parts.setdefault(source.key, []).append(resample.sample(found, ticks))
    numbers = {k: np.concatenate(v, axis=1).astype(writer.info.features[k].dtype) for k, v in parts.items()}
    writer.begin(task)
    for k in range(len(ticks)):
        writer.add({key: values[k] for key, values in numbers.items()} | next(pictures))
    writer.end()


def _pictures(recording: Recording, orders: dict[Source, np.ndarray], streams: dict[Source, Stream],
              runs: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """Of every tick of the runs, by key: a second pass over the bag, which holds no more pictures than it must."""
    ticks = np.concatenate(runs)
    wanted = {s: order[resample.before(streams[s], ticks)].tolist() for s, order in orders.items()}
    last = {s: {number: k for k, number in enumerate(numbers)} for s, numbers in wanted.items()}
    kept: dict[Source, dict[int, np.ndarray]] = {s: {} for s in orders}
    seen = dict.fromkeys(orders, 0)
    messages = _messages(recording, list(orders))
    for k in range(len(ticks)):
        while any(wanted[s][k] not in kept[s] for s in orders):
            source, log_ns, message = next(messages)
            if seen[source] in last[source]:
                with _Where(source.topic, log_ns, recording):
                    kept[source][seen[source]] = _bag_video.pixels(message)
            seen[source] += 1
        yield {s.key: kept[s][wanted[s][k]] for s in orders}
        for s in orders:
            if last[s][wanted[s][k]] == k:
                del kept[s][wanted[s][k]]
