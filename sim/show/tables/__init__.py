"""Tables of results, for a terminal and for pages alike."""
