"""Measurements: speed beside the raw engines, and learning over seeds."""
