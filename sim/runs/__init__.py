"""Questions asked of the house: scenarios, their metrics, validation."""
