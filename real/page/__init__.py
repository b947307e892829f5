"""The operator's page: what a browser says, who of several has the robot, and how it is served. No ROS here."""
