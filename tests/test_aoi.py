"""Areas of interest: the pixels whose centres lie inside, found by plain geometry, and maps that end there."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg_cli.aoi import PolygonArea, area_of_bounds, load_area
from geoseg_cli.area import WindowArea, cropped, cropped_grid, only_inside
from geoseg_cli.engines.fake_engine import IdentityEngine
from geoseg_cli.errors import AccessError, GeosegError, GridError, InputError, InputMissingError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import predict_scene
from geoseg_cli.rows import Rows
from tests.fakes.bundles import STEP, fake_bundle

UTM = CRS.from_epsg(32631)
TEN_METRES = Affine(10, 0, 499_980, 0, -10, 4_900_020)
TO_DEGREES = pyproj.Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True)


def utm_grid(height: int = 300, width: int = 200, transform: Affine = TEN_METRES) -> Grid:
    return Grid(UTM, transform, height, width)


def on_map(shape: Any, grid: Grid) -> Any:
    """A shape in (column, row) coordinates in those of the map."""
    return shapely.transform(shape, lambda points: np.stack(grid.transform @ tuple(points.T), axis=1))


def in_degrees(shape: Any, grid: Grid) -> Any:
    fine = shapely.segmentize(on_map(shape, grid), 50.0)
    return shapely.transform(fine, TO_DEGREES.transform, interleaved=False)


def write_geojson(path: Path, *shapes: Any, crs: str | None = None, kind: str = "FeatureCollection") -> Path:
    geometries = [json.loads(shapely.to_geojson(shape)) for shape in shapes]
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    top: dict[str, Any] = {"type": kind, "features": features}
    if kind == "Feature":
        top = features[0]
    if kind == "GeometryCollection":
        top = {"type": kind, "geometries": geometries}
    if crs:
        top["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(top))
    return path


def write_geopackage(path: Path, *shapes: Any, epsg: int = 32631, layers: tuple[str, ...] = ('my "fields"',)) -> Path:
    """The tables of OGC 12-128r18 that a reader needs, and no others."""
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE gpkg_contents (table_name TEXT, data_type TEXT, srs_id INTEGER)")
        base.execute("CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT, srs_id INTEGER)")
        base.execute(
            "CREATE TABLE gpkg_spatial_ref_sys"
            " (srs_id INTEGER, organization TEXT, organization_coordsys_id INTEGER, definition TEXT)"
        )
        if epsg > 0:
            wkt = pyproj.CRS.from_epsg(epsg).to_wkt("WKT1_GDAL")
            base.execute("INSERT INTO gpkg_spatial_ref_sys VALUES (?, 'EPSG', ?, ?)", [epsg, epsg, wkt])
        for layer in layers:
            quoted = layer.replace('"', '""')
            base.execute("INSERT INTO gpkg_contents VALUES (?, 'features', ?)", [layer, epsg])
            base.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', ?)", [layer, epsg])
            base.execute(f'CREATE TABLE "{quoted}" (fid INTEGER PRIMARY KEY, geom BLOB)')
            for number, shape in enumerate(shapes):
                # Every second one with an envelope, as GDAL writes them: minx, maxx, miny, maxy.
                left, bottom, right, top = shape.bounds
                envelope = struct.pack("<4d", left, right, bottom, top) if number % 2 else b""
                header = b"GP\0" + bytes([1 | (2 if envelope else 0)]) + struct.pack("<i", epsg) + envelope
                base.execute(f'INSERT INTO "{quoted}" (geom) VALUES (?)', [header + shapely.to_wkb(shape)])
    base.close()
    return path


def centres_inside(shape: Any, window: Window) -> npt.NDArray[np.bool_]:
    """(H, W) by asking for each centre; the shape in (column, row) coordinates."""
    cols, rows = np.meshgrid(np.arange(window.width) + window.col + 0.5, np.arange(window.height) + window.row + 0.5)
    return np.asarray(shapely.contains_xy(shape, cols, rows))


def star(rng: np.random.Generator, row: float, col: float, radius: float) -> Any:
    """A polygon of many corners, with a hole."""
    angles = np.sort(rng.random(12)) * 2 * np.pi
    far = radius * (0.4 + 0.6 * rng.random(12))
    points = np.stack([col + far * np.cos(angles), row + far * np.sin(angles)], axis=1)
    hole = shapely.box(col - radius / 9, row - radius / 9, col + radius / 9, row + radius / 9)
    return shapely.make_valid(shapely.Polygon(points)).difference(hole)


@given(st.integers(0, 999), st.integers(1, 600), st.integers(1, 80), st.data())
def test_the_mask_is_of_the_centres_inside_and_the_same_in_every_window(
    seed: int, height: int, width: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    shape = star(rng, rng.random() * height, rng.random() * width, rng.random() * max(height, width))
    assume(not shape.is_empty)
    grid = utm_grid(height, width)
    area = PolygonArea(shape, grid)
    whole = area.mask(grid.window)
    np.testing.assert_array_equal(whole, centres_inside(shape, grid.window))
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(row, col, data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col)))
    part = PolygonArea(shape, grid).mask(window)
    np.testing.assert_array_equal(part, whole[window.rows, window.cols])
    assert area.touches(window) or not part.any()
    outside = whole.copy()
    outside[area.window.rows, area.window.cols] = False
    assert not outside.any()


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.data())
def test_a_rectangle_of_pixels_masks_exactly_itself(
    row: int, col: int, height: int, width: int, data: st.DataObject
) -> None:
    kept = Window(row, col, height, width)
    window = Window(*(data.draw(st.integers(0, 30)) for _ in range(4)))
    whole = np.zeros((64, 64), bool)
    whole[kept.rows, kept.cols] = True
    area = WindowArea(kept)
    np.testing.assert_array_equal(area.mask(window), whole[window.rows, window.cols])
    assert area.touches(window) == whole[window.rows, window.cols].any()


@pytest.mark.parametrize("form", ["utm.gpkg", "degrees.gpkg", "rfc7946.geojson", "with-crs.json"])
def test_every_form_of_file_gives_the_pixels_of_its_polygons(tmp_path: Path, form: str) -> None:
    grid = utm_grid()
    rng = np.random.default_rng(4)
    shapes = [star(rng, 80, 60, 50), star(rng, 200, 120, 90)]
    flat, bent = [on_map(shape, grid) for shape in shapes], [in_degrees(shape, grid) for shape in shapes]
    if form == "utm.gpkg":
        path = write_geopackage(tmp_path / form, *flat)
    elif form == "degrees.gpkg":
        path = write_geopackage(tmp_path / form, *bent, epsg=4326)
    elif form == "rfc7946.geojson":
        path = write_geojson(tmp_path / form, *bent)
    else:
        path = write_geojson(tmp_path / form, *flat, crs="urn:ogc:def:crs:EPSG::32631")
    area = load_area(path, grid)
    made, expected = area.mask(grid.window), centres_inside(shapely.union_all(shapes), grid.window)
    differing = made != expected
    # Degrees with edges of 50 m deviate by micrometres: at most a centre that lies on an edge may change sides.
    assert differing.sum() <= (0 if "degrees" not in form and "rfc" not in form else 2)
    assert area.warnings == ()


@pytest.mark.parametrize("kind", ["Feature", "GeometryCollection", "FeatureCollection"])
def test_all_kinds_of_geojson_objects_are_read(tmp_path: Path, kind: str) -> None:
    grid = utm_grid()
    path = write_geojson(tmp_path / "a.geojson", in_degrees(shapely.box(10, 20, 40, 60), grid), kind=kind)
    mask = load_area(path, grid).mask(grid.window)
    expected = np.zeros_like(mask)
    expected[20:60, 10:40] = True
    np.testing.assert_array_equal(mask, expected)


def test_long_edges_are_straight_in_the_files_crs_not_in_the_scenes(tmp_path: Path) -> None:
    # A parallel of 60 degrees north bends by 20 pixels and more across this scene, 60 km wide.
    grid = Grid(UTM, Affine(100, 0, 200_000, 0, -100, 6_700_000), 700, 600)
    path = write_geojson(tmp_path / "north.geojson", shapely.box(-60, 60, 60, 85))
    mask = load_area(path, grid).mask(grid.window)
    rows, cols = np.mgrid[: grid.height, : grid.width]
    x, y = grid.transform @ (cols + 0.5, rows + 0.5)
    latitude = TO_DEGREES.transform(x, y)[1]
    near = np.abs(latitude - 60) < 1e-5  # a metre
    np.testing.assert_array_equal(mask[~near], (latitude > 60)[~near])
    edges = mask.sum(axis=0)
    assert edges.max() - edges.min() > 20


def test_a_scene_across_the_180th_meridian_meets_polygons_on_both_sides(tmp_path: Path) -> None:
    grid = Grid(CRS.from_epsg(32601), Affine(100, 0, 150_000, 0, -100, 1_000_000), 400, 400)
    x = grid.transform.c + 100 * (np.arange(400) + 0.5)
    to_degrees = pyproj.Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True)
    longitude = to_degrees.transform(x, np.full(400, grid.transform.f - 20_050.0))[0]
    assert longitude.min() < -179 < 179 < longitude.max()
    path = write_geojson(tmp_path / "both.geojson", shapely.box(-180, 0, -179.9, 20), shapely.box(179.95, 0, 180, 20))
    line = load_area(path, grid).mask(Window(200, 0, 1, 400))[0]
    inside = (longitude <= -179.9) | (longitude >= 179.95)
    assert (line != inside).sum() <= 2  # where the edge of both polygons is the 180th meridian itself
    assert inside.any()


def test_a_polygon_that_crosses_itself_is_mended_and_told(tmp_path: Path) -> None:
    grid = utm_grid()
    bowtie = shapely.Polygon([(10, 10), (50, 50), (50, 10), (10, 50)])
    area = load_area(write_geopackage(tmp_path / "bow.gpkg", on_map(bowtie, grid)), grid)
    assert "cross" in area.warnings[0]
    mended = shapely.make_valid(bowtie)
    mask, expected = area.mask(grid.window), centres_inside(mended, grid.window)
    on_edge = shapely.distance(
        mended.boundary, shapely.points(*np.meshgrid(np.arange(200) + 0.5, np.arange(300) + 0.5))
    )
    np.testing.assert_array_equal(mask[on_edge > 1e-6], expected[on_edge > 1e-6])


@pytest.mark.parametrize(
    ("name", "content", "error", "text"),
    [
        ("none.geojson", None, InputMissingError, "no"),
        ("area.shp", b"", InputError, "geojson"),
        ("broken.geojson", b"{", InputError, "no GeoJSON"),
        ("list.json", b"[1]", InputError, "no GeoJSON"),
        ("deep.json", b'{"type":' * 100_000, InputError, "no GeoJSON"),
        ("short.json", b'{"type": "Polygon", "coordinates": [[1]]}', InputError, "no GeoJSON"),
        ("crs.json", b'{"type": "FeatureCollection", "features": [], "crs": {"properties": {"name": "x"}}}',
         InputError, "no GeoJSON"),
        ("text.gpkg", b"not a database" * 99, InputError, "no GeoPackage"),
        ("empty.geojson", b'{"type": "FeatureCollection", "features": []}', InputError, "no shapes"),
        ("line.geojson", b'{"type": "LineString", "coordinates": [[1, 2], [3, 4]]}', InputError, "LineString"),
        ("far.geojson", shapely.to_geojson(shapely.box(100, 10, 101, 11)).encode(), UsageError, "no pixel"),
    ],
)  # fmt: skip
def test_what_holds_no_area_of_the_scene_is_refused_with_a_remedy(
    tmp_path: Path, name: str, content: bytes | None, error: type[GeosegError], text: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=text) as caught:
        load_area(tmp_path / name, utm_grid())
    assert name.split(".")[0] in caught.value.message
    assert caught.value.hint


def test_a_folder_is_no_area(tmp_path: Path) -> None:
    (tmp_path / "area.geojson").mkdir()
    with pytest.raises(AccessError, match="area"):
        load_area(tmp_path / "area.geojson", utm_grid())


def test_a_polygon_between_the_centres_is_refused(tmp_path: Path) -> None:
    grid = utm_grid()
    path = write_geopackage(tmp_path / "a.gpkg", on_map(shapely.box(10.6, 10.6, 11.4, 11.4), grid))
    with pytest.raises(UsageError, match="no pixel"):
        load_area(path, grid)


def test_an_area_for_a_scene_without_a_crs_is_refused(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.geojson", shapely.box(0, 0, 1, 1))
    with pytest.raises(GridError, match="no CRS"):
        load_area(path, Grid(None, TEN_METRES, 5, 5))


def test_a_geopackage_of_two_layers_or_without_a_crs_is_refused(tmp_path: Path) -> None:
    shape = on_map(shapely.box(1, 1, 9, 9), utm_grid())
    with pytest.raises(InputError, match=r"2 layers of shapes \(a, b\)") as caught:
        load_area(write_geopackage(tmp_path / "two.gpkg", shape, layers=("a", "b")), utm_grid())
    assert "ogr2ogr" in caught.value.hint
    with pytest.raises(InputError, match="in which CRS"):
        load_area(write_geopackage(tmp_path / "bare.gpkg", shape, epsg=-1), utm_grid())


def test_bounds_in_degrees_take_in_all_of_their_rectangle() -> None:
    grid = utm_grid()
    corners = [TO_DEGREES.transform(*(grid.transform @ at)) for at in ((50, 60), (90, 110))]
    (left, top), (right, bottom) = corners
    area = area_of_bounds((left, bottom, right, top), grid, "EPSG:4326")
    rows, cols = np.mgrid[: grid.height, : grid.width]
    lon, lat = TO_DEGREES.transform(*(grid.transform @ (cols + 0.5, rows + 0.5)))
    inside = (lon >= left) & (lon <= right) & (lat >= bottom) & (lat <= top)
    mask = area.mask(grid.window)
    assert inside.any()
    assert (mask | ~inside).all()
    assert mask.sum() < 1.1 * 40 * 50


def test_bounds_on_a_rotated_grid_take_in_the_centres_inside() -> None:
    grid = utm_grid(80, 60, TEN_METRES @ Affine.rotation(30))
    x, y = grid.transform @ (30, 40)
    area = area_of_bounds((x - 100, y - 150, x + 100, y + 150), grid)
    rows, cols = np.mgrid[:80, :60]
    xs, ys = grid.transform @ (cols + 0.5, rows + 0.5)
    np.testing.assert_array_equal(area.mask(grid.window), (np.abs(xs - x) < 100) & (np.abs(ys - y) < 150))


@pytest.mark.parametrize("transform", [TEN_METRES, TEN_METRES @ Affine.rotation(30)])
@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
def test_bounds_that_miss_the_scene_are_refused(transform: Affine, crs: str | None) -> None:
    with pytest.raises(UsageError, match="miss scene"):
        area_of_bounds((1.0, 2.0, 3.0, 4.0), utm_grid(transform=transform), crs, "scene.tif")


ACROSS = [
    Grid(CRS.from_epsg(32701), Affine(100, 0, 100_000, 0, -100, 8_160_000), 500, 1600),
    Grid(CRS.from_epsg(32760), Affine(100, 0, 740_000, 0, -100, 8_160_000), 500, 1600),
    Grid(CRS.from_epsg(3832), Affine(100, 0, 3_200_000, 0, -100, -1_850_000), 900, 1800),  # centred on 150 degrees east
    Grid(CRS.from_epsg(4326), Affine(0.001, 0, 179, 0, -0.001, -16.5), 700, 2000),
    Grid(CRS.from_epsg(4326), Affine(0.001, 0, -181, 0, -0.001, -16.5), 700, 2000),
    Grid(CRS.from_epsg(4326), Affine(0.001, 0, -180, 0, -0.001, -16.5), 700, 1000),
    Grid(CRS.from_epsg(3857), Affine(100, 0, 20_037_508.34 - 100_000, 0, -100, -1_850_000), 900, 1000),
    Grid(CRS.from_epsg(4326), Affine(0.1, 0, -180, 0, -0.1, -10), 100, 3600),  # around the globe
]


@pytest.mark.parametrize("sides", [(179.6, -179.7), (179.6, 180.3), (-180.4, -179.7)], ids=str)
@pytest.mark.parametrize("grid", ACROSS, ids=lambda grid: f"{grid.crs}-{grid.transform.c:g}")
def test_bounds_across_the_180th_meridian_take_in_both_sides_and_no_more(
    grid: Grid, sides: tuple[float, float]
) -> None:
    mask = area_of_bounds((sides[0], -17.0, sides[1], -16.8), grid, "EPSG:4326").mask(grid.window)
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    rows, cols = np.mgrid[: grid.height, : grid.width]
    lon, lat = to_degrees.transform(*(grid.transform @ (cols + 0.5, rows + 0.5)))
    east = (lon - 179.6) % 360
    inside = (east < 0.7) & (lat > -17.0) & (lat < -16.8)
    assert inside.any()
    assert (mask | ~inside).all()
    assert grid.crs is not None
    # A rectangle around the bounds in UTM, where meridians lean by 0.9 degrees, is wider than one in degrees.
    steps = 0.1 if grid.transform.a == 0.1 else 0.02 if grid.crs.to_epsg() in (32701, 32760) else 0.002
    around = ((east + steps) % 360 < 0.7 + 2 * steps) & (lat > -17.0 - steps) & (lat < -16.8 + steps)
    assert not (mask & ~around).any()


@given(st.floats(-400, 400), st.floats(0.01, 359), st.floats(-179.9, 179.9))
def test_a_longitude_lies_between_bounds_however_these_are_counted(left: float, width: float, longitude: float) -> None:
    """On a raster around the globe, whatever multiple of 360 degrees stands in the bounds."""
    grid = Grid(CRS.from_epsg(4326), Affine(0.5, 0, -180, 0, -0.5, 1), 4, 720)
    east = (longitude - left) % 360
    assume(min(abs(east - width), east, 360 - east) > 0.5)
    column = int((longitude + 180) // 0.5)
    short = [(side + 180) % 360 - 180 for side in (left, left + width)]
    for sides in ([left, left + width], short):
        mask = area_of_bounds((sides[0], -1, sides[1], 1), grid, "EPSG:4326").mask(Window(1, column, 1, 1))
        assert mask.item() == (east < width)


def test_left_above_right_is_empty_where_numbers_are_no_degrees() -> None:
    with pytest.raises(UsageError, match="left is above right") as refusal:
        area_of_bounds((500_900, 4_899_000, 500_100, 4_900_000), utm_grid())
    assert "180th meridian" in refusal.value.hint
    with pytest.raises(UsageError, match="miss the scene"):
        area_of_bounds((179.0, 40.0, -179.0, 50.0), utm_grid(), "EPSG:4326")


def test_an_unknown_crs_of_bounds_is_refused() -> None:
    with pytest.raises(UsageError, match="EPSG:99"):
        area_of_bounds((0, 0, 1, 1), utm_grid(), "EPSG:99")
    with pytest.raises(GridError, match="no CRS"):
        area_of_bounds((0, 0, 1, 1), Grid(None, TEN_METRES, 5, 5), "EPSG:4326")


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(0, 30), st.integers(0, 20), st.integers(1, 15))
def test_rows_are_masked_and_cropped_alike(seed: int, height: int, row: int, col: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (height, 25)).astype(np.uint8)
    window = Window(row, col, 12, 5).intersection(Window(0, 0, height, 25))
    finished = []
    for first in range(0, height, step):
        part = labels[first : first + step]
        sure = part.astype(np.float32) * np.float32(0.25)
        finished.append(Rows(first, part, sure, np.stack([sure, 1 - sure]), np.ones(part.shape, bool)))
    kept = list(only_inside(iter(finished), WindowArea(window), 255))
    inside = WindowArea(window).mask(Window(0, 0, height, 25))
    np.testing.assert_array_equal(np.concatenate([one.labels for one in kept]), np.where(inside, labels, 255))
    assert all((one.confidence[~one.valid] == 0).all() for one in kept)
    cut = list(cropped(iter(kept), window))
    assert sum(len(one.labels) for one in cut) == (window.height if window.height else 0)
    if cut:
        assert cut[0].row == 0
        np.testing.assert_array_equal(np.concatenate([one.labels for one in cut]), labels[window.rows, window.cols])
        probabilities = np.concatenate([one.probabilities for one in cut if one.probabilities is not None], axis=1)
        np.testing.assert_array_equal(probabilities[0], labels[window.rows, window.cols] / np.float32(4))


def test_cropping_a_grid_leaves_every_pixel_in_its_place() -> None:
    grid = utm_grid(transform=TEN_METRES @ Affine.rotation(20))
    small = cropped_grid(grid, Window(7, 11, 20, 30))
    assert (small.height, small.width, small.crs) == (20, 30, grid.crs)
    assert small.transform @ (3, 4) == pytest.approx(grid.transform @ (14, 11))


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, npt.NDArray[np.int_]]:
    """A scene of 300 x 200 pixels and its labels, 255 where it has none."""
    rng = np.random.default_rng(9)
    labels = np.where(rng.random((300, 200)) > 0.2, rng.integers(0, 4, (300, 200)), 255)
    pixels = np.where(labels == 255, 65_535, labels * int(STEP * 10_000)).astype(np.uint16)
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=1, nodata=65_535, **utm_grid().profile()
    ) as file:
        file.write(pixels, 1)
        file.set_band_description(1, "red")
        file.scales = (1e-4,)
    return path, labels


@pytest.mark.parametrize("is_cropped", [False, True])
def test_only_the_polygons_are_predicted_and_the_map_ends_with_them(
    tmp_path: Path, scene: tuple[Path, npt.NDArray[np.int_]], is_cropped: bool
) -> None:
    path, labels = scene
    shape = star(np.random.default_rng(1), 150, 100, 40)
    area = write_geopackage(tmp_path / "area.gpkg", on_map(shape, utm_grid()))
    options = PredictOptions(
        area=area, crop=is_cropped, confidence=tmp_path / "c.tif", probabilities=tmp_path / "p.tif"
    )
    report = predict_scene(path, tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)
    inside = centres_inside(shape, utm_grid().window)
    expected = np.where(inside, labels, 255)
    with rasterio.open(tmp_path / "map.tif") as made:
        found = made.read(1)
        row, col = ((np.array((~made.transform @ TEN_METRES) @ (0, 0)) * -1).round().astype(int)[::-1]).tolist()
    if is_cropped:
        left, upper, right, lower = shape.bounds
        centres = [np.arange(300) + 0.5, np.arange(200) + 0.5]
        rows = np.flatnonzero((centres[0] >= upper) & (centres[0] <= lower))
        cols = np.flatnonzero((centres[1] >= left) & (centres[1] <= right))
        assert (row, col, *found.shape) == (rows[0], cols[0], len(rows), len(cols))
    else:
        assert (row, col, *found.shape) == (0, 0, 300, 200)
    np.testing.assert_array_equal(found, expected[row : row + found.shape[0], col : col + found.shape[1]])
    for name in ("c.tif", "p.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert ((file.read(1) != 255) == (found != 255)).all()
    assert report.decisions["output_size_px"] == list(found.shape)
    assert report.decisions["area"] == "area.gpkg"
    assert 0 < report.tiles_run < 24
    assert report.valid_pixels == (expected != 255).sum()


def test_bounds_and_crop_write_exactly_the_rectangle(tmp_path: Path, scene: tuple[Path, npt.NDArray[np.int_]]) -> None:
    path, labels = scene
    left, top = TEN_METRES @ (30, 70)
    options = PredictOptions(bounds=(left, top - 500, left + 400, top), crop=True)
    predict_scene(path, tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)
    with rasterio.open(tmp_path / "map.tif") as made:
        np.testing.assert_array_equal(made.read(1), labels[70:120, 30:70])
        assert (made.transform.c, made.transform.f) == (left, top)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (PredictOptions(area=Path("a.gpkg"), bounds=(0, 0, 1, 1)), "both"),
        (PredictOptions(bounds_crs="EPSG:4326"), "without --bounds"),
        (PredictOptions(crop=True), "--crop"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, scene: tuple[Path, npt.NDArray[np.int_]], options: PredictOptions, text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        predict_scene(scene[0], tmp_path / "map.tif", fake_bundle(), IdentityEngine(4), options)


def test_a_geopackage_that_a_program_is_writing_is_refused(tmp_path: Path) -> None:
    grid = utm_grid()
    path = write_geopackage(tmp_path / "a.gpkg", on_map(shapely.box(10, 10, 50, 50), grid))
    (tmp_path / "a.gpkg-wal").touch()
    assert load_area(path, grid).has_pixels()
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("DELETE FROM gpkg_contents")
    writer.commit()
    with pytest.raises(InputError, match="changes that are not in it") as caught:
        load_area(path, grid)
    assert "close the program" in caught.value.hint
    writer.close()


def test_a_geopackage_that_was_left_half_changed_is_refused(tmp_path: Path) -> None:
    grid = utm_grid()
    path = write_geopackage(tmp_path / "a.gpkg", on_map(shapely.box(10, 10, 50, 50), grid))
    source = sqlite3.connect(path)
    source.execute("PRAGMA journal_mode = DELETE")
    source.execute("PRAGMA cache_size = 1")
    source.execute("PRAGMA cache_spill = 1")
    source.execute("CREATE TABLE big (a)")
    source.commit()
    source.execute("BEGIN")
    source.executemany("INSERT INTO big VALUES (?)", [(bytes(5000),)] * 200)
    left = tmp_path / "left"
    left.mkdir()
    for name in ("a.gpkg", "a.gpkg-journal"):  # as a machine that lost its power leaves them
        (left / name).write_bytes((tmp_path / name).read_bytes())
    source.rollback()
    source.close()
    with pytest.raises(InputError, match=r"in the middle of a change: a.gpkg-journal"):
        load_area(left / "a.gpkg", grid)
    (left / "a.gpkg").write_bytes(path.read_bytes())
    (left / "a.gpkg-journal").write_bytes(bytes(512))  # a journal that counts no longer (PRAGMA journal_mode = PERSIST)
    assert load_area(left / "a.gpkg", grid).has_pixels()


def test_a_pipe_is_no_area(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.geojson")
    with pytest.raises(InputError, match="no regular file"):
        load_area(tmp_path / "a.geojson", utm_grid())


def test_bounds_in_a_crs_that_leads_nowhere_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="EPSG:4326\\+5773"):
        area_of_bounds((3.0, 44.0, 3.1, 44.1), utm_grid(), "EPSG:4326+5773")
