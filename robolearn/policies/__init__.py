"""Policies: what a bundle holds and a robot runs. Each is registered by name, so that a bundle can rebuild it."""
