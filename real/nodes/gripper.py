"""The guard's end of a gripper's action."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from real import ros
from real.connection import JointState
from real.robots.base import Gripper
from robolearn.spec import RobotSpec

STEP = 0.05
"""Of the range: what is wanted is sent if it has moved by so much, or to an end."""
NO_END = 1e-3
SUCCEEDED = 4


def goal_of(gripper: Gripper, kind: Any, position: float) -> Any:
    """The goal that asks for `position` (rad, m) of the first joint, at no more than the profile's effort."""
    goal = kind.Goal()
    if gripper.type.endswith("/ParallelGripperCommand"):
        joint = gripper.joint_names[:1]
        goal.command = JointState(name=list(joint), position=[position], effort=[gripper.max_effort_n])
    else:
        goal.command.position, goal.command.max_effort = position, gripper.max_effort_n
    return goal


def position_of(gripper: Gripper, goal: Any) -> float:
    """What a goal asks of the first joint; NaN if it says nothing."""
    if gripper.type.endswith("/ParallelGripperCommand"):
        return float(goal.command.position[0]) if len(goal.command.position) == 1 else math.nan
    return float(goal.command.position)


class GripperClient:
    """Sends what is wanted, one goal at a time: a newer one waits until the last has ended, which it is asked to."""

    def __init__(self, node: Any, gripper: Gripper, robot: RobotSpec):
        self._node, self._gripper = node, gripper
        self._kind = ros.interface(gripper.type)
        self._client = ros.ActionClient(node, self._kind, gripper.action)
        first = robot.gripper_joints[:1]
        self.low, self.high = *robot.of("lower", first), *robot.of("upper", first)
        self._wanted = self._sent = math.nan
        self._busy, self._handle = False, None
        self._goal: Any = None  # whose answers are waited for
        self.counts = {"goals": 0, "failed": 0, "refused": 0}

    def ready(self) -> bool:
        return bool(self._client.server_is_ready())

    def move(self, position: float) -> None:
        """To `position` (rad, m), cut off at the ends."""
        self._wanted = min(max(position, self.low), self.high)
        self._go()

    def stay(self) -> None:
        """Nothing is wanted any more: what was sent goes on, for what is held must not fall."""
        self._wanted = self._sent

    def forget(self) -> None:
        """A driver that was lost never answers: what is waited for is not, and the next goal is the first."""
        self._wanted = self._sent = math.nan
        self._busy, self._handle, self._goal = False, None, None

    def _go(self) -> None:
        if not self._is_new():
            return
        if not self._busy:
            self._send()
        elif self._handle is not None:
            handle, self._handle = self._handle, None  # asked once
            handle.cancel_goal_async()

    def _is_new(self) -> bool:
        """Whether what is wanted is worth a goal."""
        if math.isnan(self._wanted):
            return False
        span, change = self.high - self.low, abs(self._wanted - self._sent)
        if self._wanted in (self.low, self.high):
            return not change <= NO_END * span
        return not change < STEP * span  # the first time it is NaN

    def _send(self) -> None:
        self._sent, self._busy = self._wanted, True
        self.counts["goals"] += 1
        goal = self._goal = goal_of(self._gripper, self._kind, self._sent)
        self._client.send_goal_async(goal).add_done_callback(partial(self._on_answer, goal))

    def _on_answer(self, goal: Any, future: Any) -> None:
        handle = future.result()
        if goal is not self._goal:
            return
        if handle is None or not handle.accepted:
            self.counts["refused"] += 1
            self._node.get_logger().warning(f"{self._gripper.action} refused {self._sent:.4g}")
            self._end()
            return
        self._handle = handle
        handle.get_result_async().add_done_callback(partial(self._on_result, goal))
        self._go()

    def _on_result(self, goal: Any, future: Any) -> None:
        answer = future.result()
        if goal is not self._goal:
            return
        newer = self._handle is None  # it was asked to end
        if not newer and (answer is None or answer.status != SUCCEEDED):
            self.counts["failed"] += 1
            self._node.get_logger().warning(f"{self._gripper.action} did not reach {self._sent:.4g}")
        self._end()

    def _end(self) -> None:
        self._busy, self._handle = False, None
        self._go()
