"""Action clients."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from real.ros.action_server import GoalStatus
from real.ros.future import Future
from real.ros.messages import Action, interface, message_class, service_class
from real.ros.qos import LATCHED

if TYPE_CHECKING:
    from real.ros.node import Node

STATUSES = frozenset(GoalStatus)


class ClientGoalHandle:
    """A goal that has been sent, when the server has answered."""

    def __init__(self, client: ActionClient, goal_id: Any, response: Any):
        self._client, self.goal_id = client, goal_id
        self.accepted, self.stamp = response.accepted, response.stamp
        self.status = GoalStatus.UNKNOWN

    def get_result_async(self) -> Future:
        """Of a response with `status` and `result`."""
        return self._client.get_result_async(self)

    def cancel_goal_async(self) -> Future:
        """Of a response with `return_code` and `goals_canceling`."""
        return self._client.cancel_goal_async(self)


class ActionClient:
    def __init__(self, node: Node, action_type: type[Action], action_name: str):
        self.node = node
        kind, base = action_type.TYPE, f"{action_name}/_action"
        self._goal_type, self._result_type = service_class(f"{kind}_SendGoal"), service_class(f"{kind}_GetResult")
        self._cancel_type = interface("action_msgs/srv/CancelGoal")
        self._send = node.create_client(self._goal_type, f"{base}/send_goal")
        self._result = node.create_client(self._result_type, f"{base}/get_result")
        self._cancel = node.create_client(self._cancel_type, f"{base}/cancel_goal")
        statuses = interface("action_msgs/msg/GoalStatusArray")
        self._heard = [
            node.create_subscription(message_class(f"{kind}_FeedbackMessage"), f"{base}/feedback", self._feedback, 10),
            node.create_subscription(statuses, f"{base}/status", self._statuses, LATCHED),
        ]
        self._callbacks: dict[bytes, Callable[[Any], object]] = {}
        self._goals: dict[bytes, ClientGoalHandle] = {}

    @property
    def malformed(self) -> int:
        services = sum(client.malformed for client in (self._send, self._result, self._cancel))
        return services + sum(subscription.malformed for subscription in self._heard)

    def server_is_ready(self) -> bool:
        services = all(client.service_is_ready() for client in (self._send, self._result, self._cancel))
        return services and all(subscription.get_publisher_count() for subscription in self._heard)

    def wait_for_server(self, timeout_sec: float | None = None) -> bool:
        end = time.monotonic() + timeout_sec if timeout_sec is not None else float("inf")
        while not self.server_is_ready():
            if time.monotonic() >= end or self.node.context.stopping.is_set():
                return False
            time.sleep(0.01)
        return True

    def send_goal_async(self, goal: Any, feedback_callback: Callable[[Any], object] | None = None) -> Future:
        """Of a ClientGoalHandle; `accepted` says whether the server took it. The callback gets `.feedback`."""
        goal_id, future = interface("unique_identifier_msgs/msg/UUID")(uuid=os.urandom(16)), Future()
        if feedback_callback is not None:
            self._callbacks[goal_id.uuid] = feedback_callback
        sent = self._send.call_async(self._goal_type.Request(goal_id=goal_id, goal=goal))
        sent.add_done_callback(lambda answered: self._answered(goal_id, answered, future))
        return future

    def _answered(self, goal_id: Any, answered: Future, future: Future) -> None:
        handle = ClientGoalHandle(self, goal_id, answered.result())
        if handle.accepted:
            self._goals[goal_id.uuid] = handle
        else:
            self._callbacks.pop(goal_id.uuid, None)
        future.set_result(handle)

    def get_result_async(self, handle: ClientGoalHandle) -> Future:
        future = self._result.call_async(self._result_type.Request(goal_id=handle.goal_id))
        future.add_done_callback(lambda done: self._ended(handle, done))
        return future

    def _ended(self, handle: ClientGoalHandle, done: Future) -> None:
        if done.result() is not None and done.result().status in STATUSES:
            handle.status = GoalStatus(done.result().status)
        self._callbacks.pop(handle.goal_id.uuid, None)
        self._goals.pop(handle.goal_id.uuid, None)

    def cancel_goal_async(self, handle: ClientGoalHandle) -> Future:
        info = interface("action_msgs/msg/GoalInfo")(goal_id=handle.goal_id)
        return self._cancel.call_async(self._cancel_type.Request(goal_info=info))

    def _feedback(self, message: Any) -> None:
        if (callback := self._callbacks.get(bytes(message.goal_id.uuid))) is not None:
            callback(message)

    def _statuses(self, message: Any) -> None:
        for status in message.status_list:
            handle = self._goals.get(bytes(status.goal_info.goal_id.uuid))
            if handle is not None and status.status in STATUSES:
                handle.status = GoalStatus(status.status)

    def destroy(self) -> None:
        for part in (self._send, self._result, self._cancel, *self._heard):
            self.node._destroy(part)
