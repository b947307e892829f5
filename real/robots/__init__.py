"""One profile a file: what a robot's driver says and hears."""
