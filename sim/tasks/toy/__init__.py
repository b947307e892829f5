"""Small tasks for tests and first steps."""
