"""The decoded pictures that were used last."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

MB = 1024**2


class FrameCache:
    """Decoded pictures, the ones that were used last, up to a number of bytes."""

    def __init__(self, limit_mb: float):
        self.limit_mb, self.size = limit_mb, 0
        self._pictures: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    def get(self, key: tuple[str, int]) -> np.ndarray | None:
        if key not in self._pictures:
            return None
        self._pictures.move_to_end(key)
        return self._pictures[key]

    def put(self, key: tuple[str, int], picture: np.ndarray) -> None:
        if picture.nbytes > self.limit_mb * MB or key in self._pictures:
            return
        self._pictures[key] = picture
        self.size += picture.nbytes
        while self.size > self.limit_mb * MB:
            self.size -= self._pictures.popitem(last=False)[1].nbytes
