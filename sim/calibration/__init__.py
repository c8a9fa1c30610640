"""Profiler traces read back as times of operations, for measured profiles."""
