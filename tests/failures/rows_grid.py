"""Failures of where pixels lie: rows 1 to 4, 18, 22 and 23."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from tests.conftest import TEN_METRES
from tests.failures.case import Case, Failure, Made
from tests.failures.scenes import NODATA_DN, TAG, draw, numbers, red, write_red
from tests.failures.shell import Shell

SOUTH_UP = Affine(10, 0, 600_000, 0, 10, 5_600_000)
TURNED = TEN_METRES @ Affine.rotation(30.0)
SHEARED = TEN_METRES @ Affine.shear(10.0)


def degrees(left: float, top: float, width_factor: float = 1.0) -> Affine:
    """Pixels of about 10 m at that latitude."""
    step = 9e-5
    return Affine(step / math.cos(math.radians(top)) * width_factor, 0, left, 0, -step, top)


def with_points(folder: Path) -> Made:
    path = folder / "scene.tif"
    points = [GroundControlPoint(r, c, 6e5 + 10 * c, 5.7e6 - 10 * r) for r, c in ((0, 0), (0, 69), (89, 0), (89, 69))]
    with rasterio.open(path, "w", driver="GTiff", count=1, height=90, width=70, dtype="uint16") as file:
        file.write(numbers(draw(90, 70))[None])
        file.gcps = (points, rasterio.crs.CRS.from_epsg(32631))
        file.descriptions, file.scales = ("red",), (TAG[0],)
    return Made(path)


def with_rpcs(folder: Path) -> Made:
    path = folder / "scene.tif"
    one = [1.0] + [0.0] * 19
    rpcs = RPC(0, 1, 50, 1, one, one, 45, 45, 3, 1, one, one, 35, 35)
    with rasterio.open(path, "w", driver="GTiff", count=1, height=90, width=70, dtype="uint16", rpcs=rpcs) as file:
        file.write(numbers(draw(90, 70))[None])
        file.descriptions, file.scales = ("red",), (TAG[0],)
    return Made(path)


def cut_out(folder: Path) -> Made:
    """Columns 20 to 49 and rows 30 to 69, named by their corners."""
    made = red(folder)
    assert made.answer is not None
    return Made(made.scene, made.answer[30:70, 20:50])


def lies_where_it_was_cut(shell: Shell, made: Made) -> None:
    with rasterio.open(shell.output) as file:
        assert file.transform == TEN_METRES @ Affine.translation(20, 30)


def says_how_it_was_turned(shell: Shell, made: Made) -> None:
    with rasterio.open(shell.output) as file:
        assert file.tags()["GEOSEG_ORIENTATION"] != "as stored"


def footprint_is_split(shell: Shell, made: Made) -> None:
    """Both parts end at the 180th meridian, as RFC 7946 wants."""
    geometry = json.loads(shell.output.with_suffix(".json").read_text())["geometry"]
    assert geometry["type"] == "MultiPolygon"
    parts = [np.array(polygon[0])[:, 0] for polygon in geometry["coordinates"]]
    assert sorted(abs(part).max() for part in parts) == [180.0, 180.0]
    assert {bool((part > 0).all()) for part in parts} == {True, False}


ROWS = (
    Failure(
        1, "The scene has no coordinate reference system",
        "Maps it, with one warning: the map has none either. With --require-crs such a scene is refused.",
        (
            Case("is_mapped_with_a_warning", "GeoTIFF without a CRS", lambda f: red(f, crs=None),
                 message=("warning: the scene has no CRS",)),
            Case("is_refused_where_one_is_required", "the same", lambda f: red(f, crs=None), ("--require-crs",),
                 code=65, message=("has no CRS",), remedy=("gdal_edit.py -a_srs", "--require-crs")),
            Case("is_mapped_where_there_is_one", "GeoTIFF with a CRS", red, ("--require-crs",)),
        ),
        ("tests/scenes/test_museum.py::test_no_crs_is_one_warning",),
    ),
    Failure(
        2, "The grid is rotated or sheared", "Maps it on its own grid, pixel for pixel.",
        (
            Case("rotated", "GeoTIFF turned by 30 degrees", lambda f: red(f, transform=TURNED)),
            Case("sheared", "GeoTIFF sheared by 10 degrees", lambda f: red(f, transform=SHEARED)),
        ),
        ("tests/scenes/test_museum.py::test_a_rotated_scene_keeps_its_grid_and_pixels",),
    ),
    Failure(
        3, "The scene is stored south-up",
        "Shows it to the model north-up and writes the map in the file's own order; a tag says so.",
        (Case("south_up", "GeoTIFF whose first row is the southernmost", lambda f: red(f, transform=SOUTH_UP),
              message=("orientation:",), after=says_how_it_was_turned),),
        ("tests/test_orientation.py::test_a_scene_stored_in_another_way_gives_the_north_up_map_in_that_way",
         "tests/test_orientation.py::test_the_network_sees_the_tiles_of_the_north_up_scene"),
    ),
    Failure(
        4, "The scene is not orthorectified: ground control points or rational polynomials only",
        "Refuses it and names the command that warps it. There is no option to map it as it lies: a map that nothing"
        " ties to the ground is no map, and who wants it all the same drops the points with gdal_translate -nogcp.",
        (
            Case("control_points", "GeoTIFF with four ground control points and no transform", with_points, code=65,
                 message=("not on a map grid", "4 ground control points"),
                 remedy=("gdalwarp -tps", "gdal_translate -nogcp")),
            Case("rational_polynomials", "GeoTIFF with RPCs and no transform", with_rpcs, code=65,
                 message=("not on a map grid", "rational polynomial"), remedy=("gdalwarp -rpc",)),
        ),
    ),
)  # fmt: skip

LATER_ROWS = (
    Failure(
        18, "The map is half a pixel or a window off",
        "Every pixel of the map is that of the scene, and a cropped map lies where its window was.",
        (Case("cropped", "a scene of which --bounds keep 40 x 30 px", cut_out,
              ("--bounds", "600200,5699300,600500,5699700", "--crop"), after=lies_where_it_was_cut),),
        ("tests/test_predict.py::test_the_output_grid_is_the_input_grid",
         "tests/test_predict.py::test_an_engine_that_returns_its_input_gives_back_the_scene",
         "tests/test_aoi.py::test_bounds_and_crop_write_exactly_the_rectangle"),
    ),
    Failure(
        22, "Degrees, the 180th meridian, the poles",
        "Keeps the scene's grid; the STAC item's footprint is split at the meridian.",
        (
            Case("near_the_meridian", "10 m in degrees at 179.9 E",
                 lambda f: red(f, crs="EPSG:4326", transform=degrees(179.9, 10))),
            Case("across_the_meridian", "10 m in degrees, from 179.997 E to beyond 180",
                 lambda f: red(f, crs="EPSG:4326", transform=degrees(179.997, 10)), after=footprint_is_split),
            Case("near_the_pole", "10 m in degrees at 89 N",
                 lambda f: red(f, crs="EPSG:4326", transform=degrees(5, 89))),
            Case("on_the_pole", "polar stereographic, the pole in its middle",
                 lambda f: red(f, crs="EPSG:3413", transform=Affine(10, 0, -350, 0, -10, 450))),
        ),
        ("tests/results/test_footprint.py::test_a_grid_across_the_antimeridian_is_cut_there",
         "tests/results/test_footprint.py::test_a_grid_over_a_pole_reaches_it_at_all_longitudes",
         "tests/test_aoi.py::test_bounds_across_the_180th_meridian_take_in_both_sides_and_no_more"),
    ),
    Failure(
        23, "Pixels are not square", "Maps them as they are, with a warning.",
        (Case("oblong", "pixels of 10 x 12 m",
              lambda f: write_red(f / "scene.tif", draw(90, 70), transform=TEN_METRES @ Affine.scale(1, 1.2),
                                  nodata=NODATA_DN), message=("warning:", "square")),),
        ("tests/scenes/test_raster_file.py::test_pixels_that_are_not_square_raise_a_warning",),
    ),
)  # fmt: skip
