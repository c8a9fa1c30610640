"""Design choices added to a naive design one by one, and removed again, on several machines."""
