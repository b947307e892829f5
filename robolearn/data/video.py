"""Pictures as MP4, through PyAV: one encoder for an episode, files joined without encoding again, frames by number.

A frame's number is its time in the file times the rate. `h264` (4:2:0, the default) and `av1` lose; `h264_lossless`
(4:4:4 RGB at qp 0) and `ffv1` give back every bit. Key frames come every `gop` frames, so that one picture costs at
most that many decoded ones; no B-frames, so that files are joined packet by packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data.layout import DataError
from robolearn.errors import ConfigError, unknown
from robolearn.optional import lazy

av = lazy("av", extra="data")
reformatter = lazy("av.video.reformatter", extra="data")


@dataclass(frozen=True)
class Codec:
    encoder: str
    pixels: str
    options: tuple[tuple[str, str], ...]
    lossless: bool = False


CODECS = {
    "h264": Codec("libx264", "yuv420p", (("crf", "20"), ("preset", "medium"), ("bf", "0"))),
    "h264_lossless": Codec("libx264rgb", "rgb24", (("qp", "0"), ("preset", "medium"), ("bf", "0")), lossless=True),
    "ffv1": Codec("ffv1", "bgr0", (), lossless=True),
    "av1": Codec("libsvtav1", "yuv420p", (("crf", "30"), ("preset", "10"), ("svtav1-params", "pred-struct=1"))),
}


@dataclass(frozen=True)
class VideoCfg:
    """How pictures are written."""

    codec: str = "h264"
    gop: int = 8
    """Frames from one key frame to the next: few for fast access, many for small files."""
    threads: int = 1

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ConfigError(unknown("codec", self.codec, sorted(CODECS)))
        if self.gop < 1 or self.threads < 0:
            raise ConfigError(f"gop must be at least 1 and threads at least 0, got {self.gop}, {self.threads}")


def rate_of(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


class Colours:
    """Frames in another format. One for all frames of a file, in one thread: what a frame does by itself, a converter
    with threads of its own each time, costs more than decoding it."""

    def __init__(self) -> None:
        self._reformatter = reformatter.VideoReformatter()

    def __call__(self, frame: Any, pixels: str) -> Any:
        return self._reformatter.reformat(frame, format=pixels, threads=1)


class Encoder:
    """One file of (H, W, 3) uint8 frames; complete after `close`."""

    def __init__(self, path: Path, fps: float, shape: tuple[int, ...], cfg: VideoCfg):
        codec = CODECS[cfg.codec]
        if codec.pixels == "yuv420p" and (shape[0] % 2 or shape[1] % 2):
            lossless = " or ".join(n for n, c in CODECS.items() if c.lossless)
            raise DataError(f"{cfg.codec} needs an even height and width, got {shape[:2]}: crop, or codec={lossless}")
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(codec.encoder, rate=rate_of(fps), options=dict(codec.options))
        self._stream.height, self._stream.width = shape[:2]
        self._stream.pix_fmt, self._stream.gop_size = codec.pixels, cfg.gop
        self._stream.codec_context.thread_count = cfg.threads
        self._colours, self._pixels = Colours(), codec.pixels

    def add(self, frame: np.ndarray) -> None:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._container.mux(self._stream.encode(self._colours(picture, self._pixels)))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()

    def abandon(self) -> None:
        """Give the file up."""
        self._container.close()


class VideoFile:
    """Frames of one file by their number. Keeps its place: frames that follow are decoded without a seek."""

    def __init__(self, path: Path, fps: float, strict: bool = False):
        """`strict`: what a decoder would paint over is an error. Raises DataError for a file that is missing or cut
        off."""
        self.path, self._rate = path, rate_of(fps)
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except FileNotFoundError:
            raise DataError(f"{path} is missing") from None
        except (av.FFmpegError, IndexError) as error:
            raise DataError(f"{path} is truncated or no video: {error}") from None
        self._stream.codec_context.thread_count = 1
        if strict:
            self._stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
        self._colours = Colours()
        self._frames: Iterator[Any] | None = None
        self._next = 0
        self.codec: str = self._stream.codec_context.name
        self.shape: tuple[int, int, int] = (self._stream.height, self._stream.width, 3)

    def read(self, wanted: Sequence[int], near: int = 8) -> Iterator[tuple[int, np.ndarray]]:
        """Number and picture (H, W, 3) uint8 of every frame that had to be decoded for `wanted` (ascending): these,
        and those between them and the key frames before. A gap of up to `near` frames is decoded, not jumped.
        Raises DataError for a frame that cannot be decoded."""
        for number in wanted:
            if self._frames is None or not self._next <= number <= self._next + near:
                self._seek(number)
            while self._next <= number:
                yield self._step(number)

    def _seek(self, number: int) -> None:
        time = number / self._rate
        try:
            # Half a frame later: a time that was rounded up must not lead to the key frame before.
            ticks = int((time + Fraction(1, 2) / self._rate) / self._stream.time_base)
            self._container.seek(ticks, stream=self._stream)
        except av.FFmpegError as error:
            raise DataError(f"{self.path}: no frame {number}: {error}") from None
        self._frames, self._next = self._container.decode(self._stream), 0

    def _step(self, wanted: int) -> tuple[int, np.ndarray]:
        assert self._frames is not None
        try:
            frame = next(self._frames)
            picture = self._colours(frame, "rgb24").to_ndarray()
        except (StopIteration, av.FFmpegError) as error:
            self._frames = None
            why = "the file ends before it" if isinstance(error, StopIteration) else str(error)
            raise DataError(f"{self.path} is truncated or broken: no frame {wanted}: {why}") from None
        number = round(frame.pts * self._stream.time_base * self._rate)
        if number > wanted:
            self._frames = None
            raise DataError(f"{self.path} is broken: no frame {wanted}, the next is {number}")
        self._next = number + 1
        return number, picture

    def count(self) -> int:
        """Frames that the file says it has."""
        return int(self._stream.frames)

    def same_stream(self, other: VideoFile) -> bool:
        """Whether packets of the other can follow those of this one in one file."""
        mine, theirs = self._stream.codec_context, other._stream.codec_context
        return mine.name == theirs.name and self.shape == other.shape and mine.extradata == theirs.extradata

    def close(self) -> None:
        self._container.close()


def join(out: Path, parts: Sequence[tuple[Path, int, int]], fps: float) -> None:
    """Write one file of frames [start, stop) of each part, without encoding again; each start must be a key frame.
    Raises DataError, naming the file, for one that cannot be read or lacks packets."""
    try:
        _join(out, parts, rate_of(fps))
    except av.FFmpegError as error:
        raise DataError(f"{error} (one of {', '.join(str(path) for path, _, _ in parts)})") from None


def _join(out: Path, parts: Sequence[tuple[Path, int, int]], rate: Fraction) -> None:
    with av.open(str(out), "w", format="mp4") as target:
        stream, written = None, 0
        for path, start, stop in parts:
            with av.open(str(path)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = target.add_stream_from_template(video, opaque=True)  # an encoder may not exist
                copied = 0
                for packet in source.demux(video):
                    if packet.pts is None:  # the end
                        continue
                    number = round(packet.pts * video.time_base * rate)
                    if start <= number < stop:
                        shift = round((written - start) / rate / packet.time_base)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        target.mux(packet)
                        copied += 1
                if copied != stop - start:
                    raise DataError(f"{path} is truncated: {copied} of the frames {start} to {stop - 1} are there")
                written += stop - start
