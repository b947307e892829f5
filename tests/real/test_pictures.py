"""Pictures and lenses over the wire's types, and what of them is refused."""

import numpy as np
import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
import cv2

from real import pictures
from real.connection import Header
from real.perception.lens import Lens

LENS = Lens(64, 48, 61.0, 60.0, 31.5, 23.0, (-0.1, 0.02, 0.001, -0.002, 0.003))
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)


def test_a_picture_comes_back_as_it_was():
    message = pictures.image_message(PICTURE, Header(frame_id="eye"))
    assert (message.encoding, message.step, message.header.frame_id) == ("rgb8", 192, "eye")
    assert (pictures.picture_of(message) == PICTURE).all()


@pytest.mark.parametrize(("encoding", "order"), [("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]), ("bgra8", [2, 1, 0, 0])])
def test_other_encodings_are_turned_into_ours(encoding, order):
    data = np.ascontiguousarray(PICTURE[..., order])
    message = pictures.Image(height=48, width=64, encoding=encoding, step=64 * len(order), data=data.tobytes())
    assert (pictures.picture_of(message) == PICTURE).all()


def test_grey_and_padded_rows_are_read():
    padded = np.zeros((48, 70), np.uint8)
    padded[:, :64] = PICTURE[..., 0]
    message = pictures.Image(height=48, width=64, encoding="mono8", step=70, data=padded.tobytes())
    assert (pictures.picture_of(message) == PICTURE[..., :1]).all()


@pytest.mark.parametrize(
    "wrong",
    [{"encoding": "16UC1"}, {"data": b"123"}, {"step": 10}, {"height": 0, "data": b""}, {"height": 49}],
)
def test_a_message_whose_parts_do_not_fit_is_an_error(wrong):
    message = pictures.image_message(PICTURE, Header())
    for name, value in wrong.items():
        setattr(message, name, value)
    with pytest.raises(ValueError):
        pictures.picture_of(message)


def test_a_compressed_picture_is_nearly_the_picture():
    smooth = cv2.GaussianBlur(PICTURE, (0, 0), 6)
    back = pictures.picture_of(pictures.compressed_message(smooth, Header(), 95))
    assert back.shape == smooth.shape and np.abs(back.astype(int) - smooth).mean() < 2


def test_a_lens_comes_back_and_none_is_none():
    message = pictures.info_message(LENS, (64, 48), Header())
    again = pictures.lens_of(message)
    assert (again.fx, again.cy, again.distortion) == (LENS.fx, LENS.cy, LENS.distortion)
    assert list(message.p)[:4] == [61.0, 0.0, 31.5, 0.0] and message.distortion_model == "plumb_bob"
    assert pictures.lens_of(pictures.info_message(None, (64, 48), Header())) is None


@pytest.mark.parametrize(
    "wrong", [{"distortion_model": "equidistant"}, {"d": [0.1] * 8}, {"binning_x": 2}, {"k": np.full(9, np.nan)}],
)  # fmt: skip
def test_a_lens_that_we_do_not_know_is_an_error(wrong):
    message = pictures.info_message(LENS, (64, 48), Header())
    for name, value in wrong.items():
        setattr(message, name, value)
    with pytest.raises(ValueError):
        pictures.lens_of(message)
