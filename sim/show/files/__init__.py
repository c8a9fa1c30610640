"""Results as files: folders, tables of points, traces."""
