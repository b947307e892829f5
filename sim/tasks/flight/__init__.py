"""Quadrotors: hovering and following trajectories."""
