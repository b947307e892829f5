"""Real autopilots around our own dynamics."""
