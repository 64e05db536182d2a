"""Rasters: what a grid is (types), what to do with it (decisions), and the only place that opens files."""
