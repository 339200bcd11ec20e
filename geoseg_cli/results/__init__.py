"""Results: rows of labels -> files that people use.

    raster    WorkRaster: rows arrive top to bottom; checksums and class counts are kept on the way
    cog       write_cog: the work raster becomes a cloud-optimized GeoTIFF, which is read back and compared
    geotiff   write_geotiff: the work raster becomes a plain tiled GeoTIFF, compared in the same way
    maps      MapWriter: the rasters of one run; the label map is cleaned on the way
    commit    OutputTransaction: nothing has its final name before everything is on the disk
    composite_file   CompositeWriter: classes and the count of observations, two bands of one file
    areas     class_areas: pixels, share and hectares of every class
    beside    write_sidecars: attribute table, QGIS style and STAC item, all from one MapDescription
    verify    verify_map: is a map, with what lies beside it, still what was written?
    data_array   open_result: a class map as an xarray.DataArray with the flags of the CF conventions
    polygons  write_polygons: a class map becomes a vector file
    clean_map cleaned: majority, sieve, dilation, mapping to another legend, strip by strip
    adjusted_areas   adjusted_areas: areas corrected for the errors of the map, with intervals
    picture   read_picture: a map decimated, north-up, with pixels that are square on the ground
    preview   write_preview: a sheet with legend, scale bar and north arrow
    report_page   page_parts: maps as one HTML page that needs nothing else

``creation_options`` are what a user may ask of GDAL, ``read_back`` is how a written file is compared.
``attribute_table``, ``qgis_style``, ``stac`` and ``footprint`` are what ``beside`` writes. ``map_file`` opens finished
maps, ``provenance`` puts their tags into words. ``workfolder``, ``sidecars`` and ``storage`` serve these: where an
output is made, what would override it, and what to tell the user when the disk refuses. ``entropy``
is one of the rasters of ``maps``. ``raster_pool`` reads many rasters in turn; ``extra_samples`` keeps GDAL from
taking a count for transparency.
"""
