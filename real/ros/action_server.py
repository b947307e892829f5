"""Action servers: what a simulated gripper needs of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from real.ros.future import Future, run
from real.ros.messages import Action, interface, message_class, service_class
from real.ros.qos import LATCHED
from real.ros.timers import Timer

if TYPE_CHECKING:
    from real.ros.node import Node

FINISHED = 100  # goals whose results are kept


class GoalResponse(IntEnum):
    REJECT, ACCEPT = 1, 2


class CancelResponse(IntEnum):
    REJECT, ACCEPT = 1, 2


class GoalStatus(IntEnum):
    UNKNOWN, ACCEPTED, EXECUTING, CANCELING, SUCCEEDED, CANCELED, ABORTED = range(7)


class _Cancel(IntEnum):
    NONE, REJECTED, UNKNOWN_GOAL, TERMINATED = range(4)


class ServerGoalHandle:
    """What `execute_callback` works with."""

    def __init__(self, server: ActionServer, goal_id: Any, request: Any):
        self._server, self.request = server, request
        self.info = interface("action_msgs/msg/GoalInfo")(goal_id=goal_id, stamp=server.node.get_clock().now().to_msg())
        self.status = GoalStatus.ACCEPTED
        self.done = Future()

    @property
    def goal_id(self) -> Any:
        return self.info.goal_id

    @property
    def is_active(self) -> bool:
        return self.status < GoalStatus.SUCCEEDED

    @property
    def is_cancel_requested(self) -> bool:
        return self.status == GoalStatus.CANCELING

    def publish_feedback(self, feedback: Any) -> None:
        self._server.publish_feedback(self, feedback)

    def succeed(self) -> None:
        self._end(GoalStatus.SUCCEEDED)

    def abort(self) -> None:
        self._end(GoalStatus.ABORTED)

    def canceled(self) -> None:
        self._end(GoalStatus.CANCELED)

    def _end(self, status: GoalStatus) -> None:
        if not self.is_active:
            raise RuntimeError(f"the goal has ended already: {self.status.name}")
        self._server.change(self, status)


class ActionServer:
    """`execute_callback(goal_handle)` returns the result; a coroutine may await futures meanwhile."""

    def __init__(
        self,
        node: Node,
        action_type: type[Action],
        action_name: str,
        execute_callback: Callable[[ServerGoalHandle], Any],
        *,
        goal_callback: Callable[[Any], GoalResponse] = lambda goal: GoalResponse.ACCEPT,
        cancel_callback: Callable[[ServerGoalHandle], CancelResponse] = lambda handle: CancelResponse.REJECT,
    ):
        self.node, self._type = node, action_type
        self._execute, self._wanted, self._cancelled = execute_callback, goal_callback, cancel_callback
        self._goals: dict[bytes, ServerGoalHandle] = {}
        kind, base = action_type.TYPE, f"{action_name}/_action"
        self._feedback = message_class(f"{kind}_FeedbackMessage")
        self._parts = [
            node.create_service(service_class(f"{kind}_SendGoal"), f"{base}/send_goal", self._send_goal),
            node.create_service(service_class(f"{kind}_GetResult"), f"{base}/get_result", self._get_result),
            node.create_service(interface("action_msgs/srv/CancelGoal"), f"{base}/cancel_goal", self._cancel_goal),
        ]
        self._feedback_publisher = node.create_publisher(self._feedback, f"{base}/feedback", 10)
        statuses = interface("action_msgs/msg/GoalStatusArray")
        self._status_publisher = node.create_publisher(statuses, f"{base}/status", LATCHED)

    @property
    def malformed(self) -> int:
        return sum(part.malformed for part in self._parts)

    def destroy(self) -> None:
        for part in (*self._parts, self._feedback_publisher, self._status_publisher):
            self.node._destroy(part)

    def publish_feedback(self, handle: ServerGoalHandle, feedback: Any) -> None:
        self._feedback_publisher.publish(self._feedback(goal_id=handle.goal_id, feedback=feedback))

    def change(self, handle: ServerGoalHandle, status: GoalStatus) -> None:
        """Of a goal's status, announced to all clients."""
        handle.status = status
        of_one = interface("action_msgs/msg/GoalStatus")
        known = [of_one(goal_info=h.info, status=int(h.status)) for h in self._goals.values()]
        self._status_publisher.publish(interface("action_msgs/msg/GoalStatusArray")(status_list=known))

    def _send_goal(self, request: Any, response: Any) -> Any:
        key = bytes(request.goal_id.uuid)
        response.stamp = self.node.get_clock().now().to_msg()
        response.accepted = key not in self._goals and self._wanted(request.goal) == GoalResponse.ACCEPT
        if response.accepted:
            handle = self._goals[key] = ServerGoalHandle(self, request.goal_id, request.goal)
            self.change(handle, GoalStatus.ACCEPTED)
            timer = self.node.create_timer(0.0, lambda: self._start(handle, timer))  # after the answer
        return response

    def _start(self, handle: ServerGoalHandle, timer: Timer) -> None:
        self.node.destroy_timer(timer)
        if handle.status == GoalStatus.ACCEPTED:  # not yet asked to be cancelled
            self.change(handle, GoalStatus.EXECUTING)
        result = self._execute(handle)
        if inspect.iscoroutine(result):
            run(result, lambda value: self._finish(handle, value))
        else:
            self._finish(handle, result)

    def _finish(self, handle: ServerGoalHandle, result: Any) -> None:
        if handle.is_active:
            self.node.get_logger().warning("a goal's callback did not say how it ended: aborted")
            handle.abort()
        empty = self._type.Result()
        response = service_class(f"{self._type.TYPE}_GetResult").Response
        handle.done.set_result(response(status=int(handle.status), result=result if result is not None else empty))
        ended = [key for key, h in self._goals.items() if h.done.done()]
        for key in ended[:-FINISHED]:
            del self._goals[key]

    def _get_result(self, request: Any, response: Any) -> Any:
        handle = self._goals.get(bytes(request.goal_id.uuid))
        return handle.done if handle is not None else response  # status unknown

    def _cancel_goal(self, request: Any, response: Any) -> Any:
        chosen = self._chosen(request.goal_info)
        accepted = [h for h in chosen if h.is_active and self._cancelled(h) == CancelResponse.ACCEPT]
        for handle in accepted:
            self.change(handle, GoalStatus.CANCELING)
        response.goals_canceling = [h.info for h in accepted]
        response.return_code = int(
            _Cancel.NONE if accepted
            else _Cancel.UNKNOWN_GOAL if not chosen
            else _Cancel.REJECTED if any(h.is_active for h in chosen)
            else _Cancel.TERMINATED
        )  # fmt: skip
        return response

    def _chosen(self, info: Any) -> list[ServerGoalHandle]:
        """The goal with the id; those accepted up to the stamp; without both, all that are active."""
        key, stamp = bytes(info.goal_id.uuid), (info.stamp.sec, info.stamp.nanosec)
        if not any(key) and stamp == (0, 0):
            return [h for h in self._goals.values() if h.is_active]
        return [
            h for k, h in self._goals.items() if k == key or (h.info.stamp.sec, h.info.stamp.nanosec) <= stamp
        ]  # fmt: skip
