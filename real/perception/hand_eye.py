"""Where a camera is mounted: in the hand, which moves with the tool, or beside the robot, which does not.

In hand, the board lies still and the camera looks at it from many tool poses; beside the robot, the hand shows the
board to the camera. Unknown are the camera in its parent's frame (tool, or base) and the board in the other one (base,
or tool). A linear method starts (Park and Martin 1994), then both are refined together on what was measured, the
corners' pixels: a pose of the board in one picture is much less certain along the line of sight than across it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import yaml

from real.perception import transforms
from real.perception.board import Corners
from real.perception.lens import Lens, read_yaml
from real.perception.transforms import Floats, apart, exponential, inverse, matrix
from robolearn.errors import ConfigError, unknown
from robolearn.optional import lazy

cv2 = lazy("cv2", extra="vision")

Mounting = Literal["hand", "base"]
LEAST_VIEWS = 8
LEAST_TURN_DEG = 15.0
"""The tool must have turned so much, about two axes that are so far from parallel."""
PIXEL, ARM_M, ARM_RAD = 0.1, 3e-4, 3e-4
"""What a corner, and the tool's pose, may be off: standard deviations, each axis."""
STEPS, ENOUGH = 50, 1e-7
FAR_PX, HOPELESS_PX = 5.0, 100.0
"""A calibration whose corners are further off on average is none: a wrong board, poses of other pictures; before it is
refined, further off than the second."""


class View(NamedTuple):
    tool: Floats
    """(7,) pose in the robot's base frame when the picture was taken."""
    corners: Corners


@dataclass(frozen=True)
class HandEye:
    mounting: Mounting
    parent_frame: str
    camera: Floats
    """(7,) the optical frame in the parent's: the tool's frame in hand, else the robot's base."""
    board: Floats
    """(7,) in the other one of the two."""
    error_px: float
    """Root mean square over all corners."""
    error_m: float
    """Between the board's poses as each picture alone gives them, and as all give it: root mean square."""
    error_rad: float
    views: int

    def remarks(self) -> tuple[str, ...]:
        return (
            f"{self.views} views, reprojection error {self.error_px:.3f} px",
            f"the board's pose differs between views by {1e3 * self.error_m:.2f} mm and "
            f"{np.degrees(self.error_rad):.3f} degrees (root mean square)",
        )  # fmt: skip


def calibrate(views: Sequence[View], lens: Lens, mounting: Mounting, parent_frame: str) -> HandEye:
    """Raises ConfigError, with what to do, for too few views, tool poses that determine nothing, and what does not fit
    together."""
    if mounting not in get_args(Mounting):
        raise ConfigError(unknown("mounting", mounting, get_args(Mounting)))
    if len(views) < LEAST_VIEWS:
        raise ConfigError(f"{len(views)} views with a tool pose and the board in sight; take at least {LEAST_VIEWS}")
    tools = [matrix(view.tool) for view in views]
    demand_turns(tools)
    seen = [board_in_camera(view.corners, lens) for view in views]
    outer = (
        [inverse(tool) for tool in tools] if mounting == "base" else tools
    )  # from the camera's parent to the board's
    camera = _start(outer, seen)
    board = outer[0] @ camera @ seen[0]
    first = [_off(view, far, camera, board, lens) for view, far in zip(views, outer, strict=True)]
    _demand_fit(np.concatenate(first), HOPELESS_PX)
    camera, board, residuals = _refined(views, outer, camera, board, lens)
    error_px = _demand_fit(residuals, FAR_PX)
    off = np.array([apart(board, far @ camera @ one) for far, one in zip(outer, seen, strict=True)])
    error_m, error_rad = np.sqrt((off**2).mean(0))
    return HandEye(mounting, parent_frame, transforms.pose(camera), transforms.pose(board), error_px, float(error_m),
                   float(error_rad), len(views))  # fmt: skip


def _demand_fit(residuals: Floats, most_px: float) -> float:
    """The root mean square distance of a corner, if it is not larger; else a ConfigError."""
    error_px = float(np.sqrt((residuals.reshape(-1, 2) ** 2).sum(1).mean()))
    if not error_px <= most_px:
        raise ConfigError(
            f"pictures and tool poses do not fit together (corners are {error_px:.0f} px off): is each "
            "pose that of its picture, in the base frame, in m; does the board's size match?"
        )
    return error_px


def demand_turns(tools: Sequence[Floats]) -> None:
    """Raise ConfigError unless the tool turned about two different axes: along a common axis of all turns the camera's
    place cannot be known (Tsai and Lenz 1989)."""
    turns = np.array([transforms.rotation_of(inverse(a) @ b) for k, a in enumerate(tools) for b in tools[:k]])
    angles = np.linalg.norm(turns, axis=1)
    large = np.degrees(angles) > LEAST_TURN_DEG
    if not large.any():
        raise ConfigError(f"the tool turned by {np.degrees(angles.max()):.0f} degrees at most; turn it by 30 to 60 "
                          "degrees between pictures")  # fmt: skip
    axes = turns[large] / angles[large, None]
    between = np.degrees(np.arccos(np.clip(np.abs(axes @ axes.T).min(), 0.0, 1.0)))
    if between < LEAST_TURN_DEG:
        raise ConfigError("the tool turned about one axis only; tilt it about a second one too, forwards and sideways")


def board_in_camera(corners: Corners, lens: Lens) -> Floats:
    """The board's pose from one picture, as a matrix. Raises ConfigError if there is none."""
    found, turn, shift = cv2.solvePnP(corners.points, corners.pixels, lens.matrix, lens.coefficients,
                                      flags=cv2.SOLVEPNP_ITERATIVE)  # fmt: skip
    if not found or not np.isfinite(shift).all():
        raise ConfigError("a picture's corners give no pose of the board; leave it out")
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = cv2.Rodrigues(turn)[0], np.ravel(shift)
    return out


def _start(outer: Sequence[Floats], seen: Sequence[Floats]) -> Floats:
    """Linear, from `outer` (the parent's frame in the board's) and the board in the camera."""
    turn, shift = cv2.calibrateHandEye(
        [t[:3, :3] for t in outer], [t[:3, 3] for t in outer], [t[:3, :3] for t in seen], [t[:3, 3] for t in seen],
        method=cv2.CALIB_HAND_EYE_PARK,
    )  # fmt: skip
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = turn, np.ravel(shift)
    if not np.isfinite(out).all():
        raise ConfigError("these tool poses determine no mounting; turn the tool more between pictures")
    return out


def _refined(views: Sequence[View], outer: Sequence[Floats], camera: Floats, board: Floats,
             lens: Lens) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """Least squares over both (Levenberg-Marquardt), and the residuals (2 n,) px.

    Pixels and the arm are both uncertain, each arm pose for all corners of its picture alike; so a view's residuals are
    weighed by what both make of them. Without the arm's share, half a millimetre of it costs up to two of the camera.
    """
    whiteners = [_whitener(view, far, camera, board, lens) for view, far in zip(views, outer, strict=True)]

    def residuals(step: Floats) -> list[Floats]:
        at, of = camera @ exponential(step[:6]), board @ exponential(step[6:])
        return [_off(view, far, at, of, lens) for view, far in zip(views, outer, strict=True)]

    def weighed(step: Floats) -> Floats:
        return np.concatenate([white @ off for white, off in zip(whiteners, residuals(step), strict=True)])

    damping, now = 1e-3, weighed(np.zeros(12))
    for _ in range(STEPS):
        slope = _slope(weighed, 12)
        normal, pull = slope.T @ slope, slope.T @ now
        step = np.asarray(np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -pull), np.float64)
        new = weighed(step)
        if new @ new >= now @ now:
            damping *= 10.0
            if damping > 1e9:
                break
            continue
        gained, damping = (now @ now - new @ new) / (now @ now), damping / 10.0
        camera, board, now = camera @ exponential(step[:6]), board @ exponential(step[6:]), new
        if gained < ENOUGH:
            break
    return camera, board, np.concatenate(residuals(np.zeros(12)))


def _off(view: View, outer: Floats, camera: Floats, board: Floats, lens: Lens) -> Floats:
    """(2 n,) px: where the board's corners should be in the picture, less where they are."""
    there = inverse(outer @ camera) @ board
    points = view.corners.points @ there[:3, :3].T + there[:3, 3]
    points[:, 2] = np.maximum(points[:, 2], 1e-3)  # what a bad start puts behind the camera
    return np.asarray((lens.project(points) - view.corners.pixels).ravel())


def _whitener(view: View, outer: Floats, camera: Floats, board: Floats, lens: Lens) -> Floats:
    """(2 n, 2 n): takes residuals to ones that are independent, of variance one."""
    slope = _slope(lambda step: _off(view, outer @ exponential(step), camera, board, lens), 6)
    arm = np.array([ARM_M] * 3 + [ARM_RAD] * 3)
    covariance = PIXEL**2 * np.eye(len(slope)) + (slope * arm**2) @ slope.T
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)))


def _slope(residuals: Callable[[Floats], Floats], size: int) -> Floats:
    """(n, size) by central differences about zero: a micrometre, a microradian."""
    out = []
    for k in range(size):
        step = np.zeros(size)
        step[k] = 1e-6
        out.append((residuals(step) - residuals(-step)) / 2e-6)
    return np.stack(out, axis=1)


# --- the file ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mount:
    """What the file says."""

    mounting: Mounting
    parent_frame: str
    camera: Floats
    camera_name: str = ""


def save(found: HandEye, path: Path, camera_name: str = "") -> None:
    save_mount(Mount(found.mounting, found.parent_frame, found.camera, camera_name), path, found.remarks())


def save_mount(mount: Mount, path: Path, remarks: tuple[str, ...]) -> None:
    content = {
        "camera_name": mount.camera_name,
        "mounting": mount.mounting,
        "parent_frame": mount.parent_frame,
        "camera": [round(float(v), 9) for v in mount.camera],
    }
    about = ("camera: its optical frame (x right, y down, z forward) in the parent frame, x y z in m and the "
             "quaternion x y z w", *remarks)  # fmt: skip
    path.write_text("".join(f"# {line}\n" for line in about) + yaml.safe_dump(content, sort_keys=False))


def load(path: Path) -> Mount:
    """Raises ConfigError for what is no such file."""
    content = read_yaml(path)
    missing = [key for key in ("mounting", "parent_frame", "camera") if key not in content]
    if missing:
        raise ConfigError(f"{path} is no hand-eye calibration: it lacks {', '.join(missing)}")
    if content["mounting"] not in get_args(Mounting):
        raise ConfigError(f"{path}: {unknown('mounting', str(content['mounting']), get_args(Mounting))}")
    try:
        camera = transforms.checked_pose(content["camera"], f"{path}: camera")
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{path}: camera must be 7 numbers") from None
    return Mount(content["mounting"], str(content["parent_frame"]), camera, str(content.get("camera_name", "")))
