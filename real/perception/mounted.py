"""Where a camera was when it took a picture: fixed beside the robot, or carried by the hand, whose way is
remembered."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch

from real.perception.hand_eye import Mount
from real.perception.transforms import Floats, inverse, matrix
from robolearn.errors import ConfigError
from robolearn.kinematics import Chain
from robolearn.spec import RobotSpec

KEPT_S = 1.0
GAP_S = 0.1
"""Between two joint states: the way between those further apart is not known."""
AHEAD_S = 0.02
"""A picture may be so much newer than the newest joint state."""


class Mounted:
    """The camera in the robot's base frame."""

    def __init__(self, mount: Mount, robot: RobotSpec, base_frame: str, tool_frame: str, world_frame: str = "",
                 base_in_world: Floats | None = None):  # fmt: skip
        """Raises ConfigError for a mount in another frame than these."""
        frames = {"base": [base_frame, *([world_frame] if world_frame else [])], "hand": [tool_frame]}[mount.mounting]
        if mount.parent_frame not in frames:
            raise ConfigError(f"the hand-eye calibration is in the frame {mount.parent_frame}; a camera on the "
                              f"{mount.mounting} needs it in {' or '.join(frames)}")  # fmt: skip
        self._camera = matrix(mount.camera)
        if mount.mounting == "base" and mount.parent_frame != base_frame and base_in_world is not None:
            self._camera = inverse(matrix(base_in_world)) @ self._camera
        self._chain = Chain(robot.urdf, robot.ee_link, robot.joint_names) if mount.mounting == "hand" else None
        self._way: deque[tuple[float, Floats]] = deque()

    @property
    def moves(self) -> bool:
        return self._chain is not None

    def add(self, stamp_s: float, joints: Floats) -> None:
        """Where the robot's joints (J,) were. Stamps that go back begin a new way."""
        if self._way and stamp_s <= self._way[-1][0]:
            self._way.clear()
        self._way.append((stamp_s, joints))
        while stamp_s - self._way[0][0] > KEPT_S:
            self._way.popleft()

    def at(self, stamp_s: float) -> Floats | None:
        """(4, 4) of the camera in the base frame; None if the joints of that moment are not known."""
        if self._chain is None:
            return self._camera
        joints = self._joints(stamp_s)
        if joints is None:
            return None
        tool = self._chain.pose(torch.tensor(joints, dtype=torch.float32)[None])[0].double().numpy()
        return matrix(tool) @ self._camera

    def _joints(self, stamp_s: float) -> Floats | None:
        after = next((k for k, (then, _) in enumerate(self._way) if then >= stamp_s), len(self._way))
        if after == len(self._way):
            return self._way[-1][1] if self._way and stamp_s - self._way[-1][0] <= AHEAD_S else None
        then, joints = self._way[after]
        if then == stamp_s:
            return joints
        if after == 0 or then - self._way[after - 1][0] > GAP_S:
            return None
        before, there = self._way[after - 1]
        share = (stamp_s - before) / (then - before)
        return np.asarray(there + share * (joints - there))
