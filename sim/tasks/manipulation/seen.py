"""What the tasks with objects observe: joints and poses, or joints and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robolearn.errors import ConfigError, unknown
from robolearn.observation import START
from robolearn.spec import Field, ObservationSpec, RobotSpec, TermSpec
from sim.scene import CameraCfg
from sim.task import TaskCfg
from sim.tasks.manipulation.franka import FrankaCfg

CAMERAS = {
    "front": CameraCfg((1.05, 0.0, 0.45), (0.45, 0.0, 0.08), fov_deg=42.0),
    "wrist": CameraCfg((0.11, 0.0, 0.05), (0.0, 0.0, 0.165), fov_deg=54.0, link="robot/panda_hand"),
}
"""84 x 84 pixels each. The wrist's looks at the fingertips from so far aside that a hole is seen before the peg in the
hand covers it."""


@dataclass(frozen=True)
class Seen:
    """An object's pose: in the end effector's frame, or in that of the object `frame`."""

    name: str
    frame: str = ""
    rotation: bool = False
    held: bool = False
    """In the hand all the time: seen from where that is, though other things be seen from its set-points."""

    def terms(self, asked: bool = False) -> list[TermSpec]:
        """`asked`: from where the set-points would have the end effector."""
        into = f"in_{self.frame}" if self.frame else "ee"
        kind = "in" if self.frame else "ee"
        params: dict[str, Any] = {"name": self.name} | ({"frame": self.frame} if self.frame else {})
        params |= {"asked": True} if asked and not (self.frame or self.held) else {}
        position = Field(f"{self.name}_position_{into}", (3,), "m", self.frame or "ee")
        found = [TermSpec(position, f"object_position_{kind}", params)]
        if self.rotation:
            turn = Field(f"{self.name}_rotation_{into}", (6,), "", self.frame or "ee")
            found.append(TermSpec(turn, f"object_rotation_6d_{kind}", params))
        return found


def own_terms(robot: RobotSpec) -> tuple[TermSpec, ...]:
    """Of the robot, as its hand sees it (`task.relative`): the same whichever way the base faces."""
    fingers = [robot.joint_names.index(n) for n in robot.gripper_joints]
    rest = list(robot.of("default_joint_pos", robot.gripper_joints))
    return (
        TermSpec(Field("joint_pos", (len(fingers),), "m", "joint"), "joint_pos", {"joints": fingers, "offset": rest}),
        TermSpec(Field("ee_pose", (9,), "m", "start"), "ee_pose_relative", {"command": START}),
        TermSpec(Field("ee_velocity", (6,), "m/s, rad/s", "ee"), "ee_velocity_ee"),
    )


def policy_terms(cfg: FrankaCfg, robot: RobotSpec, objects: Sequence[Seen], shown: Sequence[str]) -> ObservationSpec:
    """The group `policy`: joints, set-points and end effector; then the poses of objects, or with cameras `shown`
    their pictures, and the poses as a group `privileged` for critics."""
    joints, rest = list(range(robot.dof)), list(robot.default_joint_pos)
    error = Field("joint_target_error", (robot.dof,), "rad, m", "joint")
    behind = (TermSpec(error, "joint_target_error", {"joints": joints}),) if cfg.own_commands else ()
    own: tuple[TermSpec, ...] = (
        TermSpec(Field("joint_pos", (robot.dof,), "rad, m", "joint"), "joint_pos", {"joints": joints, "offset": rest}),
        *behind,
        TermSpec(Field("ee_position", (3,), "m", "base"), "ee_position"),
        TermSpec(Field("ee_rotation", (6,), "", "base"), "ee_rotation_6d"),
    )
    own = (*own_terms(robot), *behind) if cfg.relative else own
    poses = tuple(term for seen in objects for term in seen.terms(asked=not cfg.own_commands))
    if not shown:
        return ObservationSpec({"policy": own + poses})
    return ObservationSpec({"policy": own + pictures(shown), "privileged": poses})


def pictures(shown: Sequence[str]) -> tuple[TermSpec, ...]:
    """Of the cameras by name."""
    return tuple(
        TermSpec(Field(n, (c.height, c.width, 3), kind="image", dtype="uint8"), "image", {"camera": n})
        for n, c in cameras(shown).items()
    )


def forget_noise_of_unseen(cfg: TaskCfg, objects: Sequence[Seen], shown: Sequence[str]) -> None:
    """With cameras `shown` no pose is sensed: the noise of poses, which a task has by default, goes from its
    configuration."""
    poses = {term.field.name for seen in objects for term in seen.terms()} if shown else set()
    noise = cfg.randomize.observation_noise
    cfg.randomize.observation_noise = {name: std for name, std in noise.items() if name not in poses}


def cameras(shown: Sequence[str]) -> dict[str, CameraCfg]:
    """The task's cameras by name. ConfigError for one that there is not."""
    for name in shown:
        if name not in CAMERAS:
            raise ConfigError("task.cameras: " + unknown("camera", name, list(CAMERAS)))
    return {name: CAMERAS[name] for name in shown}


def film() -> CameraCfg:
    """For people."""
    return CameraCfg((1.25, -0.8, 0.6), (0.32, 0.0, 0.25), fov_deg=38.0, width=320, height=240)
