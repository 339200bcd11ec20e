"""The table of attacks: what is tried, the exit code, and words of the message that refuses it."""

from __future__ import annotations

import os

from tests.hostile import corpus as c
from tests.hostile.corpus import PORT, SECRET, Attack

_OUT = "outside of the item's folder"

ATTACKS = (
    Attack("VRT with a raw band posing as .tif", lambda f: c._vrt(f, "scene.tif", c._raw_band(f), c.TRUSTING), 65,
           "virtual raster"),
    Attack("raw VRT", lambda f: c._vrt(f, "scene.vrt", c._raw_band(f), c.TRUSTING), 65, "virtual raster"),
    Attack("VRT of an address", lambda f: c._vrt(f, "scene.vrt", c._remote_band(f), c.TRUSTING), 65, "virtual raster"),
    Attack("tile index (GTI)", c.tile_index, 65, "is no TIFF"),
    Attack("overviews redirected by a sidecar", c.overview_redirect, 0, "is not read"),
    Attack("8 TB in a TIFF of 243 kB", c.eight_terabytes, 65, "7450.6 GiB"),
    Attack("name of a network file", c._named(f"/vsicurl/http://127.0.0.1:{PORT}/x.tif"), 65, "lies on a network"),
    Attack("address", c._named(f"http://127.0.0.1:{PORT}/x.tif"), 65, "lies on a network"),
    Attack("one directory of a TIFF", c._named("GTIFF_DIR:1:{folder}/" + SECRET), 66, "there is no such file"),
    Attack("netCDF variable", c._named('NETCDF:"{folder}/' + SECRET + '":x'), 66, "there is no such file"),
    Attack("GDAL's memory", c._named("MEM:::DATAPOINTER=1,PIXELS=1,LINES=1"), 66, "there is no such file"),
    Attack("GDAL's other file systems", c._named("/vsitar/{folder}/" + SECRET), 66, "there is no such file"),
    Attack("a name like an address", c._odd_name("http:x.tif"), 0, ""),
    Attack("a name like an option", c._odd_name("-rf.tif"), 0, ""),
    Attack("a name like a command", c._odd_name("$(touch MARKER).tif"), 0, ""),
    Attack("entities that grow in SAFE metadata", c._in_safe(c._bomb), 65, "declares a document type"),
    Attack("an outer entity in SAFE metadata", c._in_safe(c._outer_entity), 65, "declares a document type"),
    Attack("entities that grow in Landsat metadata", c._in_landsat(c._bomb), 65, "declares a document type"),
    Attack("an outer entity in Landsat metadata", c._in_landsat(c._outer_entity), 65, "declares a document type"),
    Attack("entities that grow in PlanetScope metadata", c._in_planetscope(c._bomb), 65, "declares a document type"),
    Attack("an outer entity in PlanetScope metadata", c._in_planetscope(c._outer_entity), 65,
           "declares a document type"),
    Attack("an image path out of a SAFE folder", c.path_out_of_safe, 65, "out of"),
    Attack("a member out of a zip", c.zip_slip, 65, "lead out of the archive"),
    Attack("a link in a zip", c.zip_link, 65, "is a link or a device"),
    Attack("a bomb in a zip", c.zip_bomb, 65, "would unpack from"),
    Attack("2000 members in a zip", c.many_members, 65, "members, more than"),
    Attack("STAC item with ..", c._stac("../" + SECRET), 65, _OUT),
    Attack("STAC item with a file address", c._stac("file://{folder}/" + SECRET), 65, _OUT),
    Attack("STAC item with an address", c._stac(f"http://127.0.0.1:{PORT}/x.tif"), 65, "lies on a network"),
    Attack("STAC item with a name of GDAL's", c._stac("/vsicurl/http://127.0.0.1/x"), 65, "is no link"),
    Attack("MTL file that names a file outside", c.mtl_out_of_folder, 65, "out_B4.TIF"),
    Attack("area that is a virtual layer", c.area_from_elsewhere, 65, "area.geojson"),
    Attack("pickled checkpoint", c._model(c._pickle), 77, "holds code"),
    Attack("checkpoint of torch.save", c._model(c._archive("model.pt", "data.pkl", "version")), 77, "holds code"),
    Attack(".pt2 with a pickle", c._model(c._archive("model.pt2", "data/weights/a.pkl", "archive_format")), 77,
           "holds code"),
    Attack("TorchScript", c._model(c._archive("model.pt", "code/a.py", "constants.pkl", "data.pkl")), 77,
           "holds code"),
    Attack("pickle posing as safetensors", c._bundle_with("weights", lambda f: c._pickle(f).read_bytes()), 78,
           "is no safetensors file"),
    Attack("safetensors with an endless header", c._bundle_with("weights", c.long_header), 78,
           "is no safetensors file"),
    Attack("pickle posing as ONNX", c._bundle_with("onnx", lambda f: c._pickle(f).read_bytes()), 78,
           "is no ONNX file"),
    Attack("ONNX with weights at ..", c._bundle_with("onnx", c._outside("../weights")), 78, "other files"),
    Attack("ONNX with weights at an absolute path", c._bundle_with("onnx", c._outside("{folder}/weights")), 78,
           "other files"),
    Attack("ONNX with weights behind a symbolic link",
           c._bundle_with("onnx", c._outside("data", lambda source, link: link.symlink_to(source))), 78, "other files"),
    Attack("ONNX with weights behind a hard link",
           c._bundle_with("onnx", c._outside("data", lambda source, link: os.link(source, link))), 78, "other files"),
    Attack("ONNX with an operator from elsewhere", c._bundle_with("onnx", c.custom_operator), 78, "'evil.ops'"),
    Attack("ONNX that asks for 256 GB", c._bundle_with("onnx", c.giant_tensor), 69, "ONNX Runtime failed"),
    Attack("card with a path out of its folder", c.card_out_of_folder, 78, "is not a file of its folder"),
)  # fmt: skip
