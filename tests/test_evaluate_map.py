"""A map against a reference: figures counted again by plain loops, any strips, other grids, shapes, legends."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.crs import CRS
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, jaccard_score

from geoseg_cli.catalog import Legend, legends, mappings
from geoseg_cli.errors import GeosegError, GridError, InputError, InputMissingError, StorageError, UsageError
from geoseg_cli.evaluate.against_map import CompareOptions, compare_map
from geoseg_cli.evaluate.classes import ReferenceOptions, read_mapping
from geoseg_cli.grid import Grid, Window
from geoseg_cli.matrix_picture import CELL_PX, matrix_png
from geoseg_cli.scenes.raster_file import open_geotiff
from tests.test_aoi import centres_inside, on_map, star
from tests.test_labels import UTM, write

Labels = npt.NDArray[np.uint8]
CLOUDS = legends()["cloudsen12"]
MOON = 'GEOGCS["Moon",DATUM["Moon",SPHEROID["Moon",1737400,0]],PRIMEM["None",0],UNIT["degree",0.0174532925199433]]'
FOUR = "0=clear,1=thick_cloud,2=thin_cloud,3=cloud_shadow"


def write_map(path: Path, labels: npt.NDArray[Any], legend: Legend | None = CLOUDS, **profile: Any) -> Path:
    """A class raster, with the tags of a map of geoseg unless ``legend`` is None."""
    write(path, labels, **profile)
    if legend is not None:
        with rasterio.open(path, "r+") as file:
            file.update_tags(GEOSEG_CLASSES=json.dumps(legend.stac_classes()), GEOSEG_LEGEND=legend.name)
    return path


def patchy(rng: np.random.Generator, height: int, width: int, classes: int = 4, side: int = 5) -> Labels:
    """Rectangles of classes with some noise, and 255 in a tenth of the pixels."""
    coarse = rng.integers(0, classes, (-(-height // side), -(-width // side)))
    labels = np.kron(coarse, np.ones((side, side), int))[:height, :width]
    labels = np.where(rng.random(labels.shape) < 0.1, rng.integers(0, classes, labels.shape), labels)
    return np.where(rng.random(labels.shape) < 0.1, 255, labels).astype(np.uint8)


def boundary_pixels(labels: npt.NDArray[Any], cls: int) -> npt.NDArray[np.int_]:
    """(N, 2) rows and columns of the pixels of a class beside one of another class, found one by one."""
    height, width = labels.shape
    found = []
    for row, col in np.argwhere(labels == cls):
        for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            if 0 <= r < height and 0 <= c < width and labels[r, c] not in (cls, 255):
                found.append((row, col))
                break
    return np.array(found, int).reshape(-1, 2)


def boundary_f1(truth: Labels, called: Labels, cls: int, distance: float) -> float:
    """F1 of the boundary of one class from all distances between its boundary pixels."""
    unknown = (truth == 255) | (called == 255)
    true, made = (boundary_pixels(np.where(unknown, 255, one), cls) for one in (truth, called))
    if not len(true) and not len(made):
        return math.nan
    if not len(true) or not len(made):
        return 0.0
    gaps = np.hypot(*(true[:, None] - made[None]).transpose(2, 0, 1))
    recall, precision = (gaps.min(axis=1) <= distance).mean(), (gaps.min(axis=0) <= distance).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 40),
    width=st.integers(1, 30),
    strip_rows=st.integers(1, 45),
    tolerance=st.integers(1, 4),
)
@settings(max_examples=40)
def test_figures_equal_those_counted_again_whatever_the_strips(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int, strip_rows: int, tolerance: int
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("map")
    truth, called = patchy(rng, height, width), patchy(rng, height, width, side=4)
    truth[0, 0] = called[0, 0] = 1
    options = CompareOptions(tolerance_px=tolerance, strip_rows=strip_rows, block_px=7)
    report = compare_map(write_map(folder / "map.tif", called), write(folder / "ref.tif", truth), options)
    both = (truth != 255) & (called != 255)
    true, made = truth[both], called[both]
    assert report.confusion.counts.tolist() == confusion_matrix(true, made, labels=[0, 1, 2, 3]).tolist()
    assert report.unanswered == np.count_nonzero((truth != 255) & (called == 255))
    assert report.untold == np.count_nonzero((truth == 255) & (called != 255))
    present = np.unique(true)
    figures = report.figures
    assert figures["mean_iou"] == pytest.approx(jaccard_score(true, made, labels=present, average="macro"))
    assert figures["mean_f1"] == pytest.approx(f1_score(true, made, labels=present, average="macro"))
    if len(np.union1d(true, made)) > 1:
        assert figures["kappa"] == pytest.approx(cohen_kappa_score(true, made))
    wanted = [boundary_f1(truth, called, cls, tolerance) for cls in range(4)]
    np.testing.assert_allclose([figures[f"boundary_f1 {cls}"] for cls in range(4)], wanted)
    inside = [wanted[cls] for cls in present if not math.isnan(wanted[cls])]
    assert figures["mean_boundary_f1"] == pytest.approx(np.mean(inside) if inside else math.nan, nan_ok=True)


def test_each_block_holds_the_counts_of_its_own_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth, called = patchy(rng, 50, 70), patchy(rng, 50, 70, side=3)
    maps = write_map(tmp_path / "map.tif", called), write(tmp_path / "ref.tif", truth)
    report = compare_map(*maps, CompareOptions(block_px=20, strip_rows=9))
    blocks = [
        (truth[r : r + 20, c : c + 20], called[r : r + 20, c : c + 20]) for r in (0, 20, 40) for c in range(0, 70, 20)
    ]
    assert len(report.table) == len(blocks) == 12
    for row, (true, made) in zip(report.table, blocks, strict=True):
        both = (true != 255) & (made != 255)
        assert row[:16].reshape(4, 4).tolist() == confusion_matrix(true[both], made[both], labels=range(4)).tolist()
    whole = compare_map(*maps, CompareOptions(block_px=100))
    assert whole.figures == report.figures
    assert whole.interval_note == "No intervals: 1 blocks of 100 x 100 px, 5 are needed"
    assert not whole.intervals


def test_blocks_that_are_alike_have_an_interval_without_width(tmp_path: Path) -> None:
    truth = np.tile(np.repeat([[0, 1, 2, 3]], 4, axis=0), (3, 3)).astype(np.uint8)
    called = np.tile([[0, 1, 2, 2]] * 4, (3, 3)).astype(np.uint8)
    report = compare_map(
        write_map(tmp_path / "map.tif", called), write(tmp_path / "ref.tif", truth), CompareOptions(block_px=4)
    )
    assert report.intervals["overall_accuracy"] == (0.75, 0.75)
    assert report.intervals["iou 2"] == (0.5, 0.5)
    assert report.interval_note == "Intervals are 95 %, from 1000 resamplings of 9 blocks of 4 x 4 px"


def test_a_shifted_border_counts_as_found_within_the_tolerance_only(tmp_path: Path) -> None:
    truth = np.where(np.arange(40) < 20, 0, 1)[None].repeat(30, axis=0).astype(np.uint8)
    called = np.roll(truth, 3, axis=1)
    called[:, :3] = 0
    maps = write_map(tmp_path / "map.tif", called), write(tmp_path / "ref.tif", truth)
    assert compare_map(*maps, CompareOptions(tolerance_px=2)).figures["mean_boundary_f1"] == 0
    assert compare_map(*maps, CompareOptions(tolerance_px=3)).figures["mean_boundary_f1"] == 1


@pytest.mark.parametrize("missing", ["none", "nodata", "mask"])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_a_warped_file_holds_the_pixels_in_which_the_centres_lie(tmp_path: Path, crs: str, missing: str) -> None:
    rng = np.random.default_rng(2)
    stored, masked = rng.integers(0, 9, (80, 90)).astype(np.uint8), rng.random((80, 90)) < 0.3
    to_own = pyproj.Transformer.from_crs("EPSG:32631", crs, always_xy=True)
    # Pixels of a kilometre: over their extent the way from one CRS to the other is far from straight.
    coarse = UTM @ Affine.scale(100)
    left, top = to_own.transform(*(coarse @ (-20, -10)))
    step = 1300.0 if crs == "EPSG:32632" else 0.014
    path = write(
        tmp_path / "ref.tif", stored, crs=crs, transform=Affine(step, 0, left, 0, -step, top),
        nodata=4 if missing == "nodata" else None,
    )  # fmt: skip
    if missing == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(~masked)
    grid = Grid(CRS.from_epsg(32631), coarse, 100, 110)
    cols, rows = np.meshgrid(np.arange(110) + 0.5, np.arange(100) + 0.5)
    file = open_geotiff(path)
    at = ~file.grid.transform @ to_own.transform(*(coarse @ (cols, rows)))
    col, row = (np.floor(axis).astype(int) for axis in at)
    inside = (row >= 0) & (row < 80) & (col >= 0) & (col < 90)
    values = stored[row.clip(0, 79), col.clip(0, 89)]
    known = inside & {"none": True, "nodata": values != 4, "mask": ~masked[row.clip(0, 79), col.clip(0, 89)]}[missing]
    assert 0.2 < inside.mean() < 1
    warped = file.warped(grid)
    for height in (100, 7):
        for start in range(0, 100, height):
            window = Window(start, 0, min(height, 100 - start), 110)
            pixels, valid = warped.read((1,), window)
            assert (valid == known[window.rows]).all()
            assert (pixels[0][valid] == values[window.rows][valid]).all()
    warped.close()
    file.close()


def test_a_reference_of_coarser_pixels_counts_for_each_pixel_of_the_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 4, (15, 20)).astype(np.uint8)
    called = patchy(rng, 30, 40)
    # Its first pixel covers the map's first two rows and columns, and beyond it lies a border of its own.
    around = np.pad(coarse, 2, constant_values=3)
    path = write(tmp_path / "ref.tif", around, transform=UTM @ Affine.translation(-4, -4) @ Affine.scale(2))
    report = compare_map(write_map(tmp_path / "map.tif", called), path, CompareOptions(strip_rows=4))
    truth, known = np.kron(coarse, np.ones((2, 2), np.uint8)), called != 255
    assert report.confusion.counts.tolist() == confusion_matrix(truth[known], called[known]).tolist()
    assert "its pixels are the nearest ones of another grid" in report.notes


@pytest.mark.parametrize("turn", [Affine.rotation(30), Affine.scale(1, -1), Affine(0, 1, 0, 1, 0, 0)])
def test_a_map_whose_rows_run_another_way_meets_the_same_ground(tmp_path: Path, turn: Affine) -> None:
    rng = np.random.default_rng(10)
    truth, called = rng.integers(0, 4, (80, 80)).astype(np.uint8), rng.integers(0, 4, (30, 40)).astype(np.uint8)
    placed = UTM @ Affine.translation(40.3, 40.2) @ turn
    cols, rows = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    col, row = (np.floor(axis).astype(int) for axis in ~UTM @ (placed @ (cols, rows)))
    inside = (row >= 0) & (row < 80) & (col >= 0) & (col < 80)
    made = write_map(tmp_path / "map.tif", called, transform=placed)
    report = compare_map(made, write(tmp_path / "ref.tif", truth), CompareOptions(strip_rows=11))
    wanted = confusion_matrix(truth[row[inside], col[inside]], called[inside])
    assert inside.sum() > 600
    assert report.confusion.counts.tolist() == wanted.tolist()


def test_pixels_outside_a_smaller_reference_do_not_count(tmp_path: Path) -> None:
    called = np.ones((20, 20), np.uint8)
    path = write(tmp_path / "ref.tif", np.ones((5, 6), np.uint8), transform=UTM @ Affine.translation(3, 2))
    report = compare_map(write_map(tmp_path / "map.tif", called), path)
    assert (report.confusion.pixels, report.untold) == (30, 400 - 30)


def grid_of(height: int, width: int) -> Grid:
    return Grid(CRS.from_epsg(32631), UTM, height, width)


def write_shapes(path: Path, shapes: list[Any], classes: list[Any], name: str = "class", epsg: int = 32631) -> Path:
    """GeoJSON, or a GeoPackage as GDAL writes it."""
    features = [
        {"type": "Feature", "properties": {name: cls}, "geometry": json.loads(shapely.to_geojson(shape))}
        for shape, cls in zip(shapes, classes, strict=True)
    ]
    crs = {"type": "name", "properties": {"name": f"EPSG:{epsg}"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    return path


def test_a_point_takes_the_pixel_in_which_it_lies_and_a_polygon_the_centres_inside(tmp_path: Path) -> None:
    rng, grid = np.random.default_rng(4), grid_of(600, 300)
    called = rng.integers(0, 4, (600, 300)).astype(np.uint8)
    polygons = [star(rng, 60, 80, 50), star(rng, 250, 200, 60), star(rng, 500, 100, 70)]
    points = [shapely.Point(col, row) for row, col in rng.random((200, 2)) * (600, 300)]
    shapes = [*polygons, *points]
    classes = [*(0, 1, 2), *rng.integers(0, 4, 200).tolist()]
    claims = np.zeros((4, 600, 300), bool)
    for shape, cls in zip(polygons, classes, strict=False):
        claims[cls] |= centres_inside(shape, grid.window)
    for point, cls in zip(points, classes[3:], strict=True):
        claims[cls, int(point.y), int(point.x)] = True
    truth = np.where(claims.sum(axis=0) == 1, claims.argmax(axis=0), 255)
    known = truth != 255
    path = write_shapes(tmp_path / "ref.geojson", [on_map(shape, grid) for shape in shapes], classes)
    for rows in (None, 1, 100):
        report = compare_map(write_map(tmp_path / "map.tif", called), path, CompareOptions(strip_rows=rows))
        wanted = confusion_matrix(truth[known], called[known], labels=range(4))
        assert report.confusion.counts.tolist() == wanted.tolist()
        assert report.figures.get("mean_boundary_f1") is None
        contradicted = int((claims.sum(axis=0) > 1).sum())
        assert f"{contradicted:,} px are claimed by shapes of different classes and do not count" in report.notes


def test_polygons_in_degrees_lie_where_their_corners_do(tmp_path: Path) -> None:
    grid = grid_of(300, 300)
    square = shapely.box(40, 50, 90, 120)
    to_degrees = pyproj.Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True)
    lon_lat = shapely.transform(on_map(square, grid), to_degrees.transform, interleaved=False)
    path = write_shapes(tmp_path / "ref.geojson", [lon_lat, shapely.Point(100, 80)], ["Thick cloud", 1], epsg=4326)
    called = np.ones((300, 300), np.uint8)
    report = compare_map(write_map(tmp_path / "map.tif", called), path)
    assert report.confusion.counts[1, 1] == 50 * 70
    assert any(note.startswith("1 of 2 shapes label no pixel") for note in report.notes)


def test_intervals_of_points_are_those_of_a_share(tmp_path: Path) -> None:
    rng, grid = np.random.default_rng(5), grid_of(100, 100)
    places = rng.choice(10_000, 400, replace=False)
    right = rng.random(400) < 0.8
    shapes = [on_map(shapely.Point(place % 100 + 0.5, place // 100 + 0.5), grid) for place in places]
    path = write_shapes(tmp_path / "ref.geojson", shapes, np.where(right, 1, 2).tolist())
    report = compare_map(write_map(tmp_path / "map.tif", np.ones((100, 100), np.uint8)), path)
    share = right.mean()
    half = 1.96 * math.sqrt(share * (1 - share) / 400)
    assert report.figures["overall_accuracy"] == share
    assert report.intervals["overall_accuracy"] == pytest.approx((share - half, share + half), abs=0.006)
    assert report.interval_note.endswith("400 shapes")


@pytest.mark.parametrize(
    "classes", [[0, 1, 2], ["0", "1", "2"], [0.0, 1.0, 2.0], ["clear", "Thick cloud", "THIN_CLOUD"]]
)
def test_the_class_of_a_shape_is_a_value_a_name_or_a_title(tmp_path: Path, classes: list[Any]) -> None:
    grid = grid_of(10, 10)
    shapes = [on_map(shapely.Point(col + 0.5, 0.5), grid) for col in range(3)]
    called = np.arange(100).reshape(10, 10).clip(0, 3).astype(np.uint8)
    report = compare_map(
        write_map(tmp_path / "map.tif", called), write_shapes(tmp_path / "ref.geojson", shapes, classes)
    )
    assert np.diag(report.confusion.counts).tolist() == [1, 1, 1, 0]


def test_a_polygon_that_crosses_itself_labels_no_line_between_its_parts(tmp_path: Path) -> None:
    grid = grid_of(20, 20)
    # A spike without area from (10, 5) to (18, 5).
    shape = shapely.Polygon([(2, 2), (10, 2), (10, 5), (18, 5), (10, 5), (10, 9), (2, 9)])
    path = write_shapes(tmp_path / "ref.geojson", [on_map(shape, grid)], [1])
    report = compare_map(write_map(tmp_path / "map.tif", np.ones((20, 20), np.uint8)), path)
    assert report.confusion.pixels == 8 * 7


def test_values_are_mapped_as_told_in_each_form(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    truth, called = rng.integers(0, 4, (2, 30, 30)).astype(np.uint8)
    coded = np.array([-7, 1100, 12, 13], np.int32)[truth]
    (tmp_path / "m.csv").write_text("reference,map\n-7,clear\n1100,1\n12,2\n13,Cloud shadow\n")
    (tmp_path / "m.toml").write_text('-7 = 0\n1100 = "thick_cloud"\n12 = 2\n13 = 3\n')
    maps = write_map(tmp_path / "map.tif", called), write(tmp_path / "ref.tif", coded)
    for text in ("-7=0, 1100=1,12=2,13=3", str(tmp_path / "m.csv"), str(tmp_path / "m.toml")):
        report = compare_map(*maps, CompareOptions(reference=ReferenceOptions(mapping=read_mapping(text))))
        assert report.confusion.counts.tolist() == confusion_matrix(truth.ravel(), called.ravel()).tolist()


def test_two_maps_with_tags_are_compared_by_the_names_of_their_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    truth, called = rng.integers(0, 4, (2, 20, 20)).astype(np.uint8)
    turned = Legend("turned", tuple(type(c)(40 - 10 * c.value, c.name, c.title, c.color) for c in CLOUDS.classes))
    path = write_map(tmp_path / "ref.tif", (40 - 10 * truth.astype(int)).astype(np.uint8), turned)
    report = compare_map(write_map(tmp_path / "map.tif", called), path)
    assert report.confusion.counts.tolist() == confusion_matrix(truth.ravel(), called.ravel()).tolist()
    assert report.notes == ("its classes are the map's by name",)


def test_the_legend_of_a_reference_is_turned_into_the_map_s_where_that_is_written_down(tmp_path: Path) -> None:
    """cloudsen12 against cloud-binary: two clouds are one class, and a shadow is no cloud."""
    rng = np.random.default_rng(9)
    truth, called = rng.integers(0, 4, (20, 20)).astype(np.uint8), rng.integers(0, 2, (20, 20)).astype(np.uint8)
    paths = write_map(tmp_path / "map.tif", called, legends()["cloud-binary"]), write_map(tmp_path / "ref.tif", truth)
    report = compare_map(*paths)
    wanted = np.array([0, 1, 1, 0])[truth]
    assert report.confusion.counts.tolist() == [
        [int(((wanted == true) & (called == said)).sum()) for said in (0, 1)] for true in (0, 1)
    ]
    assert "cloudsen12, are turned into cloud-binary" in report.notes[0]


def test_classes_that_the_map_s_legend_has_not_are_ignored_and_counted(tmp_path: Path) -> None:
    known = mappings()["esa-worldcover", "dynamic-world"]
    lost = next(one.value for one in known.source.classes if one.name in known.lost)
    tree = next(one.value for one in known.source.classes if known.classes.get(one.name) == "trees")
    truth = np.full((10, 10), tree, np.uint8)
    truth[:3] = lost
    called = next(one.value for one in known.target.classes if one.name == "trees") * np.ones((10, 10), np.uint8)
    reference = write_map(tmp_path / "ref.tif", truth, known.source)
    report = compare_map(write_map(tmp_path / "map.tif", called, known.target), reference)
    assert report.confusion.counts.sum() == 70
    assert np.trace(report.confusion.counts) == 70


def test_map_values_of_one_class_are_compared_as_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    called = rng.integers(0, 4, (20, 20)).astype(np.uint8)
    truth = rng.integers(0, 2, (20, 20)).astype(np.uint8)
    merged, told = np.array([0, 1, 1, 0])[called], ReferenceOptions({"0": "clear", "1": "cloud"})
    report = compare_map(
        write_map(tmp_path / "map.tif", called, None), write(tmp_path / "ref.tif", truth),
        CompareOptions(legend="0=clear,1=cloud,2=cloud,3=clear", reference=told),
    )  # fmt: skip
    assert report.confusion.counts.tolist() == confusion_matrix(truth.ravel(), merged.ravel()).tolist()
    for cls in (0, 1):
        wanted = boundary_f1(truth, merged.astype(np.uint8), cls, 2)
        assert report.figures[f"boundary_f1 {cls}"] == pytest.approx(wanted)


def test_unknown_values_are_refused_with_a_table_and_left_out_when_told(tmp_path: Path) -> None:
    truth = np.zeros((10, 20), np.uint8)
    truth[:3], truth[3], truth[4, :5] = 77, 99, 255
    maps = write_map(tmp_path / "map.tif", np.zeros((10, 20), np.uint8)), write(tmp_path / "ref.tif", truth)
    with pytest.raises(InputError, match=r"77 +60 px\n +99 +20 px") as caught:
        compare_map(*maps, CompareOptions(strip_rows=2))
    assert "--ignore-unknown" in caught.value.hint
    with pytest.raises(InputError, match=r"77 +60 px"):
        compare_map(*maps, CompareOptions(reference=ReferenceOptions(ignored=frozenset({"99"}))))
    for options in (
        CompareOptions(ignore_unknown=True, strip_rows=3),
        CompareOptions(reference=ReferenceOptions(ignored=frozenset({"77", "99"})), strip_rows=3),
    ):
        report = compare_map(*maps, options)
        assert (report.confusion.pixels, report.untold) == (200 - 85, 85)
        assert [*report.left_out.values()] == [{"77": 60, "99": 20}]


def test_shapes_of_unknown_classes_are_refused_with_a_table(tmp_path: Path) -> None:
    grid = grid_of(10, 10)
    shapes = [on_map(shapely.Point(col + 0.5, 0.5), grid) for col in range(4)]
    path = write_shapes(tmp_path / "ref.geojson", shapes, ["clear", "fog", "fog", None])
    made = write_map(tmp_path / "map.tif", np.zeros((10, 10), np.uint8))
    with pytest.raises(InputError, match=r"fog +2 shapes\n +\(empty\) +1 shapes"):
        compare_map(made, path)
    report = compare_map(made, path, CompareOptions(ignore_unknown=True))
    assert report.left_out == {"unknown in the reference": {"(empty)": 1, "fog": 2}}
    told = ReferenceOptions({"CLEAR": "0", "fog": "thin_cloud"}, frozenset({""}))
    assert compare_map(made, path, CompareOptions(reference=told)).confusion.counts[2, 0] == 2


@pytest.mark.parametrize(
    ("make", "options", "error", "said"),
    [
        (lambda f: (f / "none.tif", f / "ref.tif"), {}, InputMissingError, "no such file"),
        (lambda f: (f / "map.tif", f / "none.tif"), {}, InputMissingError, "no such file"),
        (lambda f: (f / "map.tif", f / "none.gpkg"), {}, InputMissingError, "there is no"),
        (lambda f: (f / "map.tif", f), {}, InputError, "is a folder"),
        (lambda f: (f / "map.tif", f / "text.tif"), {}, InputError, "is no TIFF"),
        (lambda f: (f / "map.tif", f / "short.tif"), {}, StorageError, "truncated"),
        (lambda f: (f / "untagged.tif", f / "ref.tif"), {}, InputError, "does not say what its values mean"),
        (lambda f: (f / "map.tif", f / "two.tif"), {}, InputError, "has one band, this file has 2"),
        (lambda f: (f / "map.tif", f / "float.tif"), {}, InputError, "whole numbers, this file float32"),
        (lambda f: (f / "zero.tif", f / "ref.tif"), {}, InputError, "both the file's nodata value and a class"),
        (lambda f: (f / "map.tif", f / "zero.tif"), {}, InputError, "both the file's nodata value and a class"),
        (lambda f: (f / "map.tif", f / "nowhere.tif"), {}, GridError, "the reference has no CRS"),
        (lambda f: (f / "nowhere.tif", f / "ref.tif"), {"legend": FOUR}, GridError, "the map has no CRS"),
        (lambda f: (f / "nowhere.tif", f / "p.geojson"), {"legend": FOUR}, GridError, "a map without a CRS"),
        (lambda f: (f / "map.tif", f / "moon.tif"), {}, GridError, "nothing leads from the CRS of"),
        (lambda f: (f / "moon.tif", f / "p.geojson"), {"legend": FOUR}, GridError, "nothing leads from"),
        (lambda f: (f / "map.tif", f / "far.tif"), {}, InputError, "no pixel has a class"),
        (lambda f: (f / "map.tif", f / "line.geojson"), {}, InputError, "holds LineString"),
        (lambda f: (f / "map.tif", f / "named.geojson"), {}, InputError, "no attribute class; it has habitat"),
        (lambda f: (f / "map.tif", f / "ref.tif"), {"legend": "esa"}, UsageError, "there is no such legend"),
        (lambda f: (f / "map.tif", f / "ref.tif"), {"legend": "0=a,b"}, UsageError, "'b' is no pair"),
        (lambda f: (f / "map.tif", f / "ref.tif"), {"legend": "0=a,0=b"}, UsageError, "names 0 twice"),
        (lambda f: (f / "map.tif", f / "ref.tif"), {"legend": "255=a"}, UsageError, "no value from 0 to 254"),
        (lambda f: (f / "map.tif", f / "ref.tif"), {"legend": "0=a,1=b"}, InputError, "2 +25 px"),
        (lambda f: (f / "map.tif", f / "ref.tif"), {"block_px": 0}, UsageError, "--block 0 makes 0 blocks"),
        (lambda f: (f / "map.tif", f / "ref.tif"), {"tolerance_px": 0}, UsageError, "--tolerance 0"),
        (lambda f: (f / "map.tif", f / "ref.tif"), {"tolerance_px": 65}, UsageError, "--tolerance 65"),
        (
            lambda f: (f / "map.tif", f / "ref.tif"),
            {"reference": ReferenceOptions({"0": "fog"})},
            InputError,
            "'fog', which 0 becomes, is no class",
        ),
        (
            lambda f: (f / "map.tif", f / "ref.tif"),
            {"reference": ReferenceOptions({"a": "clear"})},
            InputError,
            "'a' is no value of a raster",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, make: Any, options: dict[str, Any], error: type[GeosegError], said: str
) -> None:
    labels = np.arange(100).reshape(10, 10) // 25
    stored, grid = labels.astype(np.uint8), grid_of(10, 10)
    write_map(tmp_path / "map.tif", stored)
    write(tmp_path / "ref.tif", stored)
    write(tmp_path / "untagged.tif", stored)
    write(tmp_path / "two.tif", np.stack([stored, stored]))
    write(tmp_path / "float.tif", stored.astype(np.float32))
    write_map(tmp_path / "zero.tif", stored, nodata=0)
    write(tmp_path / "nowhere.tif", stored, crs=None)
    write(tmp_path / "moon.tif", stored, crs=MOON)
    write(tmp_path / "far.tif", stored, transform=UTM @ Affine.translation(1000, 0))
    (tmp_path / "text.tif").write_text("no map")
    (tmp_path / "short.tif").write_bytes((tmp_path / "ref.tif").read_bytes()[:200])
    line, point = (on_map(one, grid) for one in (shapely.LineString([(0, 0), (9, 9)]), shapely.Point(1, 1)))
    write_shapes(tmp_path / "line.geojson", [line], [1])
    write_shapes(tmp_path / "p.geojson", [point], [1])
    write_shapes(tmp_path / "named.geojson", [point], [1], name="habitat")
    with pytest.raises(error, match=said):
        compare_map(*make(tmp_path), CompareOptions(**options))


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("", "11", UsageError, "no pair"),
        ("", "11=10,11=20", UsageError, "names 11 twice"),
        ("m.csv", None, InputMissingError, "there is no"),
        ("m.csv", "a,b\n1,2\n", InputError, "no columns reference and map"),
        ("m.csv", "reference,map\n1,\n", InputError, "line 2: not told what 1 is"),
        ("m.csv", "reference,map\n1,2\n1,3\n", InputError, "line 3: twice told what 1 is"),
        ("m.csv", "reference,map\n", InputError, "maps nothing"),
        ("m.csv", b"\xff\xfe\x00", InputError, "cannot be read"),
        ("m.toml", "11 =", InputError, "cannot be read"),
        ("m.toml", "11 = [1]", InputError, "11 is neither a value nor"),
        ("m.toml", "x" * 2**21, InputError, "too large"),
    ],
)
def test_a_mapping_that_says_nothing_clear_is_refused(
    tmp_path: Path, name: str, content: Any, error: type[GeosegError], said: str
) -> None:
    if name and content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=said):
        read_mapping(str(tmp_path / name) if name else content)


def test_json_and_csv_say_what_the_report_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    truth, called = patchy(rng, 60, 60), patchy(rng, 60, 60)
    maps = write_map(tmp_path / "map.tif", called), write(tmp_path / "ref.tif", truth)
    report = compare_map(*maps, CompareOptions(block_px=10))
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    both = (truth != 255) & (called != 255)
    table = confusion_matrix(truth[both], called[both])
    assert told["total"]["confusion"] == table.tolist()
    assert told["total"]["kappa"] == round(cohen_kappa_score(truth[both], called[both]), 4)
    assert told["total"]["classes"]["clear"]["called"] == table[:, 0].sum()
    low, high = told["total"]["classes"]["clear"]["boundary_f1_95"]
    assert low < told["total"]["classes"]["clear"]["boundary_f1"] < high
    assert [row["value"] for row in told["classes"]] == [0, 1, 2, 3]
    corner, *rows = csv.reader(io.StringIO(report.matrix_csv()))
    assert corner == ["reference\\map", "clear", "thick_cloud", "thin_cloud", "cloud_shadow"]
    assert [row[0] for row in rows] == corner[1:]
    assert [[int(cell) for cell in row[1:]] for row in rows] == table.tolist()


def test_cells_of_the_picture_are_as_dark_as_their_share_of_the_row() -> None:
    counts = np.array([[0, 40, 0], [25, 75, 0], [0, 0, 0]])
    image = Image.open(io.BytesIO(matrix_png(counts, ["a", "a long\x1b name" * 20, "c"], "a map")))
    right, below = image.size[0] - 12, image.size[1] - 2 * 10 - 14
    left, top = right + 2 - 3 * CELL_PX, below - 3 * CELL_PX
    corner = [[image.getpixel((left + c * CELL_PX + 4, top + r * CELL_PX + 4)) for c in range(3)] for r in range(3)]
    white, dark = (255, 255, 255), (8, 69, 148)
    assert corner[0] == [white, dark, white]
    assert corner[1][0] == tuple(round(w + (d - w) * 0.25) for w, d in zip(white, dark, strict=True))
    assert corner[2] == [white, white, white]
