"""Writing rasters: layout, encoding, cloud-optimised GeoTIFF, and integrity."""
