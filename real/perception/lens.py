"""A camera's intrinsics, and the file that keeps them, in the format of ROS's camera_calibration_parsers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from real.perception.transforms import Floats
from robolearn.errors import ConfigError

MODEL = "plumb_bob"
COEFFICIENTS = 5


@dataclass(frozen=True)
class Lens:
    """A pinhole with radial and tangential distortion (Brown 1966): k1, k2, p1, p2, k3. Pixels; the centre of the first
    one is (0, 0)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = (0.0,) * COEFFICIENTS
    name: str = "camera"

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(map(math.isfinite, numbers)) or min(self.fx, self.fy, self.width, self.height) <= 0:
            raise ConfigError(f"camera {self.name}: sizes and focal lengths must be above 0, all numbers finite")
        if len(self.distortion) != COEFFICIENTS:
            raise ConfigError(f"camera {self.name}: {MODEL} has {COEFFICIENTS} distortion coefficients, "
                              f"got {len(self.distortion)}")  # fmt: skip

    @property
    def matrix(self) -> Floats:
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def coefficients(self) -> Floats:
        return np.array(self.distortion)

    def project(self, points: Floats) -> Floats:
        """Pixels (..., 2) of points (..., 3) of the camera's frame, which lie in front of it."""
        k1, k2, p1, p2, k3 = self.distortion
        x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
        r2 = x * x + y * y
        radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
        u = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
        v = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y
        return np.stack((self.fx * u + self.cx, self.fy * v + self.cy), axis=-1)


def save(lens: Lens, path: Path, remarks: tuple[str, ...] = ()) -> None:
    """`remarks` become comments: the format has no place for quality."""

    def block(rows: int, columns: int, data: Any) -> dict[str, Any]:
        return {"rows": rows, "cols": columns, "data": [float(v) for v in np.ravel(data)]}

    content = {
        "image_width": lens.width,
        "image_height": lens.height,
        "camera_name": lens.name,
        "camera_matrix": block(3, 3, lens.matrix),
        "distortion_model": MODEL,
        "distortion_coefficients": block(1, COEFFICIENTS, lens.distortion),
        "rectification_matrix": block(3, 3, np.eye(3)),
        "projection_matrix": block(3, 4, np.hstack((lens.matrix, np.zeros((3, 1))))),
    }
    text = "".join(f"# {line}\n" for line in remarks)
    path.write_text(text + yaml.safe_dump(content, sort_keys=False, default_flow_style=None))


def load(path: Path) -> Lens:
    """Raises ConfigError for what is no calibration of such a lens."""
    content = read_yaml(path)
    try:
        model, matrix = content["distortion_model"], [float(v) for v in content["camera_matrix"]["data"]]
        if model != MODEL:
            raise ConfigError(f"{path}: the distortion model is {model}; only {MODEL} is known")
        distortion = tuple(float(v) for v in content["distortion_coefficients"]["data"])
        fx, _, cx, _, fy, cy = matrix[:6]
        name = str(content.get("camera_name", path.stem))
        return Lens(int(content["image_width"]), int(content["image_height"]), fx, fy, cx, cy, distortion, name)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is no camera calibration: {type(error).__name__} {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Raises ConfigError unless the file holds a mapping."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no YAML mapping")
    return content
