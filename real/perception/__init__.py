"""Cameras: sources, calibration, tags, clouds. Plain Python with OpenCV and Open3D (extra `vision`); no ROS."""
