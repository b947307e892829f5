"""Episodes on disk: the LeRobot v3.0 layout, its writer and reader, and labels beside it (docs/data.md)."""
