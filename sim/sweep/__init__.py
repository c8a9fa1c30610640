"""Many runs asked one question: sweeps of a space, ladders of design choices, how much of a link is enough."""
