"""Rasters: what a grid is, what to do with it, and the only place that opens files.

Three parts, each importing only the ones before it:

* types: :mod:`~muster.raster.grid` (Grid, Window, Band);
* decisions, all pure: :mod:`~muster.raster.windows`, :mod:`~muster.raster.nodata`,
  :mod:`~muster.raster.packing`, :mod:`~muster.raster.layout`;
* input and output: :mod:`~muster.raster.gdal`, :mod:`~muster.raster.whole`,
  :mod:`~muster.raster.reader`, :mod:`~muster.raster.predictors`, :mod:`~muster.raster.cog`.
"""
