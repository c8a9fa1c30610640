"""Runs of scenarios: from a resolved scenario to its result document."""
