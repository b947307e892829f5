"""Actions between processes: results, feedback, refusal, cancellation."""

from pathlib import Path

import pytest

from real import ros

PEER = Path(__file__).parent / "peer.py"
SUCCEEDED, CANCELED = 4, 5
native = pytest.mark.skipif(not hasattr(ros.Node, "spin_once"), reason="looks below the API, where rclpy is")


@pytest.fixture
def count(make_node, spawn):
    """A node, a client of `fibonacci`'s action, and the action."""
    node, kind = make_node("asks"), ros.interface("example_interfaces/action/Fibonacci")
    client = ros.ActionClient(node, kind, "count")
    assert not client.wait_for_server(timeout_sec=0.05)
    spawn(PEER, "fibonacci")
    assert client.wait_for_server(timeout_sec=15.0)
    return node, client, kind


def wait(node, future):
    ros.spin_until_future_complete(node, future, timeout_sec=10.0)
    assert future.done()
    return future.result()


def test_a_goal_gives_feedback_and_a_result(count):
    node, client, kind = count
    heard = []
    handle = wait(node, client.send_goal_async(kind.Goal(order=6), lambda m: heard.append(list(m.feedback.sequence))))
    assert handle.accepted
    answer = wait(node, handle.get_result_async())
    assert (answer.status, list(answer.result.sequence)) == (SUCCEEDED, [0, 1, 1, 2, 3, 5])
    assert heard == [[0, 1, 1], [0, 1, 1, 2], [0, 1, 1, 2, 3], [0, 1, 1, 2, 3, 5]]


def test_a_goal_can_be_refused(count):
    node, client, kind = count
    assert not wait(node, client.send_goal_async(kind.Goal(order=-1))).accepted


def test_a_goal_can_be_cancelled(count):
    node, client, kind = count
    handle = wait(node, client.send_goal_async(kind.Goal(order=45)))
    cancelled = wait(node, handle.cancel_goal_async())
    assert [bytes(info.goal_id.uuid) for info in cancelled.goals_canceling] == [bytes(handle.goal_id.uuid)]
    answer = wait(node, handle.get_result_async())
    assert answer.status == CANCELED and 2 <= len(answer.result.sequence) < 45
    again = wait(node, handle.cancel_goal_async())
    assert again.return_code == 3 and again.goals_canceling == []  # it has ended


def test_two_goals_run_beside_each_other(count):
    node, client, kind = count
    handles = [wait(node, client.send_goal_async(kind.Goal(order=k))) for k in (8, 4)]
    answers = [wait(node, h.get_result_async()) for h in handles]
    assert [len(a.result.sequence) for a in answers] == [8, 4]


@native
def test_topics_and_types_on_the_wire(count):
    from real.ros.context import context

    context().graph.update()
    known = {e.topic_name: e.type_name for kind in context().graph._endpoints for e in kind.values()}
    base, name = "count/_action", "example_interfaces::action::dds_::Fibonacci"
    assert known[f"rq/{base}/send_goalRequest"] == f"{name}_SendGoal_Request_"
    assert known[f"rr/{base}/send_goalReply"] == f"{name}_SendGoal_Response_"
    assert known[f"rq/{base}/get_resultRequest"] == f"{name}_GetResult_Request_"
    assert known[f"rq/{base}/cancel_goalRequest"] == "action_msgs::srv::dds_::CancelGoal_Request_"
    assert known[f"rt/{base}/feedback"] == f"{name}_FeedbackMessage_"
    assert known[f"rt/{base}/status"] == "action_msgs::msg::dds_::GoalStatusArray_"


@native
def test_malformed_goals_are_counted_and_the_action_goes_on(make_node, spawn, until):
    node, kind = make_node("serves"), ros.interface("control_msgs/action/ParallelGripperCommand")

    def execute(goal):
        goal.succeed()
        return kind.Result(reached_goal=True)

    server = ros.ActionServer(node, kind, "grip", execute)
    message = "control_msgs/action/ParallelGripperCommand_SendGoal_Request"
    vandal = spawn(PEER, "vandal", "rq/grip/_action/send_goalRequest", message, 3000, 9, "service")
    until(lambda: server.malformed >= 1000, lambda: ros.spin_once(node, timeout_sec=0.1), timeout_s=30.0)
    assert vandal.wait(timeout=30.0) == 0
    client = ros.ActionClient(node, kind, "grip")
    assert client.wait_for_server(timeout_sec=10.0)
    handle = wait(node, client.send_goal_async(kind.Goal()))
    assert wait(node, handle.get_result_async()).result.reached_goal


@native
def test_a_callback_that_does_not_say_how_it_ended_has_aborted(make_node, capfd):
    node, kind = make_node("serves"), ros.interface("control_msgs/action/GripperCommand")
    ros.ActionServer(node, kind, "grip", lambda goal: None)
    client = ros.ActionClient(node, kind, "grip")
    assert client.wait_for_server(timeout_sec=10.0)
    handle = wait(node, client.send_goal_async(kind.Goal()))
    assert wait(node, handle.get_result_async()).status == 6
    assert "aborted" in capfd.readouterr().err


@native
def test_a_result_with_a_status_that_does_not_exist_ends_the_goal_and_nothing_else(make_node):
    from real.ros.messages import service_class

    node, kind = make_node("both"), ros.interface("control_msgs/action/GripperCommand")

    def answer(**values):
        return lambda _, response: [setattr(response, k, v) for k, v in values.items()] and response

    for part, values in (("SendGoal", {"accepted": True}), ("GetResult", {"status": 99})):
        name = {"SendGoal": "send_goal", "GetResult": "get_result"}[part]
        node.create_service(service_class(f"{kind.TYPE}_{part}"), f"grip/_action/{name}", answer(**values))
    client = ros.ActionClient(node, kind, "grip")
    assert client._send.wait_for_service(timeout_sec=10.0) and client._result.wait_for_service(timeout_sec=10.0)
    handle = wait(node, client.send_goal_async(kind.Goal()))
    assert wait(node, handle.get_result_async()).status == 99
    assert handle.status == 0
