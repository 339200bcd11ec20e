"""Polygons of class maps against GDAL's polygons, pixel counts and geodesic areas."""

from __future__ import annotations

import csv
import importlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio import features
from rasterio.crs import CRS

from geoseg_cli.aoi import load_area
from geoseg_cli.catalog import Legend
from geoseg_cli.errors import GridError, InputError, InputMissingError, OutputError, StorageError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.results import class_map, parquet_file, simplify, vector_file
from geoseg_cli.results.areas import ClassCounts, class_areas, pixel_areas_m2
from geoseg_cli.results.polygon_options import PolygonOptions
from geoseg_cli.results.polygons import write_polygons
from geoseg_cli.results.raster import RasterSpec
from tests.results.test_sieve import plain_components, plain_sieve

Labels = npt.NDArray[np.uint8]
MakeMap = Callable[..., Path]

DEGREES = Affine(0.001, 0, 10, 0, -0.001, 60)


@pytest.fixture
def make_map(make_cog: Callable[..., Path], grid: Callable[..., Grid], legend: Legend) -> MakeMap:
    """The COG that geoseg writes of some labels."""

    def make(labels: Labels, **where: Any) -> Path:
        tags = {"GEOSEG_LEGEND": legend.name, "GEOSEG_CLASSES": json.dumps(legend.stac_classes())}
        return make_cog(RasterSpec(grid(*labels.shape, **where), palette=legend.palette(), tags=tags), labels[None])

    return make


def read(path: Path) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
    raw = pytest.importorskip("pyogrio").raw
    meta, _, geometry, data = raw.read(path)
    return shapely.from_wkb(geometry), dict(zip(meta["fields"], data, strict=True))


def gdal_polygons(labels: Labels, transform: Affine) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for shape, value in features.shapes(labels, labels != 255, transform=transform):
        found.setdefault(int(value), []).append(shapely.geometry.shape(shape))
    return found


@pytest.mark.parametrize("ending", [".gpkg", ".fgb"])
def test_polygons_are_those_of_the_whole_map_however_it_is_read(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    pytest.importorskip("pyogrio")
    pixels = labels(61, 83)
    source, out = make_map(pixels), tmp_path / f"out{ending}"
    monkeypatch.setattr(class_map, "STRIP_PX", 5)
    report = write_polygons(source, out)
    shapes, columns = read(out)
    with rasterio.open(source) as file:
        expected = gdal_polygons(pixels, file.transform)
    assert report.polygons == len(shapes) == sum(map(len, expected.values()))
    for value, theirs in expected.items():
        mine = shapes[columns["value"] == value]
        assert shapely.is_valid(mine).all()
        assert shapely.is_ccw(shapely.get_exterior_ring(mine)).all()
        assert sorted(shapely.area(mine)) == sorted(shapely.area(theirs))
        assert shapely.symmetric_difference(shapely.union_all(mine), shapely.union_all(theirs)).area == 0


@pytest.mark.skipif(shutil.which("ogr2ogr") is None, reason="needs GDAL's command line")
@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".geojson"])
def test_gdals_command_line_reads_the_same_polygons_without_a_word(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], ending: str
) -> None:
    pytest.importorskip("pyogrio")
    pixels = labels(61, 83)
    source, out = make_map(pixels), tmp_path / f"out{ending}"
    write_polygons(source, out)
    command = ["ogr2ogr", "-f", "CSV", "/vsistdout/", str(out), "-lco", "GEOMETRY=AS_WKT", "-t_srs", "EPSG:32631"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    rows = list(csv.DictReader(done.stdout.splitlines()))
    with rasterio.open(source) as file:
        expected = gdal_polygons(pixels, file.transform)
        assert file.crs == CRS.from_epsg(32631)
    for value, theirs in expected.items():
        mine = [row for row in rows if int(row["value"]) == value]
        assert len(mine) == len(theirs)
        assert sum(int(row["pixels"]) for row in mine) == (pixels == value).sum()
        # Seven decimals of a degree are a centimetre; sides are ten metres.
        areas = sorted(shapely.area(shapely.from_wkt([row["WKT"] for row in mine])))
        assert areas == pytest.approx(sorted(shapely.area(theirs)), rel=1e-2 if ending == ".geojson" else 1e-9)


def test_areas_of_the_classes_are_those_of_their_pixels(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], legend: Legend
) -> None:
    pytest.importorskip("pyogrio")
    pixels = labels(90, 70)
    source, out = make_map(pixels), tmp_path / "out.gpkg"
    report = write_polygons(source, out)
    shapes, columns = read(out)
    with rasterio.open(source) as file:
        counts = ClassCounts(Grid(file.crs, file.transform, file.height, file.width))
    counts.add(0, pixels)
    for area, one in zip(class_areas(counts, legend), report.classes, strict=True):
        mine = columns["value"] == area.value
        assert one.pixels == area.pixels == columns["pixels"][mine].sum()
        assert shapely.area(shapes[mine]).sum() == area.pixels * 100
        assert one.hectares == pytest.approx(area.hectares, rel=1e-8)
        assert columns["area_ha"][mine].sum() == pytest.approx(area.hectares, rel=1e-8)
        assert set(columns["name"][mine]) <= {area.name}
        assert set(columns["title"][mine]) <= {area.title}


def test_areas_in_degrees_are_geodesic(tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels]) -> None:
    pytest.importorskip("pyogrio")
    out = tmp_path / "out.gpkg"
    write_polygons(make_map(labels(60, 60), crs=CRS.from_epsg(4326), transform=DEGREES), out)
    shapes, columns = read(out)
    geod = pyproj.Geod(ellps="WGS84")
    for shape, hectares in zip(shapes, columns["area_ha"], strict=True):
        area_m2, _ = geod.geometry_area_perimeter(shapely.segmentize(shape, 0.001))
        assert hectares == pytest.approx(abs(area_m2) / 1e4, rel=1e-5)


def test_a_geopackage_is_understood_by_another_reader(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels]
) -> None:
    """The reader of areas of interest goes through SQLite, without GDAL."""
    pytest.importorskip("pyogrio")
    pixels = labels(40, 50)
    source, out = make_map(pixels), tmp_path / "out.gpkg"
    write_polygons(source, out, PolygonOptions(classes=("10", "20", "80")))
    with rasterio.open(source) as file:
        grid = Grid(file.crs, file.transform, file.height, file.width)
    assert np.array_equal(load_area(out, grid).mask(grid.window), np.isin(pixels, (10, 20, 80)))


@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".geojson", ".parquet"])
def test_a_map_gives_the_same_bytes_whenever_its_polygons_are_made(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], ending: str
) -> None:
    pytest.importorskip("pyogrio")
    pytest.importorskip("pyarrow")
    source = make_map(labels(40, 50))
    with rasterio.open(source, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(TIFFTAG_DATETIME="2023:06:25 10:20:30")
    outs = [tmp_path / f"{number}{ending}" for number in (1, 2)]
    for out in outs:
        write_polygons(source, out)
        time.sleep(0.01)
    one, other = (out.read_bytes() for out in outs)
    assert one == other
    assert ending != ".gpkg" or b"2023-06-25T10:20:30.000Z" in one


def test_geojson_is_in_degrees_and_leaves_no_gap(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels]
) -> None:
    pytest.importorskip("pyogrio")
    pixels = labels(300, 260)
    out = tmp_path / "out.geojson"
    report = write_polygons(make_map(pixels), out)
    collection = json.loads(out.read_text())
    assert "crs" not in collection
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in collection["features"]]
    assert len(shapes) == report.polygons
    assert shapely.coverage_is_valid(np.array(shapes, object))
    assert shapely.is_ccw([shape.exterior for shape in shapes]).all()
    to_degrees = pyproj.Transformer.from_crs(32631, 4326, always_xy=True)
    west, south, east, north = shapely.total_bounds(shapes)
    corners = to_degrees.transform([500_010, 500_000 + 2600], [5_000_000, 5_000_000 - 3000])
    assert (west, north) == pytest.approx((corners[0][0], corners[1][0]), abs=2e-5)
    assert (east, south) == pytest.approx((corners[0][1], corners[1][1]), abs=2e-5)
    geod = pyproj.Geod(ellps="WGS84")
    areas = [abs(geod.geometry_area_perimeter(shape)[0]) / 1e4 for shape in shapes]
    assert areas == pytest.approx([f["properties"]["area_ha"] for f in collection["features"]], rel=1e-3)


def test_geojson_is_split_at_the_antimeridian(tmp_path: Path, make_map: MakeMap) -> None:
    pytest.importorskip("pyogrio")
    out = tmp_path / "out.geojson"
    pixels = np.full((10, 60), 10, np.uint8)
    write_polygons(make_map(pixels, crs=CRS.from_epsg(32701), transform=Affine(1e4, 0, 0, 0, -1e4, 8e6)), out)
    (feature,) = json.loads(out.read_text())["features"]
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.geom_type == "MultiPolygon"
    assert max(part.bounds[2] - part.bounds[0] for part in shape.geoms) < 10


def test_simplified_polygons_still_fit_and_have_fewer_points(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyogrio")
    rows, cols = np.indices((120, 130))
    pixels = np.where((rows - 60) ** 2 + (cols - 50) ** 2 < 900, 10, np.where(rows + 2 * cols < 200, 20, 30))
    source = make_map(pixels.astype(np.uint8))
    monkeypatch.setattr(class_map, "STRIP_PX", 7)
    write_polygons(source, tmp_path / "plain.gpkg")
    report = write_polygons(source, tmp_path / "thin.gpkg", PolygonOptions(simplify_m=30))
    plain, _ = read(tmp_path / "plain.gpkg")
    thin, columns = read(tmp_path / "thin.gpkg")
    assert shapely.coverage_is_valid(thin)
    assert shapely.is_valid(thin).all()
    assert report.points < shapely.get_num_coordinates(plain).sum() / 2
    # Nothing moved far, and the outline of the whole is still a rectangle.
    for one, other in zip(plain, thin, strict=True):
        assert shapely.hausdorff_distance(one, other) < 60
    assert shapely.area(thin).sum() == pytest.approx(120 * 130 * 100)
    assert columns["pixels"].sum() == 120 * 130


def test_small_polygons_join_their_largest_neighbour(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels]
) -> None:
    pytest.importorskip("pyogrio")
    values = np.array([10, 20, 30, 255], np.uint8)
    pixels = values[np.random.default_rng(3).integers(0, 4, (40, 30))]
    out = tmp_path / "out.gpkg"
    # Rows of 1 degree around 60 degrees north: the areas of pixels differ from row to row.
    north = {"crs": CRS.from_epsg(4326), "transform": Affine(1, 0, 0, 0, -1, 80)}
    row_m2 = pixel_areas_m2(Grid(north["crs"], north["transform"], *pixels.shape))
    least_m2 = 7 * row_m2.mean()
    report = write_polygons(make_map(pixels, **north), out, PolygonOptions(min_area_ha=least_m2 / 1e4))
    _, columns = read(out)
    unit_m2 = row_m2.sum() * 30 / 2**50
    cleaned = plain_sieve(pixels, int(least_m2 / unit_m2), np.rint(row_m2 / unit_m2).astype(np.int64))
    assert (cleaned != plain_sieve(pixels, 7)).any()
    parts = plain_components(cleaned)
    assert sorted(columns["pixels"]) == sorted(np.bincount(parts[parts >= 0]))
    for value in (10, 20, 30):
        assert columns["pixels"][columns["value"] == value].sum() == (cleaned == value).sum()
    assert report.merged == plain_components(pixels).max() - parts.max()


def test_only_the_chosen_classes_are_written(tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels]) -> None:
    pytest.importorskip("pyogrio")
    pixels = labels(50, 50)
    source, out = make_map(pixels), tmp_path / "out.fgb"
    report = write_polygons(source, out, PolygonOptions(classes=("water", " 10")))
    _, columns = read(out)
    assert set(columns["value"]) == {10, 80}
    assert columns["pixels"].sum() == np.isin(pixels, (10, 80)).sum() == sum(one.pixels for one in report.classes)


def test_the_mean_confidence_of_a_polygon_is_that_of_its_pixels(
    tmp_path: Path,
    make_map: MakeMap,
    make_cog: Callable[..., Path],
    labels: Callable[..., Labels],
    grid: Callable[..., Grid],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pyogrio")
    pixels = labels(40, 30)
    steps = np.random.default_rng(1).integers(0, 251, pixels.shape).astype(np.uint8)
    steps[pixels == 255] = 255
    sure = make_cog(
        RasterSpec(grid(*pixels.shape), descriptions=("confidence",), scale=1 / 250, overview_resampling="AVERAGE"),
        steps[None],
    )
    sure = sure.rename(tmp_path / "confidence.tif")
    monkeypatch.setattr(class_map, "STRIP_PX", 9)
    out = tmp_path / "out.gpkg"
    write_polygons(make_map(pixels), out, PolygonOptions(confidence=sure))
    shapes, columns = read(out)
    for shape, mean in zip(shapes, columns["mean_prob"], strict=True):
        inside = features.geometry_mask([shape], pixels.shape, Affine(10, 0, 500_000, 0, -10, 5_000_000), invert=True)
        assert mean == pytest.approx(steps[inside].mean() / 250)


def test_a_map_on_no_map_grid_has_polygons_without_hectares(tmp_path: Path, make_map: MakeMap) -> None:
    pytest.importorskip("pyogrio")
    out = tmp_path / "out.gpkg"
    report = write_polygons(make_map(np.full((3, 4), 10, np.uint8), crs=None), out)
    shapes, columns = read(out)
    assert (len(shapes), list(columns["pixels"])) == (1, [12])
    assert "area_ha" not in columns
    assert report.classes[0].hectares is None


def test_a_map_of_nothing_but_nodata_is_refused_and_leaves_no_file(tmp_path: Path, make_map: MakeMap) -> None:
    pytest.importorskip("pyogrio")
    source = make_map(np.full((5, 5), 255, np.uint8))
    with pytest.raises(InputError, match="no pixel"):
        write_polygons(source, tmp_path / "out.gpkg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "scratch.tif"]


def test_a_file_that_lost_polygons_is_never_published(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyogrio")
    source = make_map(labels(30, 30))
    real = vector_file.VectorWriter.write

    def forgetful(self: vector_file.VectorWriter, shapes: npt.NDArray[Any], columns: dict[str, Any]) -> None:
        real(self, shapes[1:], {name: column[1:] for name, column in columns.items()})
        self.features += 1

    def swelling(self: vector_file.VectorWriter, shapes: npt.NDArray[Any], columns: dict[str, Any]) -> None:
        real(self, shapely.buffer(shapes, 1), columns)

    for broken, words in ((forgetful, "came back"), (swelling, "another area")):
        monkeypatch.setattr(vector_file.VectorWriter, "write", broken)
        with pytest.raises(StorageError, match=words):
            write_polygons(source, tmp_path / "out.gpkg")
        assert not (tmp_path / "out.gpkg").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".geojson"])
def test_a_disk_that_takes_no_more_leaves_no_file(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], ending: str
) -> None:
    pytest.importorskip("pyogrio")
    import resource

    source, out = make_map(labels(200, 200)), tmp_path / f"out{ending}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            write_polygons(source, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "scratch.tif"]


def test_an_existing_file_stays_unless_overwriting_is_asked_for(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels]
) -> None:
    pytest.importorskip("pyogrio")
    source, out = make_map(labels(20, 20)), tmp_path / "out.gpkg"
    out.write_text("old")
    with pytest.raises(OutputError, match="exists"):
        write_polygons(source, out)
    assert out.read_text() == "old"
    write_polygons(source, out, PolygonOptions(overwrite=True))
    assert len(read(out)[0]) > 0


def test_simplifying_more_than_memory_holds_is_refused(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyogrio")
    monkeypatch.setattr(simplify, "free_memory_bytes", lambda: 1000)
    with pytest.raises(UsageError, match="memory"):
        write_polygons(make_map(labels(30, 30)), tmp_path / "out.gpkg", PolygonOptions(simplify_m=10))


# What is refused before a pixel is read


@pytest.fixture
def with_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "_pyogrio", lambda: None)


@pytest.mark.usefixtures("with_writer")
@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("out.shp", PolygonOptions(), UsageError, "none of"),
        ("out.gpkg", PolygonOptions(classes=("lava",)), UsageError, "lava"),
        ("out.gpkg", PolygonOptions(simplify_m=0), UsageError, "--simplify"),
        ("out.gpkg", PolygonOptions(simplify_m=float("nan")), UsageError, "--simplify"),
        ("out.gpkg", PolygonOptions(min_area_ha=-1), UsageError, "--min-area"),
        ("out.gpkg", PolygonOptions(legend="klingon"), UsageError, "klingon"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, make_map: MakeMap, name: str, options: PolygonOptions, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        write_polygons(make_map(np.full((3, 3), 10, np.uint8)), tmp_path / name, options)
    assert not (tmp_path / name).exists()


@pytest.mark.usefixtures("with_writer")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.geojson", PolygonOptions()),
        ("out.gpkg", PolygonOptions(simplify_m=10)),
        ("out.gpkg", PolygonOptions(min_area_ha=1)),
    ],
)
def test_what_needs_a_place_on_earth_is_refused_without_one(
    tmp_path: Path, make_map: MakeMap, name: str, options: PolygonOptions
) -> None:
    with pytest.raises(GridError):
        write_polygons(make_map(np.full((3, 3), 10, np.uint8), crs=None), tmp_path / name, options)


@pytest.mark.usefixtures("with_writer")
def test_a_map_that_does_not_say_its_classes_needs_a_legend(
    tmp_path: Path, make_cog: Callable[..., Path], grid: Callable[..., Grid]
) -> None:
    source = make_cog(RasterSpec(grid(4, 4)), np.full((1, 4, 4), 10, np.uint8))
    with pytest.raises(InputError, match="does not say what its classes are"):
        write_polygons(source, tmp_path / "out.gpkg")
    with pytest.raises(InputError, match="10 is no class of cloudsen12"):
        write_polygons(source, tmp_path / "out.gpkg", PolygonOptions(legend="cloudsen12"))


@pytest.mark.usefixtures("with_writer")
def test_what_is_no_class_map_is_refused(
    tmp_path: Path, make_cog: Callable[..., Path], grid: Callable[..., Grid]
) -> None:
    out = tmp_path / "out.gpkg"
    with pytest.raises(InputMissingError):
        write_polygons(tmp_path / "nothing.tif", out)
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(InputError, match="GeoTIFF"):
        write_polygons(tmp_path / "text.tif", out)
    with pytest.raises(InputError, match="2 bands"):
        write_polygons(make_cog(RasterSpec(grid(4, 4)), np.zeros((2, 4, 4), np.uint8)), out)


def test_the_confidence_must_have_the_same_pixels(
    tmp_path: Path, make_map: MakeMap, make_cog: Callable[..., Path], grid: Callable[..., Grid]
) -> None:
    pytest.importorskip("pyogrio")
    other = make_cog(RasterSpec(grid(5, 4)), np.zeros((1, 5, 4), np.uint8)).rename(tmp_path / "other.tif")
    source = make_map(np.full((4, 4), 10, np.uint8))
    with pytest.raises(InputError, match="other pixels"):
        write_polygons(source, tmp_path / "out.gpkg", PolygonOptions(confidence=other))


def test_without_the_package_that_writes_vector_files_the_remedy_is_told(
    tmp_path: Path, make_map: MakeMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    source = make_map(np.full((3, 3), 10, np.uint8))
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError) as caught:
        write_polygons(source, tmp_path / "out.gpkg")
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("options", [PolygonOptions(), PolygonOptions(simplify_m=25, min_area_ha=0.05)])
@pytest.mark.parametrize("epsg", [32631, 4326])
def test_geoparquet_holds_what_a_geopackage_holds(
    tmp_path: Path,
    make_map: MakeMap,
    labels: Callable[..., Labels],
    monkeypatch: pytest.MonkeyPatch,
    options: PolygonOptions,
    epsg: int,
) -> None:
    geopandas = pytest.importorskip("geopandas")
    pytest.importorskip("pyarrow")
    where = {"crs": CRS.from_epsg(epsg)} | ({"transform": DEGREES} if epsg == 4326 else {})
    source = make_map(labels(61, 83), **where)
    monkeypatch.setattr(class_map, "STRIP_PX", 5)
    monkeypatch.setattr(parquet_file, "GROUP_FEATURES", 7)
    reports = [write_polygons(source, tmp_path / name, options) for name in ("out.gpkg", "out.parquet")]
    package, parquet = geopandas.read_file(tmp_path / "out.gpkg"), geopandas.read_parquet(tmp_path / "out.parquet")
    assert reports[0].classes == reports[1].classes
    assert len(parquet) == reports[1].polygons > 20
    assert parquet.crs == package.crs
    assert parquet.geometry.geom_equals_exact(package.geometry, 0).all()
    columns = ["value", "name", "title", "pixels", "area_ha"]
    assert list(parquet.columns) == [*columns, "geometry"]
    assert parquet[columns].equals(package[columns])


def test_the_metadata_of_geoparquet_is_that_of_the_specification(tmp_path: Path, make_map: MakeMap) -> None:
    """geoparquet.org, version 1.1.0: what a file must say, and what the geometry column may hold."""
    parquet = pytest.importorskip("pyarrow.parquet")
    pixels = np.full((4, 5), 10, np.uint8)
    for crs in (CRS.from_epsg(32631), None):
        out = tmp_path / f"{crs is None}.parquet"
        write_polygons(make_map(pixels, crs=crs), out)
        with parquet.ParquetFile(out) as file:
            metadata = {key.decode(): text.decode() for key, text in file.metadata.metadata.items()}
            geometry = file.read().column("geometry")
        geo = json.loads(metadata["geo"])
        column = geo["columns"][geo["primary_column"]]
        assert (geo["version"], geo["primary_column"], list(geo["columns"])) == ("1.1.0", "geometry", ["geometry"])
        assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
        assert column["orientation"] == "counterclockwise"
        assert (column["crs"] and pyproj.CRS.from_json_dict(column["crs"]).to_epsg()) == (32631 if crs else None)
        (shape,) = shapely.from_wkb(geometry.to_numpy())
        assert (shape.geom_type, shape.area, shape.exterior.is_ccw) == ("Polygon", 2000, True)
        assert metadata["GEOSEG_LEGEND"] == "esa-worldcover"


def test_geoparquet_is_read_back_before_it_is_published(
    tmp_path: Path, make_map: MakeMap, labels: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    source = make_map(labels(20, 20))
    before = sorted(path.name for path in tmp_path.iterdir())
    real = parquet_file.ParquetWriter.write

    def forgetful(self: parquet_file.ParquetWriter, shapes: npt.NDArray[Any], columns: dict[str, Any]) -> None:
        real(self, shapes[:-1], {name: values[:-1] for name, values in columns.items()})
        self.features += 1

    monkeypatch.setattr(parquet_file.ParquetWriter, "write", forgetful)
    with pytest.raises(StorageError, match="came back"):
        write_polygons(source, tmp_path / "out.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("band", "scale", "tags", "words"),
    [
        ("confidence", 1 / 250, {"GEOSEG_INPUT": "b.tif"}, "of another map, which differs in GEOSEG_INPUT"),
        ("confidence", 1 / 250, {}, "of another map, which differs in GEOSEG_INPUT"),
        ("entropy", 1 / 250, {"GEOSEG_INPUT": "a.tif"}, "no raster of confidence"),
        ("", 1.0, {"GEOSEG_INPUT": "a.tif"}, "no raster of confidence"),
    ],
)
def test_what_is_not_the_confidence_of_this_map_is_refused(
    tmp_path: Path, make_cog: Callable[..., Path], grid: Callable[..., Grid], legend: Legend,
    band: str, scale: float, tags: dict[str, str], words: str,
) -> None:  # fmt: skip
    own = {"GEOSEG_CLASSES": json.dumps(legend.stac_classes()), "GEOSEG_INPUT": "a.tif"}
    pixels = np.full((1, 4, 4), 10, np.uint8)
    source = make_cog(RasterSpec(grid(4, 4), tags=own), pixels).rename(tmp_path / "own.tif")
    spec = RasterSpec(grid(4, 4), descriptions=(band,) if band else (), tags=tags, scale=scale)
    other = make_cog(spec, pixels).rename(tmp_path / "other.tif")
    with pytest.raises(InputError, match=words):
        write_polygons(source, tmp_path / "out.gpkg", PolygonOptions(confidence=other))
