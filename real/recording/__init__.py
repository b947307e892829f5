"""Bags of ROS 2 messages as they came: written so that a kill loses no more than the last moment, and read again."""
