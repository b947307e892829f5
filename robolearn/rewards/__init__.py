"""Rewards that are learned, recorded or computed: one interface (base.py), one source a file."""
