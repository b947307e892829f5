"""What a person holds: one device a file, registered under its name and configured by its dataclass."""
