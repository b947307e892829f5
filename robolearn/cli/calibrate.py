"""Calibrate a camera: its lens, and where it is mounted on or beside a robot.

usage: robolearn calibrate board out=board.pdf [columns=8] [rows=6] [square_m=0.03] [marker_m=0.022]
       robolearn calibrate collect camera=NAME out=FOLDER [robot=NAME] [site=FILE]
       robolearn calibrate intrinsics images=FOLDER out=camera.yaml
       robolearn calibrate hand_eye images=FOLDER calibration=camera.yaml robot=NAME mounting=hand|base out=mount.yaml
       robolearn calibrate simulated scene=TASK robot=NAME out=FOLDER

`board` draws a ChArUco board to print at 100 %; measure a square afterwards, and give its true edge with square_m= to
the others. `collect` listens to a camera node and keeps pictures in which the board stands still and lies elsewhere
than before; with robot=, each with the pose of the tool. `intrinsics` writes a file in ROS's camera_info format.
`hand_eye` finds the camera in the hand (mounting=hand: the board lies still) or beside the robot (mounting=base: the
hand holds the board), from pictures and FOLDER/poses.csv (image, x, y, z, qx, qy, qz, qw: the tool in the base frame,
m). `simulated` writes both files for the camera of a simulated scene, which knows them.

What determines no camera is refused, with what to do about it. docs/cameras.md goes from the printer to a policy that
sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _options
from robolearn.cli._options import MISSING, option
from robolearn.errors import ConfigError, unknown

if TYPE_CHECKING:
    from real.perception.board import Board
    from real.robots.base import ArmProfile

POSES = "poses.csv"
COLUMNS = ("image", "x", "y", "z", "qx", "qy", "qz", "qw")
MOUNTINGS = ("hand", "base")


@dataclass
class BoardCfg:
    columns: int = option(8, "squares across")
    rows: int = option(6, "squares down")
    square_m: float = option(0.03, "edge of a square as printed")
    marker_m: float = option(0.022, "edge of a marker as drawn for that square")

    def board(self) -> Board:
        from real.perception.board import Board

        return Board(self.columns, self.rows, self.square_m, self.marker_m)


@dataclass
class DrawCfg(BoardCfg):
    out: str = option(MISSING, ".pdf or .png to write")


@dataclass
class CollectCfg(BoardCfg):
    out: str = option(MISSING, "folder for the pictures, made if it is not there")
    camera: str = option("camera", "name of the camera node's camera")
    count: int = option(25, "pictures to take")
    robot: str = option("", "profile of the robot whose tool poses are kept too")
    site: str = option("", "the robot's site file, if it has one")
    namespace: str = option("", "of the robot and the camera")
    timeout_s: float = option(600.0, "to wait at most")


@dataclass
class IntrinsicsCfg(BoardCfg):
    images: str = option(MISSING, "folder of pictures of the board")
    out: str = option(MISSING, "YAML file to write")
    name: str = option("camera", "of the camera, for the file")


@dataclass
class HandEyeCfg(BoardCfg):
    images: str = option(MISSING, "folder of pictures of the board")
    poses: str = option("", "CSV of the tool's poses; IMAGES/poses.csv if not given")
    calibration: str = option(MISSING, "the camera's intrinsics")
    robot: str = option(MISSING, "profile of the robot: it names the frames")
    mounting: str = option("hand", "where the camera is", MOUNTINGS)
    out: str = option(MISSING, "YAML file to write")


@dataclass
class SimulatedCfg:
    scene: str = option(MISSING, "task whose scene the camera is in; robolearn list tasks")
    robot: str = option("franka", "profile of the scene's robot")
    view: str = option("view", "camera of the scene")
    eye_m: tuple[float, float, float] = option((0.0, 0.0, 0.0), "in place of `view`: where it is, in the base frame")
    target_m: tuple[float, float, float] = option((0.0, 0.0, 0.0), "what it looks at")
    fov_deg: float = option(45.0, "its vertical angle")
    width: int = option(640, "of the pictures")
    height: int = option(480, "of the pictures")
    name: str = option("camera", "of the camera, for the files")
    out: str = option(".", "folder to write NAME.yaml and NAME_mount.yaml into")


def help_text() -> str:
    parts = (f"options of {name}:\n{_options.describe(cls)}" for name, (cls, _) in KINDS.items())
    return f"{__doc__}\n" + "\n\n".join(parts)


def main(argv: list[str]) -> int:
    words = [word for word in argv if "=" not in word]
    if len(words) != 1:
        raise ConfigError(f"calibrate what? {', '.join(KINDS)}")
    if words[0] not in KINDS:
        raise ConfigError(unknown("calibration", words[0], list(KINDS)))
    cls, command = KINDS[words[0]]
    options: Any = config.parse(cls, [word for word in argv if "=" in word])
    _options.check_choices(options)
    return command(options)


# --- the commands ------------------------------------------------------------------------------------------


def _board(options: DrawCfg) -> int:
    from real.perception import board

    made = options.board()
    board.save(made, Path(options.out))
    square, across, down = (1e3 * edge for edge in (made.square_m, *made.size_m))
    print(f"{options.out}: {made.columns} x {made.rows} squares of {square:g} mm, {across:g} x {down:g} mm")
    print("print it at 100 % on one sheet, glue it on something flat, and measure a square")
    return 0


def _collect(options: CollectCfg) -> int:
    from robolearn.cli import _calibrate_collect

    return _calibrate_collect.collect(options)


def _intrinsics(options: IntrinsicsCfg) -> int:
    from real.perception import intrinsics, lens
    from real.perception.sources import images_in, read_image

    board, views, size = options.board(), [], (0, 0)
    paths = images_in(_folder(options.images))
    for path in paths:
        picture = read_image(path)
        wide, high = picture.shape[1], picture.shape[0]
        size = size if any(size) else (wide, high)
        if (wide, high) != size:
            raise ConfigError(f"{path} is {wide} x {high}, the others are {size[0]} x {size[1]}: a calibration is of "
                              "one size")  # fmt: skip
        corners = board.find(picture)
        if corners is not None:
            views.append(corners)
    print(f"the board was found in {len(views)} of {len(paths)} pictures")
    found = intrinsics.calibrate(views, size, options.name)
    lens.save(found.lens, Path(options.out), found.remarks())
    print("\n".join(found.remarks()))
    print(options.out)
    return 0


def _hand_eye(options: HandEyeCfg) -> int:
    from real.perception import hand_eye, lens
    from real.perception.sources import read_image

    profile, known = profile_of(options.robot), lens.load(Path(options.calibration))
    folder, board, views = _folder(options.images), options.board(), []
    poses = read_poses(Path(options.poses) if options.poses else folder / POSES)
    for name, tool in poses.items():
        picture = read_image(folder / name)
        if picture.shape[:2] != (known.height, known.width):
            raise ConfigError(f"{folder / name} is {picture.shape[1]} x {picture.shape[0]}, the calibration is of "
                              f"{known.width} x {known.height}")  # fmt: skip
        corners = board.find(picture)
        if corners is not None:
            views.append(hand_eye.View(tool, corners))
    print(f"the board was found in {len(views)} of {len(poses)} pictures")
    parent = profile.tool_frame if options.mounting == "hand" else profile.base_frame
    found = hand_eye.calibrate(views, known, "hand" if options.mounting == "hand" else "base", parent)
    hand_eye.save(found, Path(options.out), known.name)
    print("\n".join(found.remarks()))
    print(f"camera in {parent}: {' '.join(f'{v:.5f}' for v in found.camera)}")
    print(options.out)
    return 0


def _simulated(options: SimulatedCfg) -> int:
    import dataclasses

    from real.nodes.camera_scene import Studio, camera_at, camera_of, lens_of
    from real.perception import hand_eye, lens

    profile = profile_of(options.robot)
    own = camera_at(options.eye_m, options.target_m, options.fov_deg, "")
    view = camera_of(options.scene, options.view) if options.eye_m == options.target_m else own
    camera = dataclasses.replace(view, width=options.width, height=options.height)
    if camera.link is not None:
        raise ConfigError(f"camera {options.view} is on a link of the robot; calibrate it as a real one (collect)")
    folder = _folder(options.out)
    studio = Studio(config.entry("robot", profile.robot).value, options.scene, camera)
    mount = hand_eye.Mount("base", profile.base_frame, studio.optical_frame(), options.name)
    studio.close()
    lens.save(lens_of(camera, options.name), folder / f"{options.name}.yaml", ("of a simulated camera",))
    hand_eye.save_mount(mount, folder / f"{options.name}_mount.yaml", ("of a simulated camera",))
    print(f"{folder / f'{options.name}.yaml'}, {folder / f'{options.name}_mount.yaml'}")
    return 0


KINDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "board": (DrawCfg, _board),
    "collect": (CollectCfg, _collect),
    "intrinsics": (IntrinsicsCfg, _intrinsics),
    "hand_eye": (HandEyeCfg, _hand_eye),
    "simulated": (SimulatedCfg, _simulated),
}


# --- what they read ----------------------------------------------------------------------------------------


def profile_of(name: str) -> ArmProfile:
    """Raises ConfigError for a robot that is no arm."""
    from real.robots.base import ArmProfile

    config.discover(("robolearn.robots", "real.robots"))
    profile = config.entry("profile", name).value
    if not isinstance(profile, ArmProfile):
        raise ConfigError(f"profile {name} is not of an arm")
    return profile


def _folder(name: str) -> Path:
    if not Path(name).is_dir():
        raise ConfigError(f"the folder {name} does not exist")
    return Path(name)


def read_poses(path: Path) -> dict[str, Any]:
    """By image. Raises ConfigError with the line that is wrong."""
    import csv

    from real.perception.transforms import checked_pose

    if not path.is_file():
        raise ConfigError(f"there is no {path}: a CSV with the columns {', '.join(COLUMNS)}")
    out: dict[str, Any] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark in front
        lines = csv.reader(file, skipinitialspace=True)
        if tuple(name.strip() for name in next(lines, [])) != COLUMNS:
            raise ConfigError(f"{path}: its first line must be {','.join(COLUMNS)}")
        for number, row in enumerate(lines, 2):
            if not row:
                continue
            name, *values = row
            try:
                numbers = [float(value) for value in values]
            except ValueError:
                numbers = []
            if len(numbers) != 7:
                raise ConfigError(f"{path}, line {number}: seven numbers must follow the image")
            if name in out:
                raise ConfigError(f"{path}, line {number}: {name} has a pose already")
            out[name] = checked_pose(numbers, f"{path}, line {number}")
    return out


def write_poses(path: Path, poses: Sequence[tuple[str, Sequence[float]]]) -> None:
    lines = [",".join(COLUMNS), *(",".join([name, *(f"{v:.9g}" for v in pose)]) for name, pose in poses)]
    path.write_text("\n".join(lines) + "\n")
