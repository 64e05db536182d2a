"""Rasters: what a grid is, what to do with it, and the only place that opens files.

Parts, each importing only the ones before it:

* types: :mod:`~muster.raster.grid` (Grid, Window, Band);
* decisions, all pure: :mod:`~muster.raster.windows`, :mod:`~muster.raster.nodata`,
  :mod:`~muster.raster.write.packing`, :mod:`~muster.raster.write.layout`;
* comparing, in memory that does not grow with the rasters: :mod:`~muster.raster.compare.quantiles`,
  :mod:`~muster.raster.compare.difference`, :mod:`~muster.raster.compare.compared`;
* input and output: :mod:`~muster.raster.gdal`, :mod:`~muster.raster.write.integrity`,
  :mod:`~muster.raster.predictors`, :mod:`~muster.raster.write.cog`,
  :mod:`~muster.raster.band_values`;
* pictures: :mod:`~muster.raster.panels`, :mod:`~muster.raster.compare.difference_picture`.
"""
