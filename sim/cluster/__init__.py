"""Metal and cables: what a GPU, a node and a fabric can do. No tokens here, and no clock."""
