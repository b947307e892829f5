"""Parameters: types, values from outside, refusals, and the services behind `ros2 param`."""

from pathlib import Path

import numpy as np
import pytest

from real import ros

PEER = Path(__file__).parent / "peer.py"
Result = ros.interface("rcl_interfaces/msg/SetParametersResult")
Descriptor = ros.interface("rcl_interfaces/msg/ParameterDescriptor")
native = pytest.mark.skipif(not hasattr(ros.Node, "spin_once"), reason="rclpy's own errors have other names")


def test_values_from_outside_replace_defaults(make_node, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("/**:\n  ros__parameters:\n    rate: 50.0\n    limits: {speed: [1.0, 2.0]}\n    joints: [a, b]\n")
    node = make_node("n", "--ros-args", "--params-file", str(path), "-p", "rate:=25.0", "-p", "unused:=1")
    node.declare_parameters("", [("rate", 10.0), ("joints", [""]), ("plain", True)])
    node.declare_parameters("limits", [("speed", [0.0])])
    values = [node.get_parameter(n).value for n in ("rate", "joints", "plain", "limits.speed")]
    assert [list(v) if isinstance(v, list) or hasattr(v, "typecode") else v for v in values] == [
        25.0, ["a", "b"], True, [1.0, 2.0],
    ]  # fmt: skip
    assert not node.has_parameter("unused")


@native
@pytest.mark.parametrize(("default", "given"), [(1.0, "1"), (1, "1.5"), ("a", "1"), (True, "1"), ([1.0], "[a]")])
def test_a_value_of_another_type_is_refused_by_name(make_node, default, given):
    node = make_node("n", "--ros-args", "-p", f"rate:={given}")
    with pytest.raises(ValueError, match="n: parameter rate"):
        node.declare_parameter("rate", default)


@native
def test_what_is_not_declared_or_twice_is_refused(make_node):
    node = make_node("n")
    node.declare_parameter("rate", 1.0)
    with pytest.raises(ValueError, match="did you mean rate"):
        node.get_parameter("rat")
    with pytest.raises(ValueError, match="twice"):
        node.declare_parameter("rate", 1.0)


def test_changes_are_checked_and_refused_with_a_reason(make_node):
    node = make_node("n")
    node.declare_parameter("speed", 1.0)
    node.declare_parameter("fixed", 1, Descriptor(read_only=True))
    node.add_on_set_parameters_callback(lambda ps: Result(successful=ps[0].value < 2.0, reason="too fast"))
    change = lambda name, value: node.set_parameters([ros.Parameter(name, value=value)])[0]  # noqa: E731
    assert change("speed", 1.5).successful and node.get_parameter("speed").value == 1.5
    assert change("speed", 3.0).reason == "too fast"
    assert not change("speed", "1.0").successful and not change("fixed", 2).successful
    assert (node.get_parameter("speed").value, node.get_parameter("fixed").value) == (1.5, 1)


def test_ranges_of_descriptors_hold(make_node):
    node = make_node("n")
    limits = ros.interface("rcl_interfaces/msg/FloatingPointRange")(from_value=0.0, to_value=1.0)
    node.declare_parameter("share", 0.5, Descriptor(floating_point_range=[limits]))
    assert not node.set_parameters([ros.Parameter("share", value=1.5)])[0].successful
    assert node.set_parameters([ros.Parameter("share", value=1.0)])[0].successful


def test_atomic_changes_are_all_or_none(make_node):
    node = make_node("n")
    node.declare_parameters("", [("a", 1), ("b", 2)])
    both = [ros.Parameter("a", value=10), ros.Parameter("b", value="text")]
    assert not node.set_parameters_atomically(both).successful
    assert node.get_parameter("a").value == 1


@native
def test_parameters_hold_arrays_and_numbers_of_numpy():
    kinds = ros.Parameter.Type
    assert ros.Parameter("x", value=np.array([1.0, 2.0])).type_ == kinds.DOUBLE_ARRAY
    assert ros.Parameter("x", value=np.float64(1.0)).value == 1.0
    assert ros.Parameter("x", value=[0, 1.5]).value == [0.0, 1.5]
    assert ros.Parameter("x", kinds.STRING_ARRAY, []).type_ == kinds.STRING_ARRAY
    for wrong in ({"a": 1}, [1, "a"], [[1]], object()):
        with pytest.raises(TypeError):
            ros.Parameter("x", value=wrong)


def test_the_services_of_another_process_node(make_node, spawn):
    node = make_node("asks")
    spawn(PEER, "adder")

    def call(kind: str, name: str, **fields):
        service = ros.interface(f"rcl_interfaces/srv/{kind}")
        client = node.create_client(service, f"/adder/{name}")
        assert client.wait_for_service(timeout_sec=15.0)
        future = client.call_async(service.Request(**fields))
        ros.spin_until_future_complete(node, future, timeout_sec=10.0)
        return future.result()

    assert {"rate", "use_sim_time"} <= set(call("ListParameters", "list_parameters").result.names)
    got = call("GetParameters", "get_parameters", names=["rate", "none"]).values
    assert next((v.type, v.double_value) for v in got) == (3, 10.0)
    assert list(call("GetParameterTypes", "get_parameter_types", names=["rate"]).types) == [3]
    new = ros.Parameter("rate", value=20.0).to_parameter_msg()
    wrong = ros.Parameter("rate", value="fast").to_parameter_msg()
    results = call("SetParameters", "set_parameters", parameters=[new, wrong]).results
    assert [r.successful for r in results] == [True, False]
    assert not call("SetParametersAtomically", "set_parameters_atomically", parameters=[new, wrong]).result.successful
    assert call("DescribeParameters", "describe_parameters", names=["rate"]).descriptors[0].type == 3
    assert call("GetParameters", "get_parameters", names=["rate"]).values[0].double_value == 20.0


def test_changes_are_announced(make_node, until):
    node, events = make_node("n"), []
    node.create_subscription(ros.interface("rcl_interfaces/msg/ParameterEvent"), "/parameter_events", events.append, 10)
    node.declare_parameter("rate", 1.0)
    node.set_parameters([ros.Parameter("rate", value=2.0)])
    changed = lambda: [p for e in events for p in e.changed_parameters]  # noqa: E731
    until(changed, lambda: ros.spin_once(node, timeout_sec=0.1))
    assert (events[-1].node, changed()[0].name, changed()[0].value.double_value) == ("/n", "rate", 2.0)
