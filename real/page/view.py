"""What is shown of the robot: who is in control, in words, and the arm as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robolearn.paths import resolve
from robolearn.spec import RobotSpec
from robolearn.urdf import MOVABLE, Tree, pose_of_frame, read_joints

Floats = NDArray[np.float64]


class Who(NamedTuple):
    kind: str
    """policy, person, nobody, paused, stopped, fault or silent: the colour of the banner."""
    title: str
    detail: str


def who(guard: str, owner: str, reason: str, people: Sequence[str], hand: str, paused: bool) -> Who:
    """Who is in control, of the guard's state and owner (`guard` is empty where there is none), and its `reason`;
    `hand` is the device or page of the person who is."""
    if not guard:
        return Who("silent", "NO GUARD", "nothing is heard of the guard: nothing here has any effect")
    if guard == "fault":
        return Who("fault", "EMERGENCY STOP", f"{reason or 'fault'}; clear it to go on")
    if owner in people:
        return Who("person", "A PERSON IS IN CONTROL", f"{owner}{f': {hand}' if hand else ''}{_held(guard)}")
    if owner:
        return Who("policy", "THE POLICY IS IN CONTROL", f"{owner}{_held(guard)}")
    if guard == "stopped":
        return Who("stopped", "STOPPED", reason or "nobody is in control")
    if paused:
        return Who("paused", "PAUSED", "the policy may not go on before it is resumed")
    return Who("nobody", "NOBODY IS IN CONTROL", reason or "the robot stands")


def _held(guard: str) -> str:
    return "" if guard == "active" else f" ({guard})"


class Skeleton:
    """The arm as a line through its joints to the tool, and a line for each finger."""

    def __init__(self, robot: RobotSpec):
        self.tree = Tree(robot.urdf, robot.joint_names, {}, np.zeros(1))
        self._tool = self.tree.place(robot.ee_link)
        joints = {j.name: j for j in read_joints(resolve(robot.urdf))[1] if j.kind in MOVABLE}
        self._arm = [self.tree.place(joints[n].child)[0] for n in robot.arm_joints]
        self._fingers = [self.tree.place(joints[n].child)[0] for n in robot.gripper_joints]

    def tool(self, joint_pos: Floats) -> Floats:
        """(7,) m and quaternion xyzw in the base's frame, of all joints (J,)."""
        return pose_of_frame(self._frame_of_tool(self.tree.frames(joint_pos[None])[:, 0]))

    def _frame_of_tool(self, frames: Floats) -> Floats:
        frame: Floats = frames[self._tool[0]] @ self._tool[1]
        return frame

    def lines(self, joint_pos: Floats) -> list[list[list[float]]]:
        """Each a list of points (3,), m in the base's frame, of all joints (J,)."""
        frames = self.tree.frames(joint_pos[None])[:, 0]
        tool = self._frame_of_tool(frames)[:3, 3]
        roots = [frames[k][:3, 3] for k in self._fingers]
        wrist = np.mean(roots, axis=0) if roots else tool
        arm = [np.zeros(3), *(frames[k][:3, 3] for k in self._arm), wrist]
        fingers = [[wrist, root, root + tool - wrist] for root in roots]
        return [[np.round(point, 4).tolist() for point in line] for line in (arm, *fingers)]
