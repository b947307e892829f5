"""`robolearn bag video`: image topics of a bag, side by side, in their own time."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn import optional
from robolearn.cli import _video
from robolearn.errors import ConfigError, unknown

if TYPE_CHECKING:
    from real.recording.read import Recording
    from real.recording.topic import Message

log = logging.getLogger(__name__)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3}
DEPTHS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1.0 / 65535.0), "32FC1": ("f4", 1.0)}
"""Encoding -> element and its unit: m, or the brightest grey."""
FAR_M = 5.0
"""Depth that is drawn black."""
MAX_FPS, LEAST_FPS, MAX_HEIGHT = 30.0, 1.0, 480


def write(path: Path, recording: Recording, topics: Sequence[str], update: Callable[[int], object]) -> int:
    """The film; how many frames it has. Pictures that cannot be read are left out, and that is logged. Raises
    ConfigError for topics that hold no images."""
    from real.recording.decode import Decoder

    names = _chosen(recording, topics)
    decode = Decoder([recording.topics[name] for name in names])
    unread: dict[str, dict[int, str]] = {}  # topic -> when -> why

    def picture(m: Message) -> np.ndarray | None:
        try:
            return pixels(decode(m.data, recording.topics[m.topic].type))
        except ConfigError as error:
            unread.setdefault(m.topic, {})[m.log_ns] = str(error)
            return None

    shapes, rate = _shapes(recording, names, picture)
    if not shapes:
        why = [f": {reason}" for reasons in unread.values() for reason in reasons.values()]
        raise ConfigError(f"{recording.path} holds no images{''.join(why[:1])}")
    count = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for frame in _frames(recording, shapes, rate, picture, update):
            count += 1
            yield frame

    _video.write(path, counted(), rate)
    for name, reasons in unread.items():
        log.warning("%s: %d pictures are left out (%s)", name, len(reasons), next(iter(reasons.values())))
    return count


def _chosen(recording: Recording, topics: Sequence[str]) -> list[str]:
    images = [name for name, topic in recording.topics.items() if topic.type in (IMAGE, COMPRESSED)]
    for name in topics:
        if name not in images:
            raise ConfigError(f"{recording.path}: {unknown('image topic', name, images)}")
    if not images:
        raise ConfigError(f"{recording.path} holds no images")
    return list(topics) or sorted(images)


def _shapes(recording: Recording, names: list[str], picture: Any) -> tuple[dict[str, tuple[int, int]], Fraction]:
    """Height and width of each topic's part of the frame, all of one height; the frames a second, those of the
    fastest topic. Topics without a picture are left out."""
    times: dict[str, list[int]] = {name: [] for name in names}
    for name, log_ns, _, _ in recording.headers():
        if name in times:
            times[name].append(log_ns)
    missing, found = {name for name in names if times[name]}, dict[str, tuple[int, int]]()
    for m in recording.messages(sorted(missing)) if missing else ():
        if m.topic in missing and (image := picture(m)) is not None:
            missing.discard(m.topic)
            found[m.topic] = image.shape[:2]
        if not missing:
            break
    if not found:
        return {}, Fraction(1)
    height = min(MAX_HEIGHT, max(h for h, _ in found.values())) // 2 * 2
    shapes = {name: (height, max(2, round(w * height / h) // 2 * 2)) for name, (h, w) in found.items()}
    usual = [float(np.median(np.diff(sorted(t)))) * 1e-9 for t in times.values() if len(t) > 1]
    fps = min(MAX_FPS, max(LEAST_FPS, 1.0 / max(min(usual, default=1.0), 1e-3)))
    return shapes, Fraction(round(fps * 10), 10)


def _frames(
    recording: Recording, shapes: dict[str, tuple[int, int]], rate: Fraction, picture: Any, update: Any
) -> Iterator[np.ndarray]:
    """At each tick the latest picture of each topic, black before its first."""
    shown = {name: np.zeros((*shape, 3), np.uint8) for name, shape in shapes.items()}
    period, due = 1e9 / float(rate), 0.0
    for m in recording.messages(sorted(shapes), update):
        due = due or float(m.log_ns)
        while m.log_ns > due:
            yield np.concatenate([shown[name] for name in shapes], axis=1)
            due += period
        if (image := picture(m)) is not None:
            shown[m.topic] = _scaled(image, shapes[m.topic])
    yield np.concatenate([shown[name] for name in shapes], axis=1)


def _scaled(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == shape:
        return image
    av = optional.load("av", "report")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    scaled: np.ndarray = frame.reformat(width=shape[1], height=shape[0]).to_ndarray(format="rgb24")
    return scaled


def pixels(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 of an Image or a CompressedImage. Raises ConfigError for what is none."""
    if not hasattr(message, "encoding"):
        return _unpacked(bytes(message.data), message.format)
    kind, height, width = message.encoding, message.height, message.width
    if kind in DEPTHS:
        return _depth(message, *DEPTHS[kind])
    if kind not in CHANNELS:
        raise ConfigError(f"images of {unknown('encoding', kind, [*CHANNELS, *DEPTHS])}")
    channels = CHANNELS[kind]
    image = _rows(message, width * channels).reshape(height, width, channels)
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    return image[..., 2::-1] if kind.startswith("bgr") or kind == "8UC3" else image[..., :3]


def _rows(message: Any, used: int) -> np.ndarray:
    """(H, `used`) octets, without the padding of the rows."""
    height, step, data = message.height, message.step or used, np.asarray(message.data, np.uint8)
    if not height or not used or step < used or len(data) < height * step:
        size = f"{message.width}x{height} {message.encoding}, rows of {step} bytes"
        raise ConfigError(f"an image of {len(data)} bytes cannot be {size}")
    return data[: height * step].reshape(height, step)[:, :used]


def _depth(message: Any, element: str, unit: float) -> np.ndarray:
    order = ">" if message.is_bigendian else "<"
    size = np.dtype(element).itemsize
    raw = np.ascontiguousarray(_rows(message, message.width * size)).view(order + element).astype(np.float64) * unit
    far = 1.0 if message.encoding == "mono16" else FAR_M
    share = np.clip(np.nan_to_num(raw, nan=0.0, posinf=far) / far, 0.0, 1.0)
    grey = share if message.encoding == "mono16" else np.where(share > 0.0, 1.0 - share, 0.0)  # near is bright
    return np.repeat((255.0 * grey).astype(np.uint8)[..., None], 3, axis=2)


def _unpacked(data: bytes, kind: str) -> np.ndarray:
    av = optional.load("av", "report")
    name = "png_pipe" if data[:4] == b"\x89PNG" else "jpeg_pipe"
    try:
        with av.open(io.BytesIO(data), format=name) as container:
            frame = next(container.decode(video=0))
            image: np.ndarray = frame.to_ndarray(format="rgb24")
            return image
    except (av.FFmpegError, StopIteration, ValueError, IndexError) as error:
        raise ConfigError(f"a compressed image ({kind}) cannot be read: {error}") from None
