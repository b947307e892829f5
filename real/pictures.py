"""Pictures and lenses on one side, sensor_msgs on the other; read with suspicion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from real import ros
from real.perception import jpeg
from real.perception.lens import COEFFICIENTS, MODEL, Lens

Image = ros.interface("sensor_msgs/msg/Image")
CompressedImage = ros.interface("sensor_msgs/msg/CompressedImage")
CameraInfo = ros.interface("sensor_msgs/msg/CameraInfo")
PointCloud2 = ros.interface("sensor_msgs/msg/PointCloud2")
PointField = ros.interface("sensor_msgs/msg/PointField")

Picture = NDArray[np.uint8]
CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}
"""Where red, green and blue are in a pixel."""
WIDTHS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
DEPTHS = {"32FC1": 4, "16UC1": 2}
FLOAT32 = 7
"""Of sensor_msgs/PointField."""
LARGEST_PX = 100_000_000
NO_DISTORTION = (MODEL, "rational_polynomial", "")
"""Models whose coefficients, where they are zero, say that there is none."""


def image_message(picture: Picture, header: Any) -> Any:
    """Of (H, W, 3) RGB."""
    height, width, _ = picture.shape
    return Image(header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width,
                 data=picture.tobytes())  # fmt: skip


def compressed_message(picture: Picture, header: Any, quality: int) -> Any:
    return CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=jpeg.encoded(picture, quality))


def picture_of(message: Any) -> Picture:
    """(H, W, 3) RGB, of an Image or a CompressedImage. Raises ValueError for what is none."""
    if hasattr(message, "format"):
        return jpeg.decoded(_octets(message.data))
    pixels, encoding = _pixels(message, WIDTHS), message.encoding
    return pixels if encoding == "rgb8" else np.ascontiguousarray(pixels[..., CHANNELS[encoding]])


def depth_message(depth_m: NDArray[np.float32], header: Any) -> Any:
    """Of (H, W) m along the optical axis."""
    height, width = depth_m.shape
    return Image(header=header, height=height, width=width, encoding="32FC1", is_bigendian=0, step=4 * width,
                 data=depth_m.astype("<f4").tobytes())  # fmt: skip


def depth_of(message: Any) -> NDArray[np.float32]:
    """(H, W) m, of an Image in m (32FC1) or mm (16UC1, where 0 is none: NaN here). Raises ValueError for what is
    none."""
    pixels, order = np.ascontiguousarray(_pixels(message, DEPTHS)), ">" if message.is_bigendian else "<"
    if message.encoding == "32FC1":
        return pixels.view(f"{order}f4")[..., 0].astype(np.float32)
    mm = pixels.view(f"{order}u2")[..., 0]
    return np.where(mm > 0, np.float32(1e-3) * mm, np.float32(np.nan)).astype(np.float32)


def cloud_message(points: NDArray[np.float32], header: Any) -> Any:
    """Of (N, 3) m."""
    fields = [PointField(name=name, offset=4 * k, datatype=FLOAT32, count=1) for k, name in enumerate("xyz")]
    return PointCloud2(header=header, height=1, width=len(points), fields=fields, is_bigendian=False, point_step=12,
                       row_step=12 * len(points), data=points.astype("<f4").tobytes(), is_dense=True)  # fmt: skip


def _pixels(message: Any, widths: dict[str, int]) -> Picture:
    """(H, W, octets of a pixel) of an Image in one of these encodings."""
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    if encoding not in widths:
        raise ValueError(f"encoding {encoding[:20]!r} is none of {', '.join(widths)}")
    wide, data = widths[encoding], _octets(message.data)
    if not 0 < height * width <= LARGEST_PX or step < width * wide or len(data) != step * height:
        raise ValueError("its size and its data do not fit together")
    return data.reshape(height, step)[:, : width * wide].reshape(height, width, wide)


def _octets(data: Any) -> Picture:
    return np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.asarray(data, dtype=np.uint8)


def info_message(lens: Lens | None, size: tuple[int, int], header: Any) -> Any:
    """`size`: width and height. Without a lens, zeros: ROS's way to say that a camera is not calibrated."""
    width, height = size
    message = CameraInfo(header=header, width=width, height=height)
    if lens is not None:
        message.distortion_model, message.d = MODEL, list(lens.distortion)
        message.k, message.r = lens.matrix.ravel(), np.eye(3).ravel()
        message.p = np.hstack((lens.matrix, np.zeros((3, 1)))).ravel()
    return message


def lens_of(message: Any) -> Lens | None:
    """None for a camera that is not calibrated. Raises ValueError for numbers that are none, and for a distortion that
    we do not know."""
    k, d = [float(v) for v in message.k], [float(v) for v in message.d]
    if k[0] == 0.0:
        return None
    model = message.distortion_model
    if not (model == MODEL and len(d) == COEFFICIENTS) and not (model in NO_DISTORTION and not any(d)):
        raise ValueError(f"distortion model {model[:20]!r} with {len(d)} coefficients; only {MODEL} is known")
    if message.binning_x > 1 or message.binning_y > 1 or message.roi.width not in (0, message.width):
        raise ValueError("binned pictures and parts of pictures are not supported")
    distortion = tuple(d) if len(d) == COEFFICIENTS else (0.0,) * COEFFICIENTS
    return Lens(message.width, message.height, k[0], k[4], k[2], k[5], distortion)
