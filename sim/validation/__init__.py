"""Published measurements next to what the simulator says of the same runs."""
