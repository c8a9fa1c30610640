"""Results as the show reads them: typed, made once."""
