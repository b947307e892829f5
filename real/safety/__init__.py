"""What stands between a proposal and a motor: plain Python and NumPy, no ROS, no clock of its own."""
