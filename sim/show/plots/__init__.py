"""Figures: one function a kind of plot, from views to plotly."""
