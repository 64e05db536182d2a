"""Rasters brought to one grid: right to the pixel, in bounded memory, into files and Postgres.

In the order in which they build on each other:

* words, without any compute package: :mod:`~muster.resampling.methods`,
  :mod:`~muster.resampling.params`;
* decisions, all pure: :mod:`~muster.resampling.decide`, :mod:`~muster.resampling.axes`,
  :mod:`~muster.resampling.work_plan`;
* computing: :mod:`~muster.resampling.kernels`, :mod:`~muster.resampling.separable`,
  :mod:`~muster.resampling.warp`;
* input and output: :mod:`~muster.resampling.source`, :mod:`~muster.resampling.reader`,
  :mod:`~muster.resampling.tiles`, :mod:`~muster.resampling.load`,
  :mod:`~muster.resampling.read`;
* steps: :mod:`~muster.resampling.inspect`, :mod:`~muster.resampling.resample`,
  :mod:`~muster.resampling.merge`.
"""
