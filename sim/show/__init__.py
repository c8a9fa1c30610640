"""Drawing and printing: reads result documents, never simulates."""
