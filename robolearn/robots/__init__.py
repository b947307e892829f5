"""One RobotSpec a file."""
