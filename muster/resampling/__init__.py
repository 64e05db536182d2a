"""Rasters brought to one grid: right to the pixel, in bounded memory, into files and Postgres.

In the order in which they build on each other:

* words, without any compute package: :mod:`~muster.resampling.config.methods`,
  :mod:`~muster.resampling.config.params`;
* decisions, all pure: :mod:`~muster.resampling.compute.fit`,
  :mod:`~muster.resampling.compute.axes`,
  :mod:`~muster.resampling.compute.windows`;
* computing: :mod:`~muster.resampling.compute.kernels`, :mod:`~muster.resampling.compute.separable`,
  :mod:`~muster.resampling.compute.warp`;
* input and output: :mod:`~muster.resampling.compute.source`,
  :mod:`~muster.resampling.compute.reader`,
  :mod:`~muster.resampling.stores.tiles`, :mod:`~muster.resampling.stores.load`,
  :mod:`~muster.resampling.stores.read`;
* steps: :mod:`~muster.resampling.plan.inspect`, :mod:`~muster.resampling.resample`,
  :mod:`~muster.resampling.merging.merge`.
"""
