"""Loggers: stderr, levels, /rosout."""

import re

from real import ros


def test_logs_reach_stderr_and_rosout(make_node, until, capfd):
    node, got = make_node("talks", "--ros-args", "-r", "__ns:=/arm"), []
    node.create_subscription(ros.interface("rcl_interfaces/msg/Log"), "/rosout", got.append, 10)
    node.get_logger().debug("hidden")
    node.get_logger().warning("50 % of it")
    until(lambda: any(m.msg == "50 % of it" for m in got), lambda: ros.spin_once(node, timeout_sec=0.1))
    log = next(m for m in got if m.msg == "50 % of it")
    assert (log.level, log.name, log.file, log.function) == (
        30, "arm.talks", "test_log.py", "test_logs_reach_stderr_and_rosout",
    )  # fmt: skip
    assert re.search(r"\[WARN\] \[\d+\.\d{9}\] \[arm\.talks\]: 50 % of it\n", capfd.readouterr().err)


def test_repeated_logs_can_be_left_out(make_node, capfd):
    node = make_node("talks")
    for _ in range(3):
        node.get_logger().info("once", once=True)
        node.get_logger().info("seldom", throttle_duration_sec=60.0)
    err = capfd.readouterr().err
    assert (err.count("once"), err.count("seldom")) == (1, 1)


def test_the_log_level_is_an_argument(make_node, capfd):
    node = make_node("talks", "--ros-args", "--log-level", "error")
    node.get_logger().warning("hidden")
    node.get_logger().error("seen")
    err = capfd.readouterr().err
    assert "hidden" not in err and "seen" in err
