"""Quadrotors: what is measured of them, what is said to them, and a policy's link to them."""
