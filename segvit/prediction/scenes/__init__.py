"""Label maps of GeoTIFF files and other rasters larger than memory."""
