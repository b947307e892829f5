"""The twin's end of a gripper's action."""

from __future__ import annotations

from typing import Any

from real import ros
from real.connection import JointState
from real.nodes.gripper import position_of
from real.nodes.twin_arm import Arm
from real.robots.base import Gripper
from robolearn.spec import RobotSpec

REACHED, STILL, HELD_S = 1e-3, 2e-3, 0.1
"""m (rad), m/s (rad/s): a gripper that stands still for so long holds something, or is at its end."""


class GripperServer:
    """A simulated gripper's end: a goal ends when it is there, or stands still before (it holds something), and a new
    one replaces the one before."""

    def __init__(self, node: Any, gripper: Gripper, robot: RobotSpec, arm: Arm):
        self._gripper, self._kind, self._arm = gripper, ros.interface(gripper.type), arm
        first = robot.gripper_joints[:1]
        self._low, self._high = *robot.of("lower", first), *robot.of("upper", first)
        self._newest: Any = None
        self._ticks: list[Any] = []
        self._still_s = 0.0
        self._server = ros.ActionServer(
            node, self._kind, gripper.action, self._execute, goal_callback=self._on_goal,
            cancel_callback=lambda handle: ros.CancelResponse.ACCEPT,
        )  # fmt: skip

    def tick(self, dt: float) -> None:
        """Once a period of the simulation."""
        self._still_s = self._still_s + dt if abs(self._arm.gripper()[1]) < STILL else 0.0
        ticks, self._ticks = self._ticks, []
        for future in ticks:
            future.set_result(None)

    def _on_goal(self, goal: Any) -> Any:
        fits = self._low - REACHED <= position_of(self._gripper, goal) <= self._high + REACHED
        return ros.GoalResponse.ACCEPT if fits else ros.GoalResponse.REJECT

    async def _execute(self, handle: Any) -> Any:
        target = position_of(self._gripper, handle.request)
        self._newest, self._still_s = handle, 0.0
        self._arm.grip(target)
        while True:
            tick = ros.Future()
            self._ticks.append(tick)
            await tick
            position, _ = self._arm.gripper()
            reached = abs(position - target) < REACHED
            if handle.is_cancel_requested:
                self._arm.grip(position)
                handle.canceled()
            elif handle is not self._newest:
                handle.abort()
            elif reached or self._still_s > HELD_S:
                handle.succeed()
            else:
                continue
            return self._result(position, reached, self._still_s > HELD_S)

    def _result(self, position: float, reached: bool, stalled: bool) -> Any:
        result = self._kind.Result(reached_goal=reached, stalled=stalled and not reached)
        if self._gripper.type.endswith("/ParallelGripperCommand"):
            result.state = JointState(name=list(self._gripper.joint_names[:1]), position=[position])
        else:
            result.position = position
        return result
