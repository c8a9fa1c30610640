"""Scenarios: YAML files, checked and resolved to frozen descriptions."""
