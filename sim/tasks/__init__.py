"""One task a file; modules here are found by discovery."""
