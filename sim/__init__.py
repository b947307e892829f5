"""Batched simulated environments: one task, every engine."""
