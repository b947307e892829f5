"""The physical world: ROS 2 nodes, robot profiles, safety."""
