"""The rclpy API for our nodes: rclpy's own where it is installed, else ROS 2's wire protocol over cyclonedds.

`from real import ros` is all that a node imports; docs/ros.md says what there is and what not.
"""

from importlib.util import find_spec

if find_spec("rclpy"):
    from real.ros.over_rclpy import *  # noqa: F403
else:
    from real.ros.native import *  # type: ignore[assignment]  # noqa: F403
