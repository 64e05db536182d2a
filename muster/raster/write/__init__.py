"""Writing rasters: layout, encoding, cloud-optimised GeoTIFF, and the proof that a file is whole."""
