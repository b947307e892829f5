"""The ChArUco board that cameras are calibrated with: a checkerboard with a marker in every white square.

Its frame: the origin is a corner of the board, x along its columns, y along its rows, z into the board, away from who
looks at it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from real.perception.transforms import Floats
from robolearn.errors import ConfigError
from robolearn.optional import lazy

cv2 = lazy("cv2", extra="vision")

Picture = NDArray[np.uint8]
INCH_M = 0.0254
POINT_M = INCH_M / 72.0
MARGIN_M = 0.01
"""White around the board on the sheet."""
MARKERS = "DICT_5X5_250"
LEAST_CORNERS = 6


class Corners(NamedTuple):
    """Inner corners of the checkerboard that a picture shows."""

    ids: NDArray[np.int64]
    points: Floats
    """(n, 3) m, in the board's frame."""
    pixels: Floats
    """(n, 2)."""


@dataclass(frozen=True)
class Board:
    columns: int = 8
    rows: int = 6
    square_m: float = 0.03
    marker_m: float = 0.022

    def __post_init__(self) -> None:
        if self.columns < 3 or self.rows < 3 or self.columns * self.rows > 400:
            raise ConfigError(f"a board needs 3 x 3 to 400 squares, got {self.columns} x {self.rows}")
        if not 0.0 < self.marker_m < 0.9 * self.square_m < 10.0:
            raise ConfigError(f"markers must be smaller than 0.9 of the squares, got {self.marker_m} m in "
                              f"{self.square_m} m")  # fmt: skip

    @cached_property
    def _made(self) -> Any:
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, MARKERS))
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, dictionary)

    @cached_property
    def _detector(self) -> Any:
        markers = cv2.aruco.DetectorParameters()
        markers.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        return cv2.aruco.CharucoDetector(self._made, cv2.aruco.CharucoParameters(), markers)

    @property
    def size_m(self) -> tuple[float, float]:
        return self.columns * self.square_m, self.rows * self.square_m

    @property
    def corners(self) -> int:
        """How many a picture can show."""
        return (self.columns - 1) * (self.rows - 1)

    def picture(self, pixels_per_m: float) -> Picture:
        """(H, W) of the board without a margin."""
        width, height = (round(edge * pixels_per_m) for edge in self.size_m)
        return np.asarray(self._made.generateImage((width, height), marginSize=0, borderBits=1))

    def find(self, picture: Picture) -> Corners | None:
        """Of a picture (H, W) or (H, W, 3) RGB; None where it shows fewer than 6 corners, or these on one line."""
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        pixels, ids, _, _ = self._detector.detectBoard(np.ascontiguousarray(grey))
        if ids is None or len(ids) < LEAST_CORNERS:
            return None
        index = np.asarray(ids).ravel().astype(np.int64)
        points = np.asarray(self._made.getChessboardCorners(), dtype=np.float64)[index]
        if min(np.ptp(points[:, 0]), np.ptp(points[:, 1])) == 0.0:
            return None
        return Corners(index, points, np.asarray(pixels, dtype=np.float64).reshape(-1, 2))


def save(board: Board, path: Path, dots_per_inch: int = 600) -> None:
    """To print at 100 %: a PDF or a PNG that says its size. Raises ConfigError for another suffix."""
    per_m = round(board.square_m * dots_per_inch / INCH_M) / board.square_m  # whole pixels a square
    margin = round(MARGIN_M * per_m)
    sheet = np.pad(board.picture(per_m), margin, constant_values=255)
    if path.suffix == ".pdf":
        path.write_bytes(_pdf(sheet, per_m))
    elif path.suffix == ".png":
        path.write_bytes(_png(sheet, per_m))
    else:
        raise ConfigError(f"a board is written as .pdf or .png, not as {path.name}")


def _png(grey: Picture, pixels_per_m: float) -> bytes:
    height, width = grey.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.pad(grey, ((0, 0), (1, 0))).tobytes()  # each row begins with its filter: none
    return b"".join((
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        chunk(b"pHYs", struct.pack(">IIB", round(pixels_per_m), round(pixels_per_m), 1)),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ))  # fmt: skip


def _pdf(grey: Picture, pixels_per_m: float) -> bytes:
    """One page of the picture's size, which holds it and nothing else."""
    height, width = grey.shape
    wide, high = (n / pixels_per_m / POINT_M for n in (width, height))
    draw = f"q {wide:.4f} 0 0 {high:.4f} 0 0 cm /Board Do Q".encode()
    packed = zlib.compress(grey.tobytes())
    image = (f"<< /Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceGray "
             f"/BitsPerComponent 8 /Filter /FlateDecode /Length {len(packed)} >>\nstream\n").encode()  # fmt: skip
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {wide:.4f} {high:.4f}] /Contents 4 0 R "
        "/Resources << /XObject << /Board 5 0 R >> >> >>".encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(draw), draw),
        image + packed + b"\nendstream",
    )
    out, starts = bytearray(b"%PDF-1.6\n"), []
    for number, content in enumerate(objects, 1):
        starts.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % start for start in starts)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)
