"""Own images and labels: what is cut from them, what is refused, and what is never opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

pytest.importorskip("torch")

from geoseg_cli.bundle import InputSpec
from geoseg_cli.catalog import LandClass, Legend, legends
from geoseg_cli.errors import BandError, GridError, InputError, InputMissingError, RadiometryError
from geoseg_cli.grid import Grid
from geoseg_cli.training.chip_store import ChipRow, StoredChips
from geoseg_cli.training.chips import DN_NODATA, targets_from_values, values_from_targets
from geoseg_cli.training.config import DataTable, PairsTable, VectorsTable
from geoseg_cli.training.own_data import CHIP_PX, ChipCutter, find_data
from geoseg_cli.training.split import Part
from geoseg_cli.training.vectors import Burner, Feature, Features, read_features
from tests.conftest import TEN_METRES, write_scene

LEGEND = legends()["esa-worldcover"].subset((10, 80))
SPEC = InputSpec(("red", "nir", "swir16"), ("swir16",), (0.0,) * 3, (1.0,) * 3)
DN_TAGS = [(1e-4, 0.0)]


def write_pair(folder: Path, seed: int = 0, size: tuple[int, int] = (40, 50), **changes: Any) -> tuple[Path, Path]:
    """``scene.tif`` with nir before red, and its label."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(100, 5000, (2, *size)).astype(np.uint16)
    labels = rng.choice([10, 80, 255], size).astype(np.uint8)[None]
    image = write_scene(folder / "scene.tif", pixels, ("nir", "red"), DN_TAGS * 2, nodata=changes.get("nodata"))
    labels = changes.get("labels", labels)
    profile = {"transform": changes["transform"]} if "transform" in changes else {}
    return image, write_scene(folder / "scene_label.tif", labels, **profile)


def cut(tmp_path: Path, table: DataTable, parts: dict[str, Part], legend: Legend = LEGEND) -> list[ChipRow]:
    chips = tmp_path / "chips"
    chips.mkdir()
    return ChipCutter(chips, SPEC, legend, gsd_m=10.0).cut_all(find_data(table, legend), parts)


def pairs(folder: Path, **changes: Any) -> DataTable:
    return DataTable(pairs=(PairsTable(folder=folder, **changes),))


def test_chips_hold_the_bands_by_name_as_reflectance_and_the_labels(tmp_path: Path) -> None:
    image, label = write_pair(tmp_path / "own" / "a")
    (row,) = cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"})
    chip = StoredChips(tmp_path / "chips", [row])[0]
    with rasterio.open(image) as scene, rasterio.open(label) as truth:
        nir, red = scene.read()
        values = truth.read(1)
    assert chip.bands == ("red", "nir")
    np.testing.assert_array_equal(chip.dn, [red, nir])
    np.testing.assert_array_equal(values_from_targets(np.asarray(chip.target), LEGEND.values), values)
    assert row.pixels == (int((values == 10).sum()), int((values == 80).sum()))


def test_the_test_part_is_never_opened(tmp_path: Path) -> None:
    for place in "abc":
        write_pair(tmp_path / "own" / place)
    for path in (tmp_path / "own" / "c").iterdir():
        path.write_bytes(b"whoever opens this fails")
    rows = cut(tmp_path, pairs(tmp_path / "own"), {"a": "train", "b": "develop", "c": "test"})
    assert [row.part for row in rows] == ["train", "develop"]


def test_pixels_without_data_have_no_label(tmp_path: Path) -> None:
    image, _ = write_pair(tmp_path / "own" / "a", nodata=0)
    with rasterio.open(image, "r+") as scene:
        pixels = scene.read()
        pixels[0, :10] = 0
        scene.write(pixels)
    (row,) = cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"})
    chip = StoredChips(tmp_path / "chips", [row])[0]
    assert (chip.target[:10] == 0).all()
    assert (chip.dn[:, :10] == DN_NODATA).all()
    assert (chip.target[10:] != 0).any()


def test_a_large_scene_is_cut_into_chips_that_hold_each_pixel_once(tmp_path: Path) -> None:
    _, label = write_pair(tmp_path / "own" / "a", size=(CHIP_PX["pairs"] + 1, 2 * CHIP_PX["pairs"]))
    rows = cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"})
    assert max(max(row.height_px, row.width_px) for row in rows) <= CHIP_PX["pairs"]
    assert len(rows) == 4
    with rasterio.open(label) as truth:
        values = truth.read(1)
    assert np.sum([row.pixels for row in rows], axis=0).tolist() == [(values == 10).sum(), (values == 80).sum()]


def test_twelve_classes_are_kept_apart(tmp_path: Path) -> None:
    legend = Legend("many", tuple(LandClass(value, f"c{value}", f"C{value}", "#000000") for value in range(12)))
    labels = np.arange(2000).reshape(1, 40, 50).astype(np.uint8) % 12
    write_pair(tmp_path / "own" / "a", labels=labels)
    (row,) = cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"}, legend)
    target = np.asarray(StoredChips(tmp_path / "chips", [row])[0].target)
    assert (target == 1 << labels[0].astype(int)).all()
    np.testing.assert_array_equal(values_from_targets(target, legend.values), labels[0])


@given(values=st.lists(st.integers(0, 254), min_size=1, max_size=62, unique=True), seed=st.integers(0, 9))
def test_targets_of_any_legend_give_back_its_values(values: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)
    back = values_from_targets(targets_from_values(labels, values), values)
    np.testing.assert_array_equal(back, np.where(np.isin(labels, values), labels, 255))


def test_labels_on_another_grid_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "own" / "a", transform=TEN_METRES @ Affine.translation(1, 0))
    with pytest.raises(GridError, match="does not lie on the pixels"):
        cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"})


def test_label_values_outside_the_legend_are_refused_unless_they_are_ignored(tmp_path: Path) -> None:
    labels = np.full((1, 40, 50), 10, np.uint8)
    labels[0, 0, :3] = 7
    write_pair(tmp_path / "own" / "a", labels=labels)
    with pytest.raises(InputError, match=r"7 \(3 px\)") as caught:
        cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"})
    assert "ignore = [" in caught.value.hint
    (tmp_path / "chips").rmdir()
    (row,) = cut(tmp_path, pairs(tmp_path / "own", ignore=(7,)), {"a": "train"})
    assert row.pixels == (1997, 0)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no pair"):
        find_data(pairs(tmp_path), LEGEND)


def test_missing_bands_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "own" / "a")
    write_scene(tmp_path / "own" / "a" / "scene.tif", np.ones((2, 40, 50), np.uint16), ("nir", "green"), DN_TAGS * 2)
    with pytest.raises(BandError, match="red"):
        cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"})


def test_a_training_part_without_a_label_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "own" / "a", labels=np.full((1, 40, 50), 255, np.uint8))
    with pytest.raises(InputError, match="no pixel of the training part"):
        cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"})


# Points and polygons.

GRID = Grid(rasterio.CRS.from_epsg(32631), TEN_METRES, 30, 40)
TO_LON_LAT = Transformer.from_crs("EPSG:32631", "OGC:CRS84", always_xy=True)


def lon_lat(col: float, row: float) -> tuple[float, float]:
    lon, lat = TO_LON_LAT.transform(*(TEN_METRES @ (col, row)))
    return lon, lat


def collection(*features: tuple[dict[str, Any], dict[str, Any]], **rest: Any) -> str:
    rows = [{"type": "Feature", "geometry": g, "properties": p} for g, p in features]
    return json.dumps({"type": "FeatureCollection", "features": rows, **rest})


def square(col: float, row: float, side: float) -> dict[str, Any]:
    corners = [(col, row), (col + side, row), (col + side, row + side), (col, row + side), (col, row)]
    return {"type": "Polygon", "coordinates": [[lon_lat(*corner) for corner in corners]]}


def point(col: float, row: float) -> dict[str, Any]:
    return {"type": "Point", "coordinates": lon_lat(col, row)}


def read(tmp_path: Path, text: str, **changes: Any) -> Features:
    path = tmp_path / "labels.geojson"
    path.write_text(text, encoding="utf-8")
    return read_features(VectorsTable(file=path, scenes=tmp_path, **changes), LEGEND)


def test_a_polygon_labels_the_pixels_whose_middle_it_holds(tmp_path: Path) -> None:
    geometry = {"type": "Polygon", "coordinates": [[lon_lat(*p) for p in ((3, 4), (31, 9), (12, 27), (3, 4))]]}
    features = read(tmp_path, collection((geometry, {"class": "water", "where": "a"})), place_property="where")
    labels = Burner(features, {"a": "train"}, GRID).read(GRID.window)["train"]
    to_map = Transformer.from_crs("OGC:CRS84", "EPSG:32631", always_xy=True)
    on_map = shapely.transform(shapely.geometry.shape(geometry), lambda p: np.stack(to_map.transform(*p.T), axis=1))
    x, y = TEN_METRES @ (np.arange(40)[None, :] + 0.5 + np.zeros((30, 1)), np.arange(30)[:, None] + 0.5 + np.zeros(40))
    np.testing.assert_array_equal(labels, np.where(shapely.contains_xy(on_map, x, y), 80, 255))


def test_a_point_labels_the_pixel_it_lies_in_or_those_around_it(tmp_path: Path) -> None:
    text = collection((point(7.2, 5.9), {"class": 10, "where": "a"}))
    labels = Burner(read(tmp_path, text, place_property="where"), {"a": "train"}, GRID).read(GRID.window)["train"]
    assert np.argwhere(labels != 255).tolist() == [[5, 7]]
    wide = read(tmp_path, text, place_property="where", point_radius_m=15)
    labels = Burner(wide, {"a": "train"}, GRID).read(GRID.window)["train"]
    rows, cols = np.mgrid[:30, :40] + 0.5
    near = np.hypot(rows - 5.9, cols - 7.2) <= 1.5
    assert labels[near & (np.hypot(rows - 5.9, cols - 7.2) <= 1.45)].tolist() == [10] * int(
        (np.hypot(rows - 5.9, cols - 7.2) <= 1.45).sum()
    )
    assert (labels[~near] == 255).all()


RECTANGLES = st.lists(
    st.tuples(
        st.integers(0, 39), st.integers(0, 29), st.integers(1, 12), st.integers(1, 12),
        st.sampled_from([10, 80]), st.sampled_from(["a", "b", "c"]),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@given(rectangles=RECTANGLES)
def test_a_pixel_that_two_classes_or_two_parts_claim_is_unknown(rectangles: list[tuple[Any, ...]]) -> None:
    parts: dict[str, Part] = {"a": "train", "b": "develop", "c": "test"}
    claims = {(part, value): np.zeros((30, 40), bool) for part in parts.values() for value in (10, 80)}
    items = []
    for col, row, width, height, value, place in rectangles:
        claims[parts[place], value][row : row + height, col : col + width] = True
        corners = [TEN_METRES @ (c, r) for c, r in ((col, row), (col + width, row + height))]
        items.append(Feature(shapely.box(*corners[0], *corners[1]), value, place))
    features = Features(Path("x"), CRS.from_epsg(32631), tuple(items), 0.0)
    labels = Burner(features, parts, GRID).read(GRID.window)
    assert "test" not in labels
    count = sum(claim.astype(int) for claim in claims.values())
    for part in ("train", "develop"):
        wanted = np.full((30, 40), 255)
        for value in (10, 80):
            wanted[claims[part, value] & (count == 1)] = value
        np.testing.assert_array_equal(labels.get(part, np.full((30, 40), 255)), wanted)


def test_windows_together_hold_what_the_whole_holds(tmp_path: Path) -> None:
    text = collection(
        (square(5.3, 6.1, 17), {"class": 10, "where": "a"}), (point(30.5, 3.5), {"class": 80, "where": "a"})
    )
    burner = Burner(read(tmp_path, text, place_property="where"), {"a": "train"}, GRID)
    whole = burner.read(GRID.window)["train"]
    parts = np.full_like(whole, 255)
    for row, height in ((0, 13), (13, 17)):
        for col, width in ((0, 9), (9, 31)):
            window = type(GRID.window)(row, col, height, width)
            if burner.touches(window):
                for labels in burner.read(window).values():
                    parts[row : row + height, col : col + width] = labels
    np.testing.assert_array_equal(parts, whole)


def test_squares_are_places_where_no_property_is(tmp_path: Path) -> None:
    text = collection(*((point(col, 5), {"class": 10}) for col in (1, 2, 900, 901)))
    near, also_near, far, also_far = (one.place for one in read(tmp_path, text, block_m=3000).items)
    assert near == also_near
    assert far == also_far
    assert near != far


def test_chips_of_vectors_are_cut_where_features_lie(tmp_path: Path) -> None:
    size = (CHIP_PX["pairs"] + 100, 2 * CHIP_PX["pairs"])
    (tmp_path / "scenes").mkdir()
    pixels = np.full((2, *size), 1000, np.uint16)
    write_scene(tmp_path / "scenes" / "s.tif", pixels, ("red", "nir"), DN_TAGS * 2)
    text = collection(
        (square(10, 10, 20), {"class": 10, "where": "a"}), (square(900, 10, 4), {"class": 80, "where": "b"})
    )
    (tmp_path / "l.geojson").write_text(text)
    table = VectorsTable(file=tmp_path / "l.geojson", scenes=tmp_path / "scenes", place_property="where")
    rows = cut(tmp_path, DataTable(vectors=(table,)), {"a": "train", "b": "develop"})
    assert [(row.part, row.pixels) for row in rows] == [("train", (400, 0)), ("develop", (0, 16))]


LINE = {"type": "LineString", "coordinates": [[3, 50], [4, 50]]}


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        (collection((point(1, 1), {"class": "lava"})), {}, ("feature 0, 'class'", "'lava' is no class", "water")),
        (collection((point(1, 1), {"kind": 10})), {}, ("None is no class", "class_property")),
        (collection((point(1, 1), {"class": 10})), {"place_property": "where"}, ("'where' does not say the place",)),
        (collection((LINE, {"class": 10})), {}, ("feature 0 is a LineString", "Polygon")),
        (collection(({"type": "Point", "coordinates": []}, {"class": 10})), {}, ("feature 0",)),
        (collection(), {}, ("holds no feature",)),
        ("[1, 2]", {}, ("no FeatureCollection", "ogr2ogr")),
        ("{", {}, ("cannot be read as GeoJSON",)),
        (collection(crs={"type": "name", "properties": {"name": "EPSG:999999"}}), {}, ("CRS 'EPSG:999999'",)),
    ],
)
def test_features_that_cannot_be_used_are_named(
    tmp_path: Path, text: str, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text, **changes)
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"


def test_a_scene_without_a_crs_takes_no_features(tmp_path: Path) -> None:
    features = read(tmp_path, collection((point(1, 1), {"class": 10})))
    with pytest.raises(GridError, match="without a CRS"):
        Burner(features, {features.items[0].place: "train"}, Grid(None, TEN_METRES, 30, 40))


def test_hints_name_the_keys_of_the_configuration(tmp_path: Path) -> None:
    write_pair(tmp_path / "own" / "a")
    write_scene(tmp_path / "own" / "a" / "scene.tif", np.ones((2, 40, 50), np.uint16), ("nir", "red"))
    with pytest.raises(RadiometryError) as caught:
        cut(tmp_path, pairs(tmp_path / "own"), {"a": "train"})
    assert 'radiometry = "dn"' in caught.value.hint
    (tmp_path / "chips").rmdir()
    (row,) = cut(tmp_path, pairs(tmp_path / "own", radiometry="dn"), {"a": "train"})
    assert row.bands == ("red", "nir")


def test_points_on_a_real_scene_in_degrees_label_their_pixels(tmp_path: Path, real_data: Path) -> None:
    scene = real_data / "scenes" / "s2_l2a_alberta_20190522" / "S2_L2A_20190522_alberta.tif"
    places = [(100, 200), (900, 700), (1600, 1200)]
    with rasterio.open(scene) as file:
        middles = [file.xy(row, col) for row, col in places]
        stored = file.read(3)  # red
    rows = [({"type": "Point", "coordinates": xy}, {"class": 10, "where": "a"}) for xy in middles]
    (tmp_path / "l.geojson").write_text(collection(*rows))
    table = VectorsTable(file=tmp_path / "l.geojson", scenes=scene, place_property="where", radiometry="dn")
    found = cut(tmp_path, DataTable(vectors=(table,)), {"a": "train"})
    assert sum(row.pixels[0] for row in found) == 3
    chips = StoredChips(tmp_path / "chips", found)
    red = [int(chip.dn[0][np.asarray(chip.target) != 0][0]) for chip in chips]
    assert red == [int(stored[place]) for place in places]
