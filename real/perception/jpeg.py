"""Pictures as JPEG."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robolearn.optional import lazy

cv2 = lazy("cv2", extra="vision")


def encoded(picture: NDArray[np.uint8], quality: int) -> bytes:
    """Of (H, W, 3) RGB; quality 1 to 100."""
    good, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise ValueError("the picture cannot be compressed")
    return bytes(data)


def decoded(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, of whatever image format OpenCV reads. Raises ValueError."""
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:  # a header that promises more pixels than OpenCV takes
        picture = None
    if picture is None:
        raise ValueError("it is no image")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
