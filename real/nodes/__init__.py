"""ROS 2 nodes: a callback converts a message, calls one plain function, publishes."""
