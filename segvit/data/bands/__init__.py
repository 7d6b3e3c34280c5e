"""Images of any number of bands and any bit depth: headers, decoding, scaling, windows of large rasters."""
