"""Answers to a person's question by a few runs: why it takes so long, what would explain a measurement, what changed."""
