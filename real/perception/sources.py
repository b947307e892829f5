"""Where pictures come from: a V4L2 camera, a video file, a folder of images. One protocol; simulation has its own
source (real/nodes/camera_scene.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from real.perception.lens import Lens
from robolearn.errors import ConfigError, UserError
from robolearn.optional import lazy

cv2 = lazy("cv2", extra="vision")

Picture = NDArray[np.uint8]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm")
FILE_HZ = 30.0
FROZEN = 30
"""After so many pictures in a row that are equal to the bit a sensor, which has noise, is frozen."""
TRIES = 3
"""A picture that a cable has spoilt is not given out by OpenCV, as if there were none; the next one may be whole."""


class CameraError(UserError):
    """A camera is not there, stopped, or sends what it was not asked for."""


class Depth(NamedTuple):
    image_m: NDArray[np.float32]
    """(H, W) along the optical axis."""
    lens: Lens


class Frame(NamedTuple):
    image: Picture
    """(H, W, 3) RGB."""
    stamp_s: float
    """When it was taken, as well as is known, by the clock that the source was given."""
    depth: Depth | None = None


class Source(Protocol):
    name: str

    def read(self) -> Frame:
        """The next picture; waits for it. Raises CameraError when there will be none."""

    def close(self) -> None: ...


class VideoDevice:
    """A camera of the kernel's (V4L2), MJPEG: 640 x 480 at 30 Hz passes through any USB port."""

    def __init__(self, path: str, size: tuple[int, int], rate_hz: float, exposure: float = 0.0,
                 clock: Callable[[], float] = time.time):  # fmt: skip
        """`size`: width and height. `exposure`: in the driver's units (mostly 0.1 ms), 0 leaves it as it was set last
        (automatic, in a camera that was just plugged in); a fixed one keeps rate and brightness. Raises CameraError."""
        self.name, self._clock = path, clock
        self._camera = cv2.VideoCapture(path, cv2.CAP_V4L2)
        if not self._camera.isOpened():
            raise CameraError(f"{path} cannot be opened: is the camera plugged in, in nobody else's use, and are you "
                              "in the group video?")  # fmt: skip
        for what, value in (
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")), (cv2.CAP_PROP_FRAME_WIDTH, size[0]),
            (cv2.CAP_PROP_FRAME_HEIGHT, size[1]), (cv2.CAP_PROP_FPS, rate_hz), (cv2.CAP_PROP_BUFFERSIZE, 1),
        ):  # fmt: skip
            self._camera.set(what, value)
        if exposure:
            self._camera.set(cv2.CAP_PROP_AUTO_EXPOSURE, 1)  # V4L2: manual
            if not self._camera.set(cv2.CAP_PROP_EXPOSURE, exposure):
                self.close()
                raise CameraError(f"{path} takes no exposure of {exposure:g}; v4l2-ctl --list-ctrls names its range")

    def read(self) -> Frame:
        for _ in range(TRIES):
            good, picture = self._camera.read()
            stamp_s = self._clock()
            if good:
                return Frame(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), stamp_s)
        raise CameraError(f"{self.name} sends no more pictures: was it unplugged?")

    def close(self) -> None:
        self._camera.release()


class FileSource:
    """A video, or a folder's images in the order of their names, again and again at `rate_hz` (0: the video's own, or
    30 Hz); stamped when they are given out."""

    def __init__(self, path: Path, rate_hz: float = 0.0, clock: Callable[[], float] = time.time,
                 sleep: Callable[[float], object] = time.sleep):  # fmt: skip
        self.name, self._clock, self._sleep = str(path), clock, sleep
        self._images: list[Path] = []
        self._video = None
        if path.is_dir():
            self._images = images_in(path)
        elif path.is_file():
            self._video = cv2.VideoCapture(str(path))
            if not self._video.isOpened():
                raise CameraError(f"{path} is no video that OpenCV can read")
        else:
            raise CameraError(f"there is no file or folder {path}")
        own_hz = float(self._video.get(cv2.CAP_PROP_FPS)) if self._video is not None else 0.0
        self.period_s = 1.0 / (rate_hz or own_hz or FILE_HZ)
        self._next, self._due_s = 0, clock()

    def read(self) -> Frame:
        late_s = self._clock() - self._due_s
        if late_s < 0.0:
            self._sleep(-late_s)
        self._due_s += self.period_s + (late_s if late_s > self.period_s else 0.0)
        return Frame(self._picture(), self._clock())

    def _picture(self) -> Picture:
        if self._video is None:
            path = self._images[self._next % len(self._images)]
            self._next += 1
            return read_image(path)
        for _ in range(2):
            good, picture = self._video.read()
            if good:
                return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
        raise CameraError(f"{self.name} holds no picture")

    def close(self) -> None:
        if self._video is not None:
            self._video.release()


class Watched:
    """A source that is not believed blindly: pictures of one size, and, of a sensor, never the same again and again."""

    def __init__(self, source: Source, frozen: int = 0):
        """`frozen`: a picture equal to the last one to the bit is not given out again, with a new stamp, and so many
        of them in a row are an error; 0 asks nothing."""
        self.name, self._source, self._frozen = source.name, source, frozen
        self._size: tuple[int, ...] = ()
        self._last: Picture | None = None
        self._same = 0

    def read(self) -> Frame:
        while True:
            frame = self._source.read()
            shape = frame.image.shape
            if not self._size:
                self._size = shape
            if shape != self._size:
                raise CameraError(f"{self.name} changed its pictures from {_size(self._size)} to {_size(shape)}")
            if not self._frozen or self._last is None or not np.array_equal(frame.image, self._last):
                self._same, self._last = 0, frame.image
                return frame
            self._same += 1
            if self._same >= self._frozen:
                raise CameraError(f"{self.name} sends the same picture again and again: it is frozen")

    def close(self) -> None:
        self._source.close()


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


def images_in(folder: Path) -> list[Path]:
    """By name. Raises ConfigError if there is none."""
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in IMAGES)
    if not found:
        raise ConfigError(f"{folder} holds no images ({', '.join(IMAGES)})")
    return found


def read_image(path: Path) -> Picture:
    """(H, W, 3) RGB. Raises ConfigError."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ConfigError(f"{path} is no image that OpenCV can read")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def write_image(path: Path, picture: Picture) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path} cannot be written")
