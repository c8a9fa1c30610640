"""Sweeps: every point of a space of scenarios, ranked."""
