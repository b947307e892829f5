"""Where pictures come from, and what a camera that misbehaves leads to."""

import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
import cv2

from real.perception import jpeg
from real.perception.sources import CameraError, FileSource, Frame, VideoDevice, Watched, read_image, write_image
from robolearn.errors import ConfigError


class Clock:
    """Time goes on only where somebody sleeps."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Camera:
    """Gives these pictures out, one after the other."""

    name = "camera"

    def __init__(self, pictures):
        self.pictures = iter(pictures)

    def read(self):
        return Frame(next(self.pictures), 0.0)

    def close(self):
        pass


def grey(level, width=8):
    return np.full((4, width, 3), level, np.uint8)


def test_an_image_is_read_as_red_green_blue(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0], picture[..., 1] = 200, 20
    write_image(tmp_path / "a.png", picture)
    assert (read_image(tmp_path / "a.png") == picture).all()


def test_a_folder_is_shown_in_order_at_its_rate_again_and_again(tmp_path):
    for k in range(3):
        write_image(tmp_path / f"{k}.png", grey(10 * k))
    clock = Clock()
    source = FileSource(tmp_path, 20.0, clock, clock.sleep)
    frames = [source.read() for _ in range(7)]
    assert [int(f.image[0, 0, 0]) for f in frames] == [0, 10, 20, 0, 10, 20, 0]
    assert [f.stamp_s for f in frames] == pytest.approx([100.0 + 0.05 * k for k in range(7)])


def test_what_was_missed_is_not_made_up_for(tmp_path):
    write_image(tmp_path / "a.png", grey(1))
    clock = Clock()
    source = FileSource(tmp_path, 10.0, clock, clock.sleep)
    source.read()
    clock.now += 5.0
    stamps = [source.read().stamp_s for _ in range(3)]
    assert stamps == pytest.approx([105.0, 105.1, 105.2])


def test_a_video_begins_again_at_its_end(tmp_path):
    path = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPEG")
    for k in range(4):
        writer.write(np.full((48, 64, 3), 60 * k, np.uint8))
    writer.release()
    clock = Clock()
    source = FileSource(tmp_path / "film.avi", 0.0, clock, clock.sleep)
    frames = [source.read() for _ in range(6)]
    assert source.period_s == pytest.approx(0.04)
    levels = [round(float(f.image.mean()) / 60) for f in frames]
    assert levels == [0, 1, 2, 3, 0, 1]


def test_what_is_no_source_is_refused_by_name(tmp_path):
    with pytest.raises(CameraError, match="there is no file"):
        FileSource(tmp_path / "none.mp4")
    with pytest.raises(ConfigError, match="holds no images"):
        FileSource(tmp_path)
    (tmp_path / "text.avi").write_text("no film")
    with pytest.raises(CameraError, match="no video"):
        FileSource(tmp_path / "text.avi")
    with pytest.raises(CameraError, match="/dev/video99 cannot be opened"):
        VideoDevice("/dev/video99", (640, 480), 30.0)


def test_a_camera_that_changes_its_size_is_an_error():
    watched = Watched(Camera([grey(0), grey(1), grey(2, width=16)]))
    watched.read(), watched.read()
    with pytest.raises(CameraError, match="from 8 x 4 to 16 x 4"):
        watched.read()


def test_a_sensor_that_sends_the_same_again_and_again_is_frozen():
    """What it repeats is not given out with a new stamp: nobody shall act for a second on what was long ago."""
    watched = Watched(Camera([grey(0), grey(1), grey(1), grey(2), *[grey(3)] * 5]), frozen=4)
    assert [watched.read().image[0, 0, 0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(CameraError, match="frozen"):
        watched.read()


class Cable:
    """cv2.VideoCapture of a camera that gives these pictures out, None where it gives none."""

    def __init__(self, pictures):
        self.pictures = iter(pictures)

    def isOpened(self):
        return True

    def set(self, what, value):
        return True

    def read(self):
        picture = next(self.pictures, None)
        return picture is not None, picture

    def release(self):
        pass


def test_a_picture_that_the_cable_spoilt_is_passed_over_and_a_camera_without_any_is_lost(monkeypatch):
    blue = np.zeros((4, 8, 3), np.uint8)
    blue[..., 0] = 255  # OpenCV's order
    monkeypatch.setattr(cv2, "VideoCapture", lambda path, api: Cable([blue, None, blue]))
    camera = VideoDevice("/dev/video0", (8, 4), 30.0, clock=lambda: 7.0)
    for _ in range(2):
        frame = camera.read()
        assert frame.image[0, 0].tolist() == [0, 0, 255] and frame.stamp_s == 7.0
    with pytest.raises(CameraError, match="/dev/video0 sends no more pictures"):
        camera.read()


def test_a_file_may_stand_still():
    watched = Watched(Camera([grey(3)] * 100))
    for _ in range(100):
        watched.read()


def test_a_jpeg_gives_nearly_the_picture():
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24], picture[:, 24:] = (200, 40, 10), (10, 180, 90)
    back = jpeg.decoded(np.frombuffer(jpeg.encoded(picture, 95), np.uint8))
    assert np.abs(back.astype(int) - picture)[:, [4, 40]].max() < 8


def png(width, height):
    """That promises so many pixels, and holds none."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff", png(100_000, 100_000)])
def test_what_is_no_jpeg_is_an_error(data):
    with pytest.raises(ValueError, match="no image"):
        jpeg.decoded(np.frombuffer(data, np.uint8))
