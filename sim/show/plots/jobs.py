"""Jobs have the plots of links and time that every run has."""

ALONE: tuple[str, ...] = ()
"""Kinds that it draws of one run at a time."""
