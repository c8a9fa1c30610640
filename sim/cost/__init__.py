"""Arithmetic answers, before any simulation."""
