"""Results: rows of labels -> files that people use.

    WorkRaster (raster)   rows arrive top to bottom; checksums and class counts are kept on the way
    write_cog (cog)       the work raster becomes a cloud-optimized GeoTIFF, which is read back and compared
    OutputTransaction     (commit) nothing appears under its final name before everything is on the disk
    class_areas (areas)   pixels, share and hectares of every class
    write_preview         (preview) a PNG to look at
"""
