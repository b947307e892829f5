"""One algorithm a file; modules here are found by discovery."""
