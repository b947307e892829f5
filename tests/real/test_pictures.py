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


DEPTH = np.array([[0.5, np.nan, 1.25], [2.0, 0.001, 60.0]], np.float32)


def test_a_depth_image_comes_back_as_it_was_and_millimetres_become_metres():
    assert np.array_equal(pictures.depth_of(pictures.depth_message(DEPTH, Header())), DEPTH, equal_nan=True)
    mm = np.array([[500, 0, 1250], [2000, 1, 60000]])
    for order, big in (("<", 0), (">", 1)):
        data = np.pad(mm.astype(f"{order}u2").view(np.uint8), ((0, 0), (0, 2))).tobytes()  # rows with a pad
        message = pictures.Image(height=2, width=3, encoding="16UC1", step=8, is_bigendian=big, data=data)
        assert pictures.depth_of(message) == pytest.approx(DEPTH, nan_ok=True)


@pytest.mark.parametrize("wrong", [{"encoding": "rgb8"}, {"data": b"123"}, {"width": 4}])
def test_what_is_no_depth_image_is_an_error(wrong):
    message = pictures.depth_message(DEPTH, Header())
    for name, value in wrong.items():
        setattr(message, name, value)
    with pytest.raises(ValueError):
        pictures.depth_of(message)


def test_a_cloud_is_laid_out_as_ros_reads_it():
    points = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, 6.0]], np.float32)
    message = pictures.cloud_message(points, Header())
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [
        ("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1)]  # fmt: skip
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 2, 12, 24)
    assert np.frombuffer(bytes(message.data), "<f4").tolist() == points.ravel().tolist()
