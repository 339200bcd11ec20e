"""Results: rows of labels -> files that people use.

    raster    WorkRaster: rows arrive top to bottom; checksums and class counts are kept on the way
    cog       write_cog: the work raster becomes a cloud-optimized GeoTIFF, which is read back and compared
    maps      MapWriter: the rasters of one run
    commit    OutputTransaction: nothing has its final name before everything is on the disk
    areas     class_areas: pixels, share and hectares of every class
    beside    write_sidecars: attribute table, QGIS style and STAC item, all from one MapDescription
    verify    verify_map: is a map, with what lies beside it, still what was written?
    data_array   open_result: a class map as an xarray.DataArray with the flags of the CF conventions
    polygons  write_polygons: a class map becomes a vector file
    clean_map cleaned: majority, sieve, dilation, mapping to another legend, strip by strip
    adjusted_areas   adjusted_areas: areas corrected for the errors of the map, with intervals
    preview   write_preview, write_quicklook: pictures to look at

``attribute_table``, ``qgis_style``, ``stac`` and ``footprint`` are what ``beside`` writes. ``workfolder``, ``sidecars``
and ``storage`` serve these: where an output is made, what would override it, and what to tell the user when the disk
refuses. ``own_map`` tells maps of geoseg from other files; ``entropy`` is one of the rasters of ``maps``.
"""
