"""Launches have no plots of their own; those of metrics draw them."""

ALONE = ()
